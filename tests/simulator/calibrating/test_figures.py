"""Samples, medians and lines."""

import pytest

from simulator.calibrating.figures import Figure, Samples, figure_of, line_through


def test_a_figure_is_the_median_of_its_rounds_with_the_interquartile_range() -> None:
    assert figure_of([1.0, 2.0, 3.0, 4.0, 100.0]) == Figure(3.0, 2.0, 5)
    assert figure_of([7.0]) == Figure(7.0, 0.0, 1)
    assert str(Figure(1234.56, 7.89, 5)) == "1235 ± 7.9"


def test_samples_are_kept_by_name_in_the_order_of_rounds() -> None:
    samples = Samples()
    for value in (5.0, 1.0, 3.0):
        samples.add("ping, µs", value)
    assert "ping, µs" in samples
    assert samples.of("ping, µs") == [5.0, 1.0, 3.0]
    assert samples.median("ping, µs") == 3.0
    assert list(samples.figures()) == ["ping, µs"]


def test_a_line_goes_through_two_points_and_is_not_moved_by_one_that_lies_far_off() -> None:
    assert line_through({0.0: 1.0, 10.0: 6.0}) == pytest.approx((1.0, 0.5))
    points = {float(x): 2.0 + 3.0 * x for x in range(6)}
    assert line_through({**points, 6.0: 900.0}) == pytest.approx((2.0, 3.0), rel=0.01)
