"""The processor time of another process (all its threads, those that have ended included), and waiting for one.

Linux has a clock for each process, whose number follows from the process id (`clock_getcpuclockid` in its C library),
and which counts nanoseconds. Elsewhere, and where it is forbidden, there is `/proc/PID/stat`, which counts ticks of
mostly 10 ms. `/proc/PID/schedstat` would be as fine as the clock, but counts the first thread only.
"""

import os
import time
from pathlib import Path
from typing import Final, NamedTuple

_SCHEDULED: Final = 2
"""Which of a process's clocks: the scheduler's own count."""


class Precision(NamedTuple):
    """How finely processor time is counted, and by what."""

    source: str
    step_us: float


CLOCK: Final = Precision("the process's CPU clock (clock_getcpuclockid), all threads", 0.001)
TICKS: Final = Precision("/proc/PID/stat, user and system time, all threads", 1e6 / os.sysconf("SC_CLK_TCK"))


class ProcessClock:
    """The processor time of one process; it can be read for as long as the process has not been waited for."""

    def __init__(self, pid: int) -> None:
        self._pid: Final = pid
        self._clock: Final = (~pid << 3) | _SCHEDULED
        self.precision = CLOCK
        try:
            self._by_clock()
        except (OSError, OverflowError):
            self.precision = TICKS

    def read_us(self) -> float:
        """Return the microseconds that it has used up to now; raises OSError where it is gone."""
        return self._by_clock() if self.precision is CLOCK else self._by_ticks()

    def _by_clock(self) -> float:
        return time.clock_gettime_ns(self._clock) / 1000

    def _by_ticks(self) -> float:
        # The name of the program, in brackets, may hold anything.
        fields = Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * TICKS.step_us


class Wait:
    """How long somebody is waited for, from now on.

    What this thread spends on asking, and on understanding the beginning of the answer, is left out: it finds its own
    caches empty after a pause, too.
    """

    def __init__(self) -> None:
        self._own: float | None = None
        self._used: Final = time.thread_time()
        self._began: Final = time.perf_counter()

    def seconds(self) -> float:
        """Return how long it has been; to be called for the first time when the answer begins."""
        passed = time.perf_counter() - self._began
        if self._own is None:
            self._own = time.thread_time() - self._used
        return passed - self._own
