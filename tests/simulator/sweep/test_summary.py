"""Means and how far they may be off."""

from math import sqrt

import pytest

from simulator.rng import SplitMix64, normal
from simulator.sweep.rows import Row
from simulator.sweep.summary import estimate, student, summarize


def row(number: int, cell: int, metrics: dict[str, int | float | None], error: str = "") -> Row:
    return Row(number, cell, number, {"count": cell}, not error, "", metrics, error)


@pytest.mark.parametrize(
    ("freedom", "quantile"),
    # NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.6.7.2.
    [(1, 12.706), (2, 4.303), (9, 2.262), (30, 2.042), (31, 2.040), (40, 2.021), (60, 2.000), (100, 1.984)],
)
def test_students_t_is_that_of_the_tables(freedom: int, quantile: float) -> None:
    assert student(freedom) == pytest.approx(quantile, abs=6e-4)


def test_an_estimate_is_the_mean_and_students_interval() -> None:
    found = estimate([1.0, 2.0, 3.0, 4.0])
    reach = 3.182 * sqrt(5 / 3) / 2
    assert found.count == 4
    assert (found.mean, found.low, found.high) == pytest.approx((2.5, 2.5 - reach, 2.5 + reach))


def test_one_run_says_nothing_of_how_far_runs_differ() -> None:
    found = estimate([7])
    assert (found.mean, found.low, found.high) == (7.0, None, None)


def test_equal_values_have_exactly_that_mean_and_no_spread() -> None:
    found = estimate([0.99] * 3)
    assert (found.mean, found.low, found.high) == (0.99, 0.99, 0.99)


def test_the_interval_holds_the_true_mean_in_about_95_of_100_cases() -> None:
    rng = SplitMix64(7)
    held = 0
    for _ in range(400):
        found = estimate([normal(rng) for _ in range(4)])
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 0 <= found.high
    assert 0.92 < held / 400 < 0.98


def test_the_mean_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="the mean of nothing"):
        estimate([])


def test_a_cell_counts_its_runs_and_leaves_out_what_is_missing() -> None:
    rows = [row(0, 0, {"a": 1, "b": None}), row(1, 0, {"a": 3, "b": 5.0}), row(2, 0, {}, "no"), row(3, 1, {"a": 2})]
    first, second = summarize(rows)
    assert (first.settings, first.runs, first.passed, first.failed) == ({"count": 0}, 3, 2, 1)
    assert (first.metrics["a"].count, first.metrics["a"].mean) == (2, 2.0)
    assert (first.metrics["b"].count, first.metrics["b"].mean) == (1, 5.0)
    assert second.metrics.keys() == {"a"}


def test_a_cell_whose_runs_all_failed_has_no_figures() -> None:
    (cell,) = summarize([row(0, 0, {}, "no"), row(1, 0, {}, "no")])
    assert (cell.failed, cell.metrics) == (2, {})
