"""What a process takes, measured again and again: memory and file descriptors, and whether they are flat."""

import time
from statistics import linear_regression, median
from typing import Any

import psutil

MIB = 1 << 20


class Gauge:
    """One process through its life."""

    def __init__(self, name: str, pid: int) -> None:
        self.name = name
        self._process = psutil.Process(pid)
        self.seconds: list[float] = []
        self.rss: list[int] = []
        self.files: list[int] = []

    def read(self) -> None:
        self.seconds.append(time.monotonic())
        self.rss.append(self._process.memory_info().rss)
        self.files.append(self._process.num_fds())

    def figures(self) -> dict[str, Any]:
        """Return how both went after the first quarter, in which things warm up."""
        start = len(self.rss) // 4
        late = len(self.rss) * 3 // 4
        slope = linear_regression(self.seconds[start:], self.rss[start:]).slope
        return {
            "readings": len(self.rss),
            "rss_mib_early": round(median(self.rss[start : start * 2]) / MIB, 2),
            "rss_mib_late": round(median(self.rss[late:]) / MIB, 2),
            "rss_mib_an_hour": round(slope * 3600 / MIB, 2),
            # Requests under way have descriptors of their own; what leaks stays when there are fewest.
            "files_early": min(self.files[start : start * 2]),
            "files_late": min(self.files[late:]),
            "files_most": max(self.files),
        }

    def check(self) -> None:
        """Fail where something grows; an allocator's last hesitations are forgiven."""
        figures = self.figures()
        assert figures["rss_mib_late"] <= figures["rss_mib_early"] * 1.08 + 4, (self.name, figures)
        assert figures["files_late"] <= figures["files_early"] + 3, (self.name, figures)
