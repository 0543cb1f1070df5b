"""All QUIC connections of one UDP socket, opened by us or by others, in one task.

Datagrams find their connection by its id, never by where they come from: so a connection outlives a change of
address on either side. What came in is handed over in batches, what is to go out leaves in batches after all of it
has been looked at, and one wake-up serves all timers. What is not QUIC's goes to whoever shares the socket.
"""

import contextlib
import heapq
import socket
from collections import deque
from collections.abc import Callable, Sequence
from itertools import count
from math import inf
from typing import Any, Final

import trio

from teale_io.quic.admission import Admission, Admitted, Answer
from teale_io.quic.connection import QuicConnection
from teale_io.quic.credentials import Credentials
from teale_io.quic.errors import Code, QuicError
from teale_io.quic.limits import DEFAULT, Limits
from teale_io.quic.packets import destination_of, is_quic
from teale_io.quic.stack import PeerAddress, Stack, best_stack
from teale_io.quic.states import State
from teale_io.quic.tickets import Tickets
from teale_io.quic.udp import Arrived, SocketName, Udp, open_udp
from teale_io.stream import address_of
from teale_proto.inputs import Address, NodeId
from teale_proto.secure.identity import Identity

IPV4_IN_IPV6: Final = "::ffff:"

OnAccept = Callable[[QuicConnection], object]


class Endpoint:
    """One UDP socket and its connections.

    `on_accept` is called with every connection that somebody else has opened, once it is known who that is; without
    it nobody is let in. `not_quic` takes all other datagrams. Endpoints of one node may share `credentials` and
    `tickets`. `run` is to be started as a task, and closes the socket when it is cancelled.
    """

    def __init__(
        self,
        sock: socket.socket,
        identity: Identity,
        *,
        on_accept: OnAccept | None = None,
        limits: Limits = DEFAULT,
        stack: Stack | None = None,
        credentials: Credentials | None = None,
        tickets: Tickets | None = None,
        not_quic: Callable[[bytes, SocketName], object] | None = None,
    ) -> None:
        self.identity: Final = identity
        self.limits: Final = limits
        self.stack: Final = stack or best_stack()
        self.tickets: Final = tickets if tickets is not None else Tickets()
        self._on_accept = on_accept
        self._not_quic = not_quic
        self._udp: Udp = open_udp(sock, self.stack.name)
        credentials = credentials or Credentials(identity)
        self._as_client, self._as_server = (
            self.stack.configuration(
                is_client=is_client,
                credentials=credentials,
                idle_seconds=limits.idle_seconds,
                datagram_bytes=limits.datagram_bytes,
            )
            for is_client in (True, False)
        )
        self.stack.warm_up(self._as_client)
        self._by_id: dict[bytes, QuicConnection] = {}
        self._accepted: dict[QuicConnection, str] = {}
        self._by_node: dict[NodeId, QuicConnection] = {}
        self._admission: Final = Admission(self.stack, limits)
        self._timers: list[tuple[float, int, QuicConnection]] = []
        self._order: Final = count()
        self._dirty: list[QuicConnection] = []
        self._unsent: deque[tuple[list[bytes], SocketName]] = deque()
        self._sleep: trio.CancelScope | None = None
        self._is_closed = False

    @property
    def sock(self) -> socket.socket:
        """Its socket, from which others may send too."""
        return self._udp.sock

    @property
    def local(self) -> Address:
        """Where it is bound."""
        return address_of(self._udp.sock.getsockname())

    @property
    def refused(self) -> int:
        """How many newcomers found no room."""
        return self._admission.refused

    @property
    def retried(self) -> int:
        """How many first packets were answered by a Retry."""
        return self._admission.retried

    @property
    def connections(self) -> int:
        """How many connections there are, counting those that are ending."""
        return len(set(self._by_id.values()))

    # What its users do.

    def dial(self, node: NodeId, address: Address, *, fresh: bool = False) -> QuicConnection:
        """Return a connection to a node at `address`, an IP address: the one that there is, or a new one.

        One that has been silent may be one that the other side has lost, and is not trusted to carry more. It is used
        at once: `open_stream(early=…)` before anything is awaited, or `wait_connected` first. Raises QuicError where
        there is no way to such an address.
        """
        remote, scope = self._remote_of(address)
        now = trio.current_time()
        there_is = self.connection_to(node)
        if there_is is not None and there_is.remote == remote and not fresh and there_is.is_fresh(now):
            return there_is
        if self._is_closed:
            raise QuicError("the endpoint is closed")
        ticket = self.tickets.kept.take(node)
        core = self.stack.client(self._as_client, ticket, lambda new: connection.take_ticket(new))
        connection = QuicConnection(self, core, expected=node, remote=remote, scope=scope, now=now)
        self._by_id[core.host_cid] = connection
        self._by_node[node] = connection
        connection.begin(now)
        if ticket is not None:
            connection.prove_early()
        self.touch(connection)
        return connection

    async def connect(self, node: NodeId, address: Address) -> QuicConnection:
        """Return a connection to a node on which both sides know each other; raises QuicError."""
        connection = self.dial(node, address)
        await connection.wait_connected()  # others may wait for it too: it goes on if this is cancelled
        return connection

    def connection_to(self, node: NodeId) -> QuicConnection | None:
        """Return the live connection to a node, whoever opened it; None where there is none."""
        found = self._by_node.get(node)
        return found if found is not None and found.is_live else None

    def trust(self, address: Address) -> None:
        """Note that an address was validated by other means: who comes from there need not show it again."""
        self._admission.trust(self._remote_of(address)[0])

    def take(self, arrived: Sequence[Arrived]) -> None:
        """Take datagrams that were read before the socket became ours."""
        now = trio.current_time()
        self._sort(arrived, now)
        self._flush(now)

    def rebind(self, sock: socket.socket) -> None:
        """Go on with another bound socket; the old one is closed."""
        old, self._udp = self._udp, open_udp(sock, self.stack.name)
        trio.lowlevel.notify_closing(old.sock)
        old.sock.close()
        self._unsent.clear()
        self.move()

    def move(self) -> None:
        """Go on from another address, after the network has changed.

        The connections that we opened move at once. Those that others opened have to be opened anew, by one side
        or the other: in QUIC only clients move (RFC 9000, section 9).
        """
        for connection in dict.fromkeys(self._by_id.values()):
            if connection.is_client and connection.state in (State.CONNECTED, State.IDLE):
                connection.core.change_connection_id()
                connection.core.send_ping(0)
            self.touch(connection)

    async def run(self) -> None:
        """Serve all connections until cancelled; then tell their other sides."""
        try:
            while True:
                await self._wait()
                now = trio.current_time()
                self._sort(self._udp.read(), now)
                self._fire(now)
                self._flush(now)
        finally:
            self._shut()

    async def aclose(self, seconds: float = 1.0) -> None:
        """Close all connections, giving what was sent a bounded time to be delivered; `run` is still to be ended."""
        for connection in dict.fromkeys(self._by_id.values()):
            connection.close()
        with trio.move_on_after(seconds):
            for connection in dict.fromkeys(self._by_id.values()):
                await connection.wait_closed()

    # What its connections do.

    def touch(self, connection: QuicConnection) -> None:
        """See to it that what a connection wants to send is sent."""
        if not connection.dirty:
            connection.dirty = True
            self._dirty.append(connection)
            if self._sleep is not None:
                self._sleep.cancel()

    def keep_ticket(self, node: NodeId, ticket: Any) -> None:
        """Keep what a node has given us for the next connection to it."""
        self.tickets.kept.put(node, ticket)

    def settled(self, connection: QuicConnection) -> None:
        """Take note that both sides are known to each other."""
        assert connection.peer is not None
        self._admission.trust(connection.remote)
        self._pool(connection, connection.peer)
        if connection in self._accepted:
            self._admission.proved()
            if self._on_accept is None:
                connection.abort(QuicError("nobody is let in here"), Code.REFUSED)
            else:
                self._on_accept(connection)

    def ended(self, connection: QuicConnection) -> None:
        """Take note that a connection has ended for its users."""
        node = connection.peer or connection.expected
        if node is not None and self._by_node.get(node) is connection:
            del self._by_node[node]
        source = self._accepted.pop(connection, None)
        if source is not None:
            self._admission.left(source, proven=connection.peer is not None)

    def add_id(self, connection: QuicConnection, cid: bytes) -> None:
        """Take note of an id under which datagrams may come."""
        if self._by_id.get(cid, connection) is not connection:
            return
        if len(connection.ids) >= self.limits.ids_max:
            connection.abort(QuicError("too many connection ids"), Code.BROKEN)
            return
        connection.ids.add(cid)
        self._by_id[cid] = connection

    def remove_id(self, connection: QuicConnection, cid: bytes) -> None:
        """Take note that an id is used no more."""
        connection.ids.discard(cid)
        if self._by_id.get(cid) is connection:
            del self._by_id[cid]

    # The turn.

    async def _wait(self) -> None:
        if self._dirty and not self._unsent:
            await trio.lowlevel.checkpoint()
            return
        deadline = self._timers[0][0] if self._timers else inf
        with trio.CancelScope(deadline=deadline) as self._sleep, contextlib.suppress(trio.ClosedResourceError):
            if self._unsent:
                await trio.lowlevel.wait_writable(self._udp.sock)
            else:
                await trio.lowlevel.wait_readable(self._udp.sock)
        self._sleep = None

    def _sort(self, arrived: Sequence[Arrived], now: float) -> None:
        """Hand what has arrived to its connections, in runs of one connection and one sender."""
        run: list[bytes] = []
        last: QuicConnection | None = None
        last_name: SocketName = ()
        for datagram, name in arrived:
            if not is_quic(datagram):
                if self._not_quic is not None:
                    self._not_quic(datagram, name)
                continue
            connection = self._by_id.get(destination_of(datagram))
            if run and (connection is not last or name != last_name):
                self._hand_over(last, run, last_name, now)
                run = []
            if connection is None:
                connection = self._newcomer(datagram, name, now)
                if connection is None:
                    continue
            run.append(datagram)
            last, last_name = connection, name
        if run:
            self._hand_over(last, run, last_name, now)

    def _hand_over(
        self, connection: QuicConnection | None, datagrams: list[bytes], name: SocketName, now: float
    ) -> None:
        assert connection is not None
        if connection.is_over:
            return
        connection.receive(datagrams, *_key_of(name), now)
        if connection in self._accepted and not self.stack.is_authentic(connection.core):
            connection.drop(QuicError("its first packet was none"))
        self.touch(connection)

    def _fire(self, now: float) -> None:
        while self._timers and self._timers[0][0] <= now:
            at, _, connection = heapq.heappop(self._timers)
            if at != connection.armed:
                continue
            connection.armed = inf
            if connection.deadline <= now:
                connection.fire(now)
                self.touch(connection)
            else:
                self._arm(connection)

    def _flush(self, now: float) -> None:
        """Send what the connections have to say, as far as the system takes it."""
        while self._unsent:
            datagrams, name = self._unsent[0]
            sent = self._udp.write(datagrams, name)
            if sent < len(datagrams):
                self._unsent[0] = (datagrams[sent:], name)
                return
            self._unsent.popleft()
        while self._dirty and not self._unsent:
            connection = self._dirty.pop()
            connection.dirty = False
            if not connection.is_over:
                self._send(connection, connection.transmit(now))
            if connection.is_over:
                self._forget(connection)
            else:
                self._arm(connection)

    def _send(self, connection: QuicConnection, datagrams: list[tuple[bytes, Any]]) -> None:
        start = 0
        while start < len(datagrams):
            address = datagrams[start][1]
            end = start + 1
            while end < len(datagrams) and datagrams[end][1] == address:
                end += 1
            self._put([data for data, _ in datagrams[start:end]], self._name_of(address, connection.scope))
            start = end
        if datagrams:
            connection.remote = datagrams[0][1][:2]

    def _put(self, datagrams: list[bytes], name: SocketName) -> None:
        sent = 0 if self._unsent else self._udp.write(datagrams, name)
        if sent < len(datagrams):
            self._unsent.append((datagrams[sent:], name))

    def _arm(self, connection: QuicConnection) -> None:
        # A wake-up that has become too early is left alone: it comes, finds nothing due, and is armed anew.
        if connection.deadline < connection.armed:
            connection.armed = connection.deadline
            heapq.heappush(self._timers, (connection.deadline, next(self._order), connection))

    def _forget(self, connection: QuicConnection) -> None:
        for cid in connection.ids:
            if self._by_id.get(cid) is connection:
                del self._by_id[cid]

    def _shut(self) -> None:
        self._is_closed = True
        now = trio.current_time()
        for connection in dict.fromkeys(self._by_id.values()):
            connection.abort(QuicError("the endpoint was closed"), Code.DONE)
            for datagram, address in connection.transmit(now):
                self._udp.write([datagram], self._name_of(address, connection.scope))
            connection.is_over = True
        self._by_id.clear()
        trio.lowlevel.notify_closing(self._udp.sock)
        self._udp.sock.close()

    # Newcomers.

    def _newcomer(self, datagram: bytes, name: SocketName, now: float) -> QuicConnection | None:
        """Return a connection for a datagram that belongs to none, if it begins one that may begin."""
        if self._on_accept is None:
            return None
        address, scope = _key_of(name)
        decided = self._admission.decide(datagram, address, now)
        if isinstance(decided, Admitted):
            return self._accept(decided, address, scope, now)
        if isinstance(decided, Answer):
            self._put([decided.datagram], name)
        return None

    def _accept(self, admitted: Admitted, address: PeerAddress, scope: int, now: float) -> QuicConnection:
        core = self.stack.server(
            self._as_server,
            first_id=admitted.first_id,
            retry_id=admitted.shown_id if admitted.was_retried else None,
            take_ticket=self.tickets.given.take,
            on_ticket=lambda ticket: self.tickets.given.put(ticket.ticket, ticket),
        )
        connection = QuicConnection(self, core, expected=None, remote=address, scope=scope, now=now)
        connection.ids.add(admitted.shown_id)
        for cid in connection.ids:
            self._by_id[cid] = connection
        self._accepted[connection] = self._admission.came(address)
        return connection

    def _pool(self, connection: QuicConnection, node: NodeId) -> None:
        """Keep a connection as the one to its node: of two that crossed, the one that the lower id has opened."""
        other = self._by_node.get(node)
        crossed = other is not None and other.is_live and other.is_client != connection.is_client
        if other is None or not other.is_live or (crossed and connection.is_client == (self.identity.node_id < node)):
            self._by_node[node] = connection

    # Addresses: the library knows hosts and ports, the socket may want more.

    def _remote_of(self, address: Address) -> tuple[PeerAddress, int]:
        host, _, zone = address.host.partition("%")
        if self._udp.sock.family == socket.AF_INET6:
            scope = socket.if_nametoindex(zone) if zone and not zone.isdigit() else int(zone or 0)
            return (host if ":" in host else IPV4_IN_IPV6 + host, address.port), scope
        if ":" in host:
            raise QuicError("this endpoint has no IPv6")
        return (host, address.port), 0

    def _name_of(self, address: Any, scope: int) -> SocketName:
        if self._udp.sock.family == socket.AF_INET6:
            return (address[0], address[1], 0, scope)
        return (address[0], address[1])


def _key_of(name: SocketName) -> tuple[PeerAddress, int]:
    """Return a socket's name as the library and our tables know it, and the interface it was seen on."""
    if len(name) == 2:
        return (name[0], name[1]), 0
    return (name[0].partition("%")[0], name[1]), name[3]
