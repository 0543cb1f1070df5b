"""The seven laws of `teale_proto.contract`, held against the cores of this package.

As in `tests.proto.test_laws`, each core is first recorded in a world where something happens; here that is a
line that loses one packet in five, so requests are sent again and some probes are given up.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.net.datagrams import AnyCore, Uplink
from simulator.net.nat import NatKind
from simulator.rng import stream
from simulator.trace import Entry
from teale_proto.contract import MILLISECOND, NEVER, SECOND, Instant, Value
from teale_proto.errors import LocalError
from teale_proto.inputs import WAKE, Address, Woken
from teale_proto.nat.behaviour import BehaviourDiscovery, DiscoveryStarted, Setting
from teale_proto.nat.datagrams import DatagramReceived
from teale_proto.nat.kinds import Filtering, Mapping
from teale_proto.nat.stun_server import StunServer
from tests.simulator.net.nat_world import ALTERNATE, PRIMARY, NatWorld

KIND = NatKind(mapping=Mapping.ADDRESS_AND_PORT_DEPENDENT, filtering=Filtering.ADDRESS_DEPENDENT)
BAD_LINE = Uplink(latency=30 * MILLISECOND, jitter=20 * MILLISECOND, loss=0.2, duplication=0.1)
SEED = 5


class Step(NamedTuple):
    now: Instant
    event: Value
    effects: list[Value]


@cache
def journals() -> dict[str, list[Step]]:
    """Return what happened to the server and to a client that asked three times."""
    world = NatWorld(seed=SEED, line=BAD_LINE)
    steps: dict[str, list[Step]] = {"host 1": [], "stun": [], "stun2": []}

    def note(entry: Entry) -> None:
        if isinstance(entry.value, Woken | DiscoveryStarted | DatagramReceived):
            steps[entry.host].append(Step(entry.at, entry.value, []))
        else:
            steps[entry.host][-1].effects.append(entry.value)

    world.trace.subscribe(note)
    host = world.discoverer([KIND])
    for _ in range(3):
        world.discover(host)
    return steps


class Case(NamedTuple):
    name: str
    make: Callable[[], AnyCore]


CASES = [
    Case(
        "host 1",
        lambda: BehaviourDiscovery(Setting(Address("10.0.1.2", 40000), PRIMARY), stream(SEED, "host 1", "core")),
    ),
    Case("stun", lambda: StunServer(PRIMARY, ALTERNATE)),
]
every_core = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def journal(case: Case) -> list[Step]:
    steps = journals()[case.name]
    assert len(steps) > 20, "too little has happened to say anything"
    return steps


def replay(core: AnyCore, steps: Sequence[Step]) -> None:
    for step in steps:
        core.handle(step.event, step.now)


@every_core
def test_law_1_time_never_runs_backwards(case: Case) -> None:
    core, steps = case.make(), journal(case)
    replay(core, steps)
    last = steps[-1].now
    with pytest.raises(LocalError, match="time ran backwards"):
        core.handle(WAKE, last - 1)
    assert core.handle(WAKE, last) == []


@every_core
def test_law_2_nothing_that_a_peer_sends_makes_a_core_raise(case: Case) -> None:
    steps = journal(case)
    received = [at for at, step in enumerate(steps) if isinstance(step.event, DatagramReceived)]

    @settings(max_examples=150, derandomize=True, deadline=None)
    @given(st.sampled_from(received), st.integers(0, 120), st.binary(max_size=30), st.integers(0, 8), st.integers(0, 9))
    def garbled(index: int, at: int, noise: bytes, skip: int, port: int) -> None:
        core = case.make()
        replay(core, steps[:index])
        event, now = steps[index].event, steps[index].now
        assert isinstance(event, DatagramReceived)
        data = event.data[:at] + noise + event.data[at + skip :]
        core.handle(DatagramReceived(event.local, event.remote, data), now)
        core.handle(DatagramReceived(event.local, Address("2001:db8::1", port), event.data), now)
        core.handle(WAKE, now + 3600 * SECOND)

    garbled()


@every_core
def test_law_2_an_illegal_command_changes_nothing(case: Case) -> None:
    core, last = case.make(), 0
    for now, event, effects in journal(case):
        with pytest.raises(LocalError):
            core.handle(WAKE, last - 1)
        if isinstance(core, BehaviourDiscovery) and core.deadline != NEVER:
            with pytest.raises(LocalError):
                core.handle(DiscoveryStarted(), last)
        assert core.handle(event, now) == effects
        last = now


@every_core
def test_law_3_a_spurious_wake_does_nothing(case: Case) -> None:
    core = case.make()
    for now, event, effects in journal(case):
        if core.deadline > now:
            assert core.handle(WAKE, now) == []
        assert core.handle(event, now) == effects


@every_core
def test_law_4_after_a_wake_the_deadline_lies_ahead(case: Case) -> None:
    steps = journal(case)
    for length in range(0, len(steps), 3):
        core = case.make()
        replay(core, steps[:length])
        now = steps[length - 1].now if length else 0
        while core.deadline != NEVER:
            now = max(now, core.deadline)
            core.handle(WAKE, now)
            assert core.deadline > now


@every_core
def test_law_5_payloads_are_bytes_and_never_views(case: Case) -> None:
    for step in journal(case):
        for effect in step.effects:
            assert not any(isinstance(value, memoryview | bytearray) for value in msgspec.structs.astuple(effect))


@every_core
def test_law_6_an_effect_that_fails_is_a_lost_datagram_and_every_discovery_ends(case: Case) -> None:
    """No datagram's failure comes back; so a core that hears nothing at all must come to an end by itself."""
    core = case.make()
    replay(core, [step for step in journal(case) if not isinstance(step.event, DatagramReceived | DiscoveryStarted)])
    if isinstance(core, BehaviourDiscovery):
        now = journal(case)[-1].now
        reports = [*core.handle(DiscoveryStarted(), now)]
        while core.deadline != NEVER:
            now = core.deadline
            reports += core.handle(WAKE, now)
        assert type(reports[-1]).__name__ == "ReportBehaviour"
    assert core.deadline == NEVER


@every_core
def test_law_7_a_replayed_journal_gives_equal_effects(case: Case) -> None:
    core = case.make()
    for now, event, effects in journal(case):
        assert core.handle(event, now) == effects
