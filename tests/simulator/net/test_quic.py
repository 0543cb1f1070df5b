"""Streams over datagrams between two hosts behind NATs, and what becomes of them when the world does its worst."""

import os
import subprocess
import sys

import pytest

from simulator.events import Crash
from simulator.net.link import Link
from simulator.net.medium import Block
from simulator.net.nat import Allocation, NatKind
from simulator.net.quic_end import HANDSHAKE_TIMEOUT, IDLE_TIMEOUT, KEEP_ALIVE
from simulator.net.quic_packets import decode, encode_long, encode_short
from teale_proto.contract import MILLISECOND, SECOND
from teale_proto.effects import (
    CloseConnection,
    CloseSockets,
    Connect,
    DirectTarget,
    OpenSockets,
    SendData,
    SendDatagram,
)
from teale_proto.inputs import (
    Address,
    ConnectFailed,
    ConnectionAccepted,
    ConnectionOpened,
    DatagramReceived,
    DataReceived,
    NodeId,
    SocketsOpened,
)
from teale_proto.nat.kinds import Filtering, Mapping
from tests.simulator.net.quic_town import ALICE, BOB, LINE, PORT, QuicTown

LOSSY = Link(latency=10_000, jitter=3_000, loss=0.05)
SLOW = Link(latency=10_000, uplink_bytes_per_second=125_000, downlink_bytes_per_second=1_250_000, buffer_bytes=144_000)
LETTERS = bytes(range(256)) * 2000
OPEN_TO_ALL = NatKind(filtering=Filtering.ENDPOINT_INDEPENDENT)


def test_a_stream_opens_in_one_round_trip_and_is_accepted_half_of_one_later() -> None:
    town = QuicTown()
    town.punch()
    began = town.now
    assert town.dial()
    ((opened_at, _),) = town.diaries[ALICE].of(ConnectionOpened)
    ((accepted_at, accepted),) = town.diaries[BOB].of(ConnectionAccepted)
    assert (opened_at - began, accepted_at - began) == (40 * MILLISECOND, 60 * MILLISECOND)
    assert accepted == ConnectionAccepted(2, town.outside(ALICE), town.local(BOB), "", direct=True)
    town.say(ALICE, b"hello")
    town.say(BOB, b"welcome")
    town.run(SECOND)
    assert (town.data(BOB), town.data(ALICE)) == (b"hello", b"welcome")
    assert not town.misused


def test_without_a_punch_the_filter_of_the_other_side_lets_nothing_in() -> None:
    town = QuicTown()
    assert not town.dial(within=HANDSHAKE_TIMEOUT)
    ((_, failed),) = town.diaries[ALICE].of(ConnectFailed)
    assert failed == ConnectFailed(1, "timed out")
    assert not town.diaries[BOB].heard


def test_another_node_than_the_expected_one_is_turned_away() -> None:
    town = QuicTown()
    town.punch()
    assert not town.dial(node="carol")
    ((_, failed),) = town.diaries[ALICE].of(ConnectFailed)
    assert failed == ConnectFailed(1, "another node than the expected one answered")
    assert not town.accepted()


@pytest.mark.parametrize("line", [LINE, LOSSY, SLOW], ids=["calm", "lossy", "slow"])
@pytest.mark.parametrize("cut_chance", [0.0, 0.25])
def test_everything_arrives_once_and_in_order(line: Link, cut_chance: float) -> None:
    town = QuicTown(line=line, cut_chance=cut_chance)
    town.meet()
    for at in range(0, len(LETTERS), 64_000):
        town.say(ALICE, LETTERS[at : at + 64_000])
        town.say(BOB, LETTERS[at : at + 64_000][::-1])
        town.run(300 * MILLISECOND)
    town.run(60 * SECOND)
    assert town.data(BOB) == LETTERS
    assert len(town.data(ALICE)) == len(LETTERS)
    assert not town.closed(ALICE)
    assert not town.closed(BOB)


def test_reordering_copies_and_damage_are_repaired() -> None:
    town = QuicTown(line=Link(latency=10_000, reordering=0.2, duplication=0.1, corruption=0.05))
    town.punch()
    assert town.dial(within=10 * SECOND)
    for at in range(0, len(LETTERS), 16_000):
        town.say(ALICE, LETTERS[at : at + 16_000])
        town.run(100 * MILLISECOND)
    town.run(60 * SECOND)
    assert town.data(BOB) == LETTERS


def test_a_line_is_filled_and_not_flooded() -> None:
    town = QuicTown(line=SLOW)
    town.meet()
    began, sent = town.now, town.world.network.datagrams.sent
    town.say(ALICE, LETTERS)
    town.run(30 * SECOND)
    assert town.data(BOB) == LETTERS
    last_at = town.diaries[BOB].of(DataReceived)[-1][0]
    # A megabit a second takes 4.1 s for 512 kB, and headers, slow start and a lost window take their part.
    assert 4.1 * SECOND < last_at - began < 6 * SECOND
    segments = len(LETTERS) / 1142
    assert town.world.network.datagrams.sent - sent < 1.75 * segments


def test_an_answer_in_the_same_instant_carries_the_acknowledgement() -> None:
    town = QuicTown()
    town.meet()
    sent = town.world.network.datagrams.sent
    town.say(ALICE, b"a")
    town.say(ALICE, b"b")
    town.run(SECOND)
    # What is said in one instant is one packet; nobody has anything to say to it, so another acknowledges it.
    assert town.world.network.datagrams.sent - sent == 2


def test_closing_delivers_what_was_said_before_even_where_packets_are_lost() -> None:
    town = QuicTown(line=LOSSY)
    town.meet()
    town.order(ALICE, SendData(1, LETTERS[:30_000]), CloseConnection(1, "done"))
    town.run(5 * SECOND)
    assert town.data(BOB) == LETTERS[:30_000]
    assert town.closed(BOB) == ["closed by the other side"]
    assert town.closed(ALICE) == []


def test_a_host_that_stops_says_so_and_one_that_dies_is_missed_after_the_idle_timeout() -> None:
    for stops in (True, False):
        town = QuicTown()
        town.meet()
        began = town.now
        bob = town.world.hosts[BOB]
        if stops:
            bob.stop()
        else:
            bob.crash(Crash.RESET)
        town.run(SECOND)
        assert town.closed(ALICE) == (["closed by the other side"] if stops else [])
        town.run(IDLE_TIMEOUT)
        assert town.closed(ALICE) == ["closed by the other side" if stops else "timed out"]
        assert town.now - began == SECOND + IDLE_TIMEOUT


def test_silence_is_bridged_by_signs_of_life_that_keep_the_mappings_too() -> None:
    town = QuicTown(alice=(NatKind(lifetime=45 * SECOND),), bob=(NatKind(lifetime=45 * SECOND),))
    town.meet()
    sent = town.world.network.datagrams.sent
    town.run(20 * KEEP_ALIVE)
    assert 40 <= town.world.network.datagrams.sent - sent <= 90
    town.say(BOB, b"still there")
    town.run(SECOND)
    assert town.data(ALICE) == b"still there"


def test_a_server_in_the_open_follows_its_client_when_a_nat_gives_it_another_address() -> None:
    town = QuicTown(alice=(NatKind(allocation=Allocation.RANDOM),), bob=())
    town.punch()
    assert town.dial()
    town.world.rebind_nat("alice's", at=town.now)
    town.say(ALICE, b"from elsewhere")
    town.run(SECOND)
    assert town.data(BOB) == b"from elsewhere"
    town.say(BOB, b"I see")
    town.run(SECOND)
    assert town.data(ALICE) == b"I see"


def test_a_client_does_not_follow_its_server() -> None:
    town = QuicTown(alice=(OPEN_TO_ALL,), bob=(OPEN_TO_ALL,))
    town.meet()
    town.world.rebind_nat("bob's", at=town.now)
    town.say(BOB, b"from elsewhere")
    town.run(SECOND)
    assert town.data(ALICE) == b""
    town.run(2 * IDLE_TIMEOUT)
    assert town.closed(ALICE) == ["timed out"]


def test_behind_filters_neither_side_survives_a_new_address() -> None:
    town = QuicTown()
    town.meet()
    town.world.rebind_nat("alice's", at=town.now)
    town.say(ALICE, b"lost")
    town.run(2 * IDLE_TIMEOUT)
    assert town.closed(ALICE) == town.closed(BOB) == ["timed out"]
    assert town.data(BOB) == b""


def test_a_reboot_of_a_nat_that_keeps_ports_is_survived_where_the_inside_speaks_first() -> None:
    town = QuicTown()
    town.meet()
    town.world.reboot_nat("alice's", at=town.now)
    town.run(MILLISECOND)
    town.say(ALICE, b"mapped again")
    town.run(SECOND)
    assert town.data(BOB) == b"mapped again"


def test_a_partition_is_survived_and_what_was_said_in_it_arrives() -> None:
    town = QuicTown()
    town.meet()
    block = Block(frozenset({ALICE}), frozenset({BOB}))
    town.world.network.block(block)
    town.say(ALICE, b"later")
    town.run(20 * SECOND)
    assert town.data(BOB) == b""
    town.world.network.unblock(block)
    town.run(20 * SECOND)
    assert town.data(BOB) == b"later"


def test_a_host_that_moved_sends_from_where_it_is_and_an_open_server_follows() -> None:
    town = QuicTown(bob=(OPEN_TO_ALL,))
    town.meet()
    cafe = town.world.add_site("cafe", (NatKind(),), LINE)
    town.world.move(ALICE, cafe, at=town.now)
    town.run(MILLISECOND)
    town.say(ALICE, b"from the cafe")
    town.run(SECOND)
    town.say(BOB, b"enjoy")
    town.run(SECOND)
    assert (town.data(BOB), town.data(ALICE)) == (b"from the cafe", b"enjoy")


def test_a_host_that_came_back_knows_nothing_of_what_was() -> None:
    town = QuicTown()
    town.meet()
    bob = town.world.hosts[BOB]
    bob.crash(Crash.RESET)
    bob.start()
    heard = len(town.diaries[BOB].heard)
    town.say(ALICE, b"hello?")
    town.run(2 * IDLE_TIMEOUT)
    assert len(town.diaries[BOB].heard) == heard
    assert town.closed(ALICE) == ["timed out"]


# Sockets.


def test_sockets_are_opened_up_to_what_the_system_allows_and_hear_only_while_they_are_open() -> None:
    town = QuicTown(bob=())
    carol = town.add("carol", town.homes[BOB], opened_max=4)
    town.order("carol", OpenSockets(7, carol.addresses[0], 10))
    town.run(MILLISECOND)
    ((_, opened),) = town.diaries["carol"].of(SocketsOpened)
    assert isinstance(opened, SocketsOpened)
    assert (opened.request, len(opened.ports)) == (7, 3)
    first, second, third = opened.ports
    town.order("carol", CloseSockets(carol.addresses[0], (first, third)))
    for port in (first, second, PORT, 9):
        town.order(ALICE, _cast(town, Address(carol.addresses[0], port)))
    town.run(SECOND)
    heard = [event.local.port for _, event in town.diaries["carol"].heard if isinstance(event, DatagramReceived)]
    assert heard == [second, PORT]
    assert not town.misused
    town.order("carol", CloseSockets(carol.addresses[0], (first, PORT)))
    assert len(town.misused) == 2


def test_a_stream_may_use_a_socket_that_was_opened_on_request_and_ends_with_it() -> None:
    town = QuicTown(bob=())
    town.order(ALICE, OpenSockets(1, town.local(ALICE).host, 1))
    town.run(MILLISECOND)
    ((_, opened),) = town.diaries[ALICE].of(SocketsOpened)
    assert isinstance(opened, SocketsOpened)
    local = town.local(ALICE, opened.ports[0])
    town.order(ALICE, Connect(1, DirectTarget(NodeId(BOB), local, town.local(BOB))))
    town.run(SECOND)
    assert town.accepted()[0].remote.port == opened.ports[0]
    town.order(ALICE, CloseSockets(local.host, opened.ports))
    town.say(ALICE, b"nothing leaves")
    town.run(2 * IDLE_TIMEOUT)
    assert town.data(BOB) == b""
    assert town.closed(ALICE) == ["timed out"]


def test_nothing_is_sent_from_a_port_without_a_socket() -> None:
    town = QuicTown()
    town.order(ALICE, _cast(town, town.outside(BOB), port=9))
    town.order(ALICE, Connect(1, DirectTarget(NodeId(BOB), town.local(ALICE, 9), town.outside(BOB))))
    assert [entry.host for entry in town.misused] == [ALICE, ALICE]


def test_what_may_pass_few_routers_opens_its_own_nat_and_does_not_arrive() -> None:
    town = QuicTown(bob=())
    town.order(ALICE, _cast(town, town.local(BOB), hop_limit=4))
    town.run(SECOND)
    assert not town.diaries[BOB].heard
    assert town.world.network.datagrams.expired == 1
    town.order(BOB, _cast(town, town.outside(ALICE), by=BOB))
    town.run(SECOND)
    assert len(town.diaries[ALICE].of(DatagramReceived)) == 1


def test_packets_survive_their_encoding_and_damage_is_noticed() -> None:
    from simulator.net.quic_packets import HELLO, LongPacket, ShortPacket

    hello = LongPacket(HELLO, 0, 7, "f" * 64)
    short = ShortPacket(1, 9, 3, ((5, 9), (0, 3)), 77, b"data")
    assert decode(encode_long(hello)) == hello
    assert len(encode_long(hello)) == 1200
    assert decode(encode_short(short)) == short
    damaged = bytearray(encode_short(short))
    damaged[20] ^= 4
    assert decode(bytes(damaged)) is None
    assert decode(b"") is None


def test_the_same_seed_gives_the_same_run_under_any_hash_seed() -> None:
    program = (
        "from tests.simulator.net.test_quic import *\n"
        "town = QuicTown(line=LOSSY, cut_chance=0.25); town.meet(); town.say(ALICE, LETTERS)\n"
        "town.run(20 * SECOND); print(town.world.trace.digest, town.world.engine.events)"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            timeout=60,
        ).stdout
        for seed in ("0", "4242")
    }
    assert len(outputs) == 1


def test_an_address_dependent_mapping_is_no_obstacle_to_a_stream_that_was_let_in() -> None:
    town = QuicTown(alice=(NatKind(mapping=Mapping.ADDRESS_AND_PORT_DEPENDENT, allocation=Allocation.RANDOM),), bob=())
    assert town.dial()


def _cast(
    town: QuicTown, to: Address, *, port: int = PORT, hop_limit: int | None = None, by: str = ALICE
) -> SendDatagram:
    return SendDatagram(town.local(by, port), to, b"\x08", hop_limit)
