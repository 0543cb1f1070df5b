"""A node's local API, as an application beside it uses it: one connection, one question after the other."""

import http.client
import re
import socket
from typing import Any, Final

import msgspec

from simulator.calibrating.clocks import Wait
from simulator.calibrating.programs import LOOPBACK, CalibrationError, Node
from teale_proto.contract import Value

ANSWER_SECONDS: Final = 30.0
CHAT: Final = "/v1/chat/completions"

_TOKEN: Final = re.compile(rb'"content": ?"[^"]')
"""A first piece may hold nothing but a role, and a last one nothing at all."""


class Answer(Value):
    """When the pieces of an answer came, in seconds after the question."""

    pieces: tuple[float, ...]

    @property
    def first(self) -> float:
        """The time to the first token."""
        return self.pieces[0]


class Api:
    """The API of one node."""

    def __init__(self, node: Node) -> None:
        self._connection: Final = http.client.HTTPConnection(LOOPBACK, node.api_port, timeout=ANSWER_SECONDS)
        self._connection.connect()
        self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def get(self, path: str) -> Any:
        """Return what a page says."""
        self._connection.request("GET", path)
        return msgspec.json.decode(self._connection.getresponse().read())

    def ask(self, body: dict[str, Any]) -> Answer:
        """Ask for a streamed answer; raises CalibrationError where there is none."""
        encoded = msgspec.json.encode(body)
        wait = Wait()
        self._connection.request("POST", CHAT, encoded, {"Content-Type": "application/json"})
        response = self._connection.getresponse()
        if response.status != http.HTTPStatus.OK:
            raise CalibrationError(f"the node answered {response.status}: {response.read(300)!r}")
        pieces = []
        while line := response.readline():
            if _TOKEN.search(line):
                pieces.append(wait.seconds())
        if not pieces:
            raise CalibrationError("the node's answer is empty")
        return Answer(tuple(pieces))
