"""What can be read of a QUIC packet without keys: enough to find its connection, or to turn it away.

RFC 8999 fixes where connection ids lie in every version; the token of an Initial packet is RFC 9000, section
17.2.2. Nothing here raises for any bytes.
"""

from typing import Final, NamedTuple

CID_BYTES: Final = 8
"""How long the connection ids are that we choose."""
CID_BYTES_MAX: Final = 20
FIRST_CID_BYTES_MIN: Final = 8
"""How long a client's first guess of our id must at least be (RFC 9000, section 7.2)."""
INITIAL_BYTES_MIN: Final = 1200
"""How long a datagram must be that opens a connection (RFC 9000, section 14.1)."""

VERSION_1: Final = 1
LONG: Final = 0x80
FIXED: Final = 0x40
INITIAL: Final = 0x00
_TYPE: Final = 0x30


class LongHeader(NamedTuple):
    """The beginning of a packet of the handshake."""

    version: int
    is_initial: bool
    destination: bytes
    source: bytes
    token: bytes


def is_quic(datagram: bytes) -> bool:
    """Return whether a datagram is QUIC's, of what shares a socket with it (RFC 9443, section 3)."""
    return bool(datagram) and bool(datagram[0] & (LONG | FIXED))


def destination_of(datagram: bytes) -> bytes:
    """Return the id of the connection that a datagram is for; empty where it is no QUIC packet."""
    if not datagram:
        return b""
    if datagram[0] & LONG:
        size = datagram[5] if len(datagram) > 5 else 0
        found = datagram[6 : 6 + size]
        return found if len(found) == size <= CID_BYTES_MAX else b""
    found = datagram[1 : 1 + CID_BYTES]
    return found if len(found) == CID_BYTES else b""


def long_header(datagram: bytes) -> LongHeader | None:
    """Return the header of a packet of the handshake; None where it is none, or is not whole."""
    if len(datagram) < 7 or not datagram[0] & LONG:
        return None
    version = int.from_bytes(datagram[1:5], "big")
    destination, at = _short_bytes(datagram, 5)
    source, at = _short_bytes(datagram, at)
    if at < 0 or len(destination) > CID_BYTES_MAX or len(source) > CID_BYTES_MAX:
        return None
    is_initial = version == VERSION_1 and datagram[0] & (_TYPE | FIXED) == FIXED | INITIAL
    if not is_initial:
        return LongHeader(version, False, destination, source, b"")
    size, at = _integer(datagram, at)
    token = datagram[at : at + size] if at >= 0 else b""
    if at < 0 or len(token) != size:
        return None
    return LongHeader(version, True, destination, source, token)


def version_negotiation(header: LongHeader) -> bytes:
    """Return the answer to a packet of a version that we do not speak (RFC 9000, section 17.2.1)."""
    ids = _with_size(header.source) + _with_size(header.destination)
    return bytes([LONG | FIXED]) + bytes(4) + ids + VERSION_1.to_bytes(4, "big")


def _with_size(data: bytes) -> bytes:
    return bytes([len(data)]) + data


def _short_bytes(data: bytes, at: int) -> tuple[bytes, int]:
    """Return bytes that follow their size in one byte, and where they end; -1 where they are not whole."""
    if not 0 <= at < len(data):
        return b"", -1
    end = at + 1 + data[at]
    return (data[at + 1 : end], end) if end <= len(data) else (b"", -1)


def _integer(data: bytes, at: int) -> tuple[int, int]:
    """Return an integer of variable length (RFC 9000, section 16) and where it ends; -1 where it is not whole."""
    if not 0 <= at < len(data):
        return 0, -1
    size = 1 << (data[at] >> 6)
    if at + size > len(data):
        return 0, -1
    value = int.from_bytes(data[at : at + size], "big")
    return value & (1 << 8 * size - 2) - 1, at + size
