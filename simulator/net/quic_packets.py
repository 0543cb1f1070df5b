"""The packets of simulated QUIC: as long as real ones, told apart by the same bits, and readable by nobody else.

They carry what matters here and leave out what the cryptography would add but its length: a checksum stands for the
authentication, so that a damaged packet is one that never came (RFC 9001, section 5.3).
"""

from struct import Struct
from typing import Final, NamedTuple
from zlib import crc32

DATAGRAM_BYTES: Final = 1200
"""The largest datagram, and the least that one of a handshake is padded to (RFC 9000, section 14.1)."""

RANGES_MAX: Final = 4
"""Ranges of packet numbers that one packet acknowledges."""

QUIC_BIT: Final = 0x40
"""Set in the first byte of every packet of QUIC's, and of nothing else on such a socket (RFC 9443, section 2)."""

HELLO: Final = 0xC0
"""The client's first flight."""
WELCOME: Final = 0xE0
"""The server's answer to it."""
SHORT: Final = 0x40
"""Everything after the handshake, with flags in the low bits."""
FIN: Final = 0x01
"""The stream ends behind this piece of it."""
PING: Final = 0x02
"""To be acknowledged, though it may carry nothing."""
CLOSE: Final = 0x04
"""The connection is over."""

_LONG: Final = Struct(">BQQH")
_HEAD: Final = Struct(">BQIBQ")
_RANGE: Final = Struct(">II")
_CHECK: Final = Struct(">I")

SEGMENT_BYTES: Final = DATAGRAM_BYTES - _HEAD.size - RANGES_MAX * _RANGE.size - _CHECK.size
"""How much of a stream one packet carries beside everything else."""

Ranges = tuple[tuple[int, int], ...]
"""Packet numbers from the first to the last of each range, the highest range first."""


class LongPacket(NamedTuple):
    """A packet of the handshake."""

    kind: int
    target: int
    """The connection id of its receiver; 0 in the first one, before there is any."""
    source: int
    """The connection id that its sender has chosen."""
    node: str
    """In a HELLO the node that is wanted, in a WELCOME the one that answers."""


class ShortPacket(NamedTuple):
    """Any other packet."""

    flags: int
    target: int
    number: int
    acknowledged: Ranges
    offset: int
    data: bytes

    @property
    def asks_for_answer(self) -> bool:
        """Whether it is to be acknowledged (RFC 9000, section 13.2)."""
        return bool(self.data or self.flags & (FIN | PING))


def target_of(data: bytes) -> int:
    """Return the connection id of the receiver; 0 for what is too short to have one."""
    return int.from_bytes(data[1:9], "big") if len(data) > _HEAD.size else 0


def encode_long(packet: LongPacket) -> bytes:
    """Return a packet of the handshake as a datagram, padded."""
    name = packet.node.encode()
    body = _LONG.pack(packet.kind, packet.target, packet.source, len(name)) + name
    return _checked(body.ljust(DATAGRAM_BYTES - _CHECK.size, b"\0"))


def encode_short(packet: ShortPacket) -> bytes:
    """Return any other packet as a datagram."""
    flags, target, number, ranges, offset, data = packet
    head = _HEAD.pack(SHORT | flags, target, number, len(ranges), offset)
    if len(ranges) == 1:
        return _checked(head + _RANGE.pack(*ranges[0]) + data)
    return _checked(head + b"".join(_RANGE.pack(*each) for each in ranges) + data)


def decode(data: bytes) -> LongPacket | ShortPacket | None:
    """Return the packet in a datagram, or None for what is none or was damaged on its way."""
    end = len(data) - _CHECK.size
    if end < _LONG.size or _CHECK.unpack_from(data, end)[0] != crc32(data[:end]):
        return None
    if data[0] in (HELLO, WELCOME):
        kind, target, source, length = _LONG.unpack_from(data)
        return LongPacket(kind, target, source, data[_LONG.size : _LONG.size + length].decode())
    flags, target, number, count, offset = _HEAD.unpack_from(data)
    at = _HEAD.size + count * _RANGE.size
    ranges = tuple(_RANGE.unpack_from(data, place) for place in range(_HEAD.size, at, _RANGE.size))
    return ShortPacket(flags & ~SHORT, target, number, ranges, offset, data[at:end])


def _checked(body: bytes) -> bytes:
    return body + _CHECK.pack(crc32(body))
