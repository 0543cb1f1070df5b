"""Every rule catches what was planted for it, and lets pass what is allowed."""

from collections import deque
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from simulator.answers import AnswersAreHonest, AnswersComeWhole
from simulator.backend import ANSWER_MARKER
from simulator.bounded import EVERY, NothingGrows, collections_of
from simulator.checkers import Checker
from simulator.clock import TRUE_CLOCK
from simulator.events import Crash, HostCrashed, HostStarted
from simulator.invariants import LATE_ASK, DeadlinesAreKept, Identities, NobodyIsWronged
from simulator.peace import (
    AllHaveMet,
    HeartbeatsAreAnswered,
    Peace,
    Plan,
    TheDeadAreLetGo,
    TheHealthyAreKept,
    grace_after_fault,
    grace_for_meeting,
)
from simulator.rng import SplitMix64
from simulator.spec import faults
from simulator.spec.population import Population
from simulator.spec.world_spec import RelaySpec, WorldSpec
from simulator.trace import Entry
from teale_proto.contract import NEVER, SECOND, Instant, Value
from teale_proto.effects import (
    Path,
    PeerState,
    RelayState,
    ReportAttempt,
    ReportChunk,
    ReportFailed,
    ReportFinished,
    ReportPeer,
    ReportRefusal,
    ReportRelay,
    StartGeneration,
)
from teale_proto.inputs import WAKE, Ask, Failure, GenerationFinished, NodeId, Started, Task
from teale_proto.node import Node, NodeConfig
from teale_proto.secure.identity import Identity
from tests.proto.world import World as Conversation
from tests.proto.worlds import lan, wan

ALICE, BOB = NodeId("a" * 64), NodeId("b" * 64)
DEAD = HostCrashed(Crash.VANISH)
MINUTE = 60 * SECOND


def violations(checker: Checker, *entries: tuple[Instant, str, Value], until: Instant = 1000 * SECOND) -> list[str]:
    """What a checker says of some entries."""
    for at, host, value in entries:
        checker.observe(Entry(at, host, value))
    checker.finish(until)
    return [f"{violation.host}: {violation.what}" for violation in checker.violations]


class StandIn:
    """A host as a checker sees it."""

    def __init__(self, core: Any = None) -> None:
        self.core = core

    @property
    def alive(self) -> bool:
        return self.core is not None

    clock = TRUE_CLOCK


# Answers.

ASK = Ask("r1", Task.CHAT, "m", b'{"model":"m"}', timeout=30 * SECOND)
TO_BOB = ReportAttempt("r1", BOB, Path.RELAY)
BEGUN = StartGeneration(1, Task.CHAT, "m", ASK.body, streaming=True)
DONE = GenerationFinished(1, 5, 2)
FINISHED = ReportFinished("r1", BOB, Path.RELAY, 5, 2, 1)
FAILED = ReportFailed("r1", Failure.TIMEOUT, "", 1)


def honest(*entries: tuple[Instant, str, Value]) -> list[str]:
    return violations(AnswersAreHonest({ALICE: "alice", BOB: "bob"}.get, patience=10), *entries)


def test_a_request_that_is_given_worked_on_and_answered_is_honest() -> None:
    end = (5, "alice", FINISHED)
    assert honest((1, "alice", ASK), (2, "alice", TO_BOB), (3, "bob", BEGUN), (4, "bob", DONE), end) == []


def test_work_that_is_begun_twice_for_one_attempt_is_found() -> None:
    found = honest((1, "alice", ASK), (2, "alice", TO_BOB), (3, "bob", BEGUN), (4, "bob", BEGUN))
    assert found == ["bob: began r1 of alice for the 2. time, given 1"]


def test_work_that_nobody_gave_is_found() -> None:
    assert honest((1, "alice", ASK), (3, "bob", BEGUN)) == ["bob: began r1 of alice for the 1. time, given 0"]


def test_work_that_is_begun_long_after_the_end_is_found() -> None:
    begun = ((1, "alice", ASK), (2, "alice", TO_BOB), (3, "alice", FAILED))
    assert honest(*begun, (13, "bob", BEGUN)) == []
    assert honest(*begun, (14, "bob", BEGUN)) == ["bob: began r1, which had ended for alice at 3 µs"]


def test_a_server_that_did_not_answer_is_found() -> None:
    found = honest((1, "alice", ASK), (2, "alice", TO_BOB), (3, "alice", FINISHED))
    assert found == ["alice: r1 was reported answered with 2 tokens by bob, which did not answer it"]


def test_an_answer_of_another_length_than_the_one_that_was_given_is_found() -> None:
    longer = GenerationFinished(1, 5, 3)
    asked = ((1, "alice", ASK), (2, "alice", TO_BOB), (3, "bob", BEGUN))
    found = honest(*asked, (4, "bob", longer), (5, "alice", FINISHED))
    assert found == ["alice: r1 was reported answered with 2 tokens by bob, which answered it with 3 tokens"]


def test_pieces_and_attempts_after_the_end_are_found() -> None:
    ended = ((1, "alice", ASK), (2, "alice", FAILED))
    assert honest(*ended, (3, "alice", ReportChunk("r1", b""))) == [
        "alice: a piece of the answer to r1 came after its end"
    ]
    assert honest(*ended, (3, "alice", TO_BOB)) == ["alice: r1 was given to a node after it had ended"]


def test_bodies_that_two_requests_share_say_nothing() -> None:
    other = msgspec.structs.replace(ASK, request="r2")
    assert honest((1, "alice", ASK), (1, "alice", other), (3, "bob", BEGUN), (4, "alice", FINISHED)) == []


# Chunks.


def words(*numbers: int) -> ReportChunk:
    return ReportChunk("r1", " ".join(f"{ANSWER_MARKER}-{number}" for number in numbers).encode())


def whole(*values: Value) -> list[str]:
    return violations(AnswersComeWhole(), (1, "alice", ASK), *((2, "alice", value) for value in values))


def test_words_in_order_are_a_whole_answer_in_one_piece_or_in_several() -> None:
    assert whole(words(1), words(2), words(), FINISHED) == []
    assert whole(words(1, 2), FINISHED) == []


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ((words(1), words(3)), "r1: word 3 came after word 1"),
        ((words(1), words(1)), "r1: word 1 came after word 1"),
        ((words(2),), "r1: word 2 came after word 0"),
        ((words(1), FINISHED), "r1 ended after 1 of 2 words"),
        ((words(1, 2), words(3), FINISHED), "r1 ended after 3 of 2 words"),
    ],
)
def test_gaps_doubles_and_missing_ends_are_found(values: Sequence[Value], what: str) -> None:
    assert whole(*values) == [f"alice: {what}"]


def test_an_answer_that_failed_may_break_off_anywhere() -> None:
    assert whole(words(1), FAILED) == []


# Who is who.


def node(number: int) -> Node:
    return Node(NodeConfig("n"), Identity.from_seed(bytes([number]) * 32), SplitMix64(number), unix_time_at_zero=0)


def who(*entries: tuple[Instant, str, Value]) -> list[str]:
    people = Identities({"alice": StandIn(node(1)), "bob": StandIn(node(2))})
    return violations(people, (0, "alice", Started(None)), (0, "bob", Started(None)), *entries)


def up(node: NodeId, path: Path = Path.RELAY) -> ReportPeer:
    return ReportPeer(node, PeerState.CONNECTED, path)


def test_those_who_exist_may_be_met() -> None:
    bob = node(2).node_id
    assert who((1, "alice", up(bob)), (2, "alice", ReportAttempt("r", bob, Path.LAN))) == []


def test_a_node_that_never_was_is_found_wherever_it_is_named() -> None:
    assert who((1, "alice", up(BOB))) == ["alice: met bbbbbbbb, who never was"]
    assert who((1, "alice", TO_BOB)) == ["alice: ReportAttempt names bbbbbbbb, who never was"]
    assert who((1, "alice", FINISHED)) == ["alice: ReportFinished names bbbbbbbb, who never was"]


def test_a_node_that_meets_itself_is_found() -> None:
    assert who((1, "alice", up(node(1).node_id))) == ["alice: met itself"]


def test_a_former_identity_of_a_host_stays_known() -> None:
    host = StandIn(node(1))
    people = Identities({"alice": host})
    people.observe(Entry(0, "alice", Started(None)))
    host.core = node(3)
    people.observe(Entry(5, "alice", Started(None)))
    assert people.host_of(node(1).node_id) == people.host_of(node(3).node_id) == "alice"
    assert people.node_of == {"alice": node(3).node_id}


def test_a_node_that_is_refused_for_what_it_said_is_found() -> None:
    replayed = ReportRefusal(1, "a record was altered, replayed, lost or is out of order")
    assert violations(NobodyIsWronged(), (1, "alice", replayed)) == [f"alice: refused 1: {replayed.reason}"]
    late = ReportRefusal(1, "took too long to introduce itself")
    assert violations(NobodyIsWronged(), (1, "alice", late)) == []


# Time.


class Sleeper:
    """A core that wants to be woken at one instant."""

    def __init__(self, deadline: Instant) -> None:
        self.deadline = deadline

    def handle(self, event: object, now: Instant) -> Sequence[Value]:
        return ()


def kept(deadline: Instant, *entries: tuple[Instant, str, Value], excused: tuple[str, ...] = ()) -> list[str]:
    return violations(DeadlinesAreKept({"alice": StandIn(Sleeper(deadline))}, excused=excused), *entries)


def test_a_core_that_is_woken_when_it_asked_to_be_is_well_kept() -> None:
    assert kept(100, (100, "alice", WAKE)) == []
    # What it asked for had passed already when it asked.
    assert kept(0, (100, "alice", Started(None)), (100, "alice", WAKE)) == []


def test_a_core_that_is_woken_late_is_found_unless_its_host_is_slow() -> None:
    assert kept(100, (200, "alice", WAKE)) == ["alice: was woken 100 µs later than it had asked for"]
    assert kept(100, (200, "alice", WAKE), excused=("alice",)) == []


def test_a_request_that_ends_after_its_time_is_found() -> None:
    in_time = ASK.timeout + ASK.timeout // 1000 + LATE_ASK
    assert kept(NEVER, (0, "alice", ASK), (in_time, "alice", FAILED)) == []
    found = kept(NEVER, (0, "alice", ASK), (in_time + 7, "alice", FAILED))
    assert found == ["alice: r1 ended 7 µs later than it may"]


def test_a_request_that_never_ends_is_found_and_one_whose_node_died_is_not() -> None:
    assert kept(NEVER, (0, "alice", ASK)) == ["alice: r1 should have ended by 30130000 µs"]
    assert kept(NEVER, (0, "alice", ASK), (1, "alice", DEAD)) == []


# Memory.


class Hoarder:
    """A core that never throws anything away."""

    deadline = NEVER

    def __init__(self) -> None:
        self.child = Shelf()

    def handle(self, event: object, now: Instant) -> Sequence[Value]:
        return ()


class Shelf:
    __slots__ = ("by_name", "empty", "recent")

    by_name: dict[str, list[int]]
    recent: "deque[int]"

    def __init__(self) -> None:
        self.by_name = {"one": [1, 2, 3]}
        self.recent = deque([1])


def test_a_walk_finds_collections_in_slots_dicts_and_each_other() -> None:
    found = {place: len(what) for place, what in collections_of(Hoarder())}
    assert found == {"Shelf.by_name": 1, "Shelf.recent": 1, "Shelf.by_name[]": 3}


def test_a_walk_through_a_node_and_a_relay_sees_what_they_keep() -> None:
    world = lan("alice", "bob", serving="bob")
    found = {place for place, _ in collections_of(world.node("alice"))}
    assert {"Peers._conversations", "Contacts._services", "Timers._at", "Peer.conversations"} <= found


def test_a_collection_that_outgrows_its_bound_is_found_while_the_world_runs_and_once() -> None:
    core = Hoarder()
    checker = NothingGrows({"alice": StandIn(core)}, slack=10, per_thing=1)
    core.child.recent.extend(range(10))
    assert violations(checker, (EVERY, "alice", WAKE)) == []
    core.child.recent.append(0)
    found = violations(checker, (2 * EVERY, "alice", WAKE), (3 * EVERY, "alice", WAKE))
    assert found == ["alice: Shelf.recent holds 12, and may hold 11"]


def test_hosts_that_are_dead_hold_nothing() -> None:
    assert violations(NothingGrows({"alice": StandIn()}), (EVERY, "alice", WAKE)) == []


# Peace.


def spec(*planned: faults.Fault, count: int = 2, lasts: float = 1000.0, **more: Any) -> WorldSpec:
    population = Population(name="n", count=count, heartbeat=5.0, **more)
    return WorldSpec(
        name="t", lasts=lasts, relays=(RelaySpec(), RelaySpec()), populations=(population,), faults=planned
    )


HOSTS = {ALICE: "n-0", BOB: "n-1"}
LOST = ReportPeer(BOB, PeerState.LOST, Path.RELAY, "why")
BORN = HostStarted(1)


def healthy(*entries: tuple[Instant, str, Value], world: WorldSpec | None = None) -> list[str]:
    plan = Plan(world or spec())
    born = [(0, host, BORN) for host in ("relay-0", "n-0", "n-1")]
    return violations(TheHealthyAreKept(plan, HOSTS.get, grace=grace_after_fault(plan)), *born, *entries)


GIVEN_UP = ["n-0: reported n-1 as lost over relay (why)"]


def test_a_healthy_peer_that_is_given_up_is_found() -> None:
    assert healthy((5 * MINUTE, "n-0", LOST)) == GIVEN_UP
    degraded = msgspec.structs.replace(LOST, state=PeerState.DEGRADED)
    assert healthy((5 * MINUTE, "n-0", degraded)) == ["n-0: reported n-1 as degraded over relay (why)"]


def test_a_conversation_that_is_replaced_at_once_has_not_been_lost() -> None:
    assert healthy((5 * MINUTE, "n-0", LOST), (5 * MINUTE, "n-0", up(BOB))) == []
    assert healthy((5 * MINUTE, "n-0", LOST), (5 * MINUTE + 1, "n-0", up(BOB))) == GIVEN_UP


@pytest.mark.parametrize("host", ["n-0", "n-1", "relay-0"])
def test_whoever_died_or_came_back_lately_may_be_given_up(host: str) -> None:
    assert healthy((4 * MINUTE, host, DEAD), (5 * MINUTE, "n-0", LOST)) == []
    assert healthy((4 * MINUTE, host, HostStarted(2)), (5 * MINUTE, "n-0", LOST)) == []
    assert healthy((4 * MINUTE, host, HostStarted(2)), (10 * MINUTE, "n-0", LOST)) == GIVEN_UP


def test_another_relay_and_other_nodes_are_no_excuse() -> None:
    other = spec(count=3)
    assert healthy((4 * MINUTE, "relay-1", DEAD), (4 * MINUTE, "n-2", DEAD), (5 * MINUTE, "n-0", LOST), world=other)


def test_on_a_lan_the_relay_is_no_excuse() -> None:
    on_lan = msgspec.structs.replace(LOST, path=Path.LAN)
    assert healthy((4 * MINUTE, "relay-0", DEAD), (5 * MINUTE, "n-0", on_lan))


@pytest.mark.parametrize(
    "fault",
    [
        faults.Partition(("n-1",), ("relay-0",), 100.0, 200.0),
        faults.Partition(("n",), ("relay-0",), 100.0, 200.0),
        faults.NatReboot("n-1", 200.0),
        faults.BadWeather("n-0", 100.0, 200.0, 0.3),
        faults.Roam("n-0", 200.0),
    ],
)
def test_planned_faults_excuse_while_they_last_and_for_a_while_after(fault: faults.Fault) -> None:
    world = spec(fault)
    assert healthy((200 * SECOND, "n-0", LOST), world=world) == []
    assert healthy((260 * SECOND, "n-0", LOST), world=world) == []
    assert healthy((320 * SECOND, "n-0", LOST), world=world) == GIVEN_UP
    wrong_clock = spec(faults.ClockSkew("n-0", 100.0))
    assert healthy((200 * SECOND, "n-0", LOST), world=wrong_clock) == GIVEN_UP


def test_a_fault_of_a_line_touches_everybody_on_it() -> None:
    shared = Plan(spec(faults.NatReboot("n-0", 50.0), count=4, site_size=2))
    peace = Peace(shared)
    assert peace.since("n-1", 60 * SECOND) == 50 * SECOND
    assert peace.since("n-1", 40 * SECOND) < 0
    assert peace.since("n-2", 60 * SECOND) < 0


def let_go(*entries: tuple[Instant, str, Value], world: WorldSpec | None = None) -> list[str]:
    plan = Plan(world or spec())
    checker = TheDeadAreLetGo(plan, HOSTS, margin=SECOND, grace=grace_after_fault(plan))
    born = [(0, host, BORN) for host in ("relay-0", "n-0", "n-1")]
    return violations(checker, *born, *entries)


def test_the_dead_are_let_go_by_whoever_is_well() -> None:
    death = (5 * MINUTE, "n-1", DEAD)
    late = (5 * MINUTE + 17 * SECOND, "n-0", LOST)
    assert let_go(death, (5 * MINUTE + 15 * SECOND, "n-0", LOST)) == []
    assert let_go(death, late) == ["n-0: bbbbbbbb died at 300000000 µs and is lost only now"]
    bad_line = spec(faults.BadWeather("n-0", 290.0, 310.0, 0.3))
    assert let_go(death, late, world=bad_line) == []
    assert let_go((5 * MINUTE - SECOND, "relay-0", HostStarted(2)), death, late) == []


def test_a_relay_whose_cpu_takes_time_may_be_a_little_late() -> None:
    costly = msgspec.structs.replace(spec(), relays=(RelaySpec(), RelaySpec(has_cost=True)))
    assert Plan(costly).busy == {"relay-1"}


def test_a_host_that_was_slow_is_excused_for_good_because_its_backlog_may_last() -> None:
    slow = spec(faults.SlowNode("relay-0", 100.0, 101.0, 0.5))
    assert Plan(slow).slow == {"relay-0"}
    assert healthy((900 * SECOND, "n-0", LOST), world=slow) == []


# Heartbeats and meetings, between real nodes.


def meeting(world: Conversation) -> tuple[dict[str, StandIn], dict[NodeId, str]]:
    hosts = {host: StandIn(world.node(name)) for host, name in (("n-0", "alice"), ("n-1", "bob"))}
    return hosts, {host.core.node_id: name for name, host in hosts.items()}


def test_a_heartbeat_without_an_answer_is_found_when_the_next_is_due() -> None:
    world = lan("alice", "bob", heartbeat=5 * SECOND)
    world.run_for(5 * MINUTE)
    hosts, names = meeting(world)
    plan = Plan(spec(site_size=2))
    checker = HeartbeatsAreAnswered(plan, names.get, hosts, grace=grace_after_fault(plan))
    at = world.now + 10 * SECOND
    assert violations(checker, (at, "n-0", WAKE)) == []
    (conversation,) = world.node("alice")._peers._conversations.values()
    assert conversation.liveness is not None
    conversation.liveness._sent_at = at - 5 * SECOND
    found = violations(checker, (at, "n-0", WAKE))
    assert found == ["n-0: its heartbeat to n-1 over lan was not answered for 5.000 s"]


def met(world: Conversation, *entries: tuple[Instant, str, Value], plan: WorldSpec) -> list[str]:
    hosts, names = meeting(world)
    for value in entries:
        if isinstance(value[2], HostCrashed):
            hosts[value[1]].core = None
    hosts["relay-0"] = StandIn(Sleeper(NEVER))
    nodes = {name: node for node, name in names.items()}
    checker = AllHaveMet(Plan(plan), hosts, nodes, grace=grace_for_meeting(Plan(plan)))
    born = [(0, host, BORN) for host in ("relay-0", "n-0", "n-1")]
    return violations(checker, *born, *entries)


def test_nodes_on_one_lan_that_have_met_are_well() -> None:
    assert met(lan("alice", "bob"), plan=spec(site_size=2)) == []


def test_nodes_on_one_lan_that_have_not_met_are_found_once_all_is_calm() -> None:
    strangers = Conversation()
    for number, name in enumerate(("alice", "bob"), 1):
        strangers.add_node(name, number, lan=name)
    strangers.start("alice", "bob")
    assert met(strangers, plan=spec(site_size=2)) == [
        "n-0: does not know n-1, which is on its LAN",
        "n-1: does not know n-0, which is on its LAN",
    ]
    too_early = spec(faults.Partition(("n-0",), ("n-1",), 900.0, 950.0), site_size=2)
    assert met(strangers, plan=too_early) == []
    assert met(strangers, plan=spec(faults.Roam("n-0", 10.0), site_size=2)) == []


def test_a_node_that_still_knows_the_dead_is_found() -> None:
    assert met(lan("alice", "bob"), (SECOND, "n-1", DEAD), plan=spec(site_size=2)) == [
        "n-0: still knows n-1, which is dead"
    ]
    assert met(lan("alice", "bob"), (999 * SECOND, "n-1", DEAD), plan=spec(site_size=2)) == []


def test_a_node_that_lost_its_relay_for_good_is_found() -> None:
    registered = (SECOND, "n-0", ReportRelay(RelayState.CONNECTED))
    world = lan("alice", "bob", wan_enabled=True, wan_relay_url="ws://relay-0:1/ws")
    (found,) = met(world, registered, plan=spec())
    assert found.startswith("n-0: is not at its relay, relay-0")


def test_a_holder_of_models_on_the_same_relay_must_be_known() -> None:
    world = wan("alice", "bob", serving="bob")
    online = [(SECOND, host, ReportRelay(RelayState.CONNECTED)) for host in ("n-0", "n-1")]
    assert met(world, *online, plan=spec()) == []
    # Alice forgets Bob, who holds the model; that Bob forgets Alice, who holds none, would be allowed.
    world.node("alice")._peers._peers.clear()
    assert met(world, *online, plan=spec()) == ["n-0: does not know n-1, which holds models on the same relay"]
