"""Frames on a byte stream: a 4-byte big-endian length, then that many bytes.

The length is judged as soon as it is complete, so a peer that announces 4 GiB costs four bytes.
"""

from collections.abc import Iterator
from typing import Final

from teale_proto.errors import PeerError

HEADER_BYTES: Final = 4
FRAME_MAX: Final = 2**32 - 1


def frame(payload: bytes) -> bytes:
    """Return `payload` with its length in front."""
    return len(payload).to_bytes(HEADER_BYTES, "big") + payload


class FrameReader:
    """Cuts a byte stream into frames.

    `size_max` bounds the payload of the next frame in bytes and may be changed between frames: strangers
    get less than peers.
    """

    __slots__ = ("_buffer", "size_max")

    def __init__(self, size_max: int) -> None:
        self.size_max = size_max
        self._buffer = bytearray()

    @property
    def buffered_bytes(self) -> int:
        """How much of an unfinished frame is being held."""
        return len(self._buffer)

    def frames(self, data: bytes) -> Iterator[bytes]:
        """Take more of the stream and yield the frames it completes; the caller exhausts the iterator.

        Raises PeerError, after the frames before it, at a length beyond `size_max`.
        """
        buffer = self._buffer
        buffer += data
        start = 0
        try:
            while len(buffer) - start >= HEADER_BYTES:
                size = int.from_bytes(buffer[start : start + HEADER_BYTES], "big")
                if size > self.size_max:
                    raise PeerError(f"frame of {size} bytes where {self.size_max} are allowed")
                end = start + HEADER_BYTES + size
                if len(buffer) < end:
                    break
                payload = bytes(memoryview(buffer)[start + HEADER_BYTES : end])
                start = end
                yield payload
        finally:
            # One move of the rest per read, not per frame, keeps many small frames linear.
            del buffer[:start]
