"""Every checker catches what was planted for it, and lets pass what is allowed."""

from base64 import b64encode, urlsafe_b64encode

import pytest

from simulator.checkers import (
    VIOLATIONS_MAX,
    Checker,
    ConnectionsEndOnce,
    ContractKept,
    EnoughServed,
    EveryAskEndsOnce,
    LostNodesLeavePools,
    NothingInPlain,
    TimeNeverRunsBackwards,
)
from simulator.events import CoreMisused, Crash, HostCrashed, HostStarted, HostStopped
from simulator.net.connection import Traffic
from simulator.trace import Entry
from teale_proto.contract import SECOND, Instant, Value
from teale_proto.effects import (
    CloseConnection,
    Connect,
    Path,
    PeerState,
    ReportAttempt,
    ReportFailed,
    ReportFinished,
    ReportPeer,
)
from teale_proto.inputs import (
    WAKE,
    Address,
    Ask,
    ConnectFailed,
    ConnectionAccepted,
    ConnectionClosed,
    ConnectionOpened,
    DataReceived,
    Failure,
    NodeId,
    Task,
)
from teale_proto.wire.codec import Flavour
from teale_proto.wire.framing import frame
from teale_proto.wire.relay import RELAY_CODEC, RelayData

ALICE, BOB = NodeId("a" * 64), NodeId("b" * 64)
HOSTS = {ALICE: "alice", BOB: "bob"}
HERE = Address("10.0.0.1", 1)
DEAD = HostCrashed(Crash.VANISH)

ASK = Ask("r1", Task.CHAT, "m", b"{}")
FINISHED = ReportFinished("r1", BOB, Path.RELAY, 1, 1, 1)
FAILED = ReportFailed("r1", Failure.TIMEOUT, "", 1)


def violations(checker: Checker, *entries: tuple[Instant, str, Value], until: Instant = 1000 * SECOND) -> list[str]:
    """What a checker says of some entries."""
    for at, host, value in entries:
        checker.observe(Entry(at, host, value))
    checker.finish(until)
    assert checker.count == len(checker.violations)
    return [f"{violation.host}: {violation.what}" for violation in checker.violations]


# Requests.


@pytest.mark.parametrize("end", [FINISHED, FAILED])
def test_a_request_may_end_once_in_either_way(end: Value) -> None:
    assert violations(EveryAskEndsOnce(), (1, "alice", ASK), (2, "alice", end)) == []


def test_a_request_that_never_ends_is_found() -> None:
    assert violations(EveryAskEndsOnce(), (1, "alice", ASK)) == ["alice: r1, asked at 1 µs, never ended"]


def test_a_request_that_ends_twice_is_found() -> None:
    found = violations(EveryAskEndsOnce(), (1, "alice", ASK), (2, "alice", FAILED), (3, "alice", FINISHED))
    assert found == ["alice: ReportFinished for r1, which was not under way"]


def test_an_end_on_another_host_does_not_count() -> None:
    found = violations(EveryAskEndsOnce(), (1, "alice", ASK), (2, "bob", FINISHED))
    assert found == ["bob: ReportFinished for r1, which was not under way", "alice: r1, asked at 1 µs, never ended"]


def test_a_request_whose_own_node_died_is_excused_and_one_whose_node_stopped_is_not() -> None:
    assert violations(EveryAskEndsOnce(), (1, "alice", ASK), (2, "alice", DEAD)) == []
    assert len(violations(EveryAskEndsOnce(), (1, "alice", ASK), (2, "alice", HostStopped()))) == 1


# Pools.


def up(node: NodeId) -> ReportPeer:
    return ReportPeer(node, PeerState.CONNECTED, Path.RELAY)


def lost(node: NodeId) -> ReportPeer:
    return ReportPeer(node, PeerState.LOST, Path.RELAY)


def pools(*entries: tuple[Instant, str, Value], until: Instant = 1000 * SECOND) -> list[str]:
    return violations(LostNodesLeavePools(HOSTS, heartbeat=15 * SECOND, margin=SECOND), *entries, until=until)


def test_a_dead_node_may_stay_three_heartbeats_and_the_margin() -> None:
    born, death = (0, "alice", up(BOB)), (10 * SECOND, "bob", DEAD)
    assert pools(born, death, (56 * SECOND, "alice", lost(BOB))) == []
    late = pools(born, death, (56 * SECOND + 1, "alice", lost(BOB)))
    assert late == ["alice: bbbbbbbb died at 10000000 µs and is lost only now"]


def test_a_dead_node_that_is_never_taken_out_is_found_at_the_end() -> None:
    entries = ((0, "alice", up(BOB)), (10 * SECOND, "bob", DEAD))
    assert pools(*entries, until=56 * SECOND) == []
    assert pools(*entries) == ["alice: bbbbbbbb died at 10000000 µs and is still in the pool"]


def test_a_dead_node_that_comes_back_into_a_pool_is_found() -> None:
    found = pools(
        (0, "bob", DEAD),
        (60 * SECOND, "alice", ReportPeer(BOB, PeerState.DEGRADED, Path.LAN)),
        (61 * SECOND, "alice", lost(BOB)),
    )
    assert found[0] == "alice: bbbbbbbb died at 0 µs and is degraded only now"


def test_asking_a_node_that_is_long_dead_is_found() -> None:
    attempt = ReportAttempt("r1", BOB, Path.RELAY)
    assert pools((0, "bob", DEAD), (5 * SECOND, "alice", attempt)) == []
    assert pools((0, "bob", DEAD), (50 * SECOND, "alice", attempt)) == ["alice: asked bbbbbbbb, which is dead"]


def test_the_pool_of_a_dead_node_does_not_matter_and_a_node_that_came_back_is_not_dead() -> None:
    assert pools((0, "alice", up(BOB)), (1, "bob", DEAD), (2, "alice", DEAD)) == []
    assert pools((0, "alice", up(BOB)), (1, "bob", DEAD), (2, "bob", HostStarted(2))) == []


# Plaintext.


PROMPT = "simulated-prompt-word"
SECRET = b'{"messages":[{"role":"user","content":"simulated-prompt-word-1 simulated-prompt-word-2"}]}'


def passed(*data: bytes, whole: bool = True, at: str | None = "relay") -> list[str]:
    """What a checker at the relay says of what alice sent it."""
    checker = NothingInPlain((PROMPT,), at=at)
    for piece in data:
        checker.observe_traffic(Traffic(1, "alice", "relay", 1, whole, piece))
    return violations(checker)


IN_PLAIN = ["alice: sent 'simulated-prompt-word' to relay in plain"]


@pytest.mark.parametrize("flavour", list(Flavour))
@pytest.mark.parametrize("shift", range(3))
def test_plaintext_inside_relay_data_is_found(flavour: Flavour, shift: int) -> None:
    data = frame(bytes(shift) + SECRET)
    message = RelayData(from_node_id=ALICE, to_node_id=BOB, session_id="s", data=data)
    assert passed(RELAY_CODEC.encode(message, flavour)) == IN_PLAIN


@pytest.mark.parametrize("shift", range(3))
def test_plaintext_is_found_raw_and_in_both_alphabets_of_base64(shift: int) -> None:
    text = bytes(shift) + SECRET
    assert passed(text) == IN_PLAIN
    assert passed(b64encode(text)) == IN_PLAIN
    assert passed(urlsafe_b64encode(text)) == IN_PLAIN


def test_plaintext_that_is_spread_over_writes_of_a_stream_is_found() -> None:
    assert passed(*(bytes([byte]) for byte in SECRET), whole=False)


def test_what_cannot_be_read_is_let_pass_and_other_wires_are_not_watched() -> None:
    checker = NothingInPlain((PROMPT,), at="relay")
    checker.observe_traffic(Traffic(1, "alice", "relay", 1, True, bytes(range(256)) * 8))
    checker.observe_traffic(Traffic(1, "alice", "bob", 2, False, SECRET))
    assert violations(checker) == []


def test_a_checker_of_every_wire_watches_all_of_them() -> None:
    assert passed(SECRET, at=None) == IN_PLAIN


def test_a_checker_that_saw_nothing_has_not_checked_anything() -> None:
    assert violations(NothingInPlain((PROMPT,), at="relay")) == ["relay: nothing passed, so nothing was checked"]


def test_a_mark_that_chance_could_produce_is_refused() -> None:
    with pytest.raises(AssertionError, match="too short"):
        NothingInPlain(("abc",))


# The rest.


def test_time_that_runs_backwards_is_found() -> None:
    found = violations(TimeNeverRunsBackwards(), (5, "alice", WAKE), (5, "bob", WAKE), (4, "bob", WAKE))
    assert found == ["bob: it had been 5 µs already"]


ACCEPTED = ConnectionAccepted(2, HERE, HERE)


@pytest.mark.parametrize(
    "values",
    [
        (Connect(1, HERE), ConnectionOpened(1), DataReceived(1, b""), CloseConnection(1, ""), Connect(1, HERE)),
        (Connect(1, HERE), ConnectFailed(1, ""), Connect(1, HERE)),
        (Connect(1, HERE), CloseConnection(1, "")),
        (ACCEPTED, DataReceived(2, b""), ConnectionClosed(2, ""), ACCEPTED),
        (ACCEPTED, DEAD, HostStarted(2), ACCEPTED),
    ],
)
def test_a_connection_may_live_like_this(values: tuple[Value, ...]) -> None:
    assert violations(ConnectionsEndOnce(), *((1, "alice", value) for value in values)) == []


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ((ACCEPTED, ACCEPTED), "ConnectionAccepted on connection 2, which is open"),
        ((ConnectionOpened(1),), "ConnectionOpened on connection 1, which does not exist"),
        ((Connect(1, HERE), DataReceived(1, b"")), "DataReceived on connection 1, which is connecting"),
        (
            (ACCEPTED, ConnectionClosed(2, ""), ConnectionClosed(2, "")),
            "ConnectionClosed on connection 2, which does not exist",
        ),
        (
            (ACCEPTED, CloseConnection(2, ""), ConnectionClosed(2, "")),
            "ConnectionClosed on connection 2, which does not exist",
        ),
        (
            (ACCEPTED, CloseConnection(2, ""), DataReceived(2, b"")),
            "DataReceived on connection 2, which does not exist",
        ),
        ((Connect(1, HERE), ConnectionOpened(1), ConnectFailed(1, "")), "ConnectFailed on connection 1, which is open"),
    ],
)
def test_a_connection_may_not_live_like_this(values: tuple[Value, ...], what: str) -> None:
    assert f"alice: {what}" in violations(ConnectionsEndOnce(), *((1, "alice", value) for value in values))


def test_what_a_host_holds_against_its_core_is_a_violation() -> None:
    assert violations(ContractKept(), (1, "alice", CoreMisused("nonsense"))) == ["alice: nonsense"]


def test_too_few_answers_are_found() -> None:
    assert violations(EnoughServed(1), (1, "alice", FINISHED)) == []
    assert violations(EnoughServed(2), (1, "alice", FINISHED)) == [": 1 were"]
    assert violations(EnoughServed(1, path=Path.LAN), (1, "alice", FINISHED)) == [": 0 were"]


def test_many_violations_are_counted_and_few_described() -> None:
    checker = ContractKept()
    for _ in range(VIOLATIONS_MAX + 5):
        checker.observe(Entry(1, "alice", CoreMisused("nonsense")))
    assert checker.count == VIOLATIONS_MAX + 5
    assert len(checker.violations) == VIOLATIONS_MAX
