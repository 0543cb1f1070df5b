"""Bytes that wait for one connection, in order.

Small pieces leave together, so that whatever was said in one turn costs one system call; large ones leave as
they are, without a copy. What is bulk lets everything else go first, though never in the middle of a piece.
"""

from collections import deque
from typing import Final, TypeAlias

BATCH_BYTES: Final = 64 * 1024

Pieces: TypeAlias = deque[bytes]


class Outbox:
    """Two queues of bytes; what is taken counts until it is settled."""

    __slots__ = ("_bulk", "_first", "_started", "size_bytes")

    def __init__(self) -> None:
        # Most connections are silent most of the time, and a queue takes more memory than all else of them.
        self._first: Pieces | None = None
        self._bulk: Pieces | None = None
        self._started: memoryview | None = None
        self.size_bytes = 0
        """How much waits, including what was taken and has not been settled."""

    def put(self, data: bytes, *, bulk: bool = False) -> None:
        """Append bytes, or a piece that may not be torn apart, to one of the queues."""
        if not data:
            return
        self.size_bytes += len(data)
        if bulk:
            if self._bulk is None:
                self._bulk = deque()
            self._bulk.append(data)
        else:
            if self._first is None:
                self._first = deque()
            self._first.append(data)

    def take(self) -> bytes | memoryview:
        """Remove and return the next bytes, joined up to about BATCH_BYTES; empty when nothing waits."""
        batch: list[bytes | memoryview] = []
        size = 0
        if self._started is not None:
            size = len(self._started)
            batch.append(self._started)
            self._started = None
        if self._first is not None:
            size = _move(self._first, batch, size)
            if not self._first:
                self._first = None
        if self._bulk is not None and self._first is None:
            _move(self._bulk, batch, size)
            if not self._bulk:
                self._bulk = None
        return batch[0] if len(batch) == 1 else b"".join(batch)

    def settle(self, taken: bytes | memoryview, sent_bytes: int) -> None:
        """Say how much of what was taken has gone; the rest waits again, in front of everything."""
        self.size_bytes -= sent_bytes
        if sent_bytes < len(taken):
            self._started = memoryview(taken)[sent_bytes:]

    def drop_waiting(self) -> None:
        """Forget what waits, but not the rest of a piece that is partly sent."""
        for pieces in (self._first, self._bulk):
            if pieces is not None:
                self.size_bytes -= sum(map(len, pieces))
        self._first = self._bulk = None

    def clear(self) -> None:
        """Forget everything that waits."""
        self._first = self._bulk = self._started = None
        self.size_bytes = 0


def _move(pieces: Pieces, batch: list[bytes | memoryview], size: int) -> int:
    """Move pieces into a batch until it is full, one in any case if it is empty; return the batch's size."""
    while pieces and (not batch or size + len(pieces[0]) <= BATCH_BYTES):
        piece = pieces.popleft()
        batch.append(piece)
        size += len(piece)
    return size
