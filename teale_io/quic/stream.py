"""One stream of a QUIC connection, with the interface that trio's streams have.

What comes in waits here until it is read, and what is sent waits in the QUIC library. Of the latter only a little:
whoever sends more has to wait, so that what is urgent can still go first where the caller keeps the rest.
"""

from collections import deque
from typing import Final, Protocol

import trio

from teale_io.quic.errors import Code, QuicError

SENT_AHEAD_BYTES: Final = 1 << 20
"""How much of a stream may wait to be sent before whoever sends has to wait."""
REFILL_BYTES: Final = SENT_AHEAD_BYTES // 2
PIECE_BYTES: Final = 256 * 1024
ANSWER_BYTES_MAX: Final = 1024
"""How much may be said to what came early, before the other side has confirmed the handshake; once on each stream."""


class Sender(Protocol):
    """What a stream needs of its connection."""

    @property
    def error(self) -> QuicError | None:
        """Why the connection has ended, if it has."""

    async def wait_sendable(self) -> None:
        """Wait until more can be sent than what is early; raises QuicError."""

    def put(self, stream: "QuicStream", data: bytes, *, ends: bool) -> None:
        """Queue bytes to be sent."""

    def unsent_bytes(self, stream: "QuicStream") -> int:
        """Return how much of a stream waits to be sent."""

    async def wait_sent(self, stream: "QuicStream") -> None:
        """Wait until less than REFILL_BYTES of a stream wait, or nothing can be sent any more."""

    def taken(self, size_bytes: int) -> None:
        """Note that so many bytes have been read."""

    def refuse(self, stream: "QuicStream", code: int) -> None:
        """Ask the other side to send no more."""

    def give_up(self, stream: "QuicStream", code: int) -> None:
        """Send nothing more, not even what waits."""

    def forget(self, stream: "QuicStream") -> None:
        """Note that both directions may have ended."""


class QuicStream(trio.abc.HalfCloseableStream):
    """Bytes in both directions; its operations raise BrokenResourceError once there is nothing to send on."""

    __slots__ = (
        "_arrivals",
        "_arrived",
        "_broken",
        "_closed",
        "_connection",
        "_may_answer",
        "early",
        "ended_in",
        "ended_out",
        "id",
    )

    def __init__(self, connection: Sender, stream_id: int, *, early: bool = False, answers: bool = False) -> None:
        self._connection: Final = connection
        self.id: Final = stream_id
        self.early: Final = early
        """Whether its first bytes came, or were sent, before the handshake was complete."""
        self._may_answer = answers and early
        self._arrived: deque[bytes] = deque()
        self._arrivals = trio.lowlevel.ParkingLot()
        self._broken = ""
        self._closed = False
        self.ended_in = False
        """Nothing more comes in."""
        self.ended_out = False
        """Nothing more is sent."""

    def __repr__(self) -> str:
        return f"<QuicStream {self.id}>"

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return everything that has arrived, up to a bound; b"" at the end of the stream."""
        while True:
            if self._closed:
                raise trio.ClosedResourceError("this stream is closed")
            if self._arrived:
                return self._take(max_bytes)
            if self.ended_in and not self._broken:
                return b""
            self._check()
            await self._arrivals.park()

    def _take(self, max_bytes: int | None) -> bytes:
        data = self._arrived.popleft() if len(self._arrived) == 1 else b"".join(self._arrived)
        self._arrived.clear()
        if max_bytes is not None and len(data) > max_bytes:
            self._arrived.append(data[max_bytes:])
            data = data[:max_bytes]
        self._connection.taken(len(data))
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes, waiting while too many wait already; before the handshake is complete, wait for it."""
        answers, self._may_answer = self._may_answer and len(data) <= ANSWER_BYTES_MAX, False
        if self._connection.error is None and not answers:
            await self._connection.wait_sendable()
        view = memoryview(data)
        for start in range(0, len(view), PIECE_BYTES):
            self._check_sending()
            self._connection.put(self, bytes(view[start : start + PIECE_BYTES]), ends=False)
            if self._connection.unsent_bytes(self) >= SENT_AHEAD_BYTES:
                await self._connection.wait_sent(self)
        self._check_sending()

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until more may be sent."""
        await trio.lowlevel.checkpoint()
        self._check_sending()
        if self._connection.unsent_bytes(self) >= SENT_AHEAD_BYTES:
            await self._connection.wait_sent(self)

    async def send_eof(self) -> None:
        """Say that nothing more comes from here."""
        await trio.lowlevel.checkpoint()
        self.finish()

    def finish(self) -> None:
        """Say that nothing more comes from here, where it can still be said."""
        if not self.ended_out and self._connection.error is None:
            self.ended_out = True
            self._connection.put(self, b"", ends=True)
            self._connection.forget(self)

    def reset(self, code: int = Code.DONE) -> None:
        """Give the stream up in both directions: what has not been sent never will be."""
        if not self.ended_out and self._connection.error is None:
            self.ended_out = True
            self._connection.give_up(self, code)
        self.close_now()

    def close_now(self) -> None:
        """Close; what was sent is still delivered, what is not yet read is dropped."""
        if self._closed:
            return
        self._closed = True
        self.finish()
        if not self.ended_in and self._connection.error is None:
            self._connection.refuse(self, Code.DONE)
        self._connection.taken(sum(map(len, self._arrived)))
        self._arrived.clear()
        self._arrivals.unpark_all()

    async def aclose(self) -> None:
        """Close, as `close_now` does."""
        self.close_now()
        await trio.lowlevel.checkpoint()

    # What the connection says.

    def arrive(self, data: bytes, *, ends: bool) -> None:
        """Take what came in; what nobody will read is dropped."""
        if data and not self._closed:
            self._arrived.append(data)
        elif data:
            self._connection.taken(len(data))
        if ends:
            self.ended_in = True
            self._connection.forget(self)
        self._arrivals.unpark_all()

    def break_off(self, reason: str) -> None:
        """Note that the other side, or the connection, has given the stream up."""
        if not self.ended_in:
            self._broken = reason
            self.ended_in = True
        self._connection.forget(self)
        self._arrivals.unpark_all()

    def _check(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this stream is closed")
        if self._broken:
            raise trio.BrokenResourceError(self._broken) from self._connection.error

    def _check_sending(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this stream is closed")
        if self._connection.error is not None:
            raise trio.BrokenResourceError(str(self._connection.error)) from self._connection.error
        if self.ended_out:
            raise trio.ClosedResourceError("nothing more was to be sent on this stream")
