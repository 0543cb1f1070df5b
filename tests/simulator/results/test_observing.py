"""What is gathered from a trace, entry by entry."""

from simulator.events import Crash, HostCrashed, HostSlowed, HostStarted, HostStopped, WeatherChanged
from simulator.net.link import Link
from simulator.results.model import Event, PathRow, SeriesRow
from simulator.results.observing import Observer
from simulator.trace import Entry
from teale_proto.contract import SECOND, Value
from teale_proto.effects import (
    CloseConnection,
    Path,
    PeerState,
    ReportAttempt,
    ReportChunk,
    ReportFailed,
    ReportFinished,
    ReportPeer,
    SendData,
    SendText,
)
from teale_proto.inputs import (
    WAKE,
    Address,
    Ask,
    ConnectionAccepted,
    ConnectionClosed,
    DataReceived,
    Failure,
    NodeId,
    Task,
)

ALICE, BOB, CAROL = NodeId("a" * 64), NodeId("b" * 64), NodeId("c" * 64)
ASK = Ask("r", Task.CHAT, "m", b"{}")
HERE = Address("192.0.2.1", 1)


class NatRebooted(Value):
    """An act of the world, as the simulator might come to know one."""

    host: str
    sites: tuple[str, ...]


# What is defined under `simulator` is an act of the world.
NatRebooted.__module__ = "simulator.later"


def observed(*entries: tuple[int, str, Value], limits: tuple[int, int, int] = (9, 9, 9)) -> Observer:
    observer = Observer(
        {"alice": ALICE, "bob": BOB}.get, requests_max=limits[0], paths_max=limits[1], events_max=limits[2]
    )
    for at, host, value in entries:
        observer.observe(Entry(at * SECOND, host, value))
    return observer


def rows(observer: Observer, until: int = 10) -> dict[tuple[str, str], list[int]]:
    found: dict[tuple[str, str], list[int]] = {}
    for row in observer.series.rows(until * SECOND):
        assert isinstance(row, SeriesRow)
        found.setdefault((row.metric, row.label), []).append(row.value)
    return found


def test_a_request_is_one_row_with_its_instants_and_who_served_it() -> None:
    observer = observed(
        (0, "bob", HostStarted(1)),
        (1, "alice", ASK),
        (1, "alice", ReportAttempt("r", CAROL, Path.LAN)),
        (2, "alice", ReportAttempt("r", BOB, Path.RELAY)),
        (3, "alice", ReportChunk("r", b"x")),
        (4, "alice", ReportChunk("r", b"y")),
        (5, "alice", ReportFinished("r", BOB, Path.RELAY, 7, 8, 2)),
    )
    (row,) = observer.requests()
    assert (row.asked_at, row.first_token_at, row.ended_at) == (1 * SECOND, 3 * SECOND, 5 * SECOND)
    assert (row.outcome, row.path, row.server, row.attempts) == ("finished", "relay", "bob", 2)
    assert (row.tokens_in, row.tokens_out) == (7, 8)
    assert rows(observer, 6)["requests_finished", ""] == [0, 0, 0, 0, 0, 1]


def test_a_request_that_fails_or_whose_node_dies_or_that_stays_open_says_so() -> None:
    observer = observed(
        (0, "alice", ASK),
        (0, "bob", ASK),
        (0, "alice", Ask("s", Task.CHAT, "m", b"{}")),
        (1, "alice", ReportFailed("r", Failure.TIMEOUT, "late", 1)),
        (2, "bob", HostCrashed(Crash.VANISH)),
    )
    assert [(row.asker, row.outcome, row.ended_at) for row in observer.requests()] == [
        ("alice", "timeout", SECOND),
        ("bob", "asker_lost", 2 * SECOND),
        ("alice", "open", None),
    ]
    assert rows(observer, 3)["requests_failed", ""] == [0, 1, 1]


def test_peers_are_counted_by_path_until_they_or_their_observer_are_gone() -> None:
    observer = observed(
        (0, "bob", HostStarted(1)),
        (0, "alice", ReportPeer(BOB, PeerState.CONNECTED, Path.RELAY)),
        (1, "alice", ReportPeer(BOB, PeerState.DEGRADED, Path.RELAY)),
        (2, "alice", ReportPeer(BOB, PeerState.CONNECTED, Path.LAN)),
        (3, "alice", ReportPeer(BOB, PeerState.LOST, Path.LAN)),
        (4, "alice", ReportPeer(BOB, PeerState.CONNECTED, Path.LAN)),
        (5, "alice", HostStopped()),
    )
    found = rows(observer, 6)
    assert found["peers_connected", "relay"] == [1, 1, 0, 0, 0, 0]
    assert found["peers_connected", "lan"] == [0, 0, 1, 0, 1, 0]
    assert found["peers_lost", ""] == [0, 0, 0, 1, 0, 0]
    assert list(observer.paths()) == [
        PathRow("alice", "bob", "relay", 1, 0, 0, 1 * SECOND, "degraded"),
        PathRow("alice", "bob", "lan", 2, 1, 2 * SECOND, 4 * SECOND, "connected"),
    ]


def test_a_relay_is_whoever_accepts_connections_and_is_no_node() -> None:
    observer = observed(
        (0, "alice", ConnectionAccepted(2, HERE, HERE)),
        (0, "alice", DataReceived(2, b"x")),
        (0, "relay", ConnectionAccepted(2, HERE, HERE)),
        (0, "relay", ConnectionAccepted(4, HERE, HERE)),
        (1, "relay", DataReceived(2, b"abc")),
        (1, "relay", SendData(4, b"abcd")),
        (2, "relay", SendText(4, b"ab")),
        (2, "relay", ConnectionClosed(2, "gone")),
        (3, "relay", CloseConnection(1, "what it opened itself")),
        (4, "relay", CloseConnection(4, "enough")),
    )
    assert list(observer.serving) == ["relay"]
    assert rows(observer, 5) == {
        ("relay_connections", "relay"): [2, 2, 1, 1, 0],
        ("relay_messages_in", "relay"): [0, 1, 0, 0, 0],
        ("relay_bytes_in", "relay"): [0, 3, 0, 0, 0],
        ("relay_messages_out", "relay"): [0, 1, 1, 0, 0],
        ("relay_bytes_out", "relay"): [0, 4, 2, 0, 0],
    }


def test_a_relay_that_dies_holds_no_connection_any_more() -> None:
    observer = observed(
        (0, "relay", HostStarted(1)),
        (0, "relay", ConnectionAccepted(2, HERE, HERE)),
        (1, "relay", HostCrashed(Crash.RESET)),
        (2, "relay", HostStarted(2)),
    )
    found = rows(observer, 3)
    assert found["relay_connections", "relay"] == [1, 0, 0]
    assert found["hosts_alive", ""] == [1, 0, 1]


def test_acts_of_the_world_are_events_and_a_first_life_is_none() -> None:
    observer = observed(
        (0, "alice", HostStarted(1)),
        (1, "alice", HostCrashed(Crash.VANISH)),
        (2, "alice", HostStarted(2)),
        (3, "site", NatRebooted("alice", ("a", "b"))),
        (4, "alice", WAKE),
        (5, "alice", HostStopped()),
    )
    assert observer.events == [
        Event(1 * SECOND, "alice", "crashed (vanish)", ""),
        Event(2 * SECOND, "alice", "restarted", "life 2"),
        Event(3 * SECOND, "site", "nat rebooted", "host alice; sites a, b"),
        Event(5 * SECOND, "alice", "stopped", ""),
    ]


def test_every_table_is_bounded_and_what_does_not_fit_is_counted() -> None:
    observer = observed(
        *((0, "alice", Ask(f"r{number}", Task.CHAT, "m", b"{}")) for number in range(3)),
        *((0, "alice", ReportPeer(NodeId(f"{number}" * 64), PeerState.CONNECTED, Path.LAN)) for number in range(4)),
        *((0, "alice", NatRebooted("x", ())) for _ in range(5)),
        (1, "alice", ReportFinished("r2", BOB, Path.LAN, 1, 1, 1)),
        limits=(2, 2, 2),
    )
    assert len(list(observer.requests())) == len(list(observer.paths())) == len(observer.events) == 2
    dropped = observer.dropped(packets=6)
    assert (dropped.requests, dropped.paths, dropped.events, dropped.packets) == (1, 2, 3, 6)
    assert rows(observer, 2)["requests_finished", ""] == [0, 1]
    assert rows(observer, 2)["peers_connected", "lan"] == [4, 4]


def test_times_in_the_details_of_events_have_their_unit() -> None:
    observer = observed((1, "alice", HostSlowed(300_000)), (2, "home", WeatherChanged(Link(latency=70_500, loss=0.1))))
    assert [event.detail for event in observer.events] == ["each 300 ms", "link latency 70.5 ms, loss 0.1"]
