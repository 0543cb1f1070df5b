"""Frames of WebSockets as bytes (RFC 6455, section 5.2): how to write a data frame, and where a frame ends.

Nearly all frames are whole data messages, and these are written and read here, many at a time; whatever is out of
the ordinary goes through the library.
"""

from typing import Final

try:
    from websockets.speedups import apply_mask
except ImportError:  # an installation without the package's C part
    from websockets.utils import apply_mask

TEXT: Final = 0x81
BINARY: Final = 0x82
PING: Final = 0x89
"""First bytes of frames that are a whole message: FIN and the opcode."""

_OPCODES: Final = frozenset({0x0, 0x1, 0x2, 0x8, 0x9, 0xA})
_HEADER_BYTES_MAX: Final = 14

MASKED: Final = 0x80
MASK_BYTES: Final = 4
_SIZE_IN_2_BYTES: Final = 126
_SIZE_IN_8_BYTES: Final = 127


def data_frame(first: int, payload: bytes, mask: bytes = b"") -> bytes:
    """Return one frame; `mask` is 4 bytes from a client and none from a server."""
    size = len(payload)
    masked = MASKED if mask else 0
    if size < _SIZE_IN_2_BYTES:
        header = bytes((first, masked | size))
    elif size < 1 << 16:
        header = bytes((first, masked | _SIZE_IN_2_BYTES, size >> 8, size & 0xFF))
    else:
        header = bytes((first, masked | _SIZE_IN_8_BYTES)) + size.to_bytes(8, "big")
    if mask:
        return b"".join((header, mask, apply_mask(payload, mask)))
    return header + payload


def frame_end(data: bytes, start: int) -> int:
    """Return where the frame that begins at `start` ends; with too little of it, where it can end at the earliest."""
    if len(data) < start + 2:
        return start + 2
    second = data[start + 1]
    size = second & 0x7F
    header = 2 + (MASK_BYTES if second & MASKED else 0)
    if size < _SIZE_IN_2_BYTES:
        return start + header + size
    field = 2 if size == _SIZE_IN_2_BYTES else 8
    if len(data) < start + 2 + field:
        return start + header + field
    return start + header + field + int.from_bytes(data[start + 2 : start + 2 + field], "big")


class DataFrames:
    """Cuts the ordinary data frames from the beginning of some bytes.

    `masked` says that they come from a client; a message may have up to `size_max` bytes.
    """

    __slots__ = ("_masked", "size_max")

    def __init__(self, *, masked: bool, size_max: int) -> None:
        self._masked = masked
        self.size_max = size_max

    def cut(self, data: bytes, start: int, messages: list[bytes]) -> int:
        """Append the payloads of whole messages; return where something begins that is unusual or not complete.

        Unusual is a text that is not UTF-8, among other things.
        """
        masked, size_max, available = self._masked, self.size_max, len(data)
        mask_bit = MASKED if masked else 0
        while start + 2 <= available:
            first = data[start]
            size = data[start + 1] ^ mask_bit
            at = start + 2
            if size >= _SIZE_IN_2_BYTES:
                if size > _SIZE_IN_8_BYTES:
                    break  # the mask bit is wrong
                field_end = at + (2 if size == _SIZE_IN_2_BYTES else 8)
                if field_end > available:
                    break
                size = int.from_bytes(data[at:field_end], "big")
                at = field_end
            if masked:
                at += MASK_BYTES
            end = at + size
            if end > available or size > size_max:
                break
            payload = apply_mask(data[at:end], data[at - MASK_BYTES : at]) if masked else data[at:end]
            if first != BINARY and (first != TEXT or not (payload.isascii() or is_utf8(payload))):
                break
            messages.append(payload)
            start = end
        return start

    def is_hopeless(self, data: bytes, start: int) -> bool:
        """Return whether it is plain already that the frame which begins at `start` breaks the rules."""
        if start + 2 > len(data):
            return False
        return (
            data[start] & 0x0F not in _OPCODES
            or bool(data[start + 1] & MASKED) != self._masked
            or frame_end(data, start) - start > self.size_max + _HEADER_BYTES_MAX
        )


def is_utf8(data: bytes) -> bool:
    """Return whether some bytes are text."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
