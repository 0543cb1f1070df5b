"""Requests as an application beside a node makes them: by HTTP to the node's own API, on the node's own host.

Each is asked in a thread of its own, since it waits for as long as its answer takes; and as every thread waits for one
answer, all of them end when the nodes do. What an application heard is compared with what the node's journal says.
"""

import http.client
import socket
import threading
from collections.abc import Callable
from enum import Enum
from time import monotonic, sleep
from typing import Final

import msgspec

from simulator.lab.plan import Order
from simulator.lab.programs import LOOK_SECONDS, Program
from teale_proto.contract import Instant, Value
from teale_proto.inputs import RequestId

PATH: Final = "/v1/chat/completions"
PATIENCE_SECONDS: Final = 10.0
"""By so much an application waits longer for its answer than the request may take."""

Connect = Callable[[str, int], socket.socket]
"""Opens a connection to a port of a host's own loopback interface."""


class Heard(Enum):
    """What came of a request, as its application saw it."""

    ANSWERED = "answered"
    REFUSED = "refused"
    """It was told that there will be no answer, or no whole one."""
    CUT_OFF = "cut off"
    """The connection ended before the answer did: the node died."""
    NOT_ASKED = "not asked"
    """There was no node to ask."""


class Reply(Value):
    """What an application heard; instants are the lab's."""

    request: RequestId
    host: str
    heard: Heard
    asked_at: Instant
    ended_at: Instant
    status: int = 0
    """Of HTTP; 0 where there was none."""
    error: str = ""
    text: str = ""
    first_at: Instant | None = None
    """When the first piece of a streamed answer came in."""


class Applications:
    """Asks, and collects what is heard."""

    def __init__(self, connect: Connect, now: Callable[[], Instant]) -> None:
        self._connect = connect
        self._now = now
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._replies: list[Reply] = []

    @property
    def replies(self) -> list[Reply]:
        """What was heard so far, in the order in which it ended."""
        with self._lock:
            return list(self._replies)

    def ask(self, program: Program, order: Order) -> None:
        """Have a node asked for something; returns at once. A node that is just being started is waited for."""
        arguments = (program, program.life if program.lives else None, order)
        thread = threading.Thread(target=self._run, args=arguments, name=order.request, daemon=True)
        self._threads.append(thread)
        thread.start()

    def finish(self, seconds: float) -> None:
        """Wait for what is still under way, all in all for so long; to be called when the nodes have ended."""
        self._is_over.set()
        give_up_at = monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, give_up_at - monotonic()))

    def _run(self, program: Program, life: object, order: Order) -> None:
        reply = self._asked(program, life, order)
        with self._lock:
            self._replies.append(reply)

    def _asked(self, program: Program, life: object, order: Order) -> Reply:
        began = self._now()
        give_up_at = monotonic() + order.ask.timeout
        while life is not None and not program.is_ready:
            if not program.is_alive or program.life is not life or self._is_over.is_set() or monotonic() > give_up_at:
                break
            sleep(LOOK_SECONDS)
        port = program.api_port
        if life is None or not program.is_ready or program.life is not life:
            return self._reply(order, Heard.NOT_ASKED, began, error="the node was not there")
        asked_at = self._now()
        try:
            there = self._connect(order.host, port)
        except OSError as error:
            return self._reply(order, Heard.NOT_ASKED, asked_at, error=str(error))
        there.settimeout(order.ask.timeout + PATIENCE_SECONDS)
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.sock = there
        with there:
            try:
                return self._posted(connection, order, asked_at)
            except (OSError, http.client.HTTPException, msgspec.DecodeError) as error:
                return self._reply(order, Heard.CUT_OFF, asked_at, error=f"{type(error).__name__}: {error}")

    def _posted(self, connection: http.client.HTTPConnection, order: Order, asked_at: Instant) -> Reply:
        body = msgspec.json.encode(order.body)
        connection.request("POST", PATH, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        if response.getheader("Content-Type", "").startswith("text/event-stream"):
            return self._streamed(response, order, asked_at)
        said = msgspec.json.decode(response.read(), type=_Said)
        heard = Heard.REFUSED if said.error is not None or response.status != http.client.OK else Heard.ANSWERED
        error = "" if said.error is None else said.error.shown
        return self._reply(order, heard, asked_at, status=response.status, error=error, text=said.text)

    def _streamed(self, response: http.client.HTTPResponse, order: Order, asked_at: Instant) -> Reply:
        text, first_at = "", None
        for line in response:
            data = line.strip().removeprefix(b"data:").strip()
            if data == line.strip():
                continue
            if data == b"[DONE]":
                return self._reply(
                    order, Heard.ANSWERED, asked_at, status=response.status, text=text, first_at=first_at
                )
            said = msgspec.json.decode(data, type=_Said)
            if said.error is not None:
                error = said.error.shown
                return self._reply(
                    order, Heard.REFUSED, asked_at, status=response.status, error=error, text=text, first_at=first_at
                )
            first_at = self._now() if first_at is None else first_at
            text += said.text
        return self._reply(order, Heard.CUT_OFF, asked_at, status=response.status, text=text, first_at=first_at)

    def _reply(
        self,
        order: Order,
        heard: Heard,
        asked_at: Instant,
        *,
        status: int = 0,
        error: str = "",
        text: str = "",
        first_at: Instant | None = None,
    ) -> Reply:
        return Reply(order.request, order.host, heard, asked_at, self._now(), status, error, text, first_at)


class _Error(msgspec.Struct):
    message: str = ""
    type: str = ""
    code: str | int | None = None

    @property
    def shown(self) -> str:
        return f"{self.code or self.type}: {self.message}"


class _Message(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    message: _Message | None = None
    delta: _Message | None = None


class _Said(msgspec.Struct):
    """The parts of OpenAI's answers, whole or in pieces, that are of interest."""

    choices: tuple[_Choice, ...] = ()
    error: _Error | None = None

    @property
    def text(self) -> str:
        """What the model said."""
        said = (each.message or each.delta for each in self.choices)
        return "".join(message.content or "" for message in said if message is not None)
