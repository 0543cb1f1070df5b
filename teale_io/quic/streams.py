"""The streams of one connection: which there are, who waits to send on them, and how much waits to be read.

Ids say who has opened a stream and whether it goes both ways (RFC 9000, section 2.1).
"""

from collections import deque
from collections.abc import Iterator
from typing import Final, Protocol

import trio

from teale_io.quic.errors import QuicError, TooMany
from teale_io.quic.stream import REFILL_BYTES, QuicStream

_SERVERS: Final = 1
_ONE_WAY: Final = 2
_STEP: Final = 4


class Carrier(Protocol):
    """What streams need of their connection."""

    @property
    def error(self) -> QuicError | None:
        """Why the connection has ended, if it has."""

    @property
    def may_send(self) -> bool:
        """Whether more may be sent than what is early."""

    async def wait_sendable(self) -> None:
        """Wait until more can be sent than what is early; raises QuicError."""

    def give(self, stream_id: int, data: bytes, *, ends: bool) -> None:
        """Hand bytes to the library."""

    def stop(self, stream_id: int, code: int) -> None:
        """Ask the other side to send no more on a stream."""

    def reset(self, stream_id: int, code: int) -> None:
        """Send nothing more on a stream, not even what waits."""

    def held_bytes(self, stream_id: int) -> int:
        """Return how much of a stream waits in the library to be sent."""

    def unused(self) -> None:
        """Take note that there is no stream any more."""


def is_one_way(stream_id: int) -> bool:
    """Return whether a stream goes in one direction only."""
    return bool(stream_id & _ONE_WAY)


class Streams:
    """What `stream.Sender` says, and the table of streams; at most `streams_max` are such as we have opened."""

    __slots__ = (
        "_carrier",
        "_filling",
        "_held",
        "_incoming",
        "_next",
        "_ours",
        "_streams",
        "_streams_max",
        "unread_bytes",
    )

    def __init__(self, carrier: Carrier, *, is_client: bool, streams_max: int) -> None:
        self._carrier: Final = carrier
        self._streams_max: Final = streams_max
        self._ours: Final = 0 if is_client else _SERVERS
        self._next = self._ours
        self._streams: dict[int, QuicStream] = {}
        self._incoming: deque[QuicStream] = deque()
        self._filling: dict[int, trio.Event] = {}
        self._held: list[int] = []
        self.unread_bytes = 0
        """How much has come in on all streams together that nobody has read."""

    def __len__(self) -> int:
        return len(self._streams)

    def __iter__(self) -> Iterator[QuicStream]:
        return iter(tuple(self._streams.values()))

    def get(self, stream_id: int) -> QuicStream | None:
        """Return a stream; None where it is none, or none any more."""
        return self._streams.get(stream_id)

    @property
    def are_awaited(self) -> bool:
        """Whether somebody waits to send."""
        return bool(self._filling)

    # What the connection does.

    def open(self, *, early: bytes, is_early: bool) -> QuicStream:
        """Open a stream that begins with `early`; raises TooMany."""
        open_now = sum(stream_id & _SERVERS == self._ours for stream_id in self._streams)
        if open_now >= self._streams_max:
            raise TooMany(f"{open_now} streams are open")
        stream = QuicStream(self, self._next, early=is_early)
        if early:
            self._carrier.give(stream.id, early, ends=False)
        self._next += _STEP
        self._streams[stream.id] = stream
        return stream

    def opened(self, stream_id: int, *, is_early: bool) -> QuicStream | None:
        """Return the stream that the other side has just opened; None where the id is one of ours that has ended."""
        if stream_id & _SERVERS == self._ours:
            return None
        stream = QuicStream(self, stream_id, early=is_early, answers=True)
        self._streams[stream_id] = stream
        self._incoming.append(stream)
        return stream

    def next_opened(self) -> QuicStream | None:
        """Return the next stream that the other side has opened, once; None where there is none now."""
        return self._incoming.popleft() if self._incoming else None

    def arrive(self, stream: QuicStream, data: bytes, *, ends: bool) -> None:
        """Hand what came in to its stream."""
        self.unread_bytes += len(data)
        stream.arrive(data, ends=ends)

    def stopped(self, stream: QuicStream, code: int) -> None:
        """Take note that the other side wants to hear no more on a stream."""
        # RFC 9000, section 3.5: whoever is asked to stop resets his side. The library may have done so.
        stream.ended_out = True
        self.give_up(stream, code)
        self.forget(stream)

    def let_go(self) -> None:
        """Let out what had to wait for the end of the handshake."""
        for stream_id in self._held:
            self._carrier.give(stream_id, b"", ends=True)
        self._held.clear()

    def refill(self) -> None:
        """Wake those who wait to send, where there is room again."""
        for stream_id in tuple(self._filling):
            if self._carrier.held_bytes(stream_id) < REFILL_BYTES:
                self._wake_sender(stream_id)

    def break_off(self, reason: str) -> None:
        """End all of them, as the connection has."""
        for stream in self:
            stream.break_off(reason)
        self._streams.clear()
        for stream_id in tuple(self._filling):
            self._wake_sender(stream_id)

    # What the streams do.

    @property
    def error(self) -> QuicError | None:
        """Why the connection has ended, if it has."""
        return self._carrier.error

    async def wait_sendable(self) -> None:
        """Wait until more can be sent than what is early; raises QuicError."""
        await self._carrier.wait_sendable()

    def put(self, stream: QuicStream, data: bytes, *, ends: bool) -> None:
        """Queue bytes to be sent."""
        if ends and not self._carrier.may_send:
            # It waits, as everything does that the caller has not called early, but for a short answer.
            self._held.append(stream.id)
        else:
            self._carrier.give(stream.id, data, ends=ends)

    def unsent_bytes(self, stream: QuicStream) -> int:
        """Return how much of a stream waits to be sent."""
        return self._carrier.held_bytes(stream.id)

    async def wait_sent(self, stream: QuicStream) -> None:
        """Wait until less than REFILL_BYTES of a stream wait, or nothing can be sent any more."""
        await self._filling.setdefault(stream.id, trio.Event()).wait()

    def taken(self, size_bytes: int) -> None:
        """Note that so many bytes have been read."""
        self.unread_bytes -= size_bytes

    def refuse(self, stream: QuicStream, code: int) -> None:
        """Ask the other side to send no more."""
        self._carrier.stop(stream.id, code)

    def give_up(self, stream: QuicStream, code: int) -> None:
        """Send nothing more, not even what waits."""
        self._carrier.reset(stream.id, code)
        self._wake_sender(stream.id)

    def forget(self, stream: QuicStream) -> None:
        """Note that both directions may have ended."""
        if stream.ended_in and stream.ended_out:
            self._streams.pop(stream.id, None)
            if not self._streams:
                self._carrier.unused()

    def _wake_sender(self, stream_id: int) -> None:
        waiting = self._filling.pop(stream_id, None)
        if waiting is not None:
            waiting.set()
