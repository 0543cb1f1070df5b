"""Attends one HTTP exchange: takes in the request, and lets go of the answer when the client does.

One task a request reads all that the server hands over, whatever the application does meanwhile. So a client
that goes away cancels the work at once; a body that nobody wants never blocks the connection; and a refusal
reaches a client that is still sending, because the rest of its request is read and dropped for a while before
the connection closes.
"""

import logging
from typing import Final

import trio
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from teale_io.api.errors import SERVER, Problem
from teale_io.api.limits import Limits

_LOG: Final = logging.getLogger(__name__)


class Attendant:
    """The outermost layer of the application; pure ASGI, on trio."""

    def __init__(self, app: ASGIApp, *, limits: Limits) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application for one request, until it has answered or the client has gone."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        async with trio.open_nursery() as nursery:
            exchange = _Exchange(scope, receive, send, self._limits, nursery.cancel_scope)
            nursery.start_soon(exchange.listen)
            await exchange.run(self._app)
            nursery.cancel_scope.cancel()


class _Exchange:
    """One request and its answer."""

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, limits: Limits, cancel_scope: trio.CancelScope
    ) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._limits = limits
        self._cancel_scope = cancel_scope
        self._body = bytearray()
        self._body_wanted = True
        self._too_long = _declared_length(scope) > limits.body_bytes_max
        self._decided = trio.Event()
        self._ended = trio.Event()
        self._gone = trio.Event()
        self._answer_begun = False
        self._answer_ended = False
        if self._too_long:
            self._decided.set()

    async def run(self, app: ASGIApp) -> None:
        """Run the application; what it failed to handle becomes status 500, or cuts the answer short."""
        try:
            await app(self._scope, self.receive, self.send)
        except Exception:
            _LOG.exception("a request to the local API failed")
            if not self._answer_begun:
                problem = Problem(500, "the node failed to answer this request", code="internal_error", type_=SERVER)
                await problem.response()(self._scope, self.receive, self.send)

    async def listen(self) -> None:
        """Take in what the client sends, and cancel the exchange when it goes before the answer has ended."""
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                break
            self._take(message.get("body", b""))
            if not message.get("more_body", False):
                self._decided.set()
                self._ended.set()
        self._gone.set()
        # The server says the same when an answer has ended, in the middle of making the connection ready again.
        if not self._answer_ended:
            self._cancel_scope.cancel()

    def _take(self, data: bytes) -> None:
        if self._too_long or len(self._body) + len(data) > self._limits.body_bytes_max:
            self._too_long = True
            self._body.clear()
            self._decided.set()
        else:
            self._body += data

    async def receive(self) -> Message:
        """Give the application the whole body as one message, and then the client's departure."""
        if not self._body_wanted:
            await self._gone.wait()
            return {"type": "http.disconnect"}
        with trio.move_on_after(self._limits.body_seconds_max):
            await self._decided.wait()
        if self._too_long:
            limit = self._limits.body_bytes_max
            raise Problem(413, f"the request is longer than {limit} bytes", code="request_too_large")
        if not self._ended.is_set():
            raise Problem(408, "the request took too long to arrive", code="request_timeout")
        self._body_wanted = False
        return {"type": "http.request", "body": bytes(self._body), "more_body": False}

    async def send(self, message: Message) -> None:
        """Pass on a piece of the answer; its end waits for the end of the request."""
        if message["type"] == "http.response.start":
            self._answer_begun = True
        elif not message.get("more_body", False):
            if not self._ended.is_set():
                await self._send({**message, "more_body": True})
                with trio.move_on_after(self._limits.linger_seconds_max):
                    await self._ended.wait()
                message = {"type": "http.response.body", "body": b""}
            self._answer_ended = True
        await self._send(message)


def _declared_length(scope: Scope) -> int:
    length = Headers(scope=scope).get("content-length", "")
    return int(length) if length.isdecimal() else 0
