"""A relay that behaves like the deployed one, for the simulator alone: to count what its design costs.

It believes every registration at once, answers each `discover` with everybody who is registered (and fits), tells
everybody of everybody who comes or goes, and writes what it passes on anew. It has no limits, checks no signature and
looks at no sender; it must never meet a network. What it does is described in docs/howto/deployed.md.
"""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

from teale_proto.contract import NEVER, Instant
from teale_proto.effects import CloseConnection, RelayEffect, SendText
from teale_proto.errors import PeerError
from teale_proto.inputs import (
    ConnectionAccepted,
    ConnectionClosed,
    ConnectionId,
    DataReceived,
    MessagesReceived,
    NodeId,
    RelayInput,
    StopRequested,
)
from teale_proto.wire.codec import Flavour
from teale_proto.wire.fields import wire_date
from teale_proto.wire.relay import (
    INVALID_JSON,
    PEER_NOT_FOUND,
    RELAY_CODEC,
    UNSUPPORTED_MESSAGE,
    Capabilities,
    Discover,
    DiscoverFilter,
    DiscoverResponse,
    Error,
    PeerJoined,
    PeerLeft,
    PeerListing,
    Register,
    RegisterAck,
    RelayMessage,
)

TTL_SECONDS: Final = 300

_NONE_LISTED: Final = RELAY_CODEC.encode(DiscoverResponse(()), Flavour.DEPLOYED)
_BEGIN, _END = _NONE_LISTED[: _NONE_LISTED.index(b"]")], _NONE_LISTED[_NONE_LISTED.index(b"]") :]


class _Registered:
    __slots__ = ("connection", "entry", "register", "serial")

    def __init__(self, serial: int, connection: ConnectionId, register: Register, entry: bytes) -> None:
        self.serial = serial
        self.connection = connection
        self.register = register
        self.entry = entry
        """How it is listed, encoded once: the program itself does it for every answer, which its profile says."""


class DeployedRelay:
    """One relay of the deployed design; a `Core[RelayInput, RelayEffect]`.

    `unix_time_at_zero` is the Unix time in microseconds at Instant 0, for the dates on the wire.
    """

    def __init__(self, *, unix_time_at_zero: int) -> None:
        self._unix_time_at_zero = unix_time_at_zero
        self._nodes: dict[NodeId, _Registered] = {}
        self._by_connection: dict[ConnectionId, _Registered | None] = {}
        self._serial = 0
        self._listed: bytes | None = None
        """All entries in one piece, until somebody comes or goes."""
        self._serials: list[int] = []
        self._offsets: list[int] = []

    @property
    def deadline(self) -> Instant:
        """It wakes for nothing: who goes silent stays listed until the connection ends."""
        return NEVER

    @property
    def registered(self) -> int:
        """How many nodes it lists."""
        return len(self._nodes)

    def handle(self, event: RelayInput, now: Instant) -> Sequence[RelayEffect]:
        """Take one input at `now`; return what must now be done, in order."""
        out: list[RelayEffect] = []
        if isinstance(event, DataReceived):
            self._take(event.connection, event.data, now, out)
        elif isinstance(event, MessagesReceived):
            for data in event.messages:
                self._take(event.connection, data, now, out)
        elif isinstance(event, ConnectionAccepted):
            self._by_connection[event.connection] = None
        elif isinstance(event, ConnectionClosed):
            self._forget(event.connection, out)
        elif isinstance(event, StopRequested):
            out += [CloseConnection(connection, "the relay is stopping") for connection in self._by_connection]
            self._by_connection.clear()
            self._nodes.clear()
            self._listed = None
        return out

    def _take(self, connection: ConnectionId, data: bytes, now: Instant, out: list[RelayEffect]) -> None:
        if connection not in self._by_connection:
            return
        try:
            message, _ = RELAY_CODEC.decode(data)
        except PeerError as error:
            self._send(connection, Error(INVALID_JSON, error.reason), out)
            return
        if isinstance(message, Register):
            self._register(connection, message, now, out)
        elif isinstance(message, Discover):
            out.append(SendText(connection, self._listing(message), False))
        else:
            # Whoever is named is believed: nothing is compared with the connection.
            target = self._nodes.get(getattr(message, "to_node_id", NodeId("")))
            if target is not None:
                assert isinstance(message, RelayMessage), "what names a receiver is known"
                self._send(target.connection, message, out)
            elif hasattr(message, "to_node_id"):
                self._send(connection, Error(PEER_NOT_FOUND, "not connected"), out)
            else:
                self._send(connection, Error(UNSUPPORTED_MESSAGE, type(message).__name__), out)

    def _register(self, connection: ConnectionId, register: Register, now: Instant, out: list[RelayEffect]) -> None:
        former = self._by_connection[connection]
        if former is not None:
            self._nodes.pop(former.register.node_id, None)
        date = wire_date(self._unix_time_at_zero + now)
        self._serial += 1
        entry = RELAY_CODEC.encode(DiscoverResponse((_listing_of(register, date),)), Flavour.DEPLOYED)
        node = _Registered(self._serial, connection, register, entry[len(_BEGIN) : -len(_END)])
        # Last, where it came last: the order of the dict is that of the serials.
        self._nodes.pop(register.node_id, None)
        self._nodes[register.node_id] = self._by_connection[connection] = node
        self._listed = None
        self._send(connection, RegisterAck(register.node_id, date, TTL_SECONDS), out)
        if former is None:
            self._broadcast(PeerJoined(register.node_id, register.display_name), connection, out)

    def _forget(self, connection: ConnectionId, out: list[RelayEffect]) -> None:
        node = self._by_connection.pop(connection, None)
        # Another connection may have taken the node's place.
        if node is not None and self._nodes.get(node.register.node_id) is node:
            del self._nodes[node.register.node_id]
            self._listed = None
            self._broadcast(PeerLeft(node.register.node_id, node.register.display_name), connection, out)

    def _broadcast(self, message: RelayMessage, but: ConnectionId, out: list[RelayEffect]) -> None:
        data = RELAY_CODEC.encode(message, Flavour.DEPLOYED)
        out += [SendText(node.connection, data, False) for node in self._nodes.values() if node.connection != but]

    def _listing(self, discover: Discover) -> bytes:
        if discover.filter is None:
            return self._everybody(discover.requesting_node_id)
        wanted = [
            node.entry
            for node in self._nodes.values()
            if node.register.node_id != discover.requesting_node_id
            and _fits(node.register.capabilities, discover.filter)
        ]
        return _BEGIN + b",".join(wanted[: discover.filter.max_peers]) + _END

    def _everybody(self, but: NodeId) -> bytes:
        """Return the list without the asker, cut out of one that is made when somebody has come or gone."""
        if self._listed is None:
            nodes = list(self._nodes.values())
            self._listed = b"".join(node.entry + b"," for node in nodes)
            self._serials = [node.serial for node in nodes]
            self._offsets, at = [], 0
            for node in nodes:
                self._offsets.append(at)
                at += len(node.entry) + 1
        listed, asker = self._listed, self._nodes.get(but)
        if asker is not None:
            at = self._offsets[bisect_left(self._serials, asker.serial)]
            listed = listed[:at] + listed[at + len(asker.entry) + 1 :]
        return _BEGIN + listed[:-1] + _END

    def _send(self, connection: ConnectionId, message: RelayMessage, out: list[RelayEffect]) -> None:
        out.append(SendText(connection, RELAY_CODEC.encode(message, Flavour.DEPLOYED), False))


def _listing_of(register: Register, date: float) -> PeerListing:
    return PeerListing(
        node_id=register.node_id,
        public_key=register.public_key,
        display_name=register.display_name,
        capabilities=register.capabilities,
        last_seen=date,
        wg_public_key=register.wg_public_key,
    )


def _fits(capabilities: Capabilities, wanted: DiscoverFilter) -> bool:
    return (
        (wanted.model_id is None or wanted.model_id in capabilities.loaded_models)
        and (wanted.min_ram_gb is None or capabilities.hardware.total_ram_gb >= wanted.min_ram_gb)
        and (wanted.min_tier is None or capabilities.hardware.tier <= wanted.min_tier)
    )
