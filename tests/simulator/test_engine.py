"""Virtual time."""

from collections.abc import Generator

import pytest
import simpy

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
    with pytest.raises(ValueError, match="Negative"):
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
