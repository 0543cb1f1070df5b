"""Everything that must hold in any described world, whatever goes wrong in it.

`watch` has a world judged by all the rules that there are; those that depend on what was planned to go wrong are made
for the description. The rest of this module are the rules about who is who, and about time.
"""

from collections.abc import Collection, Mapping
from typing import Final

from simulator.answers import AnswersAreHonest, AnswersComeWhole
from simulator.bounded import PER_THING, NothingGrows
from simulator.checkers import Checker, EveryAskEndsOnce, Watched
from simulator.events import HostCrashed, HostStarted
from simulator.peace import (
    AllHaveMet,
    HeartbeatsAreAnswered,
    Plan,
    TheDeadAreLetGo,
    TheHealthyAreKept,
    grace_after_fault,
    grace_for_meeting,
)
from simulator.spec.world_spec import WorldSpec
from simulator.trace import Entry
from simulator.world import World
from teale_proto.contract import MILLISECOND, NEVER, SECOND, Duration, Instant
from teale_proto.effects import ReportAttempt, ReportFailed, ReportFinished, ReportPeer, ReportRefusal
from teale_proto.inputs import Ask, NodeId, RequestId, Started, Woken
from teale_proto.liveness import LOST_AFTER
from teale_proto.node import Node

CLOCK_ERROR: Final = 1000
"""One part in so many by which a clock may be wrong; descriptions draw up to 400 parts per million."""

LATE_ASK: Final[Duration] = 100 * MILLISECOND
"""How long after its time a request may end, beside what its clock is wrong."""

LATE_DEATH: Final[Duration] = 5 * SECOND
"""How long after a node died what it had sent may still arrive, on lines that lose packets as lines do."""

LATE_WAKE: Final[Duration] = 10
"""Microseconds by which a core may be woken late: two clocks agree only up to rounding."""
LATE_BUSY: Final[Duration] = 2 * SECOND
"""By which it may be where programs take their time: as long as one takes to start, and then some."""


HONEST_REASONS: Final = frozenset(
    {
        # Whoever comes back with other keys, or under an address that was another's, is not who was expected.
        "another node than the expected one answered",
        "the handshake failed: other keys, another node or another version",
        "the other side believes that it talks to another node",
        "the other side is this node itself",
        # Lines that are cut, and hosts that are slow or die, do not finish what they began.
        "no registration in time",
        "took too long to introduce itself",
    }
)
"""What one honest node may hold against another."""


def watch(spec: WorldSpec, world: World) -> None:
    """Have a world that was built from a settled description watched by every rule; before anything happens."""
    plan = Plan(spec)
    people = Identities(world.hosts)
    grace = grace_after_fault(plan)
    # Whoever is slow works off what came in long before, and may begin with it long after its end.
    patience = NEVER if plan.slow else LOST_AFTER * plan.heartbeat + 10 * SECOND
    for checker in world.checkers:
        if isinstance(checker, EveryAskEndsOnce):
            checker.excused = plan.slow
    names = {node: name for name, node in world.node_ids.items()}
    # Whoever falls silent on a direct path is looked for over the relay, and given three heartbeats there too.
    other_path = plan.heartbeat * 3 // 2 if any(each.direct for each in spec.populations) else 0
    most_peers = max((each.peers_max for each in spec.populations), default=0)
    for checker in (
        # First, because the others ask it.
        people,
        NobodyIsWronged(),
        AnswersAreHonest(people.host_of, patience=patience),
        AnswersComeWhole(),
        DeadlinesAreKept(world.hosts, excused=plan.slow | plan.busy, late=LATE_BUSY if spec.costs else LATE_WAKE),
        TheHealthyAreKept(plan, people.host_of, grace=grace),
        HeartbeatsAreAnswered(plan, people.host_of, world.hosts, grace=grace),
        TheDeadAreLetGo(plan, names, margin=LATE_DEATH + other_path, grace=grace),
        AllHaveMet(plan, world.hosts, people.node_of, grace=grace_for_meeting(plan)),
        NothingGrows(world.hosts, per_thing=max(PER_THING, 2 * most_peers)),
    ):
        world.check(checker)


class Identities(Checker):
    """Nodes are reported only under names that somebody in the world has or had, and nobody meets itself."""

    rule = "nobody met a node that there never was, or itself"
    kinds = (ReportPeer, ReportAttempt, ReportFinished, Started)

    def __init__(self, hosts: Mapping[str, Watched]) -> None:
        super().__init__()
        self._hosts = hosts
        self._host_of: dict[NodeId, str] = {}
        self.node_of: dict[str, NodeId] = {}
        """The node that lives on a host now, or did last."""

    def host_of(self, node: NodeId) -> str | None:
        """Return the host on which a node lives or lived, or None."""
        return self._host_of.get(node)

    def observe(self, entry: Entry) -> None:
        """Learn of nodes as they start, and look at whom others speak of."""
        value = entry.value
        if isinstance(value, ReportPeer):
            self._named(entry, value.node)
        elif isinstance(value, ReportAttempt | ReportFinished):
            if self._host_of.get(value.server) is None:
                self.violated(entry.at, entry.host, f"{entry.kind} names {value.server[:8]}, who never was")
        elif isinstance(value, Started):
            core = self._hosts[entry.host].core
            if isinstance(core, Node):
                self._host_of[core.node_id] = entry.host
                self.node_of[entry.host] = core.node_id

    def _named(self, entry: Entry, node: NodeId) -> None:
        host = self._host_of.get(node)
        if host is None:
            self.violated(entry.at, entry.host, f"met {node[:8]}, who never was")
        elif node == self.node_of.get(entry.host):
            self.violated(entry.at, entry.host, "met itself")


class NobodyIsWronged(Checker):
    """Where all are honest, nobody is refused for what it said: TCP delivers what was sent, or nothing."""

    rule = "nobody was refused for what it said"
    kinds = (ReportRefusal,)

    def observe(self, entry: Entry) -> None:
        """Look at the reason."""
        value = entry.value
        if isinstance(value, ReportRefusal) and value.reason not in HONEST_REASONS:
            self.violated(entry.at, entry.host, f"refused {value.connection}: {value.reason}")


class DeadlinesAreKept(Checker):
    """A core is woken when it asked to be, and a request ends within its time, or at most so `late`.

    Hosts that are `excused` may be later than that.
    """

    rule = "no core was woken late, and every request ended in its time"
    kinds = (Woken, Ask, ReportFinished, ReportFailed, HostStarted, HostCrashed)

    def __init__(self, hosts: Mapping[str, Watched], *, excused: Collection[str], late: Duration = 0) -> None:
        super().__init__()
        self._hosts = hosts
        self._late = max(LATE_WAKE, late)
        self._excused = frozenset(excused)
        self._due: dict[tuple[str, RequestId], Instant] = {}

    def observe(self, entry: Entry) -> None:
        """Follow requests, and compare each wake with the deadline that it is for."""
        value, host = entry.value, entry.host
        if type(value) is Woken:
            self._woken(entry)
        elif isinstance(value, Ask) and host not in self._excused:
            allowed = value.timeout + value.timeout // CLOCK_ERROR + LATE_ASK + self._late - LATE_WAKE
            self._due[host, value.request] = entry.at + allowed
        elif isinstance(value, ReportFinished | ReportFailed):
            due = self._due.pop((host, value.request), entry.at)
            if entry.at > due:
                self.violated(entry.at, host, f"{value.request} ended {entry.at - due} µs later than it may")
        elif isinstance(value, HostStarted | HostCrashed):
            for key in [key for key in self._due if key[0] == host]:
                del self._due[key]

    def finish(self, now: Instant) -> None:
        """Name the requests whose time is over."""
        for (host, request), due in self._due.items():
            if now > due:
                self.violated(now, host, f"{request} should have ended by {due} µs")

    def _woken(self, entry: Entry) -> None:
        host = self._hosts[entry.host]
        core = host.core
        if core is None or entry.host in self._excused:
            return
        late = host.clock.local(entry.at) - core.deadline
        # Nothing stands for as soon as possible.
        if late > self._late and core.deadline:
            self.violated(entry.at, entry.host, f"was woken {late} µs later than it had asked for")
