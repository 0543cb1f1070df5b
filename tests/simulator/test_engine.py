"""Virtual time."""

from collections.abc import Generator

import pytest
import simpy
from hypothesis import given
from hypothesis import strategies as st

from simulator.engine import Engine
from teale_proto.contract import SECOND


def test_calls_of_one_instant_run_in_the_order_in_which_they_were_asked_for() -> None:
    engine = Engine()
    ran: list[str] = []
    for name in ("a", "b", "c"):
        engine.call_at(5, ran.append, name)
    engine.call_at(3, ran.append, "earlier")
    engine.run_until(5)
    assert ran == ["earlier", "a", "b", "c"]


def test_a_call_for_the_current_instant_runs_after_all_that_is_due_already() -> None:
    engine = Engine()
    ran: list[str] = []

    def first() -> None:
        engine.call_at(engine.now, ran.append, "asked for by first")

    engine.call_at(7, first)
    engine.call_at(7, ran.append, "second")
    engine.run_until(7)
    assert ran == ["second", "asked for by first"]


def test_time_is_an_integer_and_advances_even_when_nothing_happens() -> None:
    engine = Engine()
    engine.run_until(3 * SECOND)
    assert engine.now == 3 * SECOND
    assert type(engine.now) is int
    assert engine.events == 0


def test_run_until_includes_its_instant_and_nothing_later() -> None:
    engine = Engine()
    ran: list[int] = []
    engine.call_at(10, ran.append, 10)
    engine.call_at(11, ran.append, 11)
    engine.run_until(10)
    assert ran == [10]
    engine.run_until(11)
    assert ran == [10, 11]
    assert engine.events == 2


def test_neither_the_past_nor_a_fraction_is_an_instant() -> None:
    engine = Engine()
    engine.run_until(10)
    with pytest.raises(ValueError, match="it is 10 already"):
        engine.call_at(9, print)
    with pytest.raises(ValueError, match="it is 10 already"):
        engine.run_until(9)
    with pytest.raises(TypeError, match="an instant is an int"):
        engine.call_at(10.5, print)  # type: ignore[arg-type]  # the mistake under test
    with pytest.raises(TypeError, match="a duration is an int"):
        engine.timeout(0.5)  # type: ignore[arg-type]  # the mistake under test


def test_a_script_waits_in_virtual_time() -> None:
    engine = Engine()
    seen: list[int] = []

    def script() -> Generator[simpy.Event, None, None]:
        for _ in range(3):
            yield engine.timeout(2 * SECOND)
            seen.append(engine.now)

    engine.process(script())
    engine.run_until(5 * SECOND)
    assert seen == [2 * SECOND, 4 * SECOND]


def test_an_error_in_a_call_reaches_whoever_runs_the_engine() -> None:
    engine = Engine()

    def fail() -> None:
        raise LookupError("lost")

    engine.call_at(1, fail)
    with pytest.raises(LookupError, match="lost"):
        engine.run_until(2)


def test_an_error_in_a_script_reaches_whoever_runs_the_engine() -> None:
    engine = Engine()

    def script() -> Generator[simpy.Event, None, None]:
        yield engine.timeout(1)
        raise LookupError("lost")

    engine.process(script())
    with pytest.raises(LookupError, match="lost"):
        engine.run_until(2)


@given(st.lists(st.integers(0, 60_000), max_size=60), st.lists(st.integers(0, 60_000), max_size=4))
def test_events_happen_in_the_order_of_a_sorted_list(times: list[int], stops: list[int]) -> None:
    """The calendar against the simplest queue there is; every third event asks for another."""
    engine = Engine()
    ran: list[tuple[int, int]] = []
    expected: list[tuple[int, int]] = []

    def happen(number: int) -> None:
        ran.append((engine.now, number))
        if number % 3 == 0:
            engine.call_at(engine.now + number * 7, happen, -1 - number)

    for number, at in enumerate(times):
        engine.call_at(at, happen, number)
        expected.append((at, number))
    for stop in sorted(stops):
        engine.run_until(stop)
        assert all(at <= stop for at, _ in ran)
    engine.run_until(100_000)
    assert [entry for entry in ran if entry[1] >= 0] == sorted(expected)
    assert [at for at, _ in ran] == sorted(at for at, _ in ran)
    asked_for = [(at + number * 7, -1 - number) for at, number in expected if number % 3 == 0]
    assert sorted(entry for entry in ran if entry[1] < 0) == sorted(asked_for)
