"""Time series in bounded memory: counts and levels in intervals that double when there are too many of them."""

from collections.abc import Iterator
from typing import Final

from simulator.results.model import SeriesRow
from teale_proto.contract import SECOND, Duration, Instant

INTERVALS_MAX: Final = 2048
"""Intervals that are kept of each series; beyond that, two become one."""

_Key = tuple[str, str]


class Series:
    """All time series of a run. Time never runs backwards: an instant is not before the one of the last call."""

    def __init__(self, *, interval: Duration = SECOND, intervals_max: int = INTERVALS_MAX) -> None:
        self.interval = interval
        self._intervals_max = intervals_max
        self._counts: dict[_Key, list[int]] = {}
        self._levels: dict[_Key, list[int]] = {}

    def count(self, at: Instant, metric: str, label: str = "", amount: int = 1) -> None:
        """Add to what happened in the interval of `at`."""
        # First of all: it may replace every list.
        index = self._index(at)
        values = self._counts.setdefault((metric, label), [])
        if index >= len(values):
            values.extend([0] * (index + 1 - len(values)))
        values[index] += amount

    def change(self, at: Instant, metric: str, label: str, difference: int) -> None:
        """Raise or lower what there is from `at` on."""
        index = self._index(at)
        values = self._levels.setdefault((metric, label), [])
        last = values[-1] if values else 0
        _hold(values, index + 1)
        values[-1] = last + difference

    def level(self, metric: str, label: str) -> int:
        """Return what there is now."""
        values = self._levels.get((metric, label))
        return values[-1] if values else 0

    def rows(self, until: Instant) -> Iterator[SeriesRow]:
        """Yield every interval that began before `until`, one series after the other, by name."""
        if until <= 0:
            return
        length = self._index(until - 1) + 1
        for values in self._levels.values():
            _hold(values, length)
        for values in self._counts.values():
            values.extend([0] * (length - len(values)))
        for (metric, label), values in sorted((self._counts | self._levels).items()):
            for index, value in enumerate(values):
                yield SeriesRow(index * self.interval, self.interval, metric, label, value)

    def _index(self, at: Instant) -> int:
        while at // self.interval >= self._intervals_max:
            self._fold()
        return at // self.interval

    def _fold(self) -> None:
        self.interval *= 2
        for key, values in self._counts.items():
            self._counts[key] = [sum(values[index : index + 2]) for index in range(0, len(values), 2)]
        for key, values in self._levels.items():
            # What there was at the end of the two.
            self._levels[key] = [values[min(index + 1, len(values) - 1)] for index in range(0, len(values), 2)]


def _hold(values: list[int], length: int) -> None:
    """Let a level last."""
    if length > len(values):
        values.extend([values[-1] if values else 0] * (length - len(values)))
