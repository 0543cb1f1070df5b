"""Server-sent events: lines of `data:`, each event ended by an empty line (WHATWG HTML, 9.2)."""

from collections.abc import Mapping

import trio
from starlette.types import Send

from teale_io.api.errors import PLAIN_HEADERS


class EventStream:
    """One response of server-sent events; several tasks may write to it.

    Every write waits until the client's side of the connection has room for it, and must not be cancelled if the
    stream is to go on.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._lock = trio.Lock()
        self._ended = False

    async def start(self, headers: Mapping[str, str] | None = None) -> None:
        """Send the status line and the headers."""
        fields = {
            **PLAIN_HEADERS,
            "content-type": "text/event-stream; charset=utf-8",
            "x-accel-buffering": "no",
            **(headers or {}),
        }
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields.items()]
        await self._send({"type": "http.response.start", "status": 200, "headers": raw})

    async def event(self, data: bytes) -> None:
        """Send one event; `data` is a single line."""
        assert b"\n" not in data
        assert b"\r" not in data
        await self._write(b"data: %b\n\n" % data)

    async def comment(self, text: str) -> None:
        """Send a line that clients ignore."""
        await self._write(b": %b\n\n" % text.encode())

    async def end(self) -> None:
        """End the response; what another task wanted to write is dropped."""
        async with self._lock:
            self._ended = True
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _write(self, data: bytes) -> None:
        async with self._lock:
            if not self._ended:
                await self._send({"type": "http.response.body", "body": data, "more_body": True})
