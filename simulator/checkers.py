"""What must stay true whatever the weather: each checker watches a run and names what broke its rule.

Checkers hear of what happens through the trace and see what travels through a tap; they touch nothing. Each is
tested against a violation that was planted for it, since a checker that cannot fail checks nothing.
"""

from base64 import b64encode
from collections.abc import Callable, Collection, Iterable, Sequence
from enum import Enum
from typing import ClassVar, Final, Protocol

from simulator.clock import Clock
from simulator.events import CoreMisused, HostCrashed, HostStarted, HostStopped
from simulator.journal import AnyCore
from simulator.net.connection import Traffic
from simulator.trace import Entry
from teale_proto.contract import SECOND, Duration, Instant, Value
from teale_proto.effects import (
    CloseConnection,
    Connect,
    Path,
    PeerState,
    ReportAttempt,
    ReportFailed,
    ReportFinished,
    ReportPeer,
)
from teale_proto.inputs import (
    Ask,
    ConnectFailed,
    ConnectionAccepted,
    ConnectionClosed,
    ConnectionId,
    ConnectionOpened,
    DataReceived,
    NodeId,
    PingReceived,
    PongReceived,
    RequestId,
)
from teale_proto.liveness import LOST_AFTER

VIOLATIONS_MAX: Final = 20
"""Violations that one checker describes; the rest it only counts."""


class Violation(Value):
    """A rule that was broken: when, on which host, and how."""

    at: Instant
    host: str
    what: str


class Watched(Protocol):
    """What a checker may see of a host beside the trace. It reads the state of cores, and never writes it."""

    @property
    def alive(self) -> bool:
        """Whether a core is being driven."""

    @property
    def core(self) -> AnyCore | None:
        """The core of the present life, or None."""

    @property
    def clock(self) -> Clock:
        """What its core goes by."""


class Checker:
    """Base of all checkers: one rule, and the violations of it."""

    rule: str = ""
    """The rule as a sentence."""

    kinds: ClassVar[tuple[type[Value], ...] | None] = None
    """What it wants to hear of: entries with values of exactly these types, or, with None, everything."""

    def __init__(self) -> None:
        self.violations: list[Violation] = []
        self.count = 0
        """How many violations there were."""
        self.alarm: Callable[[str, Violation], None] | None = None
        """Called with the rule and each violation at the instant at which it is noticed; it may raise."""

    def observe(self, entry: Entry) -> None:
        """Take note of an entry of the trace."""

    def observe_traffic(self, traffic: Traffic) -> None:
        """Take note of what a host hands to the network."""

    def finish(self, now: Instant) -> None:
        """Judge what only the end can show."""

    def violated(self, at: Instant, host: str, what: str) -> None:
        """Note a violation."""
        self.count += 1
        violation = Violation(at, host, what)
        if self.count <= VIOLATIONS_MAX:
            self.violations.append(violation)
        if self.alarm is not None:
            self.alarm(self.rule, violation)


class EveryAskEndsOnce(Checker):
    """A request has one end. One whose own node died before it is excused: there is nobody left to tell."""

    rule = "every request ended exactly once"
    kinds = (Ask, ReportFinished, ReportFailed, HostCrashed, HostStarted)

    def __init__(self) -> None:
        super().__init__()
        self.excused: Collection[str] = ()
        """Hosts that may take any time, being too slow to keep it; their requests still end only once."""
        self._open: dict[str, dict[RequestId, tuple[Instant, Duration]]] = {}
        """When each request that is under way began, and how long it may take, by host."""

    def observe(self, entry: Entry) -> None:
        """Open and close requests."""
        value = entry.value
        if isinstance(value, Ask):
            self._open.setdefault(entry.host, {})[value.request] = (entry.at, value.timeout)
        elif isinstance(value, ReportFinished | ReportFailed):
            if self._open.get(entry.host, {}).pop(value.request, None) is None:
                self.violated(entry.at, entry.host, f"{entry.kind} for {value.request}, which was not under way")
        elif isinstance(value, HostCrashed | HostStarted):
            self._open.pop(entry.host, None)

    def finish(self, now: Instant) -> None:
        """Name the requests that are still open although their time is over; the others may yet end."""
        for host, requests in self._open.items():
            for request, (asked_at, timeout) in requests.items():
                if now - asked_at > timeout and host not in self.excused:
                    self.violated(now, host, f"{request}, asked at {asked_at} µs, never ended")


class LostNodesLeavePools(Checker):
    """A node that died is out of every pool after three heartbeats, and `margin` for what was under way."""

    rule = "no lost node stayed in a pool longer than three heartbeats"
    kinds: ClassVar[tuple[type[Value], ...]] = (ReportPeer, ReportAttempt, HostCrashed, HostStopped, HostStarted)

    def __init__(self, hosts: dict[NodeId, str], *, heartbeat: Duration, margin: Duration = SECOND) -> None:
        super().__init__()
        self._names = {name: node for node, name in hosts.items()}
        self._grace = LOST_AFTER * heartbeat + margin
        self._died_at: dict[NodeId, Instant] = {}
        self._pools: dict[str, dict[NodeId, Instant]] = {name: {} for name in self._names}

    def observe(self, entry: Entry) -> None:
        """Follow deaths and pools."""
        value, host = entry.value, entry.host
        if isinstance(value, ReportPeer):
            self._peer_reported(entry, value)
        elif isinstance(value, ReportAttempt):
            if self._is_overdue(value.server, entry.at) and not self._is_excused(host, entry.at):
                self.violated(entry.at, host, f"asked {value.server[:8]}, which is dead")
        elif isinstance(value, HostCrashed | HostStopped) and host in self._names:
            self._died_at[self._names[host]] = entry.at
            # Its own pool died with it.
            self._pools[host].clear()
        elif isinstance(value, HostStarted) and host in self._names:
            self._died_at.pop(self._names[host], None)

    def finish(self, now: Instant) -> None:
        """Name the dead that are still in a pool."""
        for host, pool in self._pools.items():
            for node in pool:
                if self._is_overdue(node, now) and not self._is_excused(host, now):
                    self.violated(now, host, f"{node[:8]} died at {self._died_at[node]} µs and is still in the pool")

    def _peer_reported(self, entry: Entry, report: ReportPeer) -> None:
        pool = self._pools.setdefault(entry.host, {})
        if report.state is PeerState.LOST:
            pool.pop(report.node, None)
        else:
            pool[report.node] = entry.at
        if self._is_overdue(report.node, entry.at) and not self._is_excused(entry.host, entry.at):
            died_at, state = self._died_at[report.node], report.state.value
            self.violated(entry.at, entry.host, f"{report.node[:8]} died at {died_at} µs and is {state} only now")

    def _is_overdue(self, node: NodeId, now: Instant) -> bool:
        died_at = self._died_at.get(node)
        return died_at is not None and now > died_at + self._grace

    def _is_excused(self, host: str, now: Instant) -> bool:
        """Whether a host may be late now."""
        del host, now
        return False


class NothingInPlain(Checker):
    """What passes a host (or, without a host, any wire) contains none of the marks that the world's texts bear.

    The marks are looked for as they are and as base64 would show them, wherever in a group of three bytes they
    begin. On a stream, a mark may be spread over several writes.
    """

    rule = "nothing was readable on the way"

    def __init__(self, marks: Iterable[str], *, at: str | None = None) -> None:
        super().__init__()
        if at is not None:
            self.rule = f"{at} saw no plaintext"
        self._at = at
        self._marks = tuple((mark, form) for mark in marks for form in _forms(mark.encode()))
        assert self._marks, "nothing to look for"
        self._keep = max(len(form) for _, form in self._marks) - 1
        self._tails: dict[tuple[int, str], bytes] = {}
        self.seen_bytes = 0

    def observe_traffic(self, traffic: Traffic) -> None:
        """Search what is being sent."""
        if self._at is not None and self._at not in (traffic.source, traffic.target):
            return
        self.seen_bytes += len(traffic.data)
        key = (traffic.connection, traffic.source)
        data = self._tails.get(key, b"") + traffic.data
        for mark, form in self._marks:
            if form in data:
                self.violated(traffic.at, traffic.source, f"sent {mark!r} to {traffic.target} in plain")
                data = b""
                break
        self._tails[key] = data[-self._keep :]

    def finish(self, now: Instant) -> None:
        """Refuse to have watched nothing."""
        if not self.seen_bytes:
            self.violated(now, self._at or "", "nothing passed, so nothing was checked")


class EnoughServed(Checker):
    """A world in which nothing works breaks no other rule: so many requests must end well (over one path)."""

    kinds = (ReportFinished,)

    def __init__(self, at_least: int, *, path: Path | None = None) -> None:
        super().__init__()
        over = "" if path is None else f" over {path.value}"
        self.rule = f"at least {at_least} requests were served{over}"
        self._at_least = at_least
        self._path = path
        self._served = 0

    def observe(self, entry: Entry) -> None:
        """Count what ended well."""
        if isinstance(entry.value, ReportFinished) and self._path in (None, entry.value.path):
            self._served += 1

    def finish(self, now: Instant) -> None:
        """Compare with what was hoped for."""
        if self._served < self._at_least:
            self.violated(now, "", f"{self._served} were")


class TimeNeverRunsBackwards(Checker):
    """Every entry is as late as the one before it, or later."""

    rule = "time never ran backwards"

    def __init__(self) -> None:
        super().__init__()
        self._last: Instant = 0

    def observe(self, entry: Entry) -> None:
        """Compare with the entry before."""
        if entry.at < self._last:
            self.violated(entry.at, entry.host, f"it had been {self._last} µs already")
        self._last = entry.at


class _Life(Enum):
    CONNECTING = "connecting"
    OPEN = "open"


class ConnectionsEndOnce(Checker):
    """A connection begins once, ends once, and is silent before and after."""

    rule = "every connection ended at most once and was silent afterwards"
    kinds = (
        *(HostCrashed, HostStopped, HostStarted),
        *(Connect, ConnectionAccepted, ConnectionOpened, ConnectFailed, ConnectionClosed, CloseConnection),
        *(DataReceived, PingReceived, PongReceived),
    )

    def __init__(self) -> None:
        super().__init__()
        self._lives: dict[str, dict[ConnectionId, _Life]] = {}
        """The connections of each host."""

    def observe(self, entry: Entry) -> None:
        """Follow every connection of every host."""
        value = entry.value
        if isinstance(value, HostCrashed | HostStopped | HostStarted):
            self._lives.pop(entry.host, None)
        elif isinstance(value, Connect):
            self._step(entry, value.connection, (None,), _Life.CONNECTING)
        elif isinstance(value, ConnectionAccepted):
            self._step(entry, value.connection, (None,), _Life.OPEN)
        elif isinstance(value, ConnectionOpened):
            self._step(entry, value.connection, (_Life.CONNECTING,), _Life.OPEN)
        elif isinstance(value, ConnectFailed):
            self._step(entry, value.connection, (_Life.CONNECTING,), None)
        elif isinstance(value, ConnectionClosed):
            self._step(entry, value.connection, (_Life.OPEN,), None)
        elif isinstance(value, CloseConnection):
            self._step(entry, value.connection, (_Life.CONNECTING, _Life.OPEN), None)
        elif isinstance(value, DataReceived | PingReceived | PongReceived):
            self._step(entry, value.connection, (_Life.OPEN,), _Life.OPEN)

    def _step(
        self, entry: Entry, connection: ConnectionId, allowed: Sequence[_Life | None], then: _Life | None
    ) -> None:
        lives = self._lives.setdefault(entry.host, {})
        life = lives.get(connection)
        if life not in allowed:
            state = "does not exist" if life is None else f"is {life.value}"
            self.violated(entry.at, entry.host, f"{entry.kind} on connection {connection}, which {state}")
        if then is None:
            lives.pop(connection, None)
        else:
            lives[connection] = then


class ContractKept(Checker):
    """No core asked its driver for something that a driver cannot do."""

    rule = "no core asked for the impossible"
    kinds = (CoreMisused,)

    def observe(self, entry: Entry) -> None:
        """Collect what the hosts complained about."""
        if isinstance(entry.value, CoreMisused):
            self.violated(entry.at, entry.host, entry.value.what)


def _forms(mark: bytes) -> list[bytes]:
    """Return what to search for: the mark, and the middle of its base64 at each of three alignments.

    Characters at either end that also depend on the neighbours of the mark are left out.
    """
    forms = [mark]
    for shift in range(3):
        encoded = b64encode(bytes(shift) + mark)
        # 0, 1 or 2 bytes in front occupy 0, 2 or 3 characters; an incomplete group at the end is cut off.
        whole = (shift + len(mark)) // 3 * 4
        forms.append(encoded[(0, 2, 3)[shift] : whole])
    assert all(len(form) >= 8 for form in forms), f"{mark!r} is too short to be told from chance"
    return forms
