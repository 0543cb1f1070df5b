"""How values are spread, and whether what was measured lies where the simulation says that it should."""

from collections.abc import Sequence
from math import floor
from typing import Final

from teale_proto.contract import Value

LOW: Final = 0.1
HIGH: Final = 0.9
"""Between these shares of the simulated values a measured one is as predicted."""


class Spread(Value):
    """Some values in short."""

    count: int
    least: float
    low: float
    """A tenth of the values is below it."""
    median: float
    high: float
    """A tenth of the values is above it."""
    most: float


def spread(values: Sequence[int]) -> Spread | None:
    """Return how values are spread, or None where there are none."""
    if not values:
        return None
    ordered = sorted(values)
    low, median, high = (quantile(ordered, share) for share in (LOW, 0.5, HIGH))
    return Spread(len(ordered), ordered[0], low, median, high, ordered[-1])


def quantile(ordered: Sequence[int], share: float) -> float:
    """Return the value below which a share of sorted values lies, between two of them in proportion."""
    place = share * (len(ordered) - 1)
    below = floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)
