"""Reads captures back, independently of how they are written."""

from ipaddress import ip_address
from struct import unpack, unpack_from
from typing import NamedTuple


class Seen(NamedTuple):
    """One packet of a capture."""

    at: int
    protocol: int
    source: tuple[str, int]
    target: tuple[str, int]
    sequence: int
    acknowledged: int
    flags: int
    data: bytes


def blocks(capture: bytes) -> list[tuple[int, bytes]]:
    """Return the blocks of a file, by kind, with their bodies."""
    found, start = [], 0
    while start < len(capture):
        kind, size = unpack_from("<II", capture, start)
        assert size % 4 == 0
        assert unpack_from("<I", capture, start + size - 4) == (size,)
        found.append((kind, capture[start + 8 : start + size - 4]))
        start += size
    assert start == len(capture)
    return found


def packets(capture: bytes) -> list[Seen]:
    """Return the packets of a file; every checksum must be right."""
    found = []
    for kind, body in blocks(capture):
        if kind == 6:
            interface, high, low, size, original = unpack_from("<IIIII", body)
            assert (interface, size) == (0, original)
            found.append(_packet(high << 32 | low, body[20 : 20 + size]))
    return found


def ones_sum(data: bytes) -> int:
    """Return the sum of words in one's complement, word by word as RFC 1071 says it."""
    total = 0
    for (word,) in zip(unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)), strict=True):
        total += word
        total = (total & 0xFFFF) + (total >> 16)
    return total


def _packet(at: int, data: bytes) -> Seen:
    if data[0] >> 4 == 4:
        assert unpack_from("!H", data, 2) == (len(data),)
        assert ones_sum(data[:20]) == 0xFFFF
        protocol, source, target, rest = data[9], data[12:16], data[16:20], data[20:]
        pseudo = source + target + bytes([0, protocol]) + len(rest).to_bytes(2, "big")
    else:
        assert data[0] >> 4 == 6
        assert unpack_from("!H", data, 4) == (len(data) - 40,)
        protocol, source, target, rest = data[6], data[8:24], data[24:40], data[40:]
        pseudo = source + target + len(rest).to_bytes(4, "big") + bytes([0, 0, 0, protocol])
    assert ones_sum(pseudo + rest) == 0xFFFF
    ports = unpack_from("!HH", rest)
    ends = [(str(ip_address(host)), port) for host, port in zip((source, target), ports, strict=True)]
    if protocol == 17:
        assert unpack_from("!H", rest, 4) == (len(rest),)
        return Seen(at, protocol, ends[0], ends[1], 0, 0, 0, rest[8:])
    sequence, acknowledged, offset, flags = unpack_from("!IIBB", rest, 4)
    return Seen(at, protocol, ends[0], ends[1], sequence, acknowledged, flags, rest[offset // 16 * 4 :])
