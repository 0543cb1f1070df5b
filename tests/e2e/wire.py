"""Reads what a tap has recorded as far as anybody on the way could read it, and looks for secrets in it.

A secret may hide from a search: under the mask of a WebSocket frame, in base64, cut into the pieces of a streamed
answer, or cut by TCP. Every reading here undoes one of these, and a search goes through all of them.
"""

import base64
import binascii
import json
import re
from collections.abc import Iterable, Iterator
from itertools import cycle

from tests.e2e.taps import Passage

_SAID = re.compile(rb'"(?:content|text)":\s*"((?:[^"\\]|\\.)*)"')
"""A piece of text in a chunk of an answer."""

_DATA = re.compile(rb'"data":\s*"([A-Za-z0-9+/=]*)"')


def leaked(secrets: Iterable[str | bytes], readings: Iterable[bytes]) -> set[str | bytes]:
    """Return the secrets that are to be read, as they are, in JSON, in hexadecimal, or in base64 at any alignment."""
    known = [reading.lower() for reading in readings]
    return {secret for secret in secrets if any(form.lower() in one for form in _forms(secret) for one in known)}


def _forms(secret: str | bytes) -> Iterator[bytes]:
    """Yield how a secret can be spelt; letters may be of either case, which a comparison has to ignore."""
    plain = secret.encode() if isinstance(secret, str) else secret
    yield plain
    yield plain.hex().encode()
    if isinstance(secret, str):
        yield json.dumps(secret)[1:-1].encode()
    for before in range(3):
        # What stands before the secret takes part in its first character, and what comes after in its last.
        spelt = base64.b64encode(bytes(before) + plain).rstrip(b"=")
        yield spelt[-(-before * 8 // 6) : len(spelt) - 1]


def with_text_joined(reading: bytes) -> tuple[bytes, bytes]:
    """Return a reading, and all that its chunks of answers say, in one piece."""
    return reading, b"".join(_SAID.findall(reading))


def relay_readings(passages: Iterable[Passage]) -> Iterator[bytes]:
    """Yield all that the relay, or anybody before it, can make of connections to it."""
    for passage in passages:
        for raw in (bytes(passage.up), bytes(passage.down)):
            yield raw
            head, _, frames = raw.partition(b"\r\n\r\n")
            assert b"deflate" not in head.lower(), "compressed messages cannot be read here"
            messages = b"\n".join(websocket_messages(frames))
            yield from with_text_joined(messages)
            yield from with_text_joined(b"\n".join(_decoded(data) for data in _DATA.findall(messages)))


def _decoded(data: bytes) -> bytes:
    try:
        return base64.b64decode(data)
    except binascii.Error:
        return b""


def websocket_messages(stream: bytes) -> Iterator[bytes]:
    """Yield the payload of every whole frame, unmasked (RFC 6455, section 5.2)."""
    while len(stream) >= 2:
        size, at = stream[1] & 0x7F, 2
        if size >= 126:
            width = 2 if size == 126 else 8
            size, at = int.from_bytes(stream[at : at + width], "big"), at + width
        mask = b""
        if stream[1] & 0x80:
            mask, at = stream[at : at + 4], at + 4
        if len(stream) < at + size:
            return
        payload, stream = stream[at : at + size], stream[at + size :]
        yield bytes(a ^ b for a, b in zip(payload, cycle(mask), strict=False)) if mask else payload


def lan_readings(frames: Iterable[bytes]) -> Iterator[bytes]:
    """Yield all that anybody on the wire can make of Ethernet frames: each, and the TCP streams in them."""
    seen = list(frames)
    yield b"\n".join(seen)
    for stream in tcp_streams(seen):
        yield from with_text_joined(stream)


def tcp_streams(frames: Iterable[bytes]) -> list[bytes]:
    """Return what each side of each TCP connection sent, put together again; what was not captured is left out."""
    flows: dict[bytes, dict[int, bytes]] = {}
    for frame in frames:
        packet = _ip_payload(frame)
        if packet is None:
            continue
        addresses, segment = packet
        payload = segment[(segment[12] >> 4) * 4 :]
        sequence = int.from_bytes(segment[4:8], "big")
        flow = flows.setdefault(addresses + segment[:4], {})
        # Of a segment that was sent again with more in it, the longer one counts.
        if len(payload) > len(flow.get(sequence, b"")):
            flow[sequence] = payload
    return [_joined(flow) for flow in flows.values() if flow]


def _ip_payload(frame: bytes) -> tuple[bytes, bytes] | None:
    """Return the addresses and the TCP segment in a frame, or None where there is none."""
    kind, packet = frame[12:14], frame[14:]
    if kind == b"\x08\x00" and packet[9] == 6:
        total = int.from_bytes(packet[2:4], "big")
        return packet[12:20], packet[(packet[0] & 0x0F) * 4 : total or None]
    if kind == b"\x86\xdd" and packet[6] == 6:
        total = int.from_bytes(packet[4:6], "big")
        return packet[8:40], packet[40 : 40 + total if total else None]
    return None


def _joined(flow: dict[int, bytes]) -> bytes:
    first = next(iter(flow))
    # Sequence numbers wrap around; no flow here is near to half of their range.
    ordered = sorted(flow.items(), key=lambda each: (each[0] - first + 2**31) % 2**32)
    stream, following = bytearray(), ordered[0][0]
    for sequence, payload in ordered:
        known = (following - sequence + 2**31) % 2**32 - 2**31
        stream += payload[max(0, known) :]
        following = (sequence + max(len(payload), known)) % 2**32
    return bytes(stream)
