"""The seven laws of `teale_proto.contract`, held against every core.

Each core is first recorded in a small world where something happens; the laws are then tried on replays of
that record. A new core joins by being listed in CASES.
"""

from collections.abc import Callable, Sequence
from functools import cache, partial
from random import Random
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.net.gateway import Services
from teale_proto.contract import NEVER, SECOND
from teale_proto.effects import CloseConnection, Connect, SendData, SendText, StartGeneration
from teale_proto.errors import LocalError
from teale_proto.inputs import (
    WAKE,
    Address,
    Ask,
    CancelAsk,
    ConnectFailed,
    ConnectionAccepted,
    ConnectionClosed,
    DatagramReceived,
    DataReceived,
    Failure,
    GenerationChunk,
    GenerationFailed,
    LoadedModelsChanged,
    PingReceived,
    Started,
    StopRequested,
    Task,
    Woken,
)
from teale_proto.nat.behaviour import DiscoveryStarted
from teale_proto.nat.lifetime import LifetimeWanted
from teale_proto.nat.port_mapping_values import MappingUnwanted, MappingWanted
from teale_proto.secure.passcode import Passcode
from teale_proto.wire.codec import Flavour
from tests.proto.deployed import DeployedNode, DeployedRelay, OpenSession, Tell
from tests.proto.nat.journals import (
    discovery,
    lifetime,
    make_discovery,
    make_lifetime_search,
    make_port_mapping,
    make_stun_server,
    port_mapping,
)
from tests.proto.world import RELAY_URL, AnyCore, Entry, World, chunk, identity, make_node, make_relay

LAN = {"wan_enabled": False}
WAN = {"lan_enabled": False, "wan_enabled": True, "wan_relay_url": RELAY_URL}
PASSCODE = {**LAN, "lan_passcode": Passcode("correct horse")}
WRONG = {**LAN, "lan_passcode": Passcode("battery staple")}
LEGACY = {**WAN, "allow_plaintext_legacy": True}
RELAY = "relay.test"
ASK = Ask("r", Task.CHAT, "m", b'{"model":"m","messages":[]}')


@cache
def eventful_lan() -> World:
    """Return a LAN on which nodes met, asked, answered, failed over, vanished and stopped."""
    world = World(1)
    world.split = True
    for number, name in enumerate("abc", 1):
        world.add_node(name, number, lan="home", models=("m",) if name in "bc" else (), **LAN)
    world.start("a", "b", "c")
    world.run_for(20 * SECOND)
    _ask_around(world)
    return world


@cache
def eventful_relay() -> World:
    """Return a relay through which nodes met, asked, answered, failed over, vanished and stopped."""
    world = World(2)
    world.add_relay(RELAY)
    for number, name in enumerate("abc", 1):
        world.add_node(name, number, models=("m",) if name in "bc" else (), **WAN)
    world.start("a", "b", "c")
    world.run_for(40 * SECOND)
    _ask_around(world)
    world.cut(RELAY)
    world.run_for(90 * SECOND)
    return world


@cache
def eventful_doors() -> World:
    """Return a LAN with a passcode on which the same happened, and where one node has the wrong one."""
    world = World(3)
    for number, name in enumerate("abcd", 1):
        config = WRONG if name == "d" else PASSCODE
        world.add_node(name, number, lan="home", models=("m",) if name in "bc" else (), **config)
    world.start("a", "b", "c", "d")
    world.run_for(20 * SECOND)
    _ask_around(world)
    return world


@cache
def eventful_past() -> World:
    """Return a deployed relay and node, with which one of ours talked without encryption, both ways."""
    world = World(4)
    world.add(RELAY, DeployedRelay())
    world.add_node("a", 1, models=("n",), **LEGACY)
    world.add("mac", DeployedNode(identity(50), flavour=Flavour.SWIFT, models=["m"]))
    world.start("a", "mac")
    world.run_for(60 * SECOND)
    world.feed("a", ASK)
    world.feed("mac", OpenSession(world.id("a")))
    request = {"requestID": "r", "request": {"model": "n"}, "streaming": False}
    world.feed("mac", Tell({"inferenceRequest": request}))
    world.answering.add("a")
    world.feed("mac", Tell({"inferenceRequest": {**request, "requestID": "s"}}))
    world.run_for(300 * SECOND)
    return world


def _ask_around(world: World) -> None:
    world.answering.update("bc")
    world.feed("a", ASK)
    world.answering.clear()
    world.feed("a", Ask("slow", ASK.task, ASK.model, ASK.body, timeout=30 * SECOND))
    world.feed("a", Ask("cancelled", ASK.task, ASK.model, ASK.body))
    world.feed("a", CancelAsk("cancelled"))
    for name in "bc":
        for generation in world.generations[name]:
            world.feed(name, GenerationChunk(generation.job, chunk("x")))
    world.run_for(35 * SECOND)
    world.feed("b", LoadedModelsChanged(("m", "n")))
    world.feed("c", StopRequested())
    world.run_for(20 * SECOND)


def before_its_time(core: AnyCore, fed: Sequence[Any]) -> Any:
    """Return what a node may not be told: it takes no request before it has started, and starts once."""
    return next((event for event in fed if isinstance(event, Started)), ASK)


def nothing(core: AnyCore, fed: Sequence[Any]) -> Any:
    """Return nothing: a server can only be told the wrong time."""
    return None


class Case(NamedTuple):
    """A core: its record, how to make it anew, and what it may not be told after it was fed something."""

    record: Callable[[], Sequence[Entry]]
    make: Callable[[], AnyCore]
    illegal: Callable[[AnyCore, Sequence[Any]], Any] = before_its_time


def recorded(world: Callable[[], World], name: str) -> Callable[[], Sequence[Entry]]:
    return lambda: world().journals[name]


NODES = {
    "node on a LAN, asking": Case(recorded(eventful_lan, "a"), lambda: make_node("a", 1, **LAN)),
    "node on a LAN, answering": Case(recorded(eventful_lan, "b"), lambda: make_node("b", 2, **LAN)),
    "node behind a relay, asking": Case(recorded(eventful_relay, "a"), lambda: make_node("a", 1, **WAN)),
    "node behind a relay, answering": Case(recorded(eventful_relay, "b"), lambda: make_node("b", 2, **WAN)),
    "node on a LAN with a passcode": Case(recorded(eventful_doors, "a"), lambda: make_node("a", 1, **PASSCODE)),
    "node with the wrong passcode": Case(recorded(eventful_doors, "d"), lambda: make_node("d", 4, **WRONG)),
    "node with a deployed peer": Case(recorded(eventful_past, "a"), lambda: make_node("a", 1, **LEGACY)),
}
RELAYS = {"relay": Case(recorded(eventful_relay, RELAY), lambda: make_relay(RELAY), nothing)}
WITH_DATAGRAMS = {
    "behaviour discovery": Case(
        lambda: discovery()["client"],
        make_discovery,
        lambda core, fed: DiscoveryStarted() if core.deadline != NEVER else None,
    ),
    "lifetime search": Case(
        lifetime,
        make_lifetime_search,
        lambda core, fed: LifetimeWanted() if core.deadline != NEVER else None,
    ),
    "STUN server": Case(lambda: discovery()["server"], make_stun_server, nothing),
    **{
        f"port mapping by {name}": Case(
            partial(port_mapping, services),
            make_port_mapping,
            lambda core, fed: MappingWanted() if core.deadline != NEVER else MappingUnwanted(),
        )
        for name, services in (("PCP", Services()), ("NAT-PMP", Services(pcp=False)))
    },
}
CASES = NODES | RELAYS | WITH_DATAGRAMS

OUTSIDE = DataReceived | DatagramReceived | ConnectionClosed | ConnectionAccepted | PingReceived
"""What may come from a peer."""

every_core = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def journal(case: Case) -> Sequence[Entry]:
    entries = case.record()
    assert len(entries) > 30, "too little has happened to say anything"
    return entries


def replay(core: AnyCore, entries: Sequence[Entry]) -> list[Sequence[Any]]:
    return [core.handle(event, now) for now, event, _ in entries]


@every_core
def test_law_1_time_never_runs_backwards(case: Case) -> None:
    core, entries = case.make(), journal(case)
    replay(core, entries)
    last = entries[-1][0]
    with pytest.raises(LocalError, match="time ran backwards"):
        core.handle(WAKE, last - 1)
    assert core.handle(WAKE, last) == []


@every_core
def test_law_2_nothing_that_a_peer_sends_makes_a_core_raise(case: Case) -> None:
    entries = journal(case)
    received = [
        (at, event)
        for at, (_, event, _) in enumerate(entries)
        if isinstance(event, DataReceived | DatagramReceived) and event.data
    ]

    @settings(max_examples=60, derandomize=True, deadline=None)
    @given(st.sampled_from(received), st.binary(max_size=64), st.integers(0, 2000), st.booleans(), st.booleans())
    def garbled(where: tuple[int, Any], noise: bytes, cut: int, keeps_the_start: bool, goes_on: bool) -> None:
        index, event = where
        # A datagram is short, and most of it is worth spoiling.
        cut = cut % len(event.data) if isinstance(event, DatagramReceived) else cut
        core = case.make()
        replay(core, entries[:index])
        data = event.data[:cut] + noise + (event.data[cut:] if keeps_the_start else b"")
        core.handle(msgspec.structs.replace(event, data=data), entries[index][0])
        if isinstance(event, DatagramReceived):
            stranger = Address("2001:db8::1", cut)
            core.handle(msgspec.structs.replace(event, remote=stranger), entries[index][0])
        last = entries[index][0]
        for now, later, _ in entries[index + 1 : index + 20] if goes_on else ():
            if isinstance(later, OUTSIDE):
                core.handle(later, now)
                last = now
        core.handle(WAKE, last + 3600 * SECOND)

    garbled()


@every_core
def test_law_2_an_illegal_command_changes_nothing(case: Case) -> None:
    core = case.make()
    fed: list[Any] = []
    last = 0
    for now, event, effects in journal(case):
        illegal = case.illegal(core, fed)
        with pytest.raises(LocalError):
            core.handle(*(WAKE, last - 1) if illegal is None else (illegal, last))
        assert core.handle(event, now) == effects
        fed.append(event)
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
    core, entries = case.make(), journal(case)
    replay(core, entries)
    now = entries[-1][0]
    for _ in range(200):
        if core.deadline == NEVER:
            break
        now = max(now, core.deadline)
        core.handle(WAKE, now)
        assert core.deadline > now


@every_core
def test_law_5_payloads_are_bytes_and_never_views(case: Case) -> None:
    for _, _, effects in journal(case):
        for effect in effects:
            for value in msgspec.structs.asdict(effect).values():
                assert not isinstance(value, memoryview | bytearray), effect


@pytest.mark.parametrize("case", (NODES | RELAYS).values(), ids=(NODES | RELAYS).keys())
def test_law_6_an_effect_that_fails_comes_back_as_an_input(case: Case) -> None:
    failures = sum(_failures_survived(case, seed) for seed in range(8))
    assert failures > 8


def _failures_survived(case: Case, seed: int) -> int:
    """Replay a journal while effects fail at random, and return how many did."""
    core, rng, failures = case.make(), Random(seed), 0
    closed: set[int] = set()
    for now, event, _ in journal(case):
        effects = list(core.handle(event, now))
        while effects:
            effect = effects.pop(0)
            failure = _failure_of(effect, rng, closed)
            if failure is not None:
                failures += 1
                effects.extend(core.handle(failure, now))
    assert core.deadline > 0
    return failures


def _failure_of(effect: Any, rng: Random, closed: set[int]) -> Any:
    """Return how an effect might fail, for one in four of those that can."""
    if isinstance(effect, CloseConnection):
        closed.add(effect.connection)
    if rng.randrange(4):
        return None
    if isinstance(effect, Connect):
        return ConnectFailed(effect.connection, "no route to host")
    if isinstance(effect, SendData | SendText) and effect.connection not in closed:
        closed.add(effect.connection)
        return ConnectionClosed(effect.connection, "broken pipe")
    if isinstance(effect, StartGeneration):
        return GenerationFailed(effect.job, Failure.INTERNAL_ERROR, "the model process died")
    return None


@pytest.mark.parametrize("case", WITH_DATAGRAMS.values(), ids=WITH_DATAGRAMS.keys())
def test_law_6_a_datagram_that_fails_is_lost_and_whoever_hears_nothing_says_so(case: Case) -> None:
    """No datagram's failure comes back; so a core that was told to ask and hears nothing has to notice by itself."""
    core = case.make()
    commands = [event for _, event, _ in journal(case) if not isinstance(event, Woken | DatagramReceived)]
    effects = [effect for event in commands[:1] for effect in core.handle(event, 0)]
    for _ in range(100):
        if core.deadline != NEVER:
            effects += core.handle(WAKE, core.deadline)
    reports = [effect for effect in effects if type(effect).__name__.startswith("Report")]
    assert bool(reports) is bool(commands)


@every_core
def test_law_7_a_replayed_journal_gives_equal_effects(case: Case) -> None:
    core = case.make()
    for now, event, effects in journal(case):
        assert core.handle(event, now) == effects


def test_strangers_are_part_of_the_record() -> None:
    """Garbage on a fresh connection, which no journal of a friendly world contains."""
    for case in (NODES | RELAYS).values():
        core = case.make()
        if case in NODES.values():
            core.handle(Started(1), 0)
        for number in range(2, 40, 2):
            core.handle(ConnectionAccepted(number, Address("s", 1), Address("h", 2), "h"), number)
            core.handle(DataReceived(number, Random(number).randbytes(number * 10)), number)
        core.handle(WAKE, 3600 * SECOND)
