"""Hosts that die, and come back, and what the others notice of it."""

import pytest

from simulator.events import Crash
from simulator.net.connection import CONNECT_TIMEOUT
from simulator.net.link import Link
from simulator.net.network import RECORD_TTL
from teale_proto.contract import MILLISECOND, SECOND
from teale_proto.effects import Advertise, Connect, SendData, SendPing
from teale_proto.inputs import (
    Address,
    ConnectFailed,
    ConnectionClosed,
    ConnectionOpened,
    DataReceived,
    NodeId,
    ServiceFound,
    ServiceLost,
    ServiceRecord,
)
from tests.simulator.net.test_network import BOB, WEB, pair
from tests.simulator.toys import ONE_WAY, Town, obey

RECORD = ServiceRecord(NodeId("b" * 64), 80, ("model",))
NAME = "bob._teale._tcp.local."


def test_the_connections_of_a_process_that_dies_are_reset_after_a_round_trip() -> None:
    town = Town()
    alice, _ = pair(town)
    town.hosts["bob"].crash(Crash.RESET)
    town.engine.run_until(10 * SECOND)
    assert alice.heard == [(SECOND + 2 * ONE_WAY, ConnectionClosed(1, "connection reset"))]


def test_of_a_machine_that_loses_its_power_nobody_is_told() -> None:
    town = Town()
    alice, bob = pair(town)
    town.hosts["bob"].crash(Crash.VANISH)
    town.order("alice", SendData(1, b"anybody there?"))
    town.engine.run_until(1000 * SECOND)
    assert len(alice.heard) == 1
    assert bob.heard == []


@pytest.mark.parametrize(
    ("how", "reason", "after"),
    [(Crash.RESET, "connection refused", 2 * ONE_WAY), (Crash.VANISH, "timed out", CONNECT_TIMEOUT)],
)
def test_connecting_to_the_dead_is_refused_or_times_out(how: Crash, reason: str, after: int) -> None:
    town = Town()
    _, alice = town.add("alice", "10.0.0.1", obey)
    bob, _ = town.add("bob", "10.0.0.2", ports=(80,))
    bob.crash(how)
    town.order("alice", Connect(1, BOB))
    town.engine.run_until(20 * SECOND)
    assert alice.of(ConnectFailed) == [(after, ConnectFailed(1, reason))]


@pytest.mark.parametrize("how", list(Crash))
def test_a_host_that_dies_during_the_handshake_fails_it(how: Crash) -> None:
    town = Town()
    _, alice = town.add("alice", "10.0.0.1", obey)
    bob, _ = town.add("bob", "10.0.0.2", ports=(80,))
    town.order("alice", Connect(1, WEB))
    town.engine.run_until(30 * MILLISECOND)
    bob.crash(how)
    town.engine.run_until(20 * SECOND)
    ((at, failed),) = alice.of(ConnectFailed)
    if how is Crash.RESET:
        assert (at, failed) == (70 * MILLISECOND, ConnectFailed(1, "connection reset"))
    else:
        assert (at, failed) == (CONNECT_TIMEOUT, ConnectFailed(1, "timed out"))


def test_what_had_left_a_dead_host_arrives_and_what_had_not_never_does() -> None:
    town = Town()
    # 1500 bytes take 1.5 ms to leave.
    _, bob = pair(town, alice_link=Link(latency=10 * MILLISECOND, uplink_bytes_per_second=1_000_000))
    town.order("alice", SendData(1, bytes(10 * 1460)))
    town.engine.run_until(SECOND + 4 * MILLISECOND)
    town.hosts["alice"].crash(Crash.VANISH)
    town.engine.run_until(10 * SECOND)
    assert len(bob.data) == 2 * 1460


@pytest.mark.parametrize("target", [BOB, WEB])
def test_a_machine_that_came_back_resets_connections_that_it_does_not_know(target: Address) -> None:
    town = Town()
    alice, _ = pair(town, target)
    town.hosts["bob"].crash(Crash.VANISH)
    town.engine.run_until(2 * SECOND)
    town.hosts["bob"].start()
    town.engine.run_until(3 * SECOND)
    assert alice.heard == []
    town.order("alice", SendData(1, b"hello?") if target == BOB else SendPing(1))
    town.engine.run_until(4 * SECOND)
    assert alice.of(ConnectionClosed) == [(3 * SECOND + 2 * ONE_WAY, ConnectionClosed(1, "connection reset"))]


def test_a_new_life_begins_with_new_numbers_and_hears_nothing_of_the_old_one() -> None:
    town = Town()
    alice, bob = pair(town)
    town.order("alice", SendData(1, b"to the dead"))
    town.hosts["bob"].crash(Crash.RESET)
    town.hosts["bob"].start()
    town.order("alice", Connect(3, BOB))
    town.engine.run_until(2 * SECOND)
    assert alice.of(ConnectionOpened) == [(SECOND + 2 * ONE_WAY, ConnectionOpened(3))]
    assert bob.of(DataReceived) == []
    town.order("alice", SendData(3, b"to the living"))
    town.engine.run_until(3 * SECOND)
    assert bob.of(DataReceived) == [(2 * SECOND + ONE_WAY, DataReceived(2, b"to the living"))]


def test_a_host_that_stops_closes_its_connections() -> None:
    town = Town()
    alice, _ = pair(town)
    town.hosts["bob"].stop()
    town.engine.run_until(2 * SECOND)
    assert alice.heard == [(SECOND + ONE_WAY, ConnectionClosed(1, "closed by the other side"))]
    assert not town.hosts["bob"].alive


# Discovery.


def test_an_advertisement_is_found_by_everybody_on_the_segment_but_its_owner() -> None:
    town = Town()
    _, alice = town.add("alice", "10.0.0.1")
    _, bob = town.add("bob", "10.0.0.2", obey)
    town.order("bob", Advertise(RECORD))
    town.engine.run_until(SECOND)
    assert alice.heard == [(ONE_WAY, ServiceFound(NAME, RECORD, (BOB,)))]
    assert not bob.of(ServiceFound)


def test_a_host_that_comes_later_asks_what_there_is() -> None:
    town = Town()
    town.add("bob", "10.0.0.2", obey)
    town.order("bob", Advertise(RECORD))
    town.engine.run_until(SECOND)
    _, carol = town.add("carol", "10.0.0.3")
    town.engine.run_until(2 * SECOND)
    assert carol.heard == [(SECOND + 2 * ONE_WAY, ServiceFound(NAME, RECORD, (BOB,)))]


def test_without_discovery_nothing_is_found() -> None:
    town = Town(discovery=False)
    _, alice = town.add("alice", "10.0.0.1")
    town.add("bob", "10.0.0.2", obey)
    town.order("bob", Advertise(RECORD))
    town.engine.run_until(SECOND)
    assert alice.heard == []


def test_a_host_that_stops_withdraws_its_advertisement_at_once() -> None:
    town = Town()
    _, alice = town.add("alice", "10.0.0.1")
    bob, _ = town.add("bob", "10.0.0.2", obey)
    town.order("bob", Advertise(RECORD))
    town.engine.run_until(SECOND)
    bob.stop()
    town.engine.run_until(2 * SECOND)
    assert alice.of(ServiceLost) == [(SECOND + ONE_WAY, ServiceLost(NAME))]


@pytest.mark.parametrize("how", list(Crash))
def test_the_advertisement_of_a_dead_host_runs_out(how: Crash) -> None:
    town = Town()
    _, alice = town.add("alice", "10.0.0.1")
    bob, _ = town.add("bob", "10.0.0.2", obey)
    town.order("bob", Advertise(RECORD))
    town.engine.run_until(SECOND)
    bob.crash(how)
    town.engine.run_until(500 * SECOND)
    assert alice.of(ServiceLost) == [(SECOND + RECORD_TTL + ONE_WAY, ServiceLost(NAME))]


def test_the_advertisement_of_a_host_that_came_back_does_not_run_out() -> None:
    town = Town()
    _, alice = town.add("alice", "10.0.0.1")
    bob, _ = town.add("bob", "10.0.0.2", obey)
    town.order("bob", Advertise(RECORD))
    bob.crash(Crash.RESET)
    town.engine.run_until(SECOND)
    bob.start()
    town.order("bob", Advertise(ServiceRecord(RECORD.node, 81)))
    town.engine.run_until(500 * SECOND)
    assert len(alice.of(ServiceFound)) == 2
    assert not alice.of(ServiceLost)
