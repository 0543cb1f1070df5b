"""What a relay says of itself to whoever asks over HTTP; taking a snapshot changes nothing."""

from collections import deque
from typing import Final

from teale_proto.contract import SECOND, Duration, Instant, Value

SHOWN_CHARACTERS: Final = 16
"""How much of a node id the public sees."""


class Health(Value):
    """The relay is up, and this many nodes are registered."""

    peers: int


class Listing(Value):
    """One registered node, with a shortened id: enough to recognise one's own, too little to dial."""

    node_id: str
    display_name: str
    loaded_models: tuple[str, ...]
    is_available: bool
    proved: bool
    """Whether it answered a challenge; a legacy registration did not."""


class Metrics(Value):
    """What there is now, and counters since the relay started."""

    peers: int
    sessions: int
    messages: int
    messages_last_minute: int
    uptime: Duration
    strangers: int = 0
    """Connections that have not registered."""
    is_draining: bool = False
    size_bytes: int = 0
    """Bytes of the messages that have passed."""
    connections: int = 0
    """Connections so far, and so on."""
    registrations: int = 0
    sessions_opened: int = 0
    excesses: tuple[tuple[str, int], ...] = ()
    """Messages that came too fast, by whose limit it was: `client`, `address` or `total`."""
    errors: tuple[tuple[str, int], ...] = ()
    """Complaints to clients, by their code; a closed set."""


class MessageCounter:
    """Counts messages, in all and over the last 60 whole seconds."""

    __slots__ = ("_seconds", "total")

    def __init__(self) -> None:
        self.total = 0
        self._seconds: deque[list[int]] = deque(maxlen=60)

    def count(self, now: Instant, messages: int = 1) -> None:
        """Count messages."""
        self.total += messages
        second = now // SECOND
        if self._seconds and self._seconds[-1][0] == second:
            self._seconds[-1][1] += messages
        else:
            self._seconds.append([second, messages])

    def last_minute(self, now: Instant) -> int:
        """Return how many came in the 60 seconds up to and with the current one."""
        oldest = now // SECOND - 59
        return sum(count for second, count in self._seconds if second >= oldest)
