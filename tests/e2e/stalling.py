"""A model server that says one word of every answer and then nothing more, until its client is gone.

The tiny model answers faster than a test can kill anything in the middle; behind this one, a node can be asked for
its `openai_urls` backend, and its answer has no end.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MODEL = "stalling"
WORD = "Once"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._begin("application/json")
        self.wfile.write(json.dumps({"object": "list", "data": [{"id": MODEL}]}).encode())

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self._begin("text/event-stream")
        choice = {"index": 0, "delta": {"content": WORD}, "finish_reason": None}
        chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": MODEL, "choices": [choice]}
        self.wfile.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
        # The end of the connection comes when the node that asked has been killed, or at the latest with the test.
        self.rfile.read(1)

    def _begin(self, media_type: str) -> None:
        self.send_response(200)
        self.send_header("content-type", media_type)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    # Threads that wait for a node which a failed test has left alone must not keep the tests from ending.
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients here are killed."""


def stalling_server() -> AbstractContextManager[str]:
    """Serve on loopback, and yield the URL."""
    return served(_Handler)


@contextmanager
def served(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Serve requests on loopback, a thread for each connection, and yield the URL."""
    with _Server(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
