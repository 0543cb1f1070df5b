"""When bytes arrive, and what becomes of connections."""

import pytest

from simulator.net.connection import CONNECT_TIMEOUT, Traffic
from simulator.net.link import Link, Way
from simulator.net.machine import Machine
from simulator.net.network import NetworkError
from teale_proto.contract import MILLISECOND, SECOND, Instant
from teale_proto.effects import CloseConnection, Connect, SendData, SendPing, SendText, WebSocketUrl
from teale_proto.inputs import (
    Address,
    ConnectFailed,
    ConnectionAccepted,
    ConnectionClosed,
    ConnectionOpened,
    DataReceived,
    PingReceived,
    PongReceived,
)
from tests.simulator.toys import ONE_WAY, QUIET, Diary, Town, obey

BOB = Address("10.0.0.2", 80)
WEB = WebSocketUrl("ws://10.0.0.2:80/ws")
ONE_MEGABYTE_A_SECOND = 1_000_000


def pair(
    town: Town, target: Address | WebSocketUrl = BOB, *, alice_link: Link = QUIET, bob_link: Link = QUIET
) -> tuple[Diary, Diary]:
    """Have Alice connect to Bob, and clear the diaries once they are connected, at 1 s."""
    _, alice = town.add("alice", "10.0.0.1", obey, link=alice_link)
    _, bob = town.add("bob", "10.0.0.2", obey, link=bob_link, ports=(80,))
    town.order("alice", Connect(1, target))
    town.engine.run_until(SECOND)
    assert alice.of(ConnectionOpened)
    assert bob.of(ConnectionAccepted)
    alice.heard.clear()
    bob.heard.clear()
    return alice, bob


def arrivals(diary: Diary) -> list[tuple[Instant, int]]:
    """When data arrived, after the first second, and how much."""
    return [(at - SECOND, len(event.data)) for at, event in diary.of(DataReceived) if isinstance(event, DataReceived)]


# Opening.


@pytest.mark.parametrize(
    ("target", "opened_after", "accepted_after"),
    [
        (BOB, 2 * ONE_WAY, 3 * ONE_WAY),
        (WEB, 4 * ONE_WAY, 3 * ONE_WAY),
        (WebSocketUrl("wss://10.0.0.2:80/ws"), 6 * ONE_WAY, 5 * ONE_WAY),
    ],
)
def test_opening_takes_one_round_trip_and_one_more_for_the_upgrade_and_for_tls(
    target: Address | WebSocketUrl, opened_after: Instant, accepted_after: Instant
) -> None:
    town = Town()
    _, alice = town.add("alice", "10.0.0.1", obey)
    _, bob = town.add("bob", "10.0.0.2", ports=(80,))
    town.order("alice", Connect(1, target))
    town.engine.run_until(SECOND)
    assert alice.of(ConnectionOpened) == [(opened_after, ConnectionOpened(1))]
    ((at, accepted),) = bob.of(ConnectionAccepted)
    assert at == accepted_after
    host = "" if target == BOB else "10.0.0.2"
    assert accepted == ConnectionAccepted(2, remote=Address("10.0.0.1", 49_152), local=BOB, host=host)


def test_a_server_is_named_as_the_client_named_it() -> None:
    town = Town()
    town.network.add_name("relay.example", "10.0.0.2")
    town.add("alice", "10.0.0.1", obey)
    _, bob = town.add("bob", "10.0.0.2", ports=(443,))
    town.order("alice", Connect(1, WebSocketUrl("wss://relay.example/ws?node=x")))
    town.engine.run_until(SECOND)
    ((_, accepted),) = bob.of(ConnectionAccepted)
    assert accepted == ConnectionAccepted(2, Address("10.0.0.1", 49_152), Address("10.0.0.2", 443), "relay.example")


@pytest.mark.parametrize(
    ("target", "reason", "at"),
    [
        (Address("10.0.0.2", 81), "connection refused", 2 * ONE_WAY),
        (Address("10.0.0.9", 80), "no route to host", 0),
        (WebSocketUrl("http://10.0.0.2/"), "not a WebSocket address: 'http://10.0.0.2/'", 0),
    ],
)
def test_a_connection_that_cannot_be_is_refused(target: Address | WebSocketUrl, reason: str, at: Instant) -> None:
    town = Town()
    _, alice = town.add("alice", "10.0.0.1", obey)
    town.add("bob", "10.0.0.2", ports=(80,))
    town.order("alice", Connect(1, target))
    town.engine.run_until(20 * SECOND)
    assert alice.of(ConnectFailed) == [(at, ConnectFailed(1, reason))]


def test_a_host_on_another_segment_cannot_be_reached() -> None:
    town = Town()
    town.network.add_segment("elsewhere", discovery=False)
    _, alice = town.add("alice", "10.0.0.1", obey)
    town.add("bob", "10.0.0.2", ports=(80,), segment="elsewhere")
    town.order("alice", Connect(1, BOB))
    town.engine.run_until(SECOND)
    assert alice.of(ConnectFailed) == [(0, ConnectFailed(1, "no route to host"))]


def test_closing_while_connecting_leaves_nothing_behind() -> None:
    town = Town()
    _, alice = town.add("alice", "10.0.0.1", obey)
    bob_host, bob = town.add("bob", "10.0.0.2", ports=(80,))
    town.order("alice", Connect(1, BOB), CloseConnection(1, "changed my mind"))
    town.engine.run_until(2 * CONNECT_TIMEOUT)
    assert len(alice.heard) == 1
    assert bob.heard == []
    assert not bob_host.machine.ends


# Sending.


def test_data_arrives_after_the_latency_of_both_links() -> None:
    town = Town()
    _, bob = pair(town)
    town.order("alice", SendData(1, b"hello"))
    town.engine.run_until(2 * SECOND)
    assert bob.heard == [(SECOND + ONE_WAY, DataReceived(2, b"hello"))]


def test_a_stream_joins_what_is_written_at_once_and_a_websocket_does_not() -> None:
    for target, expected in ((BOB, [b"onetwo"]), (WEB, [b"one", b"two"])):
        town = Town()
        _, bob = pair(town, target)
        town.order("alice", SendData(1, b"one"), SendData(1, b"two"))
        town.engine.run_until(2 * SECOND)
        assert [event.data for _, event in bob.heard if isinstance(event, DataReceived)] == expected


def test_a_stream_is_cut_at_places_that_follow_from_the_seed() -> None:
    def pieces(seed: int) -> list[tuple[Instant, int]]:
        town = Town(seed, cut_chance=0.5)
        _, bob = pair(town)
        town.order("alice", SendData(1, bytes(range(256)) * 40))
        town.engine.run_until(2 * SECOND)
        assert bob.data == bytes(range(256)) * 40
        return arrivals(bob)

    assert pieces(1) == pieces(1) != pieces(2)
    assert max(size for _, size in pieces(1)) <= 1460
    assert len(pieces(1)) > 10_240 // 1460 + 1


def test_an_uplink_serves_one_packet_after_the_other() -> None:
    town = Town()
    link = Link(latency=10 * MILLISECOND, uplink_bytes_per_second=ONE_MEGABYTE_A_SECOND)
    _, bob = pair(town, alice_link=link)
    # 1460 bytes and a header of 40 take 1.5 ms at 1 MB/s.
    town.order("alice", SendData(1, bytes(2 * 1460 + 460)))
    town.engine.run_until(2 * SECOND)
    assert arrivals(bob) == [(21_500, 1460), (23_000, 1460), (23_500, 460)]


def test_a_downlink_that_is_slower_than_the_uplink_makes_a_queue() -> None:
    town = Town()
    alice_link = Link(latency=10 * MILLISECOND, uplink_bytes_per_second=ONE_MEGABYTE_A_SECOND)
    bob_link = Link(latency=10 * MILLISECOND, downlink_bytes_per_second=ONE_MEGABYTE_A_SECOND // 2)
    _, bob = pair(town, alice_link=alice_link, bob_link=bob_link)
    town.order("alice", SendData(1, bytes(2 * 1460)))
    town.engine.run_until(2 * SECOND)
    assert arrivals(bob) == [(24_500, 1460), (27_500, 1460)]


def test_connections_of_one_host_share_its_uplink() -> None:
    town = Town()
    _, bob = pair(town, alice_link=Link(latency=10 * MILLISECOND, uplink_bytes_per_second=ONE_MEGABYTE_A_SECOND))
    _, carol = town.add("carol", "10.0.0.3", ports=(80,))
    town.order("alice", Connect(3, Address("10.0.0.3", 80)))
    town.engine.run_until(2 * SECOND)
    town.order("alice", SendData(1, bytes(960)), SendData(3, bytes(960)))
    town.engine.run_until(3 * SECOND)
    assert arrivals(bob) == [(SECOND + 21_000, 960)]
    assert arrivals(carol) == [(SECOND + 22_000, 960)]


def test_a_whole_message_is_there_when_its_last_packet_is() -> None:
    town = Town()
    link = Link(latency=10 * MILLISECOND, uplink_bytes_per_second=ONE_MEGABYTE_A_SECOND)
    _, bob = pair(town, WEB, alice_link=link)
    # 2912 bytes, 8 of WebSocket header and two packet headers of 40 are 3000 bytes.
    town.order("alice", SendText(1, bytes(2912)))
    town.engine.run_until(2 * SECOND)
    assert arrivals(bob) == [(23_000, 2912)]


def test_jitter_delays_within_its_bounds_and_never_reorders() -> None:
    town = Town()
    _, bob = pair(town, alice_link=Link(latency=10 * MILLISECOND, jitter=30 * MILLISECOND))
    for turn in range(100):
        town.order("alice", SendData(1, bytes([turn])))
        town.engine.run_until(town.engine.now + MILLISECOND)
    town.engine.run_until(3 * SECOND)
    assert bob.data == bytes(range(100))
    delays = [at - turn * MILLISECOND for turn, (at, _) in enumerate(arrivals(bob))]
    assert min(delays) >= ONE_WAY
    assert max(delays) <= ONE_WAY + 30 * MILLISECOND
    assert len(set(delays)) > 10


def test_loss_delays_by_retransmission_timeouts_that_double_and_loses_nothing() -> None:
    town = Town(seed=4)
    _, bob = pair(town, alice_link=Link(latency=10 * MILLISECOND, loss=0.5))
    for turn in range(60):
        # So far apart that nobody waits for a packet before it.
        town.order("alice", SendData(1, bytes([turn])))
        town.engine.run_until(town.engine.now + 1000 * SECOND)
    assert bob.data == bytes(range(60))
    delays = {(at - ONE_WAY) % (1000 * SECOND) for at, _ in arrivals(bob)}
    allowed = {200 * MILLISECOND * (2**lost - 1) for lost in range(12)}
    assert {0, 200 * MILLISECOND, 600 * MILLISECOND} <= delays <= allowed


def test_pings_are_answered_by_the_network_and_reported_to_both() -> None:
    town = Town()
    alice, bob = pair(town, WEB)
    town.order("alice", SendPing(1))
    town.engine.run_until(2 * SECOND)
    assert bob.heard == [(SECOND + ONE_WAY, PingReceived(2))]
    assert alice.of(PongReceived) == [(SECOND + 2 * ONE_WAY, PongReceived(1))]


def test_a_tap_sees_every_byte_before_it_is_cut() -> None:
    town = Town(cut_chance=1.0)
    pair(town)
    seen: list[Traffic] = []
    town.network.taps.append(seen.append)
    town.order("alice", SendData(1, bytes(5000)))
    town.order("bob", SendData(2, b"thanks"))
    assert seen == [
        Traffic(SECOND, "alice", "bob", 1, False, bytes(5000), Address("10.0.0.1", 49_152), BOB, True),
        Traffic(SECOND, "bob", "alice", 1, False, b"thanks", Address("10.0.0.1", 49_152), BOB, False),
    ]


# Closing.


def test_a_close_travels_behind_the_data_and_is_heard_once() -> None:
    town = Town()
    alice, bob = pair(town)
    town.order("alice", SendData(1, b"last words"), CloseConnection(1, "done"))
    town.order("bob", SendData(2, b"too late"))
    town.engine.run_until(10 * SECOND)
    assert bob.heard[1:] == [
        (SECOND + ONE_WAY, DataReceived(2, b"last words")),
        (SECOND + ONE_WAY, ConnectionClosed(2, "closed by the other side")),
    ]
    assert len(alice.heard) == 1


def test_a_websocket_says_why_it_was_closed() -> None:
    town = Town()
    _, bob = pair(town, WEB)
    town.order("alice", CloseConnection(1, "replaced"))
    town.engine.run_until(2 * SECOND)
    assert bob.heard == [(SECOND + ONE_WAY, ConnectionClosed(2, "closed by the other side: replaced"))]


def test_when_both_close_at_once_nobody_hears_of_it() -> None:
    town = Town()
    alice, bob = pair(town)
    town.order("alice", CloseConnection(1, ""))
    town.order("bob", CloseConnection(2, ""))
    town.engine.run_until(2 * SECOND)
    assert not alice.of(ConnectionClosed)
    assert not bob.of(ConnectionClosed)


# What a scenario can get wrong.


def test_a_network_that_cannot_be_is_refused() -> None:
    town = Town()
    with pytest.raises(NetworkError, match="a segment 'town' already"):
        town.network.add_segment("town", discovery=True)
    machine = Machine("alice")
    with pytest.raises(NetworkError, match="no segment 'twon', only town"):
        town.network.attach(machine, "twon", "10.0.0.1", QUIET)
    town.network.attach(machine, "town", "10.0.0.1", QUIET)
    with pytest.raises(NetworkError, match="attached to 'town' already"):
        town.network.attach(machine, "town", "10.0.0.2", QUIET)
    with pytest.raises(NetworkError, match=r"10\.0\.0\.1 is taken by alice"):
        town.network.attach(Machine("bob"), "town", "10.0.0.1", QUIET)


def test_a_link_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="loss is a chance"):
        Link(loss=1.0)
    with pytest.raises(ValueError, match="not negative"):
        Link(latency=-1)


def test_a_queue_rounds_up_to_the_next_microsecond() -> None:
    way, rate = Way(), 3 * ONE_MEGABYTE_A_SECOND
    assert way.passes_at(0, 1, rate) == 1
    assert way.passes_at(0, 3, rate) == 2
    assert way.passes_at(100, 3000, rate) == 1100


def test_one_more_pair_of_hosts_disturbs_no_other() -> None:
    def pieces(*, others: bool) -> list[tuple[Instant, int]]:
        town = Town(cut_chance=0.5)
        if others:
            town.add("dave", "10.0.0.4", obey)
            town.add("erin", "10.0.0.5", obey, ports=(80,))
            town.order("dave", Connect(1, Address("10.0.0.5", 80)))
        _, bob = pair(town, alice_link=Link(jitter=50 * MILLISECOND, loss=0.2))
        if others:
            town.order("dave", SendData(1, bytes(9000)))
        town.order("alice", SendData(1, bytes(9000)))
        town.engine.run_until(200 * SECOND)
        return arrivals(bob)

    assert pieces(others=True) == pieces(others=False)
