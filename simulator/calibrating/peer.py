"""Another node, as a real one sees it: a conversation over the LAN or through a relay, on a blocking socket.

It is the link and the delivery of the shipping core, without the rest of a node: what it says, and when, is up to
whoever measures.
"""

import socket
from collections import deque
from os import urandom
from random import SystemRandom
from typing import Any, Final, Protocol, TypeVar

from simulator.calibrating.programs import LOOPBACK, CalibrationError, Node, has_fast_aes
from simulator.calibrating.relay_client import ANSWER_SECONDS, RelayClient, open_session_with
from teale_proto.delivery import Delivery
from teale_proto.inputs import NodeId
from teale_proto.link import Established, Link, Numbered
from teale_proto.secure.identity import Identity
from teale_proto.secure.noise import INSTANCE_BYTES
from teale_proto.wire.binary import BinaryData
from teale_proto.wire.cluster import (
    CLUSTER_CODEC,
    DELIVERED,
    ClusterMessage,
    DeviceInfo,
    Heartbeat,
    HeartbeatAck,
    Hello,
    HelloAck,
    Received,
)
from teale_proto.wire.relay import Hardware, RelayClose

T = TypeVar("T")

EPOCH: Final = 1
"""We forget nothing, and so there is one count of what we have given up."""

CONVERSATION: Final = 1
"""There is but one, by whatever name."""

_FAST_AES: Final = has_fast_aes()


class Way(Protocol):
    """What carries the bytes of a link to a node and back."""

    def link(self, identity: Identity, instance: bytes) -> Link:
        """Return a new link."""

    def put(self, data: bytes) -> None:
        """Send bytes of the stream, or one message of it."""

    def get(self) -> bytes:
        """Return the next bytes, or the next message; waits for them."""

    def close(self) -> None:
        """End it."""


class Lan:
    """A TCP connection to the port that a node has for the LAN."""

    def __init__(self, node: Node) -> None:
        self._node: Final = node.node_id
        self._socket: Final = socket.create_connection((LOOPBACK, node.lan_port), ANSWER_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def link(self, identity: Identity, instance: bytes) -> Link:
        """Return a link that expects the node."""
        rng = SystemRandom()
        return Link.dial(identity, expected=self._node, instance=instance, rng=rng, fast_aes=_FAST_AES)

    def put(self, data: bytes) -> None:
        """Send bytes of the stream."""
        self._socket.sendall(data)

    def get(self) -> bytes:
        """Return what has come, at least a byte."""
        data = self._socket.recv(1 << 18)
        if not data:
            raise CalibrationError("the node closed the connection")
        return data

    def close(self) -> None:
        """End it."""
        self._socket.close()


class ThroughRelay:
    """A session of a relay."""

    def __init__(self, client: RelayClient, node: NodeId) -> None:
        self._client: Final = client
        self._node: Final = node
        self._session: Final = urandom(16).hex()
        open_session_with(client, node, self._session)

    def link(self, identity: Identity, instance: bytes) -> Link:
        """Return a link that belongs to the session."""
        return Link.relayed(
            identity,
            initiator=True,
            peer=self._node,
            session=self._session,
            instance=instance,
            rng=SystemRandom(),
            fast_aes=_FAST_AES,
        )

    def put(self, data: bytes) -> None:
        """Send one message."""
        self._client.send(self._session, data)

    def get(self) -> bytes:
        """Return the next message of the session."""
        while True:
            message = self._client.receive()
            if isinstance(message, BinaryData) and message.session_id == self._session:
                return message.data

    def close(self) -> None:
        """Close the session."""
        self._client.say(RelayClose(self._client.identity.node_id, self._node, self._session))


class Peer:
    """One conversation with a node, that we have begun; `models` are what we claim to serve."""

    def __init__(self, way: Way, identity: Identity, models: tuple[str, ...] = ()) -> None:
        self._way: Final = way
        self._node_id: Final = identity.node_id
        self._models: Final = models
        self._link: Final = way.link(identity, urandom(INSTANCE_BYTES))
        self._delivery: Final = Delivery()
        self._heard: deque[Any] = deque()
        try:
            self._greet()
        except BaseException:
            way.close()
            raise

    def _greet(self) -> None:
        models = self._models
        out: list[bytes] = []
        self._link.start(out)
        self._flush(out)
        self.expect(Established)
        device = DeviceInfo(id=self._node_id, name="calibration", hardware=Hardware(), loaded_models=models)
        self.say(Hello(device_info=device, loaded_models=models, max_concurrent_requests=4, delivery=EPOCH))
        self.expect(HelloAck)

    def close(self) -> None:
        """Go without a word."""
        self._way.close()

    def say(self, message: ClusterMessage) -> None:
        """Send one message."""
        out: list[bytes] = []
        if type(message) in DELIVERED:
            record = self._delivery.at_once(CLUSTER_CODEC.encode(message), CONVERSATION)
            assert record is not None, "the node has not acknowledged thousands of messages"
            self._link.send_encoded(record, out)
        else:
            self._link.send(message, out)
        self._flush(out)

    def beat(self, models: tuple[str, ...] = ()) -> None:
        """Send a heartbeat and wait for the answer."""
        self.say(Heartbeat(self._node_id, 0.0, loaded_models=models or self._models))
        self.expect(HeartbeatAck)

    def beats(self, count: int) -> None:
        """Send so many heartbeats at once and wait for the answers."""
        out: list[bytes] = []
        for _ in range(count):
            self._link.send(Heartbeat(self._node_id, 0.0, loaded_models=self._models), out)
        self._way.put(b"".join(out))
        for _ in range(count):
            self.expect(HeartbeatAck)

    def expect(self, kind: type[T]) -> T:
        """Return the next message of a kind; others are passed over."""
        while not isinstance(message := self.hear(), kind):
            pass
        return message

    def hear(self) -> Any:
        """Return the next message; waits for it. Heartbeats and acknowledgements are dealt with."""
        while not self._heard:
            out: list[bytes] = []
            for heard in self._link.receive(self._way.get(), out):
                self._take(heard)
            self._flush(out)
            up_to = self._delivery.acknowledgement(at_once=False)
            if up_to is not None:
                self.say(Received(up_to))
        return self._heard.popleft()

    def _take(self, heard: Any) -> None:
        if isinstance(heard, Numbered):
            self._heard.extend(self._delivery.take(heard.number, heard.message, heard.size_bytes))
        elif isinstance(heard, Received):
            self._delivery.acknowledged(heard.up_to)
        elif isinstance(heard, Heartbeat):
            self.say(HeartbeatAck(self._node_id, 0.0, loaded_models=self._models))
        else:
            self._heard.append(heard)

    def _flush(self, out: list[bytes]) -> None:
        for data in out:
            self._way.put(data)
        out.clear()
