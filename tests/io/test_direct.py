"""The UDP sockets of a node on loopback: datagrams, sockets on request, QUIC on any of them, changes of network."""

import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest
import trio
import trio.testing

from teale_io.connections import Connections
from teale_io.direct import CALLED_MAX, DirectSockets, bind_direct
from teale_io.runner import Runner
from teale_proto.effects import (
    CloseConnection,
    CloseSockets,
    Connect,
    DirectTarget,
    ExpectPeer,
    OpenSockets,
    SendData,
    SendDatagram,
)
from teale_proto.inputs import (
    Address,
    ConnectFailed,
    ConnectionAccepted,
    ConnectionClosed,
    ConnectionOpened,
    DatagramReceived,
    DataReceived,
    SocketsOpened,
)
from teale_proto.secure.identity import Identity

from .journal import DEADLINE_SECONDS, Do, Journal
from .quic.pair import ALICE, BOB
from .quic.test_hostile import initial

T = TypeVar("T")
V4, V6 = "127.0.0.1", "::1"
STUN = b"\x00\x01\x00\x00!\x12\xa4B" + b"t" * 12
PROBE = b"\x08 a probe"
IP_RECVTTL = 12
"""Linux's; Python names it from 3.14 on."""
needs_ipv6 = pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="needs IPv6")


class Node:
    """A journal with sockets and connections around it."""

    def __init__(
        self, nursery: trio.Nursery, identity: Identity, *, hosts: Sequence[str] = (V4,), **options: Any
    ) -> None:
        self.journal = Journal()
        self.identity = identity
        self._hosts = hosts
        self._runner: Runner[Any, Any] = Runner(self.journal, ())
        self._given = options.pop("socks", None)
        self.direct = DirectSockets(
            self._runner.feed, identity, bind_direct(0) if self._given is None else self._given, **options
        )
        self.connections = Connections(
            feed=self._runner.feed, nursery=nursery, dialers={DirectTarget: self.direct.dial}
        )
        self._runner.perform_with({**self.connections.performers, **self.direct.performers})

    async def start(self, nursery: trio.Nursery) -> "Node":
        nursery.start_soon(self._runner.run)
        await nursery.start(self.direct.run, self.connections)
        self.locals = self.direct.moved(self._hosts)
        return self

    @property
    def local(self) -> Address:
        return self.locals[0]

    def do(self, *effects: Any) -> None:
        self._runner.feed(Do(*effects))

    async def next(self, kind: type[T]) -> T:
        return await self.journal.next(kind)

    async def open(self, count: int, host: str = V4) -> tuple[Address, ...]:
        self.do(OpenSockets(7, host, count))
        opened = await self.next(SocketsOpened)
        assert opened.request == 7
        return tuple(Address(host, port) for port in opened.ports)


@asynccontextmanager
async def nodes(**options: Any) -> AsyncIterator[tuple[Node, Node]]:
    """Alice and Bob."""
    with trio.fail_after(3 * DEADLINE_SECONDS):
        async with trio.open_nursery() as nursery:
            yield (
                await Node(nursery, ALICE, **options).start(nursery),
                await Node(nursery, BOB, **options).start(nursery),
            )
            nursery.cancel_scope.cancel()


async def talk(dialler: Node, local: Address, other: Node, remote: Address, number: int = 1) -> ConnectionAccepted:
    """Open a stream between two sockets, and say something in both directions."""
    dialler.do(Connect(number, DirectTarget(other.identity.node_id, local, remote)))
    assert await dialler.next(ConnectionOpened) == ConnectionOpened(number)
    dialler.do(SendData(number, b"there"))
    accepted = await other.next(ConnectionAccepted)
    assert (accepted.local, accepted.remote, accepted.direct) == (remote, local, True)
    assert await other.journal.data(accepted.connection, 5) == b"there"
    other.do(SendData(accepted.connection, b"and back"))
    assert await dialler.journal.data(number, 8) == b"and back"
    return accepted


# Datagrams.


@pytest.mark.parametrize("host", [V4, pytest.param(V6, marks=needs_ipv6)])
async def test_datagrams_go_both_ways_between_the_names_that_the_network_has_for_the_sockets(host: str) -> None:
    async with nodes(hosts=(host,)) as (alice, bob):
        assert alice.local.host == host
        alice.do(SendDatagram(alice.local, bob.local, STUN))
        assert await bob.next(DatagramReceived) == DatagramReceived(bob.local, alice.local, STUN)
        bob.do(SendDatagram(bob.local, alice.local, PROBE))
        assert await alice.next(DatagramReceived) == DatagramReceived(alice.local, bob.local, PROBE)


@needs_ipv6
async def test_each_ip_version_has_its_socket_and_ipv4_comes_first() -> None:
    async with nodes(hosts=(V4, V6)) as (alice, bob):
        assert [each.host for each in alice.locals] == [V4, V6]
        for ours, theirs in zip(alice.locals, bob.locals, strict=True):
            alice.do(SendDatagram(ours, theirs, PROBE))
            assert await bob.next(DatagramReceived) == DatagramReceived(theirs, ours, PROBE)


@pytest.mark.skipif(sys.platform != "linux", reason="needs to be told of hop limits by the system")
async def test_a_datagram_has_its_own_hop_limit_and_the_next_one_the_systems() -> None:
    async with nodes() as (alice, _):
        [opened] = await alice.open(1)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.bind((V4, 0))
            stranger.setsockopt(socket.IPPROTO_IP, IP_RECVTTL, 1)
            stranger.settimeout(DEADLINE_SECONDS)
            there = Address(*stranger.getsockname())
            usual = None
            for local in (alice.local, opened):
                limits: list[int] = []
                for hop_limit in (3, None):
                    alice.do(SendDatagram(local, there, PROBE, hop_limit))
                    _, ancillary, _, _ = await trio.to_thread.run_sync(stranger.recvmsg, 100, 100)
                    limits.append(int.from_bytes(ancillary[0][2], sys.byteorder))
                assert limits[0] == 3
                usual = usual or limits[1]
                assert limits[1] == usual > 3


async def test_what_cannot_be_sent_is_lost_and_nothing_else_happens() -> None:
    async with nodes() as (alice, bob):
        for local, remote in (
            (alice.local, Address(V6, 9)),
            (alice.local, Address("203.0.113.1", 0)),
            (Address(V4, 1), bob.local),
            (Address("192.0.2.1", 5), bob.local),
        ):
            alice.do(SendDatagram(local, remote, PROBE))
        alice.do(SendDatagram(alice.local, bob.local, bytes(70_000)))
        alice.do(SendDatagram(alice.local, bob.local, PROBE))
        assert (await bob.next(DatagramReceived)).data == PROBE


async def test_datagrams_that_look_like_quic_do_not_reach_the_core() -> None:
    async with nodes() as (alice, bob):
        [opened] = await bob.open(1)
        for there in (bob.local, opened):
            for first in (0x40, 0x80, 0xC0, 0xFF):
                alice.do(SendDatagram(alice.local, there, bytes([first]) * 1300))
            alice.do(SendDatagram(alice.local, there, PROBE))
            assert await bob.next(DatagramReceived) == DatagramReceived(there, alice.local, PROBE)


# Sockets on request.


async def test_sockets_are_opened_and_closed_on_request() -> None:
    async with nodes() as (alice, bob):
        opened = await alice.open(5)
        assert len(set(opened)) == 5
        assert alice.local not in opened
        for each in opened:
            alice.do(SendDatagram(each, bob.local, PROBE))
            assert (await bob.next(DatagramReceived)).remote == each
            bob.do(SendDatagram(bob.local, each, STUN))
            assert await alice.next(DatagramReceived) == DatagramReceived(each, bob.local, STUN)
        alice.do(CloseSockets(V4, tuple(each.port for each in opened[1:])))
        assert alice.direct.on_request == 1
        alice.do(CloseSockets(V4, (opened[0].port, opened[0].port, alice.local.port)))
        assert alice.direct.on_request == 0
        alice.do(SendDatagram(opened[0], bob.local, PROBE), SendDatagram(alice.local, bob.local, STUN))
        assert await bob.next(DatagramReceived) == DatagramReceived(bob.local, alice.local, STUN)


async def test_no_more_sockets_are_opened_than_are_allowed_and_none_where_the_address_is_not_ours() -> None:
    async with nodes(sockets_max=10) as (alice, _):
        assert len(await alice.open(6)) == 6
        assert len(await alice.open(6)) == 4
        assert await alice.open(1) == ()
    async with nodes() as (alice, _):
        assert await alice.open(3, "203.0.113.7") == ()
        assert alice.direct.on_request == 0


async def test_without_sockets_every_wish_is_answered_with_nothing() -> None:
    async with nodes(socks=()) as (alice, bob):
        assert alice.locals == ()
        assert await alice.open(3) == ()
        alice.do(SendDatagram(Address(V4, 9), Address(V4, 10), PROBE), CloseSockets(V4, (9,)))
        alice.do(Connect(1, DirectTarget(bob.identity.node_id, Address(V4, 9), Address(V4, 10))))
        assert await alice.next(ConnectFailed) == ConnectFailed(1, "the socket that was to be dialled from is no more")


async def test_a_socket_that_nobody_uses_is_closed_by_itself() -> None:
    async with nodes(idle_seconds=0.2) as (alice, bob):
        spoken, _ = await alice.open(2)
        await talk(alice, spoken, bob, bob.local)
        while alice.direct.on_request > 1:
            await trio.sleep(0.01)
        alice.do(SendData(1, b"still there"))


# QUIC.


async def test_a_stream_is_opened_between_the_first_sockets() -> None:
    async with nodes() as (alice, bob):
        await talk(alice, alice.local, bob, bob.local)


async def test_a_stream_is_opened_between_any_two_sockets() -> None:
    async with nodes() as (alice, bob):
        ours, theirs = await alice.open(4), await bob.open(4)
        await talk(alice, ours[2], bob, theirs[1])
        alice.do(CloseSockets(V4, tuple(each.port for each in ours if each != ours[2])))
        bob.do(CloseSockets(V4, tuple(each.port for each in theirs if each != theirs[1])))
        assert (alice.direct.on_request, bob.direct.on_request) == (1, 1)
        # What is not QUIC still goes through the same sockets.
        alice.do(SendDatagram(ours[2], theirs[1], PROBE))
        assert await bob.next(DatagramReceived) == DatagramReceived(theirs[1], ours[2], PROBE)
        bob.do(SendDatagram(theirs[1], ours[2], STUN))
        assert await alice.next(DatagramReceived) == DatagramReceived(ours[2], theirs[1], STUN)


async def test_both_sides_dial_each_other_from_one_socket() -> None:
    async with nodes() as (alice, bob):
        await talk(alice, alice.local, bob, bob.local)
        await talk(bob, bob.local, alice, alice.local)


async def test_a_socket_that_is_closed_ends_the_streams_on_it() -> None:
    async with nodes() as (alice, bob):
        [ours] = await alice.open(1)
        await talk(alice, ours, bob, bob.local)
        alice.do(CloseSockets(V4, (ours.port,)))
        assert (await alice.next(ConnectionClosed)).connection == 1
        await bob.next(ConnectionClosed)
        assert alice.direct.on_request == 0


async def test_a_closed_connection_leaves_the_socket_as_it_was() -> None:
    async with nodes() as (alice, bob):
        accepted = await talk(alice, alice.local, bob, bob.local)
        alice.do(CloseConnection(1, "done"))
        assert (await bob.next(ConnectionClosed)).connection == accepted.connection
        await talk(alice, alice.local, bob, bob.local, number=3)


async def test_a_dial_to_another_address_of_a_node_is_not_answered_with_the_former_connection() -> None:
    async with nodes() as (alice, bob):
        await talk(alice, alice.local, bob, bob.local)
        [theirs] = await bob.open(1)
        await talk(alice, alice.local, bob, theirs, number=3)


@pytest.mark.parametrize("is_expected", [False, True])
@pytest.mark.parametrize("on_request", [False, True])
async def test_who_is_expected_need_not_show_again_where_he_is(on_request: bool, is_expected: bool) -> None:
    async with nodes() as (alice, bob):
        theirs = (await bob.open(1))[0] if on_request else bob.local
        if is_expected:
            bob.do(ExpectPeer(theirs, alice.local))
        await talk(alice, alice.local, bob, theirs)
        assert (bob.direct.retried == 0) == is_expected


async def test_the_wrong_node_is_a_failed_dial() -> None:
    async with nodes() as (alice, bob):
        alice.do(Connect(1, DirectTarget(ALICE.node_id, alice.local, bob.local)))
        assert (await alice.next(ConnectFailed)).reason == "another node than the one that was dialled answered"


async def test_strangers_can_have_only_so_many_sockets_speak_quic() -> None:
    async with nodes() as (alice, bob):
        opened = await bob.open(CALLED_MAX + 4)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            for each in opened:
                stranger.sendto(initial(b"d" * 8), (each.host, each.port))
        for each in opened:
            alice.do(SendDatagram(alice.local, each, PROBE))
            assert (await bob.next(DatagramReceived)).local == each
        assert sum(each.was_called for each in bob.direct._speaking.values()) == CALLED_MAX
        # Whoever dials from one is not a stranger.
        await talk(bob, opened[-1], alice, alice.local)


# The network.


async def test_without_a_network_nothing_goes_in_or_out_and_it_comes_back_under_the_same_port() -> None:
    async with nodes() as (alice, bob):
        before = alice.local
        await alice.open(2)
        assert alice.direct.moved(()) == ()
        assert alice.direct.on_request == 0
        alice.do(SendDatagram(before, bob.local, STUN))
        assert alice.direct.moved((V4,)) == (before,)
        alice.do(SendDatagram(before, bob.local, PROBE))
        assert (await bob.next(DatagramReceived)).data == PROBE


@pytest.mark.skipif(sys.platform != "linux", reason="needs all of 127/8")
async def test_a_stream_goes_on_where_the_network_has_given_us_another_address() -> None:
    async with nodes() as (alice, bob):
        accepted = await talk(alice, alice.local, bob, bob.local)
        [moved] = alice.direct.moved(("127.0.0.2",))
        assert moved == Address("127.0.0.2", alice.local.port)
        alice.do(SendData(1, b"from elsewhere"))
        assert await bob.journal.data(accepted.connection, 14) == b"from elsewhere"
        assert not [event for event in bob.journal.inputs if isinstance(event, DataReceived | ConnectionClosed)]
