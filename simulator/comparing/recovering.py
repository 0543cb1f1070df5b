"""What a fault disturbs, and how long until that is well again.

A fault touches hosts: the one that dies, those behind the NAT that forgets, both sides of a cut. It disturbs the
requests that are being answered over them, whoever had a path to them, and the nodes of a relay among them. All of
that is looked at when the fault comes; what recovers later is measured from then.
"""

from collections.abc import Iterator
from typing import Any, Final

from simulator.comparing.asked import Key, Requests
from simulator.comparing.cast import Cast
from simulator.comparing.measured import Figure, Measure
from simulator.comparing.meetings import Meetings
from simulator.events import Crash, HostCrashed, HostMoved, NatRebooted, NatRebound, PartitionBegan
from simulator.trace import Entry
from teale_proto.contract import Instant
from teale_proto.effects import Path, RelayState, ReportFailed, ReportFinished, ReportPeer, ReportRelay
from teale_proto.inputs import NodeId

FAULTS_MAX: Final = 10_000
"""Faults that are followed in one run."""

_Link = tuple[str, NodeId]
"""A node, and a peer of it."""


class _Trouble:
    """One fault, and what has not recovered from it."""

    __slots__ = ("askers", "at", "interrupted", "label", "paths", "relays")

    def __init__(self, label: str, at: Instant) -> None:
        self.label = label
        self.at = at
        self.interrupted: set[Key] = set()
        self.askers: set[str] = set()
        """Whose next answer is waited for."""
        self.paths: dict[_Link, tuple[Path, bool]] = {}
        """How peers were reached, and whether that was noticed to be over."""
        self.relays: dict[str, bool] = {}
        """Nodes whose relay is touched, and whether they noticed."""


class Recovering:
    """Follows all faults. It is to see an entry before the others do, but for what is said of peers."""

    KINDS: Final = (
        HostCrashed,
        HostMoved,
        NatRebooted,
        NatRebound,
        PartitionBegan,
        ReportFinished,
        ReportFailed,
        ReportPeer,
        ReportRelay,
    )

    def __init__(self, cast: Cast, meetings: Meetings, requests: Requests) -> None:
        self._cast = cast
        self._meetings = meetings
        self._requests = requests
        self._troubles: list[_Trouble] = []
        self._found: dict[Figure, list[int]] = {}

    def observe(self, entry: Entry) -> None:
        """Take note of an entry."""
        value: Any = entry.value
        if isinstance(value, ReportPeer):
            self._peer(entry, value)
        elif isinstance(value, ReportRelay):
            self._relay(entry, value)
        elif isinstance(value, ReportFinished | ReportFailed):
            self._ended(entry, value)
        elif len(self._troubles) < FAULTS_MAX:
            self._begin(entry)

    def samples(self) -> dict[Figure, list[int]]:
        """Return what was measured so far."""
        return self._found

    # What a fault disturbs.

    def _begin(self, entry: Entry) -> None:
        touched = self._touched(entry)
        trouble = _Trouble(self._label(entry), entry.at)
        self._troubles.append(trouble)
        for key, request in self._requests.open.items():
            server = self._meetings.names.get(request.server) if request.server is not None else None
            over = self._cast.relay_of(request.asker) if request.path is Path.RELAY else None
            if touched & {request.asker, server, over} and request.asker not in self._dying(entry):
                trouble.interrupted.add(key)
        for host, node, path in self._links():
            over = self._cast.relay_of(host) if path is Path.RELAY else None
            if touched & {host, self._meetings.names.get(node), over}:
                trouble.paths[host, node] = (path, False)
        trouble.relays = {
            member: False
            for member in self._cast.members
            if member in touched or self._cast.relay_of(member) in touched
        }
        trouble.askers = {host for host, _ in trouble.interrupted} or (
            {host for host, _ in trouble.paths} | trouble.relays.keys()
        )

    def _touched(self, entry: Entry) -> frozenset[str]:
        if isinstance(entry.value, PartitionBegan):
            named = (*entry.value.sources, *entry.value.targets)
            return frozenset(host for name in named for host in self._cast.whom(name))
        return self._cast.whom(entry.host)

    def _dying(self, entry: Entry) -> frozenset[str]:
        return frozenset((entry.host,)) if isinstance(entry.value, HostCrashed) else frozenset()

    def _links(self) -> Iterator[tuple[str, NodeId, Path]]:
        for host, peers in self._meetings.peers.items():
            for node, view in peers.items():
                if view.path is not None:
                    yield host, node, view.path

    def _label(self, entry: Entry) -> str:
        name = self._cast.label(entry.host)
        match entry.value:
            case HostCrashed(how=Crash.RESET):
                return f"{name} killed"
            case HostCrashed():
                return f"{name} without power"
            case NatRebooted():
                return f"NAT of {name} forgets"
            case NatRebound():
                return f"NAT of {name} renumbered"
            case HostMoved():
                return f"{name} moved"
            case PartitionBegan(sources=sources, targets=targets):
                whose = [" and ".join(dict.fromkeys(map(self._cast.label, names))) for names in (sources, targets)]
                return f"cut from {whose[0]} to {whose[1]}"
        raise AssertionError(f"{entry.kind} is no fault")

    # What recovers.

    def _ended(self, entry: Entry, report: ReportFinished | ReportFailed) -> None:
        key = (entry.host, report.request)
        request = self._requests.open.get(key)
        if request is None:
            return
        is_finished = isinstance(report, ReportFinished)
        for trouble in self._troubles:
            since = entry.at - trouble.at
            if key in trouble.interrupted:
                trouble.interrupted.remove(key)
                how = "" if is_finished else ", failed"
                self._sample(Measure.INTERRUPTED, f"{trouble.label}{how}", since)
                if is_finished:
                    self._sample(Measure.SILENCE, trouble.label, request.silence)
            elif is_finished and entry.host in trouble.askers and request.asked_at >= trouble.at:
                # One answer each is enough.
                trouble.askers.remove(entry.host)
                self._sample(Measure.ANSWERED, trouble.label, since)

    def _peer(self, entry: Entry, report: ReportPeer) -> None:
        link = (entry.host, report.node)
        view = self._meetings.peers[entry.host][report.node]
        for trouble in self._troubles:
            before = trouble.paths.get(link)
            if before is None:
                continue
            path, is_disturbed = before
            if view.path is not path or not view.is_well:
                trouble.paths[link] = (path, True)
            elif is_disturbed:
                del trouble.paths[link]
                self._sample(Measure.PATH_BACK, f"{trouble.label}, {path.value}", entry.at - trouble.at)

    def _relay(self, entry: Entry, report: ReportRelay) -> None:
        for trouble in self._troubles:
            is_disturbed = trouble.relays.get(entry.host)
            if is_disturbed is None:
                continue
            if report.state is not RelayState.CONNECTED:
                trouble.relays[entry.host] = True
            elif is_disturbed:
                del trouble.relays[entry.host]
                self._sample(Measure.RELAY_BACK, trouble.label, entry.at - trouble.at)

    def _sample(self, measure: Measure, what: str, value: int) -> None:
        self._found.setdefault(Figure(measure, what), []).append(value)
