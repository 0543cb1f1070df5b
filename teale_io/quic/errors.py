"""How a QUIC connection can fail, and the codes that say so to the other side.

The codes are those of the application (RFC 9000, section 20.2): they mean something between two nodes only.
"""

from enum import IntEnum
from typing import Any

from teale_proto.errors import TealeError


class Code(IntEnum):
    """Why a connection is closed, as the other side is told."""

    DONE = 0
    WRONG_NODE = 1
    """The other side is not the node that was dialled, or did not prove to be any."""
    REFUSED = 2
    """The other side is who it says, and not wanted here."""
    TOO_SLOW = 3
    """More waits to be read, or to be put in order, than may."""
    TOO_LATE = 4
    """The handshake took too long."""
    BROKEN = 5
    """The other side sent what the protocol does not allow."""


class QuicError(TealeError, OSError):
    """A QUIC connection could not be opened, or has ended; the text is the reason, for people.

    It is an OSError too, so that whoever handles broken sockets handles it.
    """


class WrongNode(QuicError):
    """Somebody else than the node that was dialled answered, or it could not prove who it is."""


class NoAnswer(QuicError):
    """Nothing came within the time that was allowed."""


class ClosedByPeer(QuicError):
    """The other side ended the connection; `code` is one of `Code`, or whatever else it sent."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class TooMany(QuicError):
    """A limit of this endpoint is reached."""


def error_of(termination: Any) -> QuicError:
    """Return what users get for the library's event of a connection that has ended."""
    reason = str(termination.reason_phrase)
    if "idle" in reason.lower() and termination.frame_type is not None:
        return NoAnswer("the other side has not been heard for too long")
    if termination.frame_type is None:
        return ClosedByPeer(termination.error_code, _printable(reason) or "closed by the other side")
    return QuicError(f"QUIC error {termination.error_code:#x}")


def _printable(text: str) -> str:
    """Return what a peer said, short and harmless enough for a log."""
    return "".join(each for each in text[:100] if each.isprintable())
