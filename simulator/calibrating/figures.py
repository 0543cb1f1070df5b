"""What was measured: samples by name, one of each a round, and what is made of them."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Final, NamedTuple

from teale_proto.contract import Value

RATIOS_MIN: Final = 10
"""Fewer say nothing about how they scatter."""


class Figure(Value):
    """One measured quantity: the median over the rounds, and the interquartile range."""

    value: float
    iqr: float
    rounds: int

    def __str__(self) -> str:
        return f"{self.value:.4g} ± {self.iqr:.2g}"


class Samples:
    """What the rounds have given so far; a name says what, and in which unit."""

    def __init__(self) -> None:
        self._samples: dict[str, list[float]] = {}

    def add(self, name: str, value: float) -> None:
        """Keep what one round has given."""
        self._samples.setdefault(name, []).append(value)

    def __contains__(self, name: str) -> bool:
        return name in self._samples

    def __iter__(self) -> Iterator[str]:
        return iter(self._samples)

    def of(self, name: str) -> list[float]:
        """Return the samples of a name."""
        return self._samples[name]

    def median(self, name: str) -> float:
        """Return the median of a name."""
        return statistics.median(self._samples[name])

    def figures(self) -> dict[str, Figure]:
        """Return all figures, by name."""
        return {name: figure_of(samples) for name, samples in self._samples.items()}


def figure_of(samples: list[float]) -> Figure:
    """Return what samples, at least one, come to."""
    if len(samples) == 1:
        return Figure(samples[0], 0.0, 1)
    low, middle, high = statistics.quantiles(samples, n=4, method="inclusive")
    return Figure(middle, high - low, len(samples))


def quantiles_of(ratios: Sequence[float]) -> tuple[float, ...]:
    """Return how widely ratios to what is usual scatter, as ten even parts; nothing for too few of them.

    One in fifty is left out at each end: that is what happens to a machine now and then, and not how fast it is.
    """
    if len(ratios) < RATIOS_MIN:
        return ()
    kept = sorted(ratios)[len(ratios) // 50 : len(ratios) - len(ratios) // 50]
    inner = statistics.quantiles(kept, n=10, method="inclusive")
    return (kept[0], *inner, kept[-1])


class Line(NamedTuple):
    """A straight line through measured points."""

    at_zero: float
    slope: float


def line_through(points: Mapping[float, float]) -> Line:
    """Return a line through at least two points, by their first coordinate: one that lies far off does not move it.

    Its slope is the median of those between any two points (Theil and Sen).
    """
    slope = statistics.median((b - y) / (a - x) for (x, y), (a, b) in combinations(points.items(), 2))
    return Line(statistics.median(y - slope * x for x, y in points.items()), slope)
