"""Somebody who dials one node and says whatever the test wants, over a true handshake."""

from itertools import count
from random import Random
from typing import Any

from teale_proto.contract import Instant
from teale_proto.effects import CloseConnection, ReportPeer, ReportRefusal, SendData
from teale_proto.inputs import Address, ConnectionAccepted, ConnectionClosed, DataReceived, Started
from teale_proto.link import Established, Link
from teale_proto.node import Node
from teale_proto.secure.identity import Identity
from teale_proto.secure.passcode import Passcode, PasscodeExchange
from teale_proto.wire.cluster import ClusterMessage, DeviceInfo, Hello, PasscodeConfirm, PasscodeStart
from teale_proto.wire.relay import Hardware
from tests.proto.world import LAN_PORT, identity, make_node


class House:
    """One node, started, and those who come to its door; what it reports is kept."""

    def __init__(self, **config: Any) -> None:
        self.node: Node = make_node("house", 1, **config)
        self.now: Instant = 0
        self.refusals: list[str] = []
        self.ups: list[str] = []
        self._numbers = count(2, 2)
        self._visitors: dict[int, Visitor] = {}
        self.feed(Started(LAN_PORT))

    def feed(self, event: Any) -> None:
        for effect in self.node.handle(event, self.now):
            match effect:
                case SendData(connection, data) if connection in self._visitors:
                    self._visitors[connection].hear(data)
                case CloseConnection(connection):
                    visitor = self._visitors.pop(connection, None)
                    if visitor is not None:
                        visitor.closed = True
                case ReportRefusal():
                    self.refusals.append(effect.reason)
                case ReportPeer():
                    self.ups.append(effect.node)

    def visit(self, number: int, host: str = "10.0.0.9") -> "Visitor":
        """Let somebody in as far as the handshake."""
        connection = next(self._numbers)
        visitor = self._visitors[connection] = Visitor(self, identity(number), connection)
        self.feed(ConnectionAccepted(connection, Address(host, 40_000), Address("10.0.0.1", LAN_PORT)))
        visitor.begin()
        return visitor


class Visitor:
    """The other end of one connection."""

    def __init__(self, house: House, who: Identity, connection: int) -> None:
        self.house = house
        self.identity = who
        self.connection = connection
        self.rng = Random(f"{who.node_id} {connection}")
        self.link = Link.dial(who, expected=None, instance=bytes(8), rng=self.rng)
        self.heard: list[Any] = []
        self.closed = False
        self._in: list[bytes] = []

    def begin(self) -> None:
        out: list[bytes] = []
        self.link.start(out)
        self._send(out)

    def hear(self, data: bytes) -> None:
        out: list[bytes] = []
        self.heard += [event for event in self.link.receive(data, out) if not isinstance(event, Established)]
        self._send(out)

    def say(self, message: ClusterMessage) -> None:
        out: list[bytes] = []
        self.link.send(message, out)
        self._send(out)

    def _send(self, out: list[bytes]) -> None:
        if out and not self.closed:
            self.house.feed(DataReceived(self.connection, b"".join(out)))

    def hang_up(self) -> None:
        self.house.feed(ConnectionClosed(self.connection, "reset"))

    def last(self, kind: type[Any]) -> Any:
        """Return the last thing heard, which is of this kind."""
        assert isinstance(self.heard[-1], kind), self.heard
        return self.heard[-1]

    def greet(self) -> None:
        self.say(Hello(DeviceInfo(id=self.identity.node_id, name="visitor", hardware=Hardware())))

    def exchange(self, passcode: str) -> PasscodeExchange:
        return PasscodeExchange(
            Passcode(passcode),
            dialler=True,
            own=self.identity.node_id,
            peer=self.house.node.node_id,
            handshake_hash=self.link.handshake_hash,
            rng=self.rng,
        )

    def offer(self, passcode: str) -> PasscodeExchange:
        """Send a share; the answer, if one comes, is taken."""
        exchange = self.exchange(passcode)
        self.say(PasscodeStart(exchange.share.hex()))
        if isinstance(self.heard[-1], PasscodeStart):
            exchange.take_share(bytes.fromhex(self.heard[-1].share))
        return exchange

    def guess(self, passcode: str) -> bool:
        """Try a passcode to the end; return whether it was right."""
        exchange = self.offer(passcode)
        if self.closed:
            return False
        self.say(PasscodeConfirm(exchange.proof().hex()))
        if self.closed:
            return False
        assert exchange.is_proof(bytes.fromhex(self.last(PasscodeConfirm).proof))
        return True
