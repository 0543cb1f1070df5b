"""A node that is nothing but a real HTTP server on loopback with canned answers.

In the process of a test it is used as a context; as a program it behaves as `teale-node` does towards `teale`.
"""

import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import msgspec

from teale_io.api.encoding import encode
from teale_io.keychain import read_marker
from teale_io.paths import Paths, Runtime, write_runtime
from teale_proto.effects import Path, PeerState
from teale_proto.inputs import NodeId
from teale_proto.status import Candidate, Explanation, ListedPeer, PeerStatus
from teale_proto.wire.relay import Hardware
from tests.io.status import ALICE, BOB, CAROL, DAVE
from tests.io.status import STATUS as ANY_STATUS

HARDWARE = Hardware(chip_name="M4 Max", total_ram_gb=64.0, tier=2)
STATUS = msgspec.structs.replace(
    ANY_STATUS, hardware=HARDWARE, wan_relay_url="wss://relay.example/ws", peers_connected=2, queue_depth=3, running=1
)


def peer(node_id: NodeId, name: str, path: Path, *models: str, encryption: str = "Noise_IK") -> PeerStatus:
    """Return a connected peer."""
    return PeerStatus(
        node_id=node_id,
        display_name=name,
        state=PeerState.CONNECTED,
        path=path,
        encryption=encryption,
        loaded_models=models,
        hardware=HARDWARE,
        address="192.0.2.7:11436" if path is Path.LAN else "",
        queue_depth=0,
        in_flight=1,
        tokens_per_second=41.5,
        silent_seconds=0.5,
        round_trip_ms=None,
    )


PEERS = {
    "connected": [peer(BOB, "bob", Path.LAN, "tiny"), peer(CAROL, "carol", Path.RELAY, "large")],
    "listed": [ListedPeer(node_id=DAVE, display_name="dave", loaded_models=("tiny",), hardware=HARDWARE)],
}

ROUTE = Explanation(
    model="tiny",
    winner=BOB,
    candidates=(
        Candidate(ALICE, "alice", Path.LOCAL, True, 12.0, 2, False, "busier than the winner"),
        Candidate(BOB, "bob", Path.LAN, True, 41.5, 0, True, "least in flight"),
        Candidate(CAROL, "carol", Path.RELAY, False, 0.0, 0, False, "does not have the model"),
    ),
    reason="least in flight",
)


def chunk(text: str, **more: Any) -> dict[str, Any]:
    """Return a `chat.completion.chunk` with a piece of text."""
    return {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": text}, **more}]}


HELLO = (chunk("Hel"), chunk("lo"), chunk("", finish_reason="stop"), {"choices": [], "usage": {"completion_tokens": 2}})


def stream(*chunks: dict[str, Any], done: bool = True) -> bytes:
    """Return server-sent events, with a comment between them as a node sends to keep a connection alive."""
    events = [f"data: {json.dumps(each)}\n\n: waiting\n\n" for each in chunks]
    return "".join([*events, "data: [DONE]\n\n" if done else ""]).encode()


class FakeNode:
    """The canned answers of one node, and what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, bytes]] = {
            "/health": (200, b'{"ok":true}'),
            "/api/status": (200, encode(STATUS)),
            "/api/peers": (200, encode(PEERS)),
            "/api/route": (200, encode(ROUTE)),
            "/api/shutdown": (200, b"{}"),
            "/v1/models": (200, encode({"object": "list", "data": [{"id": "tiny", "object": "model"}]})),
            "/v1/chat/completions": (200, stream(*HELLO)),
        }
        self.chat_headers = {"x-teale-served-by": BOB, "x-teale-path": "lan", "x-teale-attempts": "2"}
        self.queries: list[str] = []
        self.bodies: list[Any] = []
        self.stopped = threading.Event()

    def answer_json(self, path: str, document: Any, status: int = 200) -> None:
        """Answer `path` with another document."""
        self.answers[path] = (status, encode(document))

    def offer(self, *models: str) -> None:
        """Offer other models."""
        self.answer_json("/v1/models", {"data": [{"id": model} for model in models]})

    def say(self, text: str) -> None:
        """Answer every question with one piece of text."""
        self.answers["/v1/chat/completions"] = (200, stream(chunk(text)))

    @contextmanager
    def serving(self) -> Iterator[int]:
        """Serve on loopback; gives the port."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


def _handler(node: FakeNode) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            node.queries.append(self.path)
            self._answer()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", "0")))
            assert self.headers["content-type"] == "application/json"  # the guard of the real API insists
            node.bodies.append(json.loads(body))
            self._answer()
            if self.path == "/api/shutdown":
                node.stopped.set()

        def _answer(self) -> None:
            path = urlsplit(self.path).path
            status, body = node.answers.get(path, (404, b'{"error":{"message":"nothing here","code":"not_found"}}'))
            self.send_response(status)
            for name, value in (node.chat_headers if path == "/v1/chat/completions" else {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the signature of http.server
            pass

    return Handler


def main() -> None:
    """Be a node: publish the runtime file once the API is up, and end when asked to."""
    paths = Paths.find()
    marker = read_marker(paths)
    assert marker is not None, "teale up makes the identity first"
    print(f"starting {marker.node_id}", flush=True)
    if "fail" in sys.argv:
        sys.exit("lan_port 11436 is in use")
    if "hang" in sys.argv:
        threading.Event().wait()
    node = FakeNode()
    node.answer_json("/api/status", {"node_id": marker.node_id})
    with node.serving() as port:
        write_runtime(paths, Runtime(os.getpid(), "127.0.0.1", port, marker.node_id))
        if "deaf" in sys.argv:
            node.answer_json("/api/shutdown", {"error": {"message": "no"}}, status=500)
        node.stopped.wait()


if __name__ == "__main__":
    main()
