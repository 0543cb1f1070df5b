"""Relay data without JSON: what `relayData` says, for those who offered to read it, in a third fewer bytes.

A WebSocket message of

    kind (1 byte: 1 is data) | session id (16 bytes) | data (the rest)

No JSON text begins with a byte of 1, so the two share a connection. The ids of the two nodes are left out: a
session is between two, and a relay knows whose connection it is. A node offers to read such messages with
`binary` in `register`, and a relay that understands them answers `binary` in `registerAck`. Only sessions whose
id is 32 small hexadecimal digits, as ours are, can be named; the data of others stays in JSON.
"""

import re
from typing import Final, NamedTuple

from teale_proto.errors import PeerError

DATA: Final = b"\x01"
HEAD_BYTES: Final = 1 + 16

_HANDLE: Final = re.compile(r"[0-9a-f]{32}")


class BinaryData(NamedTuple):
    """Data of one session."""

    session_id: str
    data: bytes


def is_binary(message: bytes) -> bool:
    """Return whether a message is one of these rather than JSON."""
    return message.startswith(DATA)


def has_handle(session_id: str) -> bool:
    """Return whether data of that session can be sent in this form."""
    return _HANDLE.fullmatch(session_id) is not None


def encode_binary(session_id: str, data: bytes) -> bytes:
    """Return the message; `has_handle` must be true of the session."""
    return b"".join((DATA, bytes.fromhex(session_id), data))


def decode_binary(message: bytes) -> BinaryData:
    """Return what a binary message says; raises PeerError where it has no complete head."""
    if len(message) < HEAD_BYTES or not is_binary(message):
        raise PeerError("malformed message: not the head of a binary message")
    return BinaryData(message[len(DATA) : HEAD_BYTES].hex(), message[HEAD_BYTES:])
