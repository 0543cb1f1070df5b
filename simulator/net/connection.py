"""Connections between two hosts: byte streams like TCP's, and whole messages like WebSocket's.

Opening takes its round trips, closing travels behind the data, and a host that dies leaves connections that
are either reset or, when it lost its power, silent. A stream joins what is sent in one instant and cuts it
anew at places drawn from the seed, so that no receiver can rely on where a write began or ended.

A NAT on the way that forgets the connection leaves both ends believing in it: what comes from outside vanishes,
and what the inside end sends is answered by a reset. An end whose host has moved is silent for ever.

Hosts know an `End` by what stands in `EndOfConnection`; other kinds of connections than the one here can be given
to a `Network`, as a `ConnectionFactory`.
"""

from collections.abc import Callable
from enum import Enum
from typing import ClassVar, Final, NamedTuple, Protocol

from simulator.net.lane import Fate, Lane, Path
from simulator.net.link import Port
from simulator.net.machine import HostPort, Machine, Owner
from simulator.net.medium import Medium, Ports
from simulator.rng import SplitMix64, stream
from teale_proto.contract import SECOND, Duration, Instant, Value
from teale_proto.inputs import Address, ConnectionId

CONNECT_TIMEOUT: Final[Duration] = 10 * SECOND
SEGMENT_BYTES: Final = 1460
"""What fits into an Ethernet frame beside the headers of IPv4 and TCP."""
MESSAGE_OVERHEAD_BYTES: Final = 8
"""A WebSocket header: two bytes, two of length and four of mask (RFC 6455, section 5.2)."""


class Kind(Enum):
    """The legs of a handshake: how many there are, and on which arrival each side has its connection.

    Odd legs arrive at the server. A WebSocket spends a round trip on its HTTP upgrade, and over TLS 1.3
    one more.
    """

    STREAM = (3, 3, 2)
    WEBSOCKET = (4, 3, 4)
    SECURE_WEBSOCKET = (6, 5, 6)

    def __init__(self, legs: int, accepted_on: int, opened_on: int) -> None:
        self.legs = legs
        self.accepted_on = accepted_on
        self.opened_on = opened_on


class State(Enum):
    """What one side of a connection is to its host."""

    CONNECTING = "connecting"
    OPEN = "open"
    CLOSED = "closed"
    DEAD = "dead"
    """Its host died, and nobody closed it."""


class Traffic(Value):
    """What one host handed to the network for another: a stream's write or a whole message."""

    at: Instant
    source: str
    target: str
    connection: int
    """Counts connections over the whole network; the two directions of one share it."""
    whole: bool
    """Whether `data` is a whole message; on a stream it is whatever was written at once."""
    data: bytes
    client: Address = Address("", 0)
    """Who connected, as the server sees it."""
    server: Address = Address("", 0)
    """To whom, as the client sees it."""
    by_client: bool = True
    """Whether it was the client that sent."""
    in_datagrams: bool = False
    """Whether it is a QUIC stream, whose datagrams are seen as well."""


Tap = Callable[[Traffic], None]


class Route(NamedTuple):
    """The way of a connection: there up through `ups` and down through `downs`, and back the same way."""

    client: HostPort
    server: HostPort
    ups: Ports
    downs: Ports
    between: Duration
    """The distance between the regions of both."""
    remote: Address
    """The client as the server sees it."""
    leads_there: bool = True
    """Whether packets arrive; otherwise they vanish, and nobody says so."""


class EndOfConnection(Protocol):
    """What a host needs of its side of a connection."""

    id: ConnectionId
    """What its own core calls it; set by the host."""

    @property
    def kind(self) -> Kind:
        """Whether it is a stream or carries whole messages."""

    @property
    def state(self) -> State:
        """What it is to its host."""

    def send(self, data: bytes) -> None:
        """Send bytes of a stream, or one whole message; only while it is open."""

    def ping(self) -> None:
        """Send a WebSocket ping, which the other side answers by itself; only while it is open."""

    def close(self, reason: str) -> None:
        """Close behind everything that was sent; while it is opening or open."""


class ConnectionFactory(Protocol):
    """Makes connections for a network; `Connection` is one."""

    def __call__(
        self, medium: Medium, kind: Kind, route: Route, *, serial: int, target: Address, host: str
    ) -> "Connection":
        """Return a connection that is not open yet; `target` and `host` are whom the client named."""


class End:
    """One side of a connection; its host sends through it."""

    __slots__ = ("_lane", "_outbox", "_port", "connection", "following", "id", "leading", "other", "state")

    other: "End"

    def __init__(self, connection: "Connection", port: HostPort, path: Path, *, forth: bool) -> None:
        self.connection = connection
        self.id: ConnectionId = 0
        self.state = State.CONNECTING
        self._port = port
        self._lane = Lane(path, self, forth=forth)
        self._outbox: bytearray | None = None
        self.leading: End | None = None
        self.following: End | None = None
        """Its neighbours among the ends of its machine, which keeps them."""

    @property
    def kind(self) -> Kind:
        """Whether it is a stream or carries whole messages."""
        return self.connection.kind

    @property
    def machine(self) -> Machine:
        """The host at this side."""
        return self._port.machine

    def send(self, data: bytes) -> None:
        """Send bytes of a stream, or one whole message."""
        assert self.state is State.OPEN, f"{self.machine.name} sends on a connection that is {self.state.value}"
        connection = self.connection
        medium = connection.medium
        if medium.taps:
            connection.observe(self, data)
        if connection.kind is not Kind.STREAM:
            packets = max(1, -(-len(data) // SEGMENT_BYTES))
            self._lane.carry(len(data) + MESSAGE_OVERHEAD_BYTES, packets, self.other.receive, data)
            return
        if self._outbox is None:
            self._outbox = bytearray()
            medium.engine.call_at(medium.engine.now, self._flush)
        self._outbox += data

    def ping(self) -> None:
        """Send a WebSocket ping; the other side answers it by itself."""
        self._lane.carry(MESSAGE_OVERHEAD_BYTES, 1, self.other.receive_ping)

    def close(self, reason: str) -> None:
        """Close behind everything that was sent; this side hears nothing more."""
        assert self.state in {State.CONNECTING, State.OPEN}
        self._flush()
        self._forget(State.CLOSED)
        text = "closed by the other side"
        if self.connection.kind is not Kind.STREAM:
            # A WebSocket's closing frame has room for a reason; a TCP FIN has none (RFC 6455, section 5.5.1).
            text += f": {reason}"
        self._lane.carry(0, 1, self.other.receive_close, text)

    # What happens to its host and to what is between.

    def die(self, *, silently: bool) -> None:
        """Stop existing, as part of the host's death."""
        self._outbox = None
        self.state = State.DEAD
        self._lane.cut_at = self.connection.medium.engine.now
        if not silently:
            self._reset_other_after(2 * self._lane.latency)

    def leads_through(self, port: Port) -> bool:
        """Return whether a port is on its way."""
        return self._lane.leads_through(port)

    def be_forgotten(self) -> None:
        """Go on behind a NAT that has forgotten the connection; this is the end on the inside."""
        self.fare(Fate.IS_RESET)
        self.other.fare(Fate.VANISHES)

    def part(self) -> None:
        """Never reach the other end again, nor it this one."""
        self.fare(Fate.VANISHES)
        self.other.fare(Fate.VANISHES)

    def fare(self, fate: Fate) -> None:
        """Have what this side sends fare so from now on."""
        self._lane.die(fate)

    # Opening.

    def handshake(self, leg: int) -> None:
        """Send one leg of the handshake."""
        self._lane.carry(0, 1, self.connection.arrive, leg)

    def refuse(self) -> None:
        """Answer an attempt to connect where nobody listens."""
        self._forget(State.CLOSED)
        self._lane.carry(0, 1, self.other.fail, "connection refused")

    def fail(self, reason: str) -> None:
        """Give up opening, unless that has been decided already."""
        if self.state is State.CONNECTING:
            owner = self._owner()
            self._forget(State.CLOSED)
            owner.failed(self, reason)

    def give_up(self) -> None:
        """Fail because nothing was heard in time, and tell the other side in case it can hear."""
        if self.state is State.CONNECTING:
            self._lane.carry(0, 1, self.other.receive_close, "closed by the other side")
            self.fail("timed out")

    # What arrives.

    def receive(self, data: bytes) -> None:
        """Take what arrived."""
        if self.state is State.OPEN:
            self._owner().received(self, data)
        elif self.state is State.DEAD:
            # The host is back, or only its process died: its network stack knows no such connection.
            self._reset_other_after(self._lane.latency)

    def receive_ping(self) -> None:
        """Answer a ping."""
        if self.state is State.OPEN:
            self._lane.carry(MESSAGE_OVERHEAD_BYTES, 1, self.other.receive_pong)
            self._owner().pinged(self)
        elif self.state is State.DEAD:
            self._reset_other_after(self._lane.latency)

    def receive_pong(self) -> None:
        """Take the answer to a ping."""
        if self.state is State.OPEN:
            self._owner().ponged(self)

    def receive_close(self, reason: str) -> None:
        """End because the other side closed, or is no more."""
        state = self.state
        if state is State.CONNECTING:
            self._forget(State.CLOSED)
        elif state is State.OPEN:
            owner = self._owner()
            self._forget(State.CLOSED)
            owner.closed(self, reason)

    def receive_reset(self) -> None:
        """End because the other side's host knows of no such connection."""
        if not self._port.powered:
            return
        if self.state is State.CONNECTING and self is self.connection.client:
            self.fail("connection reset")
        else:
            self.receive_close("connection reset")

    def time_out(self) -> None:
        """End because nothing that was sent got there for too long."""
        if self.state is State.OPEN:
            self.receive_close("connection timed out")

    # For its lane.

    def chance(self) -> SplitMix64:
        """Return a stream for what happens to the packets of this side."""
        return self.connection.chance(" there" if self is self.connection.client else " back")

    def _reset_other_after(self, delay: Duration) -> None:
        if self._lane.is_open:
            engine = self.connection.medium.engine
            engine.call_at(engine.now + delay, self.other.receive_reset)

    def _owner(self) -> Owner:
        owner = self.machine.owner
        assert owner is not None
        return owner

    def _forget(self, state: State) -> None:
        self.state = state
        self.machine.remove(self)

    def _flush(self) -> None:
        if not self._outbox:
            return
        data = bytes(self._outbox)
        self._outbox = None
        for piece in self.connection.cut(data):
            self._lane.carry(len(piece), 1, self.other.receive, piece)


class Connection:
    """Two ends, and the handshake that brings them to life."""

    __slots__ = ("_attempt", "_chance", "_host", "_remote", "_target", "client", "kind", "medium", "serial")

    end: ClassVar[type[End]] = End
    """What its two sides are made as."""

    def __init__(self, medium: Medium, kind: Kind, route: Route, *, serial: int, target: Address, host: str) -> None:
        self.medium = medium
        self.kind = kind
        self.serial = serial
        self._target = target
        self._host = host
        self._remote = route.remote
        machine = route.client.machine
        self._attempt = machine.connects
        self._chance: SplitMix64 | None = None
        machine.connects += 1
        path = Path(medium, route.ups, route.downs, route.between)
        self.client = client = self.end(self, route.client, path, forth=True)
        client.other = server = self.end(self, route.server, path, forth=False)
        server.other = client
        if not route.leads_there:
            client.part()
        machine.add(client)

    def open(self) -> End:
        """Start the handshake; returns the client's end."""
        engine = self.medium.engine
        self.client.handshake(1)
        engine.call_at(engine.now + CONNECT_TIMEOUT, End.give_up, self.client)
        return self.client

    def arrive(self, leg: int) -> None:
        """Take one leg of the handshake at the side where it arrived."""
        end = self.client.other if leg % 2 else self.client
        if leg == 1:
            if self._target.port not in end.machine.listening:
                end.refuse()
                return
            # Only now: a host that was restarted before this knows nothing of it yet.
            end.machine.add(end)
        if end.state is not State.CONNECTING:
            return
        kind = self.kind
        if leg < kind.legs:
            # Before the owner learns of it, so that nothing that the owner sends can overtake it.
            end.handshake(leg + 1)
        owner = end.machine.owner
        assert owner is not None
        if leg == kind.accepted_on:
            end.state = State.OPEN
            owner.accepted(end, self._remote, self._target, self._host)
        elif leg == kind.opened_on:
            end.state = State.OPEN
            owner.opened(end)

    def observe(self, end: End, data: bytes) -> None:
        """Show what is being sent to everybody who taps the network."""
        now = self.medium.engine.now
        whole = self.kind is not Kind.STREAM
        seen = Traffic(
            now,
            end.machine.name,
            end.other.machine.name,
            self.serial,
            whole,
            data,
            self._remote,
            self._target,
            end is self.client,
        )
        for tap in self.medium.taps:
            tap(seen)

    def cut(self, data: bytes) -> list[bytes]:
        """Cut a stream's data as its packets carry it: full segments, some shortened by chance."""
        cut_chance = self.medium.cut_chance
        if not cut_chance:
            return [data[start : start + SEGMENT_BYTES] for start in range(0, len(data), SEGMENT_BYTES)]
        if self._chance is None:
            self._chance = self.chance("")
        rng = self._chance
        pieces = []
        start = 0
        while start < len(data):
            size = min(SEGMENT_BYTES, len(data) - start)
            if size > 1 and rng.random() < cut_chance:
                size = 1 + rng.randrange(size - 1)
            pieces.append(data[start : start + size])
            start += size
        return pieces

    def chance(self, purpose: str) -> SplitMix64:
        """Return a stream of its own: named after the client and its count, whatever other hosts do."""
        return stream(self.medium.seed, self.client.machine.name, f"connection {self._attempt}{purpose}")
