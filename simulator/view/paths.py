"""Which hosts reach each other, and how, from instant to instant.

Each node tells of its peers as it sees them; a pair of hosts is as the better of its two sides has it, and one-sided
where the other holds it for lost, or is dead.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Final

from simulator.results.traces import Line
from simulator.view.lines import Peer
from simulator.view.model import ONE_SIDED, Between, PathChange

_KINDS: Final = {"lan": Between.LAN, "direct": Between.DIRECT, "relay": Between.RELAY}
_DEAD: Final = frozenset({"HostCrashed", "HostStopped"})


class Paths:
    """Follows a trace; `changes` has every change of a pair, in order."""

    def __init__(self, places: Mapping[str, int], nodes: Mapping[str, str]) -> None:
        self._places = places
        self._nodes = nodes
        self._seen: dict[str, dict[str, dict[Between, bool]]] = defaultdict(dict)
        """By host and node id, the paths that there are, and whether each is well."""
        self._now: dict[tuple[str, str], int] = {}
        self.changes: Final[list[PathChange]] = []

    def observe(self, line: Line) -> None:
        """Take note of a line."""
        if isinstance(line.value, Peer):
            self._told(line, line.value)
        elif line.kind in _DEAD:
            for node in self._seen.pop(line.host, {}):
                self._settle(line, node)

    def _told(self, line: Line, told: Peer) -> None:
        path = _KINDS.get(told.path)
        if path is None:
            return
        mine = self._seen[line.host]
        if told.state == "lost":
            mine.pop(told.node, None)
        elif told.state == "connected" and told.reason:
            # A reason says why another path is no more, and this is what is left.
            mine[told.node] = {path: True}
        else:
            mine.setdefault(told.node, {})[path] = told.state == "connected"
        self._settle(line, told.node)

    def _settle(self, line: Line, node: str) -> None:
        peer = self._nodes.get(node, "")
        if line.host not in self._places or peer not in self._places or peer == line.host:
            return
        one, other = sorted((line.host, peer), key=self._places.__getitem__)
        sides = [self._best(one, other), self._best(other, one)]
        known = [side for side in sides if side]
        between = min(known) + (ONE_SIDED if len(known) == 1 else 0) if known else int(Between.NOTHING)
        if self._now.get((one, other), 0) == between:
            return
        self._now[one, other] = between
        self.changes.append(PathChange(line.at, self._places[one], self._places[other], between))

    def _best(self, host: str, peer: str) -> Between:
        """Return the path that a host would take to a peer; what is well comes before what is not."""
        paths = [
            (not is_well, path)
            for node, known in self._seen.get(host, {}).items()
            if self._nodes.get(node) == peer
            for path, is_well in known.items()
        ]
        return min(paths)[1] if paths else Between.NOTHING


def thinned(changes: list[PathChange], changes_max: int) -> tuple[list[PathChange], int]:
    """Return about so many changes at most, and within how many microseconds those of a pair became one, or 0."""
    kept, within = changes, 0
    while len(kept) > changes_max and within < 10**9:
        within = 10 * within or 1000
        last: dict[tuple[int, int, int], PathChange] = {}
        for change in changes:
            last[change.at // within, change.one, change.other] = change
        kept = sorted(last.values(), key=lambda change: change.at)
    return kept, within
