"""Two endpoints on loopback, and a network between them that a test can make worse."""

import random
import socket
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from teale_io.quic.connection import QuicConnection
from teale_io.quic.endpoint import Endpoint
from teale_io.quic.limits import DEFAULT, Limits
from teale_io.quic.stack import Stack
from teale_io.quic.stream import QuicStream
from teale_io.quic.udp import bind_udp
from teale_io.stream import address_of
from teale_proto.inputs import Address
from teale_proto.secure.identity import Identity

ALICE = Identity.from_seed(b"a" * 32)
BOB = Identity.from_seed(b"b" * 32)
CAROL = Identity.from_seed(b"c" * 32)
DEADLINE_SECONDS = 60
"""A safety net; nothing here waits for time to pass."""

PATTERN = bytes(range(256)) * 4096


class Side:
    """An endpoint and the connections that others have opened to it."""

    def __init__(
        self,
        nursery: trio.Nursery,
        identity: Identity,
        *,
        stack: Stack,
        limits: Limits = DEFAULT,
        host: str = "127.0.0.1",
        accepts: bool = True,
        echoes: bool = False,
    ) -> None:
        self.accepted: list[QuicConnection] = []
        self._nursery = nursery
        self._echoes = echoes
        self._more = trio.Event()
        self.scope = trio.CancelScope()
        self.endpoint = Endpoint(
            bind_udp(host, 0),
            identity,
            on_accept=self._accept if accepts else None,
            limits=limits,
            stack=stack,
        )
        nursery.start_soon(self._run)

    @property
    def address(self) -> Address:
        return self.endpoint.local

    async def _run(self) -> None:
        with self.scope:
            await self.endpoint.run()

    def _accept(self, connection: QuicConnection) -> None:
        self.accepted.append(connection)
        self._more.set()
        if self._echoes:
            self._nursery.start_soon(self._echo_all, connection)

    async def accept(self) -> QuicConnection:
        """Wait for the first connection that has not been waited for."""
        while not self.accepted:
            self._more = trio.Event()
            await self._more.wait()
        return self.accepted.pop(0)

    async def _echo_all(self, connection: QuicConnection) -> None:
        try:
            while True:
                self._nursery.start_soon(echo, await connection.accept_stream())
        except OSError:
            return


async def echo(stream: trio.abc.HalfCloseableStream) -> None:
    """Send back what comes in, until its end."""
    try:
        while data := await stream.receive_some():
            await stream.send_all(data)
        await stream.send_eof()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return


async def send_and_end(stream: trio.abc.HalfCloseableStream, data: bytes) -> None:
    await stream.send_all(data)
    await stream.send_eof()


async def read_to_end(stream: trio.abc.ReceiveStream) -> bytes:
    received = bytearray()
    while data := await stream.receive_some():
        received += data
    return bytes(received)


async def read_exactly(stream: QuicStream, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        data = await stream.receive_some(size - len(received))
        assert data, "the stream ended early"
        received += data
    return bytes(received)


@asynccontextmanager
async def sides() -> AsyncIterator[trio.Nursery]:
    """A nursery for endpoints; leaving it ends them all."""
    with trio.fail_after(DEADLINE_SECONDS):
        async with trio.open_nursery() as nursery:
            yield nursery
            nursery.cancel_scope.cancel()


Mischief = Callable[[bytes, int], list[bytes]]
"""What becomes of the datagram with that number."""


def as_it_is(datagram: bytes, number: int) -> list[bytes]:
    return [datagram]


class Forwarder:
    """A network of one hop between clients and a server, and the NAT in it.

    Clients see `address`; the server sees one port, which `rebind` changes as a NAT does that has forgotten.
    """

    def __init__(self, nursery: trio.Nursery, server: Address, *, mischief: Mischief = as_it_is) -> None:
        self._server = (server.host, server.port)
        self._inside = bind_udp("127.0.0.1", 0)
        self._inside.setblocking(False)
        self.address = address_of(self._inside.getsockname())
        self.mischief = mischief
        self.forwarded = 0
        self.is_cut = False
        self._client: Any = None
        self._outside: socket.socket | None = None
        self._nursery = nursery
        self.rebind()
        nursery.start_soon(self._to_server)

    def rebind(self) -> None:
        """Let the server see another port from now on; what was on its way to the old one is lost."""
        old, self._outside = self._outside, bind_udp("127.0.0.1", 0)
        self._outside.setblocking(False)
        if old is not None:
            trio.lowlevel.notify_closing(old)
            old.close()
        self._nursery.start_soon(self._to_client, self._outside)

    async def _to_server(self) -> None:
        with self._inside:
            while True:
                await trio.lowlevel.wait_readable(self._inside)
                for datagram, client in _all_of(self._inside):
                    self._client = client
                    assert self._outside is not None
                    self._forward(datagram, self._outside, self._server)

    async def _to_client(self, outside: socket.socket) -> None:
        try:
            while self._outside is outside:
                await trio.lowlevel.wait_readable(outside)
                for datagram, _ in _all_of(outside):
                    self._forward(datagram, self._inside, self._client)
        except trio.ClosedResourceError:
            return
        finally:
            outside.close()

    def _forward(self, datagram: bytes, sock: socket.socket, to: Any) -> None:
        self.forwarded += 1
        if self.is_cut:
            return
        for each in self.mischief(datagram, self.forwarded):
            try:
                sock.sendto(each, to)
            except BlockingIOError:
                return


def _all_of(sock: socket.socket) -> list[tuple[bytes, Any]]:
    found: list[tuple[bytes, Any]] = []
    while len(found) < 64:
        try:
            found.append(sock.recvfrom(65_535))
        except OSError:  # no more, or closed meanwhile
            break
    return found


class Loses:
    """Loses a share of all datagrams, as a seed says."""

    def __init__(self, share: float, *, seed: int = 1) -> None:
        self._share = share
        self._rng = random.Random(seed)

    def __call__(self, datagram: bytes, number: int) -> list[bytes]:
        return [] if self._rng.random() < self._share else [datagram]


class Reorders:
    """Holds every nth datagram back until three others have passed, and sends some twice."""

    def __init__(self, every: int) -> None:
        self._every = every
        self._held: deque[tuple[int, bytes]] = deque()

    def __call__(self, datagram: bytes, number: int) -> list[bytes]:
        if number % self._every == 0:
            self._held.append((number + 3, datagram))
            return []
        passed = [datagram, datagram] if number % (self._every * 2 + 1) == 0 else [datagram]
        while self._held and self._held[0][0] <= number:
            passed.append(self._held.popleft()[1])
        return passed
