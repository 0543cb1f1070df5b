"""Numbered messages: what goes before a message that is delivered once and in order, whatever becomes of its path.

    kind (1 byte, 0x02) | number (8 bytes, big-endian) | the message, as JSON or in its bulk form

JSON begins with `{` and the bulk form with 0x01. Nodes send this to each other only where both have said in their
greeting that they know it, and only within encryption. What is done with the numbers is told in `delivery`.
"""

from struct import Struct
from typing import Final

from teale_proto.errors import PeerError

NUMBERED: Final = b"\x02"
PREFIX_BYTES: Final = 9

_PREFIX: Final = Struct(">xQ")


def is_numbered(payload: bytes) -> bool:
    """Return whether a message has this form."""
    return payload.startswith(NUMBERED)


def numbered(number: int, payload: bytes) -> bytes:
    """Return an encoded message with its number, 1 to 2**64 - 1."""
    return b"".join((NUMBERED, number.to_bytes(8, "big"), payload))


def opened(payload: bytes) -> tuple[int, bytes]:
    """Return number and message; raises PeerError where there is no number, or it is 0."""
    number: int = _PREFIX.unpack_from(payload)[0] if len(payload) > PREFIX_BYTES else 0
    if not number:
        raise PeerError("malformed message: a number that is none")
    return number, payload[PREFIX_BYTES:]
