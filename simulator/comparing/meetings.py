"""Who reaches whom: how long until two nodes first do, over the relay and directly, and over what in the end.

A pair counts from both its sides. It reaches each other over a path as soon as the slower side says so, and in the end
over the worse of what the two sides say.
"""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from simulator.comparing.cast import Cast
from simulator.comparing.measured import Figure, Measure, PathCount
from simulator.comparing.views import PREFERENCE, View, is_news_of_conversation
from simulator.events import HostCrashed, HostStopped
from simulator.trace import Entry
from teale_proto.contract import Instant
from teale_proto.effects import Path, RelayState, ReportPeer, ReportRelay, SendText
from teale_proto.inputs import NodeId, Started

NEVER_MET: Final = "never"

_REGISTERED: Final = re.compile(rb'^\{"type":"register",.{0,200}?"nodeID":"([0-9a-f]{64})"')


class Meetings:
    """Follows the peers of all nodes."""

    KINDS: Final = (Started, SendText, ReportPeer, ReportRelay, HostCrashed, HostStopped)

    def __init__(self, cast: Cast) -> None:
        self._cast = cast
        self.names: Final[dict[NodeId, str]] = {}
        """The host of each node that has registered at a relay."""
        self.peers: Final[dict[str, dict[NodeId, View]]] = {}
        """What each node that is alive says of the peers that it has had."""
        self._started: dict[str, Instant] = {}
        self._ever: set[str] = set()
        self._reached: dict[tuple[str, str, Path], Instant] = {}
        self._found: dict[Figure, list[int]] = {}

    def observe(self, entry: Entry) -> None:
        """Take note of an entry."""
        value: Any = entry.value
        if isinstance(value, ReportPeer):
            self._reported(entry, value)
        elif isinstance(value, SendText):
            self._named(entry.host, value.data)
        elif isinstance(value, Started):
            self._started[entry.host] = entry.at
        elif isinstance(value, ReportRelay):
            self._registered(entry, value)
        else:
            self.peers.pop(entry.host, None)
            self._started.pop(entry.host, None)

    def samples(self) -> Mapping[Figure, list[int]]:
        """Return what was measured so far."""
        return self._found

    def paths(self) -> tuple[PathCount, ...]:
        """Return over what all pairs talk now whose nodes are both alive."""
        views: dict[tuple[str, str], Path] = {}
        for host, peers in self.peers.items():
            for node, view in peers.items():
                if view.path is not None:
                    views[host, self.names.get(node, "")] = view.path
        found: Counter[tuple[str, str]] = Counter()
        for one, other in self._cast.pairs():
            if one in self._started and other in self._started:
                found[self._cast.cell(one, other), _worse(views.get((one, other)), views.get((other, one)))] += 1
        return tuple(PathCount(cell, path, pairs) for (cell, path), pairs in found.items())

    def _named(self, host: str, data: bytes) -> None:
        found = _REGISTERED.match(data)
        if found is not None and host not in self._cast.relays:
            self.names[NodeId(found[1].decode())] = host

    def _registered(self, entry: Entry, report: ReportRelay) -> None:
        if report.state is RelayState.CONNECTED and entry.host in self._started and entry.host not in self._ever:
            self._ever.add(entry.host)
            self._sample(Measure.REGISTERED, self._cast.relay_of(entry.host), entry.at - self._started[entry.host])

    def _reported(self, entry: Entry, report: ReportPeer) -> None:
        self.peers.setdefault(entry.host, {}).setdefault(report.node, View()).reported(report)
        peer = self.names.get(report.node)
        key = (entry.host, peer or "", report.path)
        if peer is None or key in self._reached or not is_news_of_conversation(report):
            return
        self._reached[key] = entry.at
        if (peer, entry.host, report.path) in self._reached:
            self._met(entry.host, peer, report.path, entry.at)

    def _met(self, one: str, other: str, path: Path, at: Instant) -> None:
        """Note that the second of two sides has a path for the first time."""
        if not (one in self._started and other in self._started):
            return
        cell = self._cast.cell(one, other)
        since_start = at - max(self._started[one], self._started[other])
        if path is Path.RELAY:
            self._sample(Measure.MET, cell, since_start)
        elif path is Path.DIRECT:
            self._sample(Measure.DIRECT, cell, since_start)
            met = [self._reached.get((*pair, Path.RELAY)) for pair in ((one, other), (other, one))]
            if all(each is not None for each in met):
                self._sample(Measure.PUNCHED, cell, at - max(each for each in met if each is not None))

    def _sample(self, measure: Measure, what: str, value: int) -> None:
        self._found.setdefault(Figure(measure, what), []).append(value)


def _worse(one: Path | None, other: Path | None) -> str:
    if one is None or other is None:
        return NEVER_MET
    return max(one, other, key=PREFERENCE.index).value
