"""Hostile parties that stand in a `World` beside honest cores and do whatever the test has them do.

A `Puppet` is a node as far as its handshakes go: it proves an identity of its own, greets, and then says anything.
An `EvilRelay` is an honest relay in the hands of a dishonest operator: it does its work, and on the way out its
operator reads, holds back, drops, doubles, alters and invents.
"""

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import msgspec

from teale_proto.contract import NEVER, Instant, Value
from teale_proto.effects import CloseConnection, Connect, SendData, SendText
from teale_proto.errors import PeerError
from teale_proto.inputs import (
    Address,
    ConnectionAccepted,
    ConnectionClosed,
    ConnectionId,
    ConnectionOpened,
    DataReceived,
    NodeId,
)
from teale_proto.link import Established, Link, Numbered
from teale_proto.secure.identity import Identity
from teale_proto.wire.cluster import ClusterMessage, DeviceInfo, Hello, HelloAck
from teale_proto.wire.codec import Unknown
from teale_proto.wire.framing import frame
from teale_proto.wire.relay import INVALID_MESSAGE, RELAY_CODEC, Error, Hardware, Register, RelayData, RelayMessage
from tests.proto.world import LAN_PORT, World, identity, make_relay

MARK = "plaintext-mark"
"""Stands in every prompt and every answer here; nobody between two nodes may ever see it."""

MALLORY = 66
"""The number of the identity that is nobody's friend."""


class Do(Value):
    """The test tells a puppet, or an evil relay, what to do: carry out these effects."""

    effects: tuple[Any, ...]


class Puppet:
    """A core that proves who it is, greets politely, and from then on says what the test wants."""

    deadline: Instant = NEVER

    def __init__(self, number: int = MALLORY, *, models: tuple[str, ...] = (), **greeting: Any) -> None:
        self.identity = identity(number)
        self.inbox: list[ClusterMessage | Numbered | Unknown] = []
        self.closed: list[str] = []
        self.errors: list[str] = []
        self.links: dict[ConnectionId, Link] = {}
        self.greets = True
        device = DeviceInfo(self.identity.node_id, "mallory", Hardware(), loaded_models=models)
        self._greeting = {"device_info": device, "loaded_models": models, **greeting}
        self._initiated: set[ConnectionId] = set()
        self._rng = Random(number)

    @property
    def node_id(self) -> NodeId:
        return self.identity.node_id

    def handle(self, event: Any, now: Instant) -> Sequence[Any]:
        match event:
            case Do(effects):
                return effects
            case ConnectionOpened(connection) | ConnectionAccepted(connection):
                return self._begin(connection, dialled=isinstance(event, ConnectionOpened))
            case DataReceived(connection, data) if connection in self.links:
                return self._receive(connection, data)
            case ConnectionClosed(connection, reason):
                self.links.pop(connection, None)
                self.closed.append(reason)
        return ()

    def _begin(self, connection: ConnectionId, *, dialled: bool) -> Sequence[Any]:
        pieces: list[bytes] = []
        instance = self._rng.randbytes(8)
        if dialled:
            self._initiated.add(connection)
            link = Link.dial(self.identity, expected=None, instance=instance, rng=self._rng)
        else:
            link = Link.accept(self.identity, instance=instance, rng=self._rng, allow_plaintext=False)
        self.links[connection] = link
        link.start(pieces)
        return [SendData(connection, piece) for piece in pieces]

    def _receive(self, connection: ConnectionId, data: bytes) -> Sequence[Any]:
        link, pieces = self.links[connection], list[bytes]()
        try:
            for event in link.receive(data, pieces):
                if isinstance(event, Established):
                    if connection in self._initiated and self.greets:
                        link.send(Hello(**self._greeting), pieces)
                    continue
                self.inbox.append(event)
                if isinstance(event, Hello) and self.greets:
                    link.send(HelloAck(**self._greeting), pieces)
        except PeerError as error:
            self.errors.append(error.reason)
            return [CloseConnection(connection, error.reason)]
        return [SendData(connection, piece) for piece in pieces]

    def of(self, kind: type[Any]) -> list[Any]:
        """Return what was said to it of one kind."""
        return [message for message in self.inbox if type(message) is kind]

    # What the test has it do.

    def dial(self, world: World, name: str, target: str, connection: ConnectionId = 1) -> ConnectionId:
        """Connect to a node, prove who we are, and greet."""
        world.feed(name, Do((Connect(connection, Address(target, LAN_PORT)),)))
        return connection

    def say(self, world: World, name: str, message: ClusterMessage, connection: ConnectionId = 1) -> None:
        """Say one well-formed message over an open conversation."""
        pieces: list[bytes] = []
        self.links[connection].send(message, pieces)
        world.feed(name, Do(tuple(SendData(connection, piece) for piece in pieces)))

    def say_json(self, world: World, name: str, payload: bytes, connection: ConnectionId = 1) -> None:
        """Say any bytes in the place of a message, properly encrypted."""
        channel = self.links[connection]._channel
        assert channel is not None
        world.feed(name, Do(tuple(SendData(connection, frame(record)) for record in channel.seal(payload))))


Censor = Callable[[SendText, RelayMessage | Unknown], Sequence[Any]]
"""What an operator makes of one message on its way out: the effects that take its place."""


class EvilRelay:
    """An honest relay core whose operator sits at its wires."""

    def __init__(self, name: str = "relay.test", **config: Any) -> None:
        self.server = make_relay(name, **config)
        self.seen: list[bytes] = []
        """Everything that clients said, as they said it."""
        self.wires: dict[NodeId, ConnectionId] = {}
        self.censor: Censor | None = None
        self.mail: list[SendText] = []
        self.holds = False
        """Whether what nodes say to each other is kept in `mail` until the operator sends it."""

    @property
    def deadline(self) -> Instant:
        return self.server.deadline

    def handle(self, event: Any, now: Instant) -> Sequence[Any]:
        if isinstance(event, Do):
            return event.effects
        if isinstance(event, DataReceived):
            event = self._read(event)
        effects: list[Any] = []
        for effect in self.server.handle(event, now):
            effects += self._let_out(effect) if isinstance(effect, SendText) else [effect]
        return effects

    def _read(self, event: DataReceived) -> DataReceived:
        """Note what was said; a client's offer of binary messages is not passed on, so that all of it is JSON."""
        self.seen.append(event.data)
        message, flavour = RELAY_CODEC.decode(event.data)
        if not isinstance(message, Register):
            return event
        self.wires[message.node_id] = event.connection
        unable = msgspec.structs.replace(message, binary=False)
        return DataReceived(event.connection, RELAY_CODEC.encode(unable, flavour))

    def _let_out(self, effect: SendText) -> Sequence[Any]:
        message, _ = RELAY_CODEC.decode(effect.data)
        if isinstance(message, Error) and message.session_id is not None and message.code == INVALID_MESSAGE:
            # The honest half does not know the sessions that its operator invents; nobody shall hear of that.
            return ()
        if self.holds and hasattr(message, "session_id") and hasattr(message, "to_node_id"):
            self.mail.append(effect)
            return ()
        return (effect,) if self.censor is None else self.censor(effect, message)

    # What its operator knows, and does.

    def relayed(self) -> list[RelayData]:
        """Return the data messages that clients sent, in order."""
        messages = (RELAY_CODEC.decode(data)[0] for data in self.seen)
        return [message for message in messages if isinstance(message, RelayData)]

    def readable(self) -> bytes:
        """Return all that its operator can read: what was said, and what was inside of it."""
        return b"\n".join((*self.seen, *(message.data for message in self.relayed())))

    def say(self, world: World, name: str, to: NodeId, message: RelayMessage) -> None:
        """Say anything to a client, in the envelope that the relay speaks."""
        self.say_bytes(world, name, to, RELAY_CODEC.encode(message))

    def say_bytes(self, world: World, name: str, to: NodeId, data: bytes) -> None:
        """Say any bytes to a client."""
        world.feed(name, Do((SendText(self.wires[to], data),)))


def stranger(number: int) -> Identity:
    """Return one of many identities that nobody knows."""
    return identity(1_000_000 + number)


def question(number: int) -> bytes:
    """Return the body of a request that nobody else asks."""
    words = f"{MARK} question {number}"
    return msgspec.json.encode({"model": "m", "messages": [{"role": "user", "content": words}]})


def is_bounded(world: World, name: str) -> bool:
    """Whether a node keeps no more than it may of whatever others can make it keep."""
    node = world.node(name)
    contacts, relay = node._contacts, node._relay
    sizes = [
        (len(node._peers._conversations), 1024),
        (len(node._peers), 256),
        (node._peers._strangers, 64),
        (len(contacts._services), 512),
        (len(contacts._listed), 256),
        (len(contacts._failing), 1024),
        (len(contacts._turns), 512),
        (0 if node._seeking is None else node._seeking.openings, 64),
        (len(node._timers), 4096),
        (len(node._exchange.serving._jobs), 257),
        (0 if relay is None else len(relay._sessions), 300),
    ]
    return all(size <= limit for size, limit in sizes)
