"""Clocks that are wrong."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.clock import TRUE_CLOCK, Clock
from teale_proto.contract import NEVER, SECOND

clocks = st.builds(
    Clock,
    rate_ppm=st.integers(-500_000, 500_000),
    reads=st.integers(0, 10**12),
    since=st.integers(0, 10**9),
)
instants = st.integers(10**9, 10**12)


def test_a_true_clock_shows_the_time() -> None:
    assert TRUE_CLOCK.local(5 * SECOND) == TRUE_CLOCK.true(5 * SECOND) == 5 * SECOND


def test_a_clock_gains_what_its_rate_says() -> None:
    clock = Clock(rate_ppm=100, reads=7)
    assert clock.local(SECOND) == SECOND + 100 + 7
    assert Clock(rate_ppm=-100).local(SECOND) == SECOND - 100


@given(clocks, instants, st.integers(0, 10**6))
def test_its_time_never_runs_backwards(clock: Clock, at: int, later: int) -> None:
    assert clock.local(at) <= clock.local(at + later)


@given(clocks, instants)
def test_a_deadline_is_the_first_instant_at_which_the_clock_shows_it(clock: Clock, at: int) -> None:
    deadline = clock.local(at)
    first = clock.true(deadline)
    assert first <= at
    assert clock.local(first) >= deadline > clock.local(first - 1)


@given(clocks, instants, st.integers(-500_000, 500_000))
def test_a_clock_that_drifts_anew_shows_the_same_at_that_instant(clock: Clock, at: int, rate_ppm: int) -> None:
    assert clock.drifting(rate_ppm, at).local(at) == clock.local(at)


def test_never_is_never_on_any_clock() -> None:
    assert Clock(rate_ppm=300, reads=SECOND).true(NEVER) == NEVER


def test_a_clock_that_stands_still_or_begins_before_nothing_is_none() -> None:
    with pytest.raises(ValueError, match="forwards"):
        Clock(rate_ppm=-1_000_000)
    with pytest.raises(ValueError, match="before nothing"):
        Clock(reads=-1)
