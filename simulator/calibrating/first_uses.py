"""How long a process needs for what it does for the first time, from the journal of one that has just been started.

There is no distance between the programs that are measured, so all of the time between asking for something and having
it is theirs, at both ends.
"""

from pathlib import Path
from typing import Final

from simulator.journals import read
from simulator.pacing import is_over_tls
from simulator.trace import Entry
from teale_proto.contract import Instant
from teale_proto.effects import Connect, DirectTarget, PeerState, ReportPeer
from teale_proto.effects import Path as Way
from teale_proto.inputs import ConnectionId, ConnectionOpened, DatagramReceived, NodeId, Started

NETWORK: Final = "node start to first answer by STUN, µs"
TLS: Final = "node first TLS connection, µs"
QUIC: Final = "node first direct path from its dialling on, µs"


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
        self._relay: Final[dict[ConnectionId, Instant]] = {}
        self._peers: Final[dict[NodeId, Instant]] = {}

    def note(self, entry: Entry) -> None:
        value = entry.value
        if isinstance(value, Started):
            self._started = entry.at
        elif isinstance(value, DatagramReceived):
            self.found.setdefault(NETWORK, entry.at - self._started)
        elif isinstance(value, Connect):
            if isinstance(value.target, DirectTarget):
                self._peers[value.target.node] = entry.at
            elif is_over_tls(value.target):
                self._relay[value.connection] = entry.at
        elif isinstance(value, ConnectionOpened) and value.connection in self._relay:
            self.found.setdefault(TLS, entry.at - self._relay[value.connection])
        elif isinstance(value, ReportPeer) and value.node in self._peers and _has_direct_path(value):
            self.found.setdefault(QUIC, entry.at - self._peers[value.node])


def _has_direct_path(report: ReportPeer) -> bool:
    return report.state is PeerState.CONNECTED and report.path is Way.DIRECT
