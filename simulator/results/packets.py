"""IP packets around what the simulator sends: headers with right lengths and checksums, for other people's tools.

IPv4 (RFC 791), IPv6 (RFC 8200), UDP (RFC 768) and TCP (RFC 9293), each without options; WebSocket frames (RFC 6455).
"""

from ipaddress import IPv4Address, IPv6Address, ip_address
from struct import Struct
from typing import Final, TypeAlias

IpAddress: TypeAlias = IPv4Address | IPv6Address

TCP: Final = 6
UDP: Final = 17

SYN: Final = 0x02
ACK: Final = 0x10
PSH: Final = 0x08

UDP_DATA_MAX: Final = 65_507
"""What fits into the largest UDP datagram over IPv4: 65 535 bytes less two headers."""

_HOPS: Final = 64
_WINDOW: Final = 65_535
_DONT_FRAGMENT: Final = 0x4000

_IPV4: Final = Struct("!BBHHHBBH4s4s")
_IPV6: Final = Struct("!IHBB16s16s")
_UDP: Final = Struct("!HHHH")
_TCP: Final = Struct("!HHIIBBHHH")

OPCODE_TEXT: Final = 1
OPCODE_BINARY: Final = 2


def parsed(host: str) -> IpAddress | None:
    """Return an address, or None for a host that is not an IP address."""
    try:
        return ip_address(host)
    except ValueError:
        return None


def checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    # 2**16 is 1 modulo 65 535, so the number as a whole leaves the sum of its words.
    remainder = int.from_bytes(data, "big") % 0xFFFF
    folded = 0xFFFF if remainder == 0 and any(data) else remainder
    return 0xFFFF - folded


def udp(source: IpAddress, source_port: int, target: IpAddress, target_port: int, data: bytes) -> bytes:
    """Return a whole IP packet with a datagram."""
    size = _UDP.size + len(data)
    bare = _UDP.pack(source_port, target_port, size, 0) + data
    # A computed nought is sent as all ones: nought means that there is no checksum.
    value = checksum(_pseudo(source, target, UDP, size) + bare) or 0xFFFF
    return _ip(source, target, UDP, _UDP.pack(source_port, target_port, size, value) + data)


def tcp(
    source: IpAddress,
    source_port: int,
    target: IpAddress,
    target_port: int,
    *,
    sequence: int,
    acknowledged: int,
    flags: int,
    data: bytes = b"",
) -> bytes:
    """Return a whole IP packet with a segment."""

    def header(value: int) -> bytes:
        words = _TCP.size // 4 << 4
        return _TCP.pack(source_port, target_port, sequence, acknowledged, words, flags, _WINDOW, value, 0)

    value = checksum(_pseudo(source, target, TCP, _TCP.size + len(data)) + header(0) + data)
    return _ip(source, target, TCP, header(value) + data)


def websocket(data: bytes, *, masked: bool, text: bool) -> bytes:
    """Return one message as one frame (RFC 6455, section 5.2).

    A client must mask; the mask is nought, so that a reader of the capture can read what was sent.
    """
    flag, size = (0x80 if masked else 0), len(data)
    if size < 126:
        length = bytes([flag | size])
    elif size < 2**16:
        length = bytes([flag | 126]) + size.to_bytes(2, "big")
    else:
        length = bytes([flag | 127]) + size.to_bytes(8, "big")
    opcode = OPCODE_TEXT if text else OPCODE_BINARY
    return bytes([0x80 | opcode]) + length + (bytes(4) if masked else b"") + data


def _pseudo(source: IpAddress, target: IpAddress, protocol: int, size: int) -> bytes:
    """Return the pseudo-header that checksums cover (RFC 9293, section 3.1; RFC 8200, section 8.1)."""
    size_bytes = 2 if isinstance(source, IPv4Address) else 4
    if size_bytes == 2:
        return source.packed + target.packed + bytes([0, protocol]) + size.to_bytes(2, "big")
    return source.packed + target.packed + size.to_bytes(4, "big") + bytes([0, 0, 0, protocol])


def _ip(source: IpAddress, target: IpAddress, protocol: int, payload: bytes) -> bytes:
    if isinstance(source, IPv6Address):
        return _IPV6.pack(6 << 28, len(payload), protocol, _HOPS, source.packed, target.packed) + payload
    size = _IPV4.size + len(payload)

    def header(value: int) -> bytes:
        fields = (0x45, 0, size, 0, _DONT_FRAGMENT, _HOPS, protocol, value)
        return _IPV4.pack(*fields, source.packed, target.packed)

    return header(checksum(header(0))) + payload
