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
    """Counters since the relay started."""

    peers: int
    sessions: int
    messages: int
    messages_last_minute: int
    uptime: Duration


class MessageCounter:
    """Counts messages, in all and over the last 60 whole seconds."""

    __slots__ = ("_seconds", "total")

    def __init__(self) -> None:
        self.total = 0
        self._seconds: deque[list[int]] = deque(maxlen=60)

    def count(self, now: Instant) -> None:
        """Count one message."""
        self.total += 1
        second = now // SECOND
        if self._seconds and self._seconds[-1][0] == second:
            self._seconds[-1][1] += 1
        else:
            self._seconds.append([second, 1])

    def last_minute(self, now: Instant) -> int:
        """Return how many came in the 60 seconds up to and with the current one."""
        oldest = now // SECOND - 59
        return sum(count for second, count in self._seconds if second >= oldest)
