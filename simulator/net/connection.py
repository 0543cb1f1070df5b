"""Connections between two hosts: byte streams like TCP's, and whole messages like WebSocket's.

Opening takes its round trips, closing travels behind the data, and a host that dies leaves connections that
are either reset or, when it lost its power, silent. A stream joins what is sent in one instant and cuts it
anew at places drawn from the seed, so that no receiver can rely on where a write began or ended.
"""

from collections.abc import Callable
from enum import Enum
from typing import Final, Protocol

from simulator.engine import Engine
from simulator.net.link import Lane, Port
from simulator.rng import stream
from teale_proto.contract import SECOND, Duration, Instant, Value
from teale_proto.inputs import Address, ConnectionId, ServiceRecord

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


Tap = Callable[[Traffic], None]


class Owner(Protocol):
    """What a host is told; always from the engine, never from inside a call that it made."""

    def accepted(self, end: "End", remote: Address, local: Address, host: str) -> None:
        """Somebody connected; the owner sets `end.id`."""

    def opened(self, end: "End") -> None:
        """A connection that was asked for is open."""

    def failed(self, end: "End", reason: str) -> None:
        """A connection that was asked for could not be opened."""

    def received(self, end: "End", data: bytes) -> None:
        """A piece of a stream or a whole message came in."""

    def pinged(self, end: "End") -> None:
        """A ping came in and has been answered."""

    def ponged(self, end: "End") -> None:
        """The answer to a ping came in."""

    def closed(self, end: "End", reason: str) -> None:
        """The connection ended, and not because this side closed it."""

    def found(self, name: str, record: ServiceRecord, addresses: tuple[Address, ...]) -> None:
        """A service was seen on a network segment."""

    def lost(self, name: str) -> None:
        """A service is gone from a network segment."""


class Machine:
    """A host as the network knows it: a name, a port on every segment that it is attached to, its connections."""

    __slots__ = ("connects", "ends", "listening", "name", "owner", "ports", "running")

    def __init__(self, name: str) -> None:
        self.name = name
        self.owner: Owner | None = None
        self.ports: dict[str, Port] = {}
        self.running = False
        self.ends: dict[End, None] = {}
        """In the order in which they came to be; a dict, because the order of a set is not reproducible."""
        self.listening: set[int] = set()
        self.connects = 0
        """How many connections it has asked for."""

    def die(self, *, silently: bool) -> None:
        """End everything at once; the other sides learn it after a round trip, or never when `silently`."""
        self.running = False
        for port in self.ports.values():
            port.powered = not silently
        for end in list(self.ends):
            end.die(silently=silently)
        self.ends.clear()


class End:
    """One side of a connection; its host sends through it."""

    __slots__ = ("_lane", "_outbox", "_port", "connection", "id", "machine", "other", "state")

    other: "End"

    def __init__(self, connection: "Connection", machine: Machine, port: Port, lane: Lane) -> None:
        self.connection = connection
        self.machine = machine
        self.id: ConnectionId = 0
        self.state = State.CONNECTING
        self._port = port
        self._lane = lane
        self._outbox = bytearray()

    @property
    def address(self) -> str:
        """The host's address on the network that this connection crosses."""
        return self._port.address

    def send(self, data: bytes) -> None:
        """Send bytes of a stream, or one whole message."""
        assert self.state is State.OPEN, f"{self.machine.name} sends on a connection that is {self.state.value}"
        connection = self.connection
        connection.observe(self, data)
        if connection.kind is not Kind.STREAM:
            packets = max(1, -(-len(data) // SEGMENT_BYTES))
            self._lane.carry(len(data) + MESSAGE_OVERHEAD_BYTES, packets, self.other.receive, data)
            return
        if not self._outbox:
            connection.engine.call_at(connection.engine.now, self._flush)
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

    def die(self, *, silently: bool) -> None:
        """Stop existing, as part of the host's death."""
        self._outbox.clear()
        self.state = State.DEAD
        self._lane.cut_at = self.connection.engine.now
        if not silently:
            self._reset_other_after(2 * self._distance())

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

    def receive(self, data: bytes) -> None:
        """Take what arrived."""
        if self.state is State.OPEN:
            self._owner().received(self, data)
        elif self.state is State.DEAD:
            # The host is back, or only its process died: its network stack knows no such connection.
            self._reset_other_after(self._distance())

    def receive_ping(self) -> None:
        """Answer a ping."""
        if self.state is State.OPEN:
            self._lane.carry(MESSAGE_OVERHEAD_BYTES, 1, self.other.receive_pong)
            self._owner().pinged(self)
        elif self.state is State.DEAD:
            self._reset_other_after(self._distance())

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

    def _reset_other_after(self, delay: Duration) -> None:
        engine = self.connection.engine
        engine.call_at(engine.now + delay, self.other.receive_reset)

    def _distance(self) -> Duration:
        return self._lane.latency

    def _owner(self) -> Owner:
        owner = self.machine.owner
        assert owner is not None
        return owner

    def _forget(self, state: State) -> None:
        self.state = state
        self.machine.ends.pop(self, None)

    def _flush(self) -> None:
        if not self._outbox:
            return
        data = bytes(self._outbox)
        self._outbox.clear()
        for piece in self.connection.cut(data):
            self._lane.carry(len(piece), 1, self.other.receive, piece)


class Connection:
    """Two ends, and the handshake that brings them to life."""

    __slots__ = (
        "_attempt",
        "_cut_chance",
        "_host",
        "_listens",
        "_rng",
        "_taps",
        "_target",
        "client",
        "engine",
        "kind",
        "serial",
    )

    def __init__(
        self,
        engine: Engine,
        kind: Kind,
        *,
        seed: int,
        serial: int,
        client: tuple[Machine, Port],
        server: tuple[Machine, Port],
        target: Address,
        host: str,
        listens: Callable[[], bool],
        taps: list[Tap],
        cut_chance: float,
    ) -> None:
        self.engine = engine
        self.kind = kind
        self.serial = serial
        self._target = target
        self._host = host
        self._listens = listens
        self._taps = taps
        self._cut_chance = cut_chance
        machine, port = client
        other_machine, other_port = server
        self._attempt = machine.connects
        machine.connects += 1
        # Named after the client and its own count, so that connections between others draw the same chances.
        name = f"connection {self._attempt}"
        self._rng = stream(seed, machine.name, name)
        there = Lane(engine, port, other_port, stream(seed, machine.name, f"{name} there"))
        back = Lane(engine, other_port, port, stream(seed, machine.name, f"{name} back"))
        self.client = End(self, machine, port, there)
        self.client.other = End(self, other_machine, other_port, back)
        self.client.other.other = self.client
        machine.ends[self.client] = None

    def open(self) -> End:
        """Start the handshake; returns the client's end."""
        self.client.handshake(1)
        self.engine.call_at(self.engine.now + CONNECT_TIMEOUT, self.client.give_up)
        return self.client

    def arrive(self, leg: int) -> None:
        """Take one leg of the handshake at the side where it arrived."""
        end = self.client.other if leg % 2 else self.client
        if leg == 1:
            if not self._listens():
                end.refuse()
                return
            # Only now: a host that was restarted before this knows nothing of it yet.
            end.machine.ends[end] = None
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
            owner.accepted(end, self._client_address(), self._target, self._host)
        elif leg == kind.opened_on:
            end.state = State.OPEN
            owner.opened(end)

    def observe(self, end: End, data: bytes) -> None:
        """Show what is being sent to everybody who taps the network."""
        if self._taps:
            whole = self.kind is not Kind.STREAM
            seen = Traffic(self.engine.now, end.machine.name, end.other.machine.name, self.serial, whole, data)
            for tap in self._taps:
                tap(seen)

    def cut(self, data: bytes) -> list[bytes]:
        """Cut a stream's data as its packets carry it: full segments, some shortened by chance."""
        pieces = []
        start = 0
        while start < len(data):
            size = min(SEGMENT_BYTES, len(data) - start)
            if self._cut_chance and size > 1 and self._rng.random() < self._cut_chance:
                size = 1 + self._rng.randrange(size - 1)
            pieces.append(data[start : start + size])
            start += size
        return pieces

    def _client_address(self) -> Address:
        # The dynamic ports of RFC 6335, one per connection of a host until they come round again.
        return Address(self.client.address, 49_152 + self._attempt % 16_384)
