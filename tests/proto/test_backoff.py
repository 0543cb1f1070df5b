"""Backoff: never sooner than the first delay, never later than the last, and never all at once."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from teale_proto.backoff import Backoff
from teale_proto.contract import SECOND

EXAMPLES = settings(derandomize=True, deadline=None, max_examples=100)


class Fixed(Random):
    """An Rng whose floats are all the same."""

    def __init__(self, value: float) -> None:
        super().__init__(0)
        self.value = value

    def random(self) -> float:
        return self.value


def delays(backoff: Backoff, count: int) -> list[float]:
    return [backoff.next_delay() / SECOND for _ in range(count)]


def test_delays_double_from_one_second_to_a_minute() -> None:
    assert delays(Backoff(Fixed(0.0)), 8) == [1, 2, 4, 8, 16, 30, 30, 30]
    almost_one = 1 - 2**-53
    assert delays(Backoff(Fixed(almost_one)), 8) == pytest.approx([2, 4, 8, 16, 32, 60, 60, 60], abs=1e-5)


def test_a_success_starts_again_from_the_first_delay() -> None:
    backoff = Backoff(Fixed(0.0))
    delays(backoff, 20)
    backoff.reset()
    assert delays(backoff, 2) == [1, 2]


@EXAMPLES
@given(
    first=st.integers(1, 10**9),
    factor=st.integers(1, 10**6),
    failures=st.integers(1, 60),
    seed=st.integers(0, 2**32),
)
def test_no_delay_is_outside_the_bounds(first: int, factor: int, failures: int, seed: int) -> None:
    last = first * factor
    backoff = Backoff(Random(seed), first=first, last=last)
    for _ in range(failures):
        assert first <= backoff.next_delay() <= last


def test_a_month_of_failures_is_no_different_from_a_day() -> None:
    backoff = Backoff(Random(1))
    for _ in range(100_000):
        delay = backoff.next_delay()
    assert 30 * SECOND <= delay <= 60 * SECOND


@pytest.mark.parametrize("failures", [1, 2, 3, 10])
def test_a_thousand_nodes_do_not_return_together(failures: int) -> None:
    # The first delay counts most: a relay that restarts loses everybody in one instant.
    returning = [delays(Backoff(Random(seed)), failures)[-1] for seed in range(1000)]
    width = max(returning) - min(returning)
    assert width > 0.45 * max(returning)
    in_tenths = [int(10 * (delay - min(returning)) / width) for delay in returning]
    assert max(in_tenths.count(tenth) for tenth in range(10)) < 150


def test_equal_bounds_give_equal_delays() -> None:
    assert delays(Backoff(Random(1), first=SECOND, last=SECOND), 3) == [1, 1, 1]
