"""Medians and intervals."""

from simulator.comparing.spread import Spread, quantile, spread


def test_a_spread_is_between_the_tenth_and_the_ninetieth_percentile() -> None:
    assert spread(range(11)) == Spread(11, 0, 1, 5, 9, 10)
    assert spread([0, 10, 20, 30, 40, 50]) == Spread(6, 0, 5, 25, 45, 50)
    assert spread([7]) == Spread(1, 7, 7, 7, 7, 7)
    assert spread([]) is None


def test_a_quantile_lies_between_two_values_in_proportion() -> None:
    assert [quantile([10, 20], share) for share in (0.0, 0.25, 0.5, 1.0)] == [10, 12.5, 15, 20]
