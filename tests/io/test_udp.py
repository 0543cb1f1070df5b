"""UDP sockets on loopback: what comes in, what goes out, and by which of our addresses."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from teale_io.udp import DATAGRAM_BYTES_MAX, READS_PER_TURN, DatagramSockets
from teale_proto.effects import SendDatagram
from teale_proto.errors import LocalError
from teale_proto.inputs import Address, DatagramReceived

from .journal import DEADLINE_SECONDS

LOOPBACK = "127.0.0.1"
ANYWHERE = "0.0.0.0"
needs_ipv6 = pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="needs IPv6")


class Journal:
    """Remembers what came in, and wakes whoever waits for it."""

    def __init__(self) -> None:
        self.received: list[DatagramReceived] = []
        self.lot = trio.lowlevel.ParkingLot()

    def feed(self, event: DatagramReceived) -> None:
        self.received.append(event)
        self.lot.unpark_all()

    async def wait(self, count: int) -> list[DatagramReceived]:
        with trio.fail_after(DEADLINE_SECONDS):
            while len(self.received) < count:
                await self.lot.park()
        return self.received


@asynccontextmanager
async def running(*, pause_seconds: float = 0) -> AsyncIterator[tuple[DatagramSockets, Journal]]:
    journal = Journal()
    with DatagramSockets(journal.feed, pause_seconds=pause_seconds) as sockets:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sockets.run)
            yield sockets, journal
            nursery.cancel_scope.cancel()


def stranger(host: str = LOOPBACK) -> socket.socket:
    """Return a socket that is not ours."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((host, 0))
    sock.settimeout(DEADLINE_SECONDS)
    return sock


def name(sock: socket.socket) -> Address:
    return Address(*sock.getsockname()[:2])


@pytest.mark.parametrize("host", [LOOPBACK, pytest.param("::1", marks=needs_ipv6)])
async def test_a_datagram_is_an_input_and_its_answer_an_effect(host: str) -> None:
    async with running() as (sockets, journal):
        local = sockets.bind(Address(host, 0))
        with stranger(host) as other:
            other.sendto(b"hello", (local.host, local.port))
            assert await journal.wait(1) == [DatagramReceived(local, name(other), b"hello")]
            sockets.performers[SendDatagram](SendDatagram(local, name(other), b"good day"))
            data, came_from = other.recvfrom(100)
    assert (data, came_from[:2]) == (b"good day", (local.host, local.port))


@pytest.mark.parametrize("host", [LOOPBACK, "127.0.0.77", pytest.param("::1", marks=needs_ipv6)])
async def test_a_socket_at_all_addresses_answers_from_the_one_that_was_asked(host: str) -> None:
    async with running() as (sockets, journal):
        port = sockets.bind(Address("::" if ":" in host else ANYWHERE, 0)).port
        with stranger("::1" if ":" in host else LOOPBACK) as other:
            other.sendto(b"hello", (host, port))
            received = (await journal.wait(1))[0]
            assert received.local == Address(host, port)
            sockets.send(SendDatagram(received.local, received.remote, b"good day"))
            data, came_from = other.recvfrom(100)
    assert (data, came_from[:2]) == (b"good day", (host, port))


@needs_ipv6
async def test_both_versions_of_ip_share_a_port_number() -> None:
    async with running() as (sockets, journal):
        port = sockets.bind(Address(ANYWHERE, 0)).port
        sockets.bind(Address("::", port))
        with stranger() as four, stranger("::1") as six:
            four.sendto(b"4", (LOOPBACK, port))
            six.sendto(b"6", ("::1", port))
            received = await journal.wait(2)
    assert {each.local.host for each in received} == {LOOPBACK, "::1"}


async def test_a_port_that_is_taken_is_an_error() -> None:
    with DatagramSockets(lambda _: None) as sockets, stranger() as other, pytest.raises(OSError, match="in use"):
        sockets.bind(name(other))


async def test_names_are_not_looked_up_and_foreign_addresses_not_sent_from() -> None:
    with DatagramSockets(lambda _: None) as sockets:
        local = sockets.bind(Address(LOOPBACK, 0))
        with pytest.raises(LocalError, match="not to names"):
            sockets.send(SendDatagram(local, Address("localhost", 9), b""))
        with pytest.raises(LocalError, match="no socket"):
            sockets.send(SendDatagram(Address(LOOPBACK, local.port - 1), local, b""))


@pytest.mark.parametrize(
    "remote", [Address("::1", 9), Address(LOOPBACK, 0), Address("255.255.255.255", 9)], ids=["family", "port", "denied"]
)
async def test_what_cannot_be_sent_is_lost(remote: Address) -> None:
    with DatagramSockets(lambda _: None) as sockets:
        sockets.send(SendDatagram(sockets.bind(Address(LOOPBACK, 0)), remote, b"hello"))
        assert sockets.unsent == 1


async def test_what_is_too_long_to_be_sent_is_lost() -> None:
    with DatagramSockets(lambda _: None) as sockets:
        local = sockets.bind(Address(LOOPBACK, 0))
        sockets.send(SendDatagram(local, local, bytes(70_000)))
        assert sockets.unsent == 1


@pytest.mark.parametrize("host", [LOOPBACK, ANYWHERE])
async def test_what_is_too_long_to_be_read_is_dropped_and_the_next_one_is_not(host: str) -> None:
    async with running() as (sockets, journal):
        port = sockets.bind(Address(host, 0)).port
        with stranger() as other:
            other.sendto(bytes(DATAGRAM_BYTES_MAX + 1), (LOOPBACK, port))
            other.sendto(bytes(DATAGRAM_BYTES_MAX), (LOOPBACK, port))
            assert [len(each.data) for each in await journal.wait(1)] == [DATAGRAM_BYTES_MAX]


async def test_nobody_at_the_other_end_is_no_error_of_ours() -> None:
    async with running() as (sockets, journal):
        local = sockets.bind(Address(LOOPBACK, 0))
        with stranger() as other:
            gone = name(other)
        for _ in range(3):
            sockets.send(SendDatagram(local, gone, b"anybody?"))
        with stranger() as other:
            other.sendto(b"hello", (LOOPBACK, local.port))
            assert (await journal.wait(1))[0].data == b"hello"


@pytest.mark.parametrize("host", [LOOPBACK, pytest.param("::1", marks=needs_ipv6)])
async def test_a_hop_limit_holds_for_one_datagram(host: str) -> None:
    level, receive, kind = (
        (socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, socket.IPV6_HOPLIMIT)
        if ":" in host
        else (socket.IPPROTO_IP, socket.IP_RECVTTL if hasattr(socket, "IP_RECVTTL") else 12, socket.IP_TTL)
    )
    with DatagramSockets(lambda _: None) as sockets, stranger(host) as other:
        other.setsockopt(level, receive, 1)
        local = sockets.bind(Address(host, 0))
        limits = []
        for hop_limit in (3, None):
            sockets.send(SendDatagram(local, name(other), b"", hop_limit))
            _, ancillary, *_ = other.recvmsg(10, 100)
            limits += [int.from_bytes(data[:4], "little") for _, each, data in ancillary if each == kind]
    assert limits[0] == 3
    assert limits[1] > 3


async def test_a_flood_at_one_socket_leaves_the_others_their_turn() -> None:
    async with running() as (sockets, journal):
        loud, quiet = sockets.bind(Address(LOOPBACK, 0)), sockets.bind(Address(LOOPBACK, 0))
        with stranger() as other:
            for _ in range(2 * READS_PER_TURN):
                other.sendto(b"x", (loud.host, loud.port))
            other.sendto(b"me too", (quiet.host, quiet.port))
            received = await journal.wait(2 * READS_PER_TURN + 1)
    turn = [each.local for each in received[:READS_PER_TURN]]
    assert quiet in turn


async def test_after_a_full_turn_there_is_a_pause(autojump_clock: trio.testing.MockClock) -> None:
    async with running(pause_seconds=1000) as (sockets, journal):
        local = sockets.bind(Address(LOOPBACK, 0))
        with stranger() as other:
            for _ in range(READS_PER_TURN + 1):
                other.sendto(b"x", (local.host, local.port))
        began_at = trio.current_time()
        while len(journal.received) <= READS_PER_TURN:
            await journal.lot.park()
    assert trio.current_time() - began_at == 1000


async def test_a_socket_can_be_given_back_alone() -> None:
    async with running() as (sockets, journal):
        first, second = sockets.bind(Address(LOOPBACK, 0)), sockets.bind(Address(LOOPBACK, 0))
        sockets.unbind(first)
        assert sockets.bind(first) == first
        sockets.unbind(first)
        with stranger() as other:
            other.sendto(b"hello", (second.host, second.port))
            assert (await journal.wait(1))[0].local == second
