"""What the runs of one cell have in common: the mean of each figure, and how far it may be off.

The interval is Student's: with the seeds as independent samples, in 95 of 100 sweeps it holds the mean that ever more
seeds would lead to.
"""

from collections.abc import Sequence
from math import sqrt
from statistics import NormalDist, stdev
from statistics import mean as mean_of
from typing import Any, Final

from simulator.sweep.rows import Row
from teale_proto.contract import Value

CONFIDENCE: Final = 0.95

_TWO_SIDED: Final = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
"""Student's t at 95 % for 1 to 30 degrees of freedom, as any table has it."""


class Estimate(Value):
    """The mean of one figure."""

    count: int
    """Runs that had the figure."""
    mean: float
    low: float | None
    """Where the interval begins; None where one run says nothing of how far runs differ."""
    high: float | None


class Cell(Value):
    """The runs of one combination of settings."""

    settings: dict[str, Any]
    runs: int
    passed: int
    failed: int
    """Runs without a result."""
    metrics: dict[str, Estimate]


def summarize(rows: Sequence[Row]) -> list[Cell]:
    """Return one summary a cell, in the order of the cells."""
    cells: dict[int, list[Row]] = {}
    for row in rows:
        cells.setdefault(row.cell, []).append(row)
    return [_cell(cells[number]) for number in sorted(cells)]


def estimate(values: Sequence[float]) -> Estimate:
    """Return the mean and its 95 % interval; raises ValueError for no values."""
    count = len(values)
    if not count:
        raise ValueError("the mean of nothing")
    # These two calculate with fractions: the mean of equal values is that value, and they spread by nothing.
    mean = float(mean_of(values))
    if count == 1:
        return Estimate(1, mean, None, None)
    reach = student(count - 1) * stdev(values) / sqrt(count)
    return Estimate(count, mean, mean - reach, mean + reach)


def student(freedom: int) -> float:
    """Return Student's t at 95 %, two-sided, to three digits."""
    if freedom <= len(_TWO_SIDED):
        return _TWO_SIDED[freedom - 1]
    # Cornish and Fisher's expansion (Abramowitz and Stegun 26.7.5), exact to four digits beyond the table.
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    return z + first / freedom + second / freedom**2


def _cell(rows: Sequence[Row]) -> Cell:
    names = dict.fromkeys(name for row in rows for name in row.metrics)
    metrics = {}
    for name in names:
        values = [value for row in rows if (value := row.metrics.get(name)) is not None]
        if values:
            metrics[name] = estimate(values)
    passed, failures = sum(row.passed for row in rows), sum(bool(row.error) for row in rows)
    return Cell(rows[0].settings, len(rows), passed, failures, metrics)
