"""How much of anything one client of the local API may take, and how long."""

from typing import Final

from teale_proto.contract import Value

MEBIBYTE: Final = 1 << 20


class Limits(Value):
    """Bounds of the API; the defaults suit a node on a person's own machine."""

    body_bytes_max: int = 8 * MEBIBYTE
    """A longer request is refused with status 413."""
    body_seconds_max: float = 60.0
    """A request whose body takes longer to arrive is refused with status 408."""
    linger_seconds_max: float = 5.0
    """How long what is left of a refused request is read and dropped, so that the client sees the refusal."""
    answer_bytes_max: int = 64 * MEBIBYTE
    """An answer that is collected before it is sent may not be longer."""
    send_seconds_max: float = 60.0
    """A client that takes nothing of what is sent for so long is given up."""
    idle_seconds_max: float = 75.0
    """A connection without a complete request head for so long is closed."""
    connections_max: int = 256
    """Connections beyond are closed as they come."""
    comment_seconds: float = 15.0
    """How often a quiet stream of events says that it is alive."""


DEFAULT_LIMITS: Final = Limits()
