"""Real nodes among deployed programs, over real WebSockets: at a relay as it is deployed, with a Mac beside them."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed as Closed
from websockets.sync.client import ClientConnection, connect
from websockets.sync.server import ServerConnection, serve

from teale_proto.effects import CloseConnection, SendText
from teale_proto.inputs import Address, ConnectionAccepted, ConnectionClosed, ConnectionOpened, DataReceived
from teale_proto.link import PLAINTEXT_THROUGH_RELAY
from teale_proto.secure.identity import Identity
from teale_proto.wire.codec import Flavour
from tests.e2e.harness import QUESTION, SAFETY_SECONDS, SENTENCE, TINY, Node, Stage, eventually
from tests.proto.deployed import DeployedNode, DeployedRelay, OpenSession, Tell

HERE = Address("127.0.0.1", 0)


class RelayThreads:
    """Drives the model of a deployed relay with the `websockets` package's own server, a thread a connection."""

    def __init__(self) -> None:
        self._relay = DeployedRelay()
        self._sockets: dict[int, ServerConnection] = {}
        self._lock = threading.Lock()
        self._next = 0

    def serve(self, socket: ServerConnection) -> None:
        with self._lock:
            self._next += 1
            connection = self._next
            self._sockets[connection] = socket
        self._feed(ConnectionAccepted(connection, HERE, HERE))
        with suppress(Closed):
            for message in socket:
                data = message.encode() if isinstance(message, str) else message
                self._feed(DataReceived(connection, data))
        with self._lock:
            del self._sockets[connection]
        self._feed(ConnectionClosed(connection, "closed"))

    def _feed(self, event: Any) -> None:
        with self._lock:
            effects = [(self._sockets.get(effect.connection), effect) for effect in self._relay.handle(event, 0)]
        # Not under the lock: a connection that is being closed keeps whoever sends to it waiting.
        for socket, effect in effects:
            if socket is None:
                continue
            with suppress(Closed):
                if isinstance(effect, SendText):
                    socket.send(effect.data.decode())
                elif isinstance(effect, CloseConnection):
                    socket.close(1012, effect.reason)


@pytest.fixture
def url() -> Iterator[str]:
    with serve(RelayThreads().serve, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}/ws"
    thread.join(SAFETY_SECONDS)


class Mac:
    """Drives the model of a deployed node with the `websockets` package's own client."""

    def __init__(self, socket: ClientConnection, node: DeployedNode) -> None:
        self.node = node
        self._socket = socket
        self.feed(ConnectionOpened(1))

    def feed(self, event: Any) -> None:
        for effect in self.node.handle(event, 0):
            self._socket.send(effect.data.decode())

    def hear_until(self, kind: str) -> None:
        """Listen until a cluster message of this kind has come, or the relay has said this."""
        give_up_at = time.monotonic() + SAFETY_SECONDS
        while kind not in self.node.relay_said[-1:] and kind not in [heard for heard, _ in self.node.heard[-1:]]:
            refused = [payload for heard, payload in self.node.heard if heard == "inferenceError"]
            assert not refused, refused
            assert time.monotonic() < give_up_at, (kind, self.node.relay_said, self.node.heard)
            self.feed(DataReceived(1, str(self._socket.recv(timeout=SAFETY_SECONDS)).encode()))


@contextmanager
def mac(url: str, **settings: Any) -> Iterator[Mac]:
    with connect(url, proxy=None) as socket:
        yield Mac(socket, DeployedNode(Identity.from_seed(bytes(31) + b"M"), **settings))


def settings(url: str, **more: object) -> dict[str, object]:
    return {"wan_enabled": True, "wan_relay_url": url, **more}


def test_nodes_answer_each_other_encrypted_through_a_deployed_relay(url: str, stage: Stage) -> None:
    bob = stage.node("bob", **settings(url, builtin_model=True))
    eventually(partial(_serves, bob), "serving")
    alice = stage.node("alice", **settings(url))
    alice.wait_for_peers(bob, model=TINY)
    assert alice.peers()[bob.id]["encryption"].startswith("Noise_IK_25519_")
    reply = alice.chat(QUESTION)
    assert (reply.text, reply.path) == (SENTENCE, "relay")


def _serves(node: Node) -> bool:
    # Not `/v1/models`: what its peers have is in there as well.
    return TINY in node.get("/api/status")["loaded_models"]


def _is_at_relay(node: Node) -> bool:
    return bool(node.get("/api/status")["wan"] == "connected")


def _ask(mac: Mac, node: Node) -> str:
    mac.feed(OpenSession(node.id))  # type: ignore[arg-type]  # an id in text is one
    mac.hear_until("helloAck")
    body = {"model": TINY, "messages": [{"role": "user", "content": QUESTION}], "temperature": 0}
    mac.feed(Tell({"inferenceRequest": {"requestID": mac.node.DEVICE, "request": body, "streaming": False}}))
    mac.hear_until("inferenceComplete")
    [chunk] = [payload["chunk"] for kind, payload in mac.node.heard if kind == "inferenceChunk"]
    assert chunk["object"] == "chat.completion.chunk"
    text: str = chunk["choices"][0]["delta"]["content"]
    return text


@pytest.mark.parametrize("flavour", [Flavour.DEPLOYED, Flavour.SWIFT])
def test_a_mac_that_does_not_encrypt_is_answered_only_where_that_is_allowed(
    url: str, stage: Stage, flavour: Flavour
) -> None:
    strict, lax = stage.nodes(
        {
            "strict": settings(url, builtin_model=True),
            "lax": settings(url, builtin_model=True, allow_plaintext_legacy=True),
        }
    )
    for node in (strict, lax):
        eventually(partial(_serves, node), "serving")
        eventually(partial(_is_at_relay, node), "connected to the relay")
    with mac(url, flavour=flavour) as visitor:
        visitor.feed(OpenSession(strict.id))  # type: ignore[arg-type]  # an id in text is one
        visitor.hear_until("relayClose")
        eventually(lambda: PLAINTEXT_THROUGH_RELAY in strict.log, "the reason is in the log")
        assert _ask(visitor, lax) == SENTENCE
        assert lax.peers()[visitor.node.node_id]["encryption"] == "none"
    assert [node.get("/api/status")["allow_plaintext_legacy"] for node in (strict, lax)] == [False, True]
