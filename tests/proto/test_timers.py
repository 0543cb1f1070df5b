"""Timers: the same as a dictionary that is searched for its smallest value, only faster."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from teale_proto.contract import NEVER
from teale_proto.timers import Timers

KEYS = st.sampled_from(["heartbeat", "retry", "timeout", "expiry"])
INSTANTS = st.integers(0, 12) | st.just(NEVER)


class TimersAgainstAModel(RuleBasedStateMachine):
    """The model keeps (instant, order of setting) by key, and searches."""

    def __init__(self) -> None:
        super().__init__()
        self.timers: Timers[str] = Timers()
        self.model: dict[str, tuple[int, int]] = {}
        self.settings = 0

    @rule(key=KEYS, at=INSTANTS)
    def set(self, key: str, at: int) -> None:
        self.settings += 1
        self.timers.set(key, at)
        self.model[key] = (at, self.settings)

    @rule(key=KEYS, at=INSTANTS, times=st.integers(1, 100))
    def set_many_times(self, key: str, at: int, times: int) -> None:
        for _ in range(times):
            self.set(key, at)

    @rule(key=KEYS)
    def cancel(self, key: str) -> None:
        self.timers.cancel(key)
        self.model.pop(key, None)

    @rule(now=INSTANTS)
    def pop_due(self, now: int) -> None:
        due = [key for key, (at, _) in self.model.items() if at <= now]
        expected = min(due, key=lambda key: self.model[key], default=None)
        assert self.timers.pop_due(now) == expected
        if expected is not None:
            del self.model[expected]

    @rule(key=KEYS, now=st.integers(0, 12))
    def remaining(self, key: str, now: int) -> None:
        expected = self.model[key][0] - now if key in self.model else None
        assert self.timers.remaining(key, now) == expected

    @invariant()
    def the_deadline_is_the_earliest(self) -> None:
        assert self.timers.deadline == min((at for at, _ in self.model.values()), default=NEVER)

    @invariant()
    def as_many_are_set(self) -> None:
        assert len(self.timers) == len(self.model)

    @invariant()
    def the_heap_stays_small(self) -> None:
        assert len(self.timers._heap) <= 65


TestTimersAgainstAModel = TimersAgainstAModel.TestCase
TestTimersAgainstAModel.settings = settings(derandomize=True, deadline=None, max_examples=100, stateful_step_count=40)


class Unordered:
    """A key that can be hashed and not compared."""


def test_nothing_is_due_when_nothing_is_set() -> None:
    timers: Timers[str] = Timers()
    assert timers.deadline == NEVER
    assert timers.pop_due(NEVER) is None
    timers.cancel("never set")


def test_a_key_fires_once() -> None:
    timers: Timers[str] = Timers()
    timers.set("once", 5)
    assert timers.pop_due(4) is None
    assert timers.pop_due(5) == "once"
    assert timers.pop_due(5) is None


def test_setting_a_key_again_moves_it_either_way() -> None:
    timers: Timers[str] = Timers()
    timers.set("moved", 5)
    timers.set("moved", 9)
    assert timers.deadline == 9
    assert timers.pop_due(8) is None
    timers.set("moved", 2)
    assert timers.deadline == 2
    assert timers.pop_due(8) == "moved"
    assert timers.deadline == NEVER


def test_keys_that_are_due_together_fire_in_the_order_of_setting_and_are_never_compared() -> None:
    timers: Timers[Unordered] = Timers()
    keys = [Unordered() for _ in range(100)]
    for key in keys:
        timers.set(key, 7)
    assert [timers.pop_due(7) for _ in keys] == keys


@pytest.mark.parametrize("live", [1, 40])
def test_moving_a_key_for_ever_takes_no_more_memory(live: int) -> None:
    timers: Timers[int] = Timers()
    for key in range(live):
        timers.set(key, 10**9)
    for at in range(10_000):
        timers.set(0, at)
    assert len(timers._heap) <= max(65, 4 * live + 1)
    assert timers.deadline == 9_999
