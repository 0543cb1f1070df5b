"""A model server whose every answer follows from the question, a word at a time: a wrong answer is recognised."""

import json
from contextlib import AbstractContextManager, suppress
from hashlib import sha256
from http.server import BaseHTTPRequestHandler

from tests.e2e.stalling import served

MODEL = "echoing"


def answer_to(prompt: str) -> list[str]:
    """Return the pieces of the answer to a prompt."""
    digest = sha256(prompt.encode()).hexdigest()
    return [f"{digest[at : at + 8]} " for at in range(0, 64, 8)]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._send(json.dumps({"object": "list", "data": [{"id": MODEL}]}).encode(), "application/json")

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        pieces = answer_to(asked["messages"][-1]["content"])
        if not asked.get("stream"):
            message = {"role": "assistant", "content": "".join(pieces)}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            whole = {"id": "c", "object": "chat.completion", "created": 1, "model": MODEL, "choices": [choice]}
            self._send(json.dumps(whole).encode(), "application/json")
            return
        events = [_event({"content": piece}, None) for piece in pieces]
        self._send(b"".join([*events, _event({}, "stop"), b"data: [DONE]\n\n"]), "text/event-stream")

    def _send(self, body: bytes, media_type: str) -> None:
        # Nodes here are killed while they listen.
        with suppress(OSError):
            self.send_response(200)
            self.send_header("content-type", media_type)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the base class names it so)
        """Say nothing."""


def _event(delta: dict[str, str], reason: str | None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": MODEL, "choices": [choice]}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def echoing_server() -> AbstractContextManager[str]:
    """Serve on loopback, and yield the URL."""
    return served(_Handler)
