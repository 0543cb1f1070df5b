"""Where nothing was wrong, nothing may go wrong: rules that hold for hosts that no fault has touched for a while.

What a fault leaves behind takes its time: a silence is noticed after three heartbeats, a lost relay after a minute, and
whoever failed waits before the next attempt. After that, a peer that is well must not be given up, every heartbeat must
be answered, and those who should know each other must have met.
"""

from bisect import bisect_right
from collections.abc import Callable, Mapping
from typing import Any, Final

from simulator.checkers import Checker, LostNodesLeavePools, Watched
from simulator.events import HostCrashed, HostStarted, HostStopped
from simulator.spec.faults import (
    BadWeather,
    ClockSkew,
    Crash,
    Fault,
    NatReboot,
    Partition,
    Roam,
    SlowNode,
    begins_at,
    ends_at,
)
from simulator.spec.population import Population
from simulator.spec.units import microseconds
from simulator.spec.world_spec import WorldSpec, calm_from
from simulator.trace import Entry
from teale_proto.contract import NEVER, SECOND, Duration, Instant
from teale_proto.effects import Path, PeerState, RelayState, ReportPeer, ReportRelay
from teale_proto.inputs import NodeId, StopRequested, Woken
from teale_proto.liveness import LOST_AFTER
from teale_proto.node import Node
from teale_proto.seeking import DISCOVERED_MAX

LONG_AGO: Final[Instant] = -(2**62)

FIRST_START: Final[Duration] = 25 * SECOND
"""How long after its first start a host counts as touched: those who dial each other at once settle that first."""

RECOVERY: Final[Duration] = 90 * SECOND
"""Beside three heartbeats, how long the traces of a fault last: a relay that fell silent is given up after 60 s."""

MEETING: Final[Duration] = 130 * SECOND
"""What comes on top until all have met: waiting for the next attempt at the relay, for its listing and for a peer."""


SEEKING: Final[Duration] = 100 * SECOND
"""How long a node looks for another peer in the place of one that it lost: a listing, and one attempt that failed."""


class Plan:
    """Who lives where, and which faults are planned for whom: the part of a description that these rules need."""

    def __init__(self, spec: WorldSpec) -> None:
        self.spec = spec
        self.heartbeat = max((microseconds(each.heartbeat) for each in spec.populations), default=15 * SECOND)
        self.populations = {each.member(n): (each, n) for each in spec.populations for n in each.numbers}
        self.relays = {
            name: spec.relay_names[each.relay] for name, (each, _) in self.populations.items() if spec.relays
        }
        """The relay of each node."""
        self.sites = {name: (each.name, n // each.site_size) for name, (each, n) in self.populations.items()}
        self.slow = frozenset(fault.host for fault in spec.faults if isinstance(fault, SlowNode))
        """Hosts that are slow at some time. What piles up then takes any time to be worked off."""
        self.busy = frozenset(name for name, relay in zip(spec.relay_names, spec.relays, strict=True) if relay.has_cost)
        """Relays whose CPU takes its time: little, but some."""

    def site_of(self, host: str) -> list[str]:
        """Return everybody who shares a line with a host, itself included."""
        site = self.sites.get(host)
        return [host] if site is None else [name for name, other in self.sites.items() if other == site]

    def touched_by(self, fault: Fault) -> list[str]:
        """Return the hosts that a fault disturbs directly."""
        if isinstance(fault, Partition):
            groups = self.spec.groups
            return [member for name in (*fault.sources, *fault.targets) for member in groups.get(name, (name,))]
        if isinstance(fault, NatReboot | BadWeather | Roam):
            return self.site_of(fault.host)
        # A wrong clock is no excuse for anything.
        return [] if isinstance(fault, ClockSkew) else [fault.host]


class Peace:
    """Knows since when nothing has been wrong with a host: by the plan, and by what hosts were seen to do."""

    def __init__(self, plan: Plan) -> None:
        self._windows: dict[str, list[tuple[Instant, Instant]]] = {}
        self._seen: dict[str, Instant] = {}
        for fault in plan.spec.faults:
            if isinstance(fault, Crash):
                # What became of it is seen: a host may have been dead already.
                continue
            ends = NEVER if isinstance(fault, SlowNode) else microseconds(ends_at(fault))
            window = (microseconds(begins_at(fault)), ends)
            for host in plan.touched_by(fault):
                self._windows.setdefault(host, []).append(window)
        for windows in self._windows.values():
            windows.sort()

    kinds: Final = (HostStarted, HostCrashed, HostStopped, StopRequested)
    """What it wants to hear of."""

    def observe(self, entry: Entry) -> None:
        """Note that a host began to live, or ceased to; anything else is let pass."""
        value = entry.value
        if isinstance(value, HostStarted):
            # The first start is long over, as far as traces of faults go, after FIRST_START.
            self._seen[entry.host] = entry.at if value.life > 1 else entry.at + FIRST_START - RECOVERY
        elif isinstance(value, HostCrashed | HostStopped | StopRequested):
            self._seen[entry.host] = entry.at

    def since(self, host: str, now: Instant) -> Instant:
        """Return when something was wrong with a host last; `now` where it still is."""
        windows = self._windows.get(host, ())
        begun = bisect_right(windows, (now, now))
        planned = max((min(until, now) for _, until in windows[:begun]), default=LONG_AGO)
        return max(planned, self._seen.get(host, LONG_AGO))


class _AmongHealthy(Checker):
    """Base of rules about two nodes and the relay between them."""

    def __init__(self, plan: Plan, host_of: Callable[[NodeId], str | None], *, grace: Duration) -> None:
        super().__init__()
        self._plan = plan
        self._peace = Peace(plan)
        self._host_of = host_of
        self._grace = grace

    def _are_well(self, one: str, other: str, path: Path, now: Instant) -> bool:
        """Whether nothing has been wrong with two nodes and what is between them for the time of grace."""
        hosts = [one, other]
        if path is Path.RELAY:
            hosts += [self._plan.relays[host] for host in (one, other)]
        return all(now - self._peace.since(host, now) > self._grace for host in hosts)


class TheHealthyAreKept(_AmongHealthy):
    """A peer is not reported degraded or lost while nothing is wrong with either side and what is between them.

    A conversation that is replaced by another in the same instant has not been lost.
    """

    rule = "nobody gave up a healthy peer"
    kinds = (*Peace.kinds, ReportPeer, Woken)

    def __init__(self, plan: Plan, host_of: Callable[[NodeId], str | None], *, grace: Duration) -> None:
        super().__init__(plan, host_of, grace=grace)
        self._suspects: dict[tuple[str, NodeId], tuple[Instant, str]] = {}

    def observe(self, entry: Entry) -> None:
        """Judge what is said of peers, when the instant in which it is said is over."""
        if self._suspects:
            self._convict(entry.at)
        value = entry.value
        if isinstance(value, ReportPeer):
            self._reported(entry, value)
        else:
            self._peace.observe(entry)

    def finish(self, now: Instant) -> None:
        """Judge what the last instant left open."""
        self._convict(now + 1)

    def _reported(self, entry: Entry, report: ReportPeer) -> None:
        key = (entry.host, report.node)
        if report.state is PeerState.CONNECTED:
            self._suspects.pop(key, None)
            return
        other = self._host_of(report.node)
        if other is not None and self._are_well(entry.host, other, report.path, entry.at):
            what = f"reported {other} as {report.state.value} over {report.path.value} ({report.reason})"
            self._suspects[key] = (entry.at, what)

    def _convict(self, now: Instant) -> None:
        for key, (at, what) in list(self._suspects.items()):
            if at < now:
                del self._suspects[key]
                self.violated(at, key[0], what)


class TheDeadAreLetGo(LostNodesLeavePools):
    """Whoever died is out of every pool after three heartbeats, wherever nothing has been wrong with the line.

    Through a line that was cut, or a relay that was busy, the words of the dead may arrive at any time.
    """

    rule = "nobody who was well kept the dead in a pool for longer than three heartbeats"
    kinds = (*LostNodesLeavePools.kinds, StopRequested)

    def __init__(self, plan: Plan, hosts: dict[NodeId, str], *, margin: Duration, grace: Duration) -> None:
        super().__init__(hosts, heartbeat=plan.heartbeat, margin=margin)
        self._plan = plan
        self._peace = Peace(plan)
        self._grace_after_fault = grace

    def observe(self, entry: Entry) -> None:
        """Follow deaths and pools, and faults."""
        self._peace.observe(entry)
        super().observe(entry)

    def _is_excused(self, host: str, now: Instant) -> bool:
        around = (host, self._plan.relays[host])
        return any(now - self._peace.since(each, now) <= self._grace_after_fault for each in around)


class HeartbeatsAreAnswered(_AmongHealthy):
    """A heartbeat is answered before the next one is due, while nothing is wrong.

    A single heartbeat that goes missing is harmless, since the other side's come as well: no peer is degraded for it.
    So this reads the state of nodes, at the instants at which they wake for their next heartbeat.
    """

    rule = "every heartbeat was answered before the next was due"
    kinds = (*Peace.kinds, Woken)

    def __init__(
        self, plan: Plan, host_of: Callable[[NodeId], str | None], hosts: Mapping[str, Watched], *, grace: Duration
    ) -> None:
        super().__init__(plan, host_of, grace=grace)
        self._hosts = hosts

    def observe(self, entry: Entry) -> None:
        """Look at the heartbeats of a node that wakes."""
        if type(entry.value) is not Woken:
            self._peace.observe(entry)
            return
        host = self._hosts[entry.host]
        core = host.core
        if isinstance(core, Node):
            for node, path, waited in unanswered(core, host.clock.local(entry.at)):
                other = self._host_of(node)
                if other is not None and self._are_well(entry.host, other, path, entry.at):
                    what = f"its heartbeat to {other} over {path.value} was not answered for {waited / SECOND:.3f} s"
                    self.violated(entry.at, entry.host, what)


def unanswered(core: Node, now: Instant) -> list[tuple[NodeId, Path, Duration]]:
    """Return the conversations whose next heartbeat is due and whose last was not answered, and how long that is."""
    found = []
    state: Any = core
    for conversation in state._peers._conversations.values():  # noqa: SLF001 - nobody is told of single heartbeats
        liveness = conversation.liveness
        if liveness is None or liveness._sent_at is None:  # noqa: SLF001
            continue
        waited = now - liveness._sent_at  # noqa: SLF001
        if now >= liveness._beat_at:  # noqa: SLF001
            found.append((conversation.peer, conversation.path, waited))
    return found


class AllHaveMet(Checker):
    """When all faults are over and there was time, everybody who should knows everybody, and nobody knows the dead.

    On a LAN all know each other. Through a relay, a node has sessions with nodes that hold models, with all of them
    or with as many as it wants. Nodes whose life changed too lately are left out, as are those that roam or are slow.
    """

    rule = "when all was over, all who should had met, and nobody held the dead for living"
    kinds = (HostStarted, HostCrashed, HostStopped, ReportRelay, ReportPeer)

    def __init__(
        self, plan: Plan, hosts: Mapping[str, Watched], nodes: Mapping[str, NodeId], *, grace: Duration
    ) -> None:
        super().__init__()
        self._plan = plan
        self._hosts = hosts
        self._nodes = nodes
        self._grace = grace
        self._changed: dict[str, Instant] = {}
        self._registered: set[str] = set()
        """Nodes that have been at their relay, so that there is a way to it."""
        self._lost: dict[str, Instant] = {}
        """When each node lost a peer last: whoever had enough until then looks for another one."""

    def observe(self, entry: Entry) -> None:
        """Note who began or ceased to live, and when."""
        value = entry.value
        if isinstance(value, HostStarted | HostCrashed | HostStopped):
            self._changed[entry.host] = entry.at
        elif isinstance(value, ReportRelay) and value.state is RelayState.CONNECTED:
            self._registered.add(entry.host)
        elif isinstance(value, ReportPeer) and value.state is PeerState.LOST:
            self._lost[entry.host] = entry.at

    def finish(self, now: Instant) -> None:
        """Judge the pools, where there was time enough."""
        plan = self._plan
        if now < microseconds(calm_from(plan.spec)) + self._grace:
            return
        astray = plan.slow.union(fault.host for fault in plan.spec.faults if isinstance(fault, Roam))
        settled = [
            name
            for name in plan.populations
            if name not in astray and now - self._changed.get(name, now) >= self._grace
        ]
        alive = [name for name in settled if self._hosts[name].alive]
        dead = {self._nodes[name]: name for name in settled if not self._hosts[name].alive}
        for name in alive:
            core = self._hosts[name].core
            assert isinstance(core, Node)
            pool = {status.node_id: status.path for status in core.peers()}
            for node, other in dead.items():
                if node in pool:
                    self.violated(now, name, f"still knows {other}, which is dead")
            self._check_lan(name, alive, pool, now)
            self._check_relay(name, alive, pool, now)

    def _check_lan(self, name: str, alive: list[str], pool: Mapping[NodeId, Path], now: Instant) -> None:
        population: Population = self._plan.populations[name][0]
        if population.site_size < 2:
            return
        for other in alive:
            if other != name and self._plan.sites[other] == self._plan.sites[name]:
                path = pool.get(self._nodes[other])
                if path is not Path.LAN:
                    how = "does not know" if path is None else f"knows only over the {path.value}"
                    self.violated(now, name, f"{how} {other}, which is on its LAN")

    def _check_relay(self, name: str, alive: list[str], pool: Mapping[NodeId, Path], now: Instant) -> None:
        plan = self._plan
        relay = plan.relays[name]
        if relay in plan.slow or not self._hosts[relay].alive or now - self._changed.get(relay, now) < self._grace:
            return
        if name not in self._registered:
            # Where nothing but HTTPS passes, there may be no way to the relay.
            return
        core = self._hosts[name].core
        if isinstance(core, Node) and core.status().wan is not RelayState.CONNECTED:
            self.violated(now, name, f"is not at its relay, {relay}: {core.status().wan_reason}")
            return
        # Where there is a direct path, there is a session through the relay as well.
        held = sum(path in (Path.RELAY, Path.DIRECT) for path in pool.values())
        if held >= plan.populations[name][0].peers_max or now - self._lost.get(name, LONG_AGO) < SEEKING:
            return
        neighbours = [other for other in plan.relays if plan.relays[other] == relay]
        if len(neighbours) > DISCOVERED_MAX:
            # Each listing names some of them, and whom it is to name is left to chance.
            return
        for other in alive:
            is_wanted = other != name and plan.relays[other] == relay and self._holds_models(other)
            if is_wanted and other in self._registered and self._nodes[other] not in pool:
                self.violated(now, name, f"does not know {other}, which holds models on the same relay")

    def _holds_models(self, name: str) -> bool:
        core = self._hosts[name].core
        return isinstance(core, Node) and bool(core.status().loaded_models)


def grace_after_fault(plan: Plan) -> Duration:
    """Return how long the traces of a fault last."""
    return LOST_AFTER * plan.heartbeat + RECOVERY


def grace_for_meeting(plan: Plan) -> Duration:
    """Return how long it takes at most until all have met again."""
    return grace_after_fault(plan) + MEETING
