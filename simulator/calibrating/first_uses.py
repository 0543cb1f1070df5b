"""How long a process needs for what it does for the first time, from the journal of one that has just been started.

There is no distance between the programs that are measured, so all of the time between asking for a connection and
having it is theirs, at both ends.
"""

from pathlib import Path
from typing import Final

from simulator.journals import read
from simulator.trace import Entry
from teale_proto.contract import Instant
from teale_proto.effects import Connect, DirectTarget, WebSocketUrl
from teale_proto.inputs import ConnectionId, ConnectionOpened, NetworkChanged, Started

NETWORK: Final = "node looks at its network, µs"
TLS: Final = "node first TLS connection, µs"
QUIC: Final = "node first QUIC connection, µs"


def first_uses(journal: Path) -> dict[str, float]:
    """Return the microseconds of each that was done; raises JournalError for a journal that cannot be read."""
    noting = _Noting()
    read(journal).replayed(noting.note)
    return noting.found


class _Noting:
    """Follows the entries of a journal."""

    def __init__(self) -> None:
        self.found: Final[dict[str, float]] = {}
        self._started: Instant = 0
        self._asked: Final[dict[ConnectionId, tuple[str, Instant]]] = {}

    def note(self, entry: Entry) -> None:
        value = entry.value
        if isinstance(value, Started):
            self._started = entry.at
        elif isinstance(value, NetworkChanged):
            self.found.setdefault(NETWORK, entry.at - self._started)
        elif isinstance(value, Connect):
            if isinstance(value.target, DirectTarget):
                self._asked[value.connection] = (QUIC, entry.at)
            elif isinstance(value.target, WebSocketUrl) and value.target.url.startswith("wss:"):
                self._asked[value.connection] = (TLS, entry.at)
        elif isinstance(value, ConnectionOpened) and value.connection in self._asked:
            what, at = self._asked[value.connection]
            self.found.setdefault(what, entry.at - at)
