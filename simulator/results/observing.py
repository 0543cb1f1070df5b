"""What the tables are made of, gathered from the trace while a run goes on.

Only what happens to requests, peers, hosts and relays is looked at; an entry of any other kind costs one look-up.
"""

from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any, ClassVar, Final, TypeAlias

import msgspec

from simulator.events import CoreMisused, HostCrashed, HostStarted, HostStopped
from simulator.report import ABANDONED
from simulator.results.model import Dropped, Event, PathRow, RequestRow
from simulator.results.series import Series
from simulator.trace import Entry
from teale_proto.contract import MILLISECOND, Instant, Value
from teale_proto.effects import (
    CloseConnection,
    PeerState,
    ReportAttempt,
    ReportChunk,
    ReportFailed,
    ReportFinished,
    ReportPeer,
    SendData,
    SendText,
)
from teale_proto.inputs import (
    Ask,
    ConnectionAccepted,
    ConnectionClosed,
    DataReceived,
    NodeId,
    RequestId,
)

REQUESTS_MAX: Final = 1_000_000
PATHS_MAX: Final = 200_000
EVENTS_MAX: Final = 2_000
"""Rows that are kept of each table; the rest is counted."""

_TIMES: Final = frozenset({"bad", "each", "good", "jitter", "latency", "reordered_by"})
"""Fields of events, and of what is in them, that are durations."""

OPEN: Final = "open"
FINISHED: Final = "finished"

_Handler: TypeAlias = Callable[["Observer", Entry, Any], None]


class _Request:
    """One request while it is under way, and after."""

    __slots__ = (
        "ask",
        "asked_at",
        "asker",
        "attempts",
        "ended_at",
        "first_token_at",
        "outcome",
        "path",
        "server",
        "tokens",
    )

    def __init__(self, asker: str, ask: Ask, asked_at: Instant) -> None:
        self.asker = asker
        self.ask = (ask.request, ask.task.value, ask.model, ask.streaming)
        self.asked_at = asked_at
        self.first_token_at: Instant | None = None
        self.ended_at: Instant | None = None
        self.outcome = OPEN
        self.path = ""
        self.server = NodeId("")
        self.attempts = 0
        self.tokens = (0, 0)


class _Path:
    """One row of the table of paths."""

    __slots__ = ("connected", "first_at", "last_at", "lost", "state")

    def __init__(self, at: Instant) -> None:
        self.connected = 0
        self.lost = 0
        self.first_at = at
        self.last_at = at
        self.state = ""


class Observer:
    """Gathers requests, paths, events and time series; a subscriber of the trace.

    `node_id` returns the id that a host has now, or None for one that is no node; then its load is of interest.
    """

    def __init__(
        self,
        node_id: Callable[[str], NodeId | None],
        *,
        requests_max: int = REQUESTS_MAX,
        paths_max: int = PATHS_MAX,
        events_max: int = EVENTS_MAX,
    ) -> None:
        self._node_id = node_id
        self._names: dict[NodeId, str] = {}
        self.series: Final = Series()
        self.events: Final[list[Event]] = []
        self.serving: Final[dict[str, int]] = {}
        """The hosts other than nodes that accepted connections, with how many they hold."""
        self._limits = (requests_max, paths_max, events_max)
        self._requests: list[_Request] = []
        self._open: dict[str, dict[RequestId, _Request]] = {}
        self._paths: dict[tuple[str, NodeId, str], _Path] = {}
        self._peers: dict[str, dict[NodeId, str]] = {}
        self._dropped_requests = 0
        self._dropped_paths = 0
        self._dropped_events = 0
        self._handlers: dict[type[Value], _Handler | None] = dict(self._HANDLERS)

    def observe(self, entry: Entry) -> None:
        """Take note of an entry."""
        kind = type(entry.value)
        try:
            handler = self._handlers[kind]
        except KeyError:
            # The simulator's own acts are events of the world, also those that came to be after this was written.
            is_act = kind.__module__.startswith("simulator.")
            handler = self._handlers[kind] = Observer._happened if is_act else None
        if handler is not None:
            handler(self, entry, entry.value)

    def requests(self) -> Iterator[RequestRow]:
        """Yield every request in the order in which they were asked."""
        for each in self._requests:
            request, task, model, streaming = each.ask
            tokens_in, tokens_out = each.tokens
            yield RequestRow(
                request,
                each.asker,
                task,
                model,
                streaming,
                each.asked_at,
                each.first_token_at,
                each.ended_at,
                each.outcome,
                each.path,
                self._names.get(each.server, each.server[:8]),
                each.attempts,
                tokens_in,
                tokens_out,
            )

    def paths(self) -> Iterator[PathRow]:
        """Yield every pair of host and peer with each kind of path between them, in the order of appearance."""
        for (host, node, path), row in self._paths.items():
            peer = self._names.get(node, node[:8])
            yield PathRow(host, peer, path, row.connected, row.lost, row.first_at, row.last_at, row.state)

    def dropped(self, *, packets: int) -> Dropped:
        """Return what was not kept."""
        return Dropped(self._dropped_requests, self._dropped_paths, self._dropped_events, packets)

    # Requests.

    def _asked(self, entry: Entry, ask: Ask) -> None:
        self.series.count(entry.at, "requests_asked")
        request = _Request(entry.host, ask, entry.at)
        self._open.setdefault(entry.host, {})[ask.request] = request
        if len(self._requests) < self._limits[0]:
            self._requests.append(request)
        else:
            self._dropped_requests += 1

    def _attempted(self, entry: Entry, report: ReportAttempt) -> None:
        request = self._open.get(entry.host, {}).get(report.request)
        if request is not None:
            request.attempts += 1
            request.server, request.path = report.server, report.path.value

    def _chunk(self, entry: Entry, report: ReportChunk) -> None:
        request = self._open.get(entry.host, {}).get(report.request)
        if request is not None and request.first_token_at is None:
            request.first_token_at = entry.at

    def _finished(self, entry: Entry, report: ReportFinished) -> None:
        self.series.count(entry.at, "requests_finished")
        request = self._ended(entry, report.request, FINISHED)
        if request is not None:
            request.server, request.path = report.server, report.path.value
            request.tokens = (report.tokens_in, report.tokens_out)

    def _failed(self, entry: Entry, report: ReportFailed) -> None:
        self.series.count(entry.at, "requests_failed")
        self._ended(entry, report.request, report.failure.value)

    def _ended(self, entry: Entry, name: RequestId, outcome: str) -> _Request | None:
        request = self._open.get(entry.host, {}).pop(name, None)
        if request is not None:
            request.ended_at, request.outcome = entry.at, outcome
        return request

    # Peers.

    def _peer(self, entry: Entry, report: ReportPeer) -> None:
        path, peers = report.path.value, self._peers.setdefault(entry.host, {})
        lost = report.state is PeerState.LOST
        former = peers.pop(report.node, None)
        if not lost:
            peers[report.node] = path
        if former != peers.get(report.node):
            self._recount(entry.at, former, -1)
            self._recount(entry.at, peers.get(report.node), 1)
        if lost:
            self.series.count(entry.at, "peers_lost")
        row = self._path(entry, report.node, path)
        if row is not None:
            row.connected += not lost and former != path
            row.lost += lost
            row.last_at, row.state = entry.at, report.state.value

    def _recount(self, at: Instant, path: str | None, difference: int) -> None:
        if path is not None:
            self.series.change(at, "peers_connected", path, difference)

    def _path(self, entry: Entry, node: NodeId, path: str) -> _Path | None:
        key = (entry.host, node, path)
        row = self._paths.get(key)
        if row is None:
            if len(self._paths) >= self._limits[1]:
                self._dropped_paths += 1
                return None
            row = self._paths[key] = _Path(entry.at)
        return row

    # Whoever serves connections and is no node: a relay.

    def _accepted(self, entry: Entry, _: ConnectionAccepted) -> None:
        if self._node_id(entry.host) is not None:
            return
        self.serving[entry.host] = self.serving.get(entry.host, 0) + 1
        self.series.change(entry.at, "relay_connections", entry.host, 1)

    def _closed(self, entry: Entry, event: ConnectionClosed | CloseConnection) -> None:
        # What a host accepted has an even number; an odd one it opened itself.
        if event.connection % 2 == 0 and self.serving.get(entry.host):
            self.serving[entry.host] -= 1
            self.series.change(entry.at, "relay_connections", entry.host, -1)

    def _received(self, entry: Entry, event: DataReceived) -> None:
        if entry.host in self.serving:
            self._moved(entry, "in", len(event.data))

    def _sent(self, entry: Entry, effect: SendData | SendText) -> None:
        if entry.host in self.serving:
            self._moved(entry, "out", len(effect.data))

    def _moved(self, entry: Entry, direction: str, size_bytes: int) -> None:
        self.series.count(entry.at, f"relay_messages_{direction}", entry.host)
        self.series.count(entry.at, f"relay_bytes_{direction}", entry.host, size_bytes)

    # What is done to the world.

    def _started(self, entry: Entry, event: HostStarted) -> None:
        self.series.change(entry.at, "hosts_alive", "", 1)
        node = self._node_id(entry.host)
        if node is not None:
            # At each start: one that lost its disk comes back under another id.
            self._names[node] = entry.host
        if event.life > 1:
            self._happened(entry, event)

    def _died(self, entry: Entry, event: HostCrashed | HostStopped) -> None:
        self.series.change(entry.at, "hosts_alive", "", -1)
        self._happened(entry, event)
        for request in self._open.pop(entry.host, {}).values():
            request.ended_at, request.outcome = entry.at, ABANDONED
            self.series.count(entry.at, "requests_failed")
        for path in self._peers.pop(entry.host, {}).values():
            self._recount(entry.at, path, -1)
        if self.serving.get(entry.host):
            self.series.change(entry.at, "relay_connections", entry.host, -self.serving[entry.host])
            self.serving[entry.host] = 0

    def _happened(self, entry: Entry, _: Value) -> None:
        if len(self.events) < self._limits[2]:
            self.events.append(Event(entry.at, entry.host, _event_name(entry.value), _detail(entry.value)))
        else:
            self._dropped_events += 1

    _HANDLERS: ClassVar[dict[type[Value], _Handler | None]] = {
        Ask: _asked,
        ReportAttempt: _attempted,
        ReportChunk: _chunk,
        ReportFinished: _finished,
        ReportFailed: _failed,
        ReportPeer: _peer,
        ConnectionAccepted: _accepted,
        ConnectionClosed: _closed,
        CloseConnection: _closed,
        DataReceived: _received,
        SendData: _sent,
        SendText: _sent,
        HostStarted: _started,
        HostCrashed: _died,
        HostStopped: _died,
        CoreMisused: None,
    }


def _event_name(value: Value) -> str:
    """Return "host crashed" for HostCrashed; a crash says how, since that decides what others notice."""
    if isinstance(value, HostCrashed):
        return f"crashed ({value.how.value})"
    if isinstance(value, HostStarted):
        return "restarted"
    if isinstance(value, HostStopped):
        return "stopped"
    return " ".join(_words(type(value).__name__))


def _detail(value: Value) -> str:
    """Return what else there is to say of an event: its fields, other than what is in its name."""
    if isinstance(value, HostCrashed):
        return ""
    fields = ((name, getattr(value, name)) for name in type(value).__struct_fields__)
    return "; ".join(_named(name, field) for name, field in fields)


def _named(name: str, field: object) -> str:
    """Return a field with its name, and times with their unit."""
    shown = f"{field / MILLISECOND:g} ms" if name in _TIMES and isinstance(field, int) else _plain(field)
    return f"{name.replace('_', ' ')} {shown}"


def _plain(field: object) -> str:
    if isinstance(field, Enum):
        return str(field.value)
    if isinstance(field, tuple | list):
        return ", ".join(_plain(each) for each in field) or "none"
    if isinstance(field, Value):
        return ", ".join(_named(name, each) for name, each in _said(field)) or "as usual"
    return str(field)


def _said(value: Value) -> Iterator[tuple[str, object]]:
    """Yield the fields of a value that differ from their defaults."""
    for field in msgspec.structs.fields(value):
        if getattr(value, field.name) != field.default:
            yield field.name, getattr(value, field.name)


def _words(name: str) -> list[str]:
    words = [""]
    for character in name:
        if character.isupper() and words[-1]:
            words.append("")
        words[-1] += character.lower()
    return words
