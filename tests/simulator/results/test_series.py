"""Time series in bounded memory."""

from hypothesis import given
from hypothesis import strategies as st

from simulator.results.model import SeriesRow
from simulator.results.series import Series


def values(series: Series, until: int) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for row in series.rows(until):
        found.setdefault(row.metric, []).append(row.value)
    return found


def test_counts_are_summed_in_the_interval_they_fall_into() -> None:
    series = Series(interval=10)
    series.count(0, "asked")
    series.count(9, "asked", amount=2)
    series.count(10, "asked")
    assert list(series.rows(30)) == [
        SeriesRow(0, 10, "asked", "", 3),
        SeriesRow(10, 10, "asked", "", 1),
        SeriesRow(20, 10, "asked", "", 0),
    ]


def test_a_level_lasts_until_it_changes_and_is_given_as_it_was_at_the_end_of_an_interval() -> None:
    series = Series(interval=10)
    series.change(12, "open", "", 3)
    series.change(13, "open", "", -1)
    series.change(45, "open", "", 5)
    assert values(series, 60) == {"open": [0, 2, 2, 2, 7, 7]}
    assert series.level("open", "") == 7
    assert series.level("other", "") == 0


def test_a_run_that_ends_where_an_interval_begins_has_no_row_for_that_interval() -> None:
    series = Series(interval=10)
    series.count(10, "asked")
    assert values(series, 20) == {"asked": [0, 1]}
    assert list(series.rows(0)) == []


def test_too_many_intervals_become_half_as_many_and_twice_as_long() -> None:
    series = Series(interval=10, intervals_max=4)
    for at in range(0, 40, 10):
        series.count(at, "asked", amount=at + 1)
        series.change(at, "open", "", 1)
    series.count(40, "asked")
    assert series.interval == 20
    assert values(series, 41) == {"asked": [12, 52, 1], "open": [2, 4, 4]}


@given(
    st.lists(st.tuples(st.integers(0, 500), st.integers(-5, 5)), min_size=1, max_size=50).map(sorted),
    st.integers(1, 8),
)
def test_however_long_the_run_nothing_is_lost_and_the_bound_holds(changes: list[tuple[int, int]], bound: int) -> None:
    series = Series(interval=3, intervals_max=bound)
    for at, amount in changes:
        series.count(at, "count", amount=abs(amount))
        series.change(at, "level", "", amount)
    found = values(series, changes[-1][0] + 1)
    assert sum(found["count"]) == sum(abs(amount) for _, amount in changes)
    assert found["level"][-1] == sum(amount for _, amount in changes)
    assert len(found["count"]) == len(found["level"]) <= bound
