"""The UDP sockets by which a node reaches others directly: QUIC, STUN, port mapping and punching share them.

One socket of each IP version is there from the start, bound to all addresses, so that it outlives every change of
network; the core knows it by the address that the current network knows it by. Others are opened on request, by the
hundred: those are only read, until somebody dials from one or the first packet of a QUIC connection comes in.

A socket on which nothing goes in or out any more is closed, whatever became of the reason why it was opened.
"""

import socket
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from ipaddress import ip_address
from typing import Any, Final, TypeAlias

import structlog
import trio

from teale_io.connections import Connections, DialFailed, Opened
from teale_io.quic.connection import QuicConnection
from teale_io.quic.credentials import Credentials
from teale_io.quic.dialing import QuicStreams
from teale_io.quic.endpoint import Endpoint
from teale_io.quic.packets import INITIAL_BYTES_MIN, is_quic, long_header
from teale_io.quic.stack import Stack, best_stack
from teale_io.quic.tickets import Tickets
from teale_io.quic.udp import SocketName
from teale_io.runner import Performers
from teale_io.stream import address_of
from teale_io.udp import ANY_V4, ANY_V6, DATAGRAM_BYTES_MAX, DatagramSockets, send_from
from teale_proto.effects import CloseSockets, DirectTarget, ExpectPeer, OpenSockets, SendDatagram
from teale_proto.inputs import Address, DatagramReceived, SocketsOpened
from teale_proto.secure.identity import Identity

SOCKETS_MAX: Final = 512
FILES_SHARE: Final = 2
"""One of so many files that the process may open can be a socket opened on request: others need some too."""
CALLED_MAX: Final = 16
"""Sockets opened on request that speak QUIC because a stranger's packet looked like it."""
PORTS_REMEMBERED: Final = 4096
"""Ports that are not used again: a NAT may still know them."""
TRIES: Final = 8
IDLE_SECONDS: Final = 120.0
LOOK_SECONDS: Final = 15.0

Feed: TypeAlias = Callable[[DatagramReceived | SocketsOpened], object]

_log = structlog.get_logger()


def bind_direct(port: int) -> tuple[socket.socket, ...]:
    """Return a UDP socket of each IP version that this system has, on that port; 0 is a free one, if it can the same.

    Raises OSError where the port cannot be had.
    """
    first = _bind(socket.AF_INET, ANY_V4, port)
    found = [first]
    if socket.has_dualstack_ipv6():
        for wanted in dict.fromkeys((first.getsockname()[1], port)):
            with suppress(OSError):
                found.append(_bind(socket.AF_INET6, ANY_V6, wanted))
                break
    return tuple(found)


def _bind(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
    except BaseException:
        sock.close()
        raise
    return sock


class _Speaking:
    """A socket that speaks QUIC, under the address by which the core knows it; None while no network does."""

    __slots__ = ("endpoint", "local", "on_request", "scope", "was_called")

    def __init__(self, local: Address | None, *, on_request: bool, was_called: bool) -> None:
        self.endpoint: Endpoint
        self.local = local
        self.on_request: Final = on_request
        self.was_called: Final = was_called
        self.scope: Final = trio.CancelScope()


class DirectSockets:
    """All of a node's UDP sockets; with none in `socks` there never are any.

    Use: hand `performers` and the dialer `dial` on, then start `run` as a task; tell `moved` of every network.
    """

    def __init__(
        self,
        feed: Feed,
        identity: Identity,
        socks: Sequence[socket.socket] = (),
        *,
        stack: Stack | None = None,
        sockets_max: int = SOCKETS_MAX,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        self._feed: Final = feed
        self._identity: Final = identity
        self._socks: Final = tuple(socks)
        self._sockets_max: Final = min(sockets_max, _files_max() // FILES_SHARE)
        self._idle_seconds: Final = idle_seconds
        self._stack = stack
        self._credentials: Credentials | None = None
        self._tickets: Final = Tickets()
        self._plain: Final = DatagramSockets(self._received)
        self._first: dict[int, _Speaking] = {}
        """By IP version."""
        self._speaking: dict[Address, _Speaking] = {}
        self._used_at: dict[Address, float] = {}
        """When something last went in or out at each socket that was opened on request."""
        self._ports: OrderedDict[int, None] = OrderedDict()
        self._nursery: trio.Nursery | None = None
        self._streams: QuicStreams | None = None

    @property
    def performers(self) -> Performers:
        """What carries out SendDatagram, OpenSockets, CloseSockets and ExpectPeer."""
        return {
            SendDatagram: self._send,
            OpenSockets: self._open,
            CloseSockets: self._close,
            ExpectPeer: self._expect,
        }

    @property
    def ports(self) -> tuple[int, ...]:
        """The ports of the sockets that are there from the start."""
        return tuple(sock.getsockname()[1] for sock in self._socks)

    @property
    def on_request(self) -> int:
        """How many sockets are open that were opened on request."""
        return len(self._plain) + sum(each.on_request for each in self._speaking.values())

    @property
    def retried(self) -> int:
        """How many first packets were answered by a Retry, on sockets that are still open."""
        return sum(each.endpoint.retried for each in self._speaking.values())

    async def run(
        self, connections: Connections, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve the sockets until cancelled, and close them; what others open becomes connections of `connections`."""
        self._streams = QuicStreams(connections)
        with self._plain:
            try:
                async with trio.open_nursery() as self._nursery:
                    for sock in self._socks:
                        speaking = self._speak(sock, None, on_request=False)
                        self._first[6 if sock.family == socket.AF_INET6 else 4] = speaking
                    if self._socks:
                        self._nursery.start_soon(self._plain.run)
                        self._nursery.start_soon(self._close_idle)
                    task_status.started()
                    await trio.sleep_forever()
            finally:
                self._nursery = None

    def moved(self, hosts: Sequence[str]) -> tuple[Address, ...]:
        """Take note by which addresses the network knows this machine now, at most one of each IP version.

        Returns the sockets that there are under them. Connections go on from there, as far as they can.
        """
        by_version: dict[int, str] = {ip_address(host).version: host for host in hosts}
        for address in (*self._plain, *(each for each, there in self._speaking.items() if there.on_request)):
            if address.host not in hosts:
                self._close(CloseSockets(address.host, (address.port,)))
        for version, speaking in self._first.items():
            host = by_version.get(version)
            local = None if host is None else Address(host, speaking.endpoint.local.port)
            if local == speaking.local:
                continue
            if speaking.local is not None:
                self._speaking.pop(speaking.local, None)
            speaking.local = local
            if local is not None:
                self._speaking[local] = speaking
                speaking.endpoint.move()
        found = (self._first[version].local for version in (4, 6) if version in self._first)
        return tuple(each for each in found if each is not None)

    async def dial(self, target: DirectTarget) -> Opened:
        """Open a QUIC stream from one of the sockets: the dialer of `DirectTarget`; raises DialFailed."""
        speaking = self._speaking.get(target.local)
        if speaking is None and target.local in self._plain:
            speaking = self._promote(target.local, was_called=False)
        if speaking is None or self._streams is None:
            raise DialFailed("the socket that was to be dialled from is no more")
        return await self._streams.dial(speaking.endpoint, target.local, target.node, target.remote, target.opening)

    # Effects.

    def _send(self, effect: SendDatagram) -> None:
        if effect.local in self._used_at:
            self._used_at[effect.local] = trio.current_time()
        if speaking := self._speaking.get(effect.local):
            send_from(speaking.endpoint.sock, effect)
        elif effect.local in self._plain:
            self._plain.send(effect)

    def _open(self, effect: OpenSockets) -> None:
        ports: list[int] = []
        room = self._sockets_max - self.on_request if self._nursery is not None and self._socks else 0
        with suppress(OSError):
            while len(ports) < min(effect.count, room):
                ports.append(self._bind_unused(effect.host).port)
        self._feed(SocketsOpened(effect.request, tuple(ports)))

    def _bind_unused(self, host: str) -> Address:
        """Open a socket on a port that was not used before, as far as that is remembered; raises OSError."""
        used: list[Address] = []
        bound = self._plain.bind(Address(host, 0))
        while bound.port in self._ports and len(used) < TRIES:
            used.append(bound)
            bound = self._plain.bind(Address(host, 0))
        for each in used:
            self._plain.unbind(each)
        self._ports[bound.port] = None
        if len(self._ports) > PORTS_REMEMBERED:
            self._ports.popitem(last=False)
        self._used_at[bound] = trio.current_time()
        return bound

    def _close(self, effect: CloseSockets) -> None:
        for port in effect.ports:
            address = Address(effect.host, port)
            if address in self._plain:
                self._used_at.pop(address, None)
                self._plain.unbind(address)
            elif (speaking := self._speaking.get(address)) is not None and speaking.on_request:
                speaking.scope.cancel()

    def _expect(self, effect: ExpectPeer) -> None:
        speaking = self._speaking.get(effect.local)
        if speaking is None and effect.local in self._plain:
            # Found by a birthday attempt, and kept for the peer: it is to speak QUIC before the peer does.
            speaking = self._promote(effect.local, was_called=False)
        if speaking is not None:
            speaking.endpoint.trust(effect.remote)

    # QUIC.

    def _speak(
        self, sock: socket.socket, local: Address | None, *, on_request: bool, was_called: bool = False
    ) -> _Speaking:
        """Have a bound socket speak QUIC."""
        assert self._nursery is not None
        if self._stack is None:
            self._stack = best_stack()
        if self._credentials is None:
            self._credentials = Credentials(self._identity)
        speaking = _Speaking(local, on_request=on_request, was_called=was_called)
        speaking.endpoint = Endpoint(
            sock,
            self._identity,
            on_accept=partial(self._accept, speaking),
            stack=self._stack,
            credentials=self._credentials,
            tickets=self._tickets,
            not_quic=partial(self._came, speaking),
        )
        if local is not None:
            self._speaking[local] = speaking
        self._nursery.start_soon(self._run, speaking)
        return speaking

    def _promote(self, address: Address, *, was_called: bool) -> _Speaking:
        """Have a socket that was only read speak QUIC."""
        return self._speak(self._plain.release(address), address, on_request=True, was_called=was_called)

    async def _run(self, speaking: _Speaking) -> None:
        try:
            with speaking.scope:
                await speaking.endpoint.run()
        finally:
            if speaking.local is not None and self._speaking.get(speaking.local) is speaking:
                del self._speaking[speaking.local]
                self._used_at.pop(speaking.local, None)

    def _accept(self, speaking: _Speaking, connection: QuicConnection) -> None:
        if speaking.local is None or self._streams is None:
            connection.close()
        else:
            self._streams.serve(connection, speaking.local)

    # What comes in.

    def _came(self, speaking: _Speaking, datagram: bytes, name: SocketName) -> None:
        """Take what is not QUIC from a socket that speaks it."""
        if speaking.local is not None and len(datagram) <= DATAGRAM_BYTES_MAX:
            self._take(speaking.local, address_of(name), datagram)

    def _received(self, event: DatagramReceived) -> None:
        """Take what comes in at a socket that is only read."""
        if not is_quic(event.data):
            self._take(event.local, event.remote, event.data)
        elif self._calls(event.data):
            speaking = self._promote(event.local, was_called=True)
            speaking.endpoint.take([(event.data, _name_of(event.remote))])

    def _calls(self, datagram: bytes) -> bool:
        """Return whether a datagram may begin a QUIC connection, and there is room for it."""
        header = long_header(datagram)
        called = sum(each.was_called for each in self._speaking.values())
        return header is not None and len(datagram) >= INITIAL_BYTES_MIN and called < CALLED_MAX

    def _take(self, local: Address, remote: Address, data: bytes) -> None:
        if _is_link_local(remote.host):
            return  # it could not be answered without knowing the interface, which is none of the core's business
        if local in self._used_at:
            self._used_at[local] = trio.current_time()
        self._feed(DatagramReceived(local, remote, data))

    async def _close_idle(self) -> None:
        """Close sockets on request on which nothing has gone in or out for long."""
        while True:
            await trio.sleep(min(LOOK_SECONDS, self._idle_seconds))
            now = trio.current_time()
            for address, used_at in tuple(self._used_at.items()):
                speaking = self._speaking.get(address)
                if speaking is not None and speaking.endpoint.connections:
                    self._used_at[address] = now
                elif now >= used_at + self._idle_seconds:
                    _log.debug("a socket is closed that nobody uses", port=address.port)
                    self._close(CloseSockets(address.host, (address.port,)))


def _is_link_local(host: str) -> bool:
    return host[:3].lower() in ("fe8", "fe9", "fea", "feb")  # RFC 4291, section 2.4


def _name_of(address: Address) -> SocketName:
    return (address.host, address.port, 0, 0) if ":" in address.host else (address.host, address.port)


def _files_max() -> int:
    """Return how many files this process may have open."""
    try:
        import resource
    except ImportError:  # Windows, which has no such limit on sockets
        return FILES_SHARE * SOCKETS_MAX
    soft: Any = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return FILES_SHARE * SOCKETS_MAX if soft == resource.RLIM_INFINITY else int(soft)
