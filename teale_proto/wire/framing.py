"""Frames on a byte stream: a 4-byte big-endian length, then that many bytes.

The length is judged as soon as it is complete, so a peer that announces 4 GiB costs four bytes.
"""

from collections.abc import Iterator
from typing import Final

from teale_proto.errors import PeerError

HEADER_BYTES: Final = 4
FRAME_MAX: Final = 2**32 - 1


def header_of(payload: bytes) -> bytes:
    """Return what goes in front of `payload`."""
    return len(payload).to_bytes(HEADER_BYTES, "big")


def frame(payload: bytes) -> bytes:
    """Return `payload` with its length in front."""
    return header_of(payload) + payload


class FrameReader:
    """Cuts a byte stream into frames.

    `size_max` bounds the payload of the next frame in bytes and may be changed between frames: strangers
    get less than peers. A frame that comes in pieces grows in place, and one that comes whole is copied once.
    """

    __slots__ = ("_header", "_left", "_payload", "_size", "size_max")

    def __init__(self, size_max: int) -> None:
        self.size_max = size_max
        self._header = b""
        self._payload: bytearray | None = None
        """What has come of a frame that will have `_size` bytes; None between frames."""
        self._size = 0
        self._left = b""
        """What a caller that stopped early has left."""

    @property
    def buffered_bytes(self) -> int:
        """How much of an unfinished frame is being held."""
        held = 0 if self._payload is None else HEADER_BYTES + len(self._payload)
        return held + len(self._header) + len(self._left)

    def frames(self, data: bytes) -> Iterator[bytes]:
        """Take more of the stream and yield the frames it completes; the caller exhausts the iterator.

        Raises PeerError, after the frames before it, at a length beyond `size_max`.
        """
        if self._left:
            data, self._left = self._left + data, b""
        view, start = memoryview(data), 0
        try:
            while start < len(data):
                if self._payload is None:
                    start = self._begin(data, start)
                    if self._payload is None:
                        return  # the header is not complete
                end = start + self._size - len(self._payload)
                if end > len(data):
                    self._payload += view[start:]
                    return
                payload = b"".join((self._payload, view[start:end]))
                self._payload = None
                start = end
                yield payload
        except GeneratorExit:
            self._left = data[start:]
            raise

    def _begin(self, data: bytes, start: int) -> int:
        """Take the header, or what there is of it; return where it ends."""
        end = start + HEADER_BYTES - len(self._header)
        self._header += data[start:end]
        if len(self._header) == HEADER_BYTES:
            size = int.from_bytes(self._header, "big")
            if size > self.size_max:
                raise PeerError(f"frame of {size} bytes where {self.size_max} are allowed")
            self._header, self._payload, self._size = b"", bytearray(), size
        return min(end, len(data))
