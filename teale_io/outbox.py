"""Bytes that wait for one connection, in order.

Small pieces leave together, so that whatever was said in one turn costs one system call; large ones leave as
they are, without a copy.
"""

from collections import deque
from typing import Final

BATCH_BYTES: Final = 256 * 1024


class Outbox:
    """A queue of bytes; what is taken counts until it is settled."""

    __slots__ = ("_pieces", "size_bytes")

    def __init__(self) -> None:
        self._pieces: deque[bytes | memoryview] = deque()
        self.size_bytes = 0
        """How much waits, including what was taken and has not been settled."""

    def put(self, data: bytes) -> None:
        """Append bytes."""
        if data:
            self._pieces.append(data)
            self.size_bytes += len(data)

    def take(self) -> bytes | memoryview:
        """Remove and return the next bytes, joined up to about BATCH_BYTES; empty when nothing waits."""
        pieces = self._pieces
        if not pieces:
            return b""
        if len(pieces) == 1 or len(pieces[0]) >= BATCH_BYTES:
            return pieces.popleft()
        batch: list[bytes | memoryview] = []
        size = 0
        while pieces and size + len(pieces[0]) <= BATCH_BYTES:
            piece = pieces.popleft()
            batch.append(piece)
            size += len(piece)
        return b"".join(batch)

    def settle(self, taken: bytes | memoryview, sent_bytes: int) -> None:
        """Say how much of what was taken has gone; the rest waits again, in front."""
        self.size_bytes -= sent_bytes
        if sent_bytes < len(taken):
            self._pieces.appendleft(memoryview(taken)[sent_bytes:])

    def clear(self) -> None:
        """Forget everything that waits."""
        self._pieces.clear()
        self.size_bytes = 0
