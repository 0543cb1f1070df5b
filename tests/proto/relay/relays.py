"""A relay with nodes around it, joined by perfect wires: raw ones that say anything, and real clients.

Time stands still until `advance`, which jumps from deadline to deadline.
"""

from collections import deque
from collections.abc import Sequence
from itertools import count
from random import Random
from typing import Any

import msgspec

from teale_proto.contract import NEVER, SECOND, Core, Duration, Instant
from teale_proto.effects import (
    CloseConnection,
    Connect,
    RelayEffect,
    ReportConnection,
    ReportRefusal,
    ReportRelay,
    SendData,
    SendPing,
    SendText,
)
from teale_proto.inputs import (
    WAKE,
    Address,
    ConnectionAccepted,
    ConnectionClosed,
    ConnectionId,
    DataReceived,
    NodeId,
    PingReceived,
    RelayInput,
)
from teale_proto.relay.client import RelayClient, RelayClientConfig, RelayNews
from teale_proto.relay.server import RelayServer, RelayServerConfig
from teale_proto.secure.identity import Identity
from teale_proto.timers import Timers
from teale_proto.wire.binary import is_binary
from teale_proto.wire.codec import Flavour
from teale_proto.wire.relay import (
    RELAY_CODEC,
    Capabilities,
    Hardware,
    Register,
    RegisterProof,
    RelayMessage,
    legacy_registration,
    registration_proof,
)

HOST = "relay.test"
LOCAL = Address("192.0.2.1", 443)
REMOTE = Address("198.51.100.7", 40000)
UNIX_TIME_AT_ZERO = 1_700_000_000 * SECOND
CAPABILITIES = Capabilities(hardware=Hardware(total_ram_gb=16.0, tier=2), loaded_models=("tiny",))
CONFIG = RelayServerConfig(names=(HOST,))
LEGACY = RelayServerConfig(names=(HOST,), allow_legacy_register=True)


def identity(number: int) -> Identity:
    """Return one of a series of fixed identities."""
    return Identity.from_seed(number.to_bytes(32, "big"))


ALICE, BOB, CAROL, MALLORY = (identity(number) for number in range(1, 5))


def registration(of: Identity, **changes: Any) -> Register:
    """Return an honest registration, but for the changes."""
    fields: dict[str, Any] = {
        "node_id": of.node_id,
        "public_key": of.node_id,
        "display_name": "a node",
        "capabilities": CAPABILITIES,
        "signature": of.sign(legacy_registration(of.node_id)).hex(),
    }
    return Register(**(fields | changes))


class Relay:
    """A server, the connections to it, and the time."""

    def __init__(self, config: RelayServerConfig = CONFIG) -> None:
        self.server = RelayServer(config, Random(1), unix_time_at_zero=UNIX_TIME_AT_ZERO)
        self.now: Instant = 0
        self.refusals: list[str] = []
        self.ended: list[ReportConnection] = []
        self.is_reachable = True
        self.clients: list[ClientNode] = []
        self._numbers = count(2, 2)
        self._queue: deque[RelayEffect] = deque()
        self._busy = False
        self._ends: dict[ConnectionId, RawNode | ClientNode] = {}

    def feed(self, event: RelayInput) -> Sequence[RelayEffect]:
        core: Core[RelayInput, RelayEffect] = self.server
        effects = core.handle(event, self.now)
        self._queue.extend(effects)
        if not self._busy:
            # Whoever reacts to a message feeds us again; a queue keeps every wire in order all the same.
            self._busy = True
            while self._queue:
                self._carry_out(self._queue.popleft())
            self._busy = False
        return effects

    def _carry_out(self, effect: RelayEffect) -> None:
        match effect:
            case SendText() | SendData():
                if (end := self._ends.get(effect.connection)) is not None:
                    end.hear(effect.data)
            case CloseConnection():
                if (end := self._ends.pop(effect.connection, None)) is not None:
                    end.end(effect.reason, effect.code)
            case ReportRefusal():
                self.refusals.append(effect.reason)
            case ReportConnection():
                self.ended.append(effect)
            case _:
                raise AssertionError(effect)

    def accept(
        self, end: "RawNode | ClientNode", host: str = HOST, local: Address = LOCAL, remote: Address = REMOTE
    ) -> ConnectionId:
        number = next(self._numbers)
        self._ends[number] = end
        self.feed(ConnectionAccepted(number, remote, local, host))
        return number

    def hang_up(self, connection: ConnectionId, reason: str = "reset") -> None:
        if self._ends.pop(connection, None) is not None:
            self.feed(ConnectionClosed(connection, reason))

    def node(
        self, of: Identity, flavour: Flavour = Flavour.DOCUMENTED, *, remote: str = REMOTE.host, **register: Any
    ) -> "RawNode":
        """Return a raw node that has registered and heard so."""
        node = RawNode(self, of, flavour, remote=remote)
        node.register(**register)
        assert node.kinds()[-1] == "registerAck"
        node.inbox.clear()
        return node

    def client(self, of: Identity, **settings: Any) -> "ClientNode":
        """Return a real client that has started."""
        client = ClientNode(self, of, **settings)
        self.clients.append(client)
        client.start()
        return client

    @property
    def deadline(self) -> Instant:
        return min([self.server.deadline, *(client.timers.deadline for client in self.clients)])

    def advance(self, duration: Duration) -> None:
        """Let time pass, waking whoever is due."""
        until = self.now + duration
        while (due := self.deadline) <= until and due != NEVER:
            self.now = max(self.now, due)
            if self.server.deadline <= self.now:
                self.feed(WAKE)
                assert self.server.deadline > self.now
            for client in self.clients:
                client.wake()
        self.now = until


class RawNode:
    """One WebSocket with somebody at its end who says whatever the test wants."""

    def __init__(
        self,
        relay: Relay,
        of: Identity,
        flavour: Flavour = Flavour.DOCUMENTED,
        *,
        host: str = HOST,
        local: Address = LOCAL,
        remote: str = REMOTE.host,
    ) -> None:
        self.relay = relay
        self.identity = of
        self.flavour = flavour
        self.host = host
        self.raw: list[bytes] = []
        self.inbox: list[RelayMessage] = []
        self.closed: str | None = None
        self.close_code = 0
        self.connection = relay.accept(self, host, local, Address(remote, 40000))

    @property
    def id(self) -> NodeId:
        return self.identity.node_id

    def hear(self, data: bytes) -> None:
        self.raw.append(data)
        if is_binary(data):
            return
        message, _ = RELAY_CODEC.decode(data)
        self.inbox.append(message)  # type: ignore[arg-type]  # the relay sends nothing unknown

    def end(self, reason: str, code: int) -> None:
        self.closed = reason
        self.close_code = code

    def kinds(self) -> list[str]:
        return [RELAY_CODEC.kinds[type(message)] for message in self.inbox]

    @property
    def last(self) -> Any:
        return self.inbox[-1]

    def take(self) -> list[RelayMessage]:
        """Return what came since the last time."""
        messages = list(self.inbox)
        self.inbox.clear()
        return messages

    def say(self, message: RelayMessage) -> None:
        self.say_bytes(RELAY_CODEC.encode(message, self.flavour))

    def say_bytes(self, data: bytes) -> None:
        self.relay.feed(DataReceived(self.connection, data))

    def say_json(self, value: Any) -> None:
        self.say_bytes(msgspec.json.encode(value))

    def ping(self) -> None:
        self.relay.feed(PingReceived(self.connection))

    def prove(self, challenge: str, **changes: Any) -> None:
        """Answer a challenge, honestly but for the changes."""
        message = registration_proof(self.id, self.host, bytes.fromhex(challenge))
        fields = {"node_id": self.id, "signature": self.identity.sign(message).hex()}
        self.say(RegisterProof(**(fields | changes)))

    def register(self, **changes: Any) -> None:
        """Register and answer the challenge."""
        self.say(registration(self.identity, **changes))
        self.prove(self.last.challenge)

    def hang_up(self) -> None:
        self.relay.hang_up(self.connection)


class ClientNode:
    """A real relay client with a driver that never fails, unless the relay is unreachable."""

    def __init__(self, relay: Relay, of: Identity, *, seed: int = 7, **settings: Any) -> None:
        self.relay = relay
        self.timers: Timers[Any] = Timers()
        self.effects: list[Any] = []
        self.news: list[RelayNews] = []
        self.heard: list[bytes] = []
        self._wire: ConnectionId | None = None
        self._done = 0
        fields: dict[str, Any] = {
            "url": f"ws://{HOST}/ws",
            "host": HOST,
            "display_name": "a client",
            "capabilities": CAPABILITIES,
            "timers": self.timers,
            "rng": Random(seed),
            "connection_ids": count(1, 2),
            "config": RelayClientConfig(),
        }
        self.client = RelayClient(of, **(fields | settings))
        self.id = of.node_id

    def start(self) -> None:
        self.client.start(self.relay.now, self.effects)
        self.carry_out()

    def wake(self) -> None:
        while (key := self.timers.pop_due(self.relay.now)) is not None:
            self.news += self.client.fired(key, self.relay.now, self.effects)
        self.carry_out()
        assert self.timers.deadline > self.relay.now

    def carry_out(self) -> None:
        """Do what the client wants done."""
        while self._done < len(self.effects):
            effect = self.effects[self._done]
            self._done += 1
            match effect:
                case Connect():
                    if self.relay.is_reachable:
                        self._wire = self.relay.accept(self)
                        self.client.opened(self.relay.now, self.effects)
                    else:
                        self.client.failed("unreachable", self.relay.now, self.effects)
                case SendText() | SendData() if self._wire is not None:
                    self.relay.feed(DataReceived(self._wire, effect.data))
                case SendPing() if self._wire is not None:
                    self.relay.feed(PingReceived(self._wire))
                    self.client.ponged(self.relay.now)
                case CloseConnection() if self._wire is not None:
                    wire, self._wire = self._wire, None
                    self.relay.hang_up(wire)

    def hear(self, data: bytes) -> None:
        self.heard.append(data)
        self.news += self.client.received(data, self.relay.now, self.effects)
        self.carry_out()

    def end(self, reason: str, code: int) -> None:
        del code
        self._wire = None
        self.news += self.client.closed(reason, self.relay.now, self.effects)
        self.carry_out()

    def take_news(self) -> list[RelayNews]:
        """Return what happened since the last time."""
        news = list(self.news)
        self.news.clear()
        return news

    @property
    def states(self) -> list[str]:
        return [effect.state.value for effect in self.effects if isinstance(effect, ReportRelay)]
