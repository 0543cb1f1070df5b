"""The rules that hold for real programs: those of simulated worlds that make sense where time is real, and some more.

What is left out is named, with the reason: a report that says only what held would pass for more than it is.
"""

from collections.abc import Sequence
from typing import Final

from simulator.answers import AnswersAreHonest, AnswersComeWhole
from simulator.backend import ANSWER_MARKER
from simulator.bounded import PER_THING, NothingGrows
from simulator.checkers import (
    Checker,
    ConnectionsEndOnce,
    ContractKept,
    EveryAskEndsOnce,
    NothingInPlain,
    TimeNeverRunsBackwards,
)
from simulator.invariants import LATE_DEATH, Identities, NobodyIsWronged
from simulator.lab.gathering import LabWorld
from simulator.lab.load import Heard, Reply
from simulator.lab.plan import Role, Served
from simulator.net.connection import Traffic
from simulator.peace import (
    AllHaveMet,
    HeartbeatsAreAnswered,
    Plan,
    TheDeadAreLetGo,
    TheHealthyAreKept,
    grace_after_fault,
    grace_for_meeting,
)
from simulator.report import ABANDONED
from simulator.spec.build import ShareServed
from simulator.spec.draws import PROMPT_MARKER
from simulator.trace import Entry
from teale_proto.contract import SECOND, Duration, Instant
from teale_proto.effects import ReportAttempt, ReportFailed, ReportFinished, SendData, SendText
from teale_proto.inputs import Ask, DataReceived, RequestId
from teale_proto.liveness import LOST_AFTER

REAL_TIME: Final[Duration] = 3 * SECOND
"""What a machine that is busy with a whole lab may be late with anything."""

LEFT_OUT: Final = {
    "DeadlinesAreKept": "a program on a busy machine is woken when the machine has time",
    "AnswersComeWhole": "it counts words, which those of the built-in model are not made for (only there left out)",
}
"""Rules of simulated worlds that are not applied, and why."""


class LabFinished(EveryAskEndsOnce):
    """Requests end, and a moment more is allowed for it than in virtual time."""

    def finish(self, now: Instant) -> None:
        """Name the requests that are long overdue."""
        super().finish(now - REAL_TIME)


class NothingReadableAtRelays(NothingInPlain):
    """What relays were sent and sent on has no word of a prompt or answer in it, by their own journals."""

    kinds = (DataReceived, SendData, SendText)

    def __init__(self, relays: Sequence[str]) -> None:
        super().__init__((PROMPT_MARKER, ANSWER_MARKER))
        self.rule = "no relay was sent anything readable"
        self._relays = frozenset(relays)

    def observe(self, entry: Entry) -> None:
        """Search what went in and out."""
        value = entry.value
        if entry.host in self._relays and isinstance(value, DataReceived | SendData | SendText):
            inwards = isinstance(value, DataReceived)
            one, other = ("a node", entry.host) if inwards else (entry.host, "a node")
            self.observe_traffic(Traffic(entry.at, one, other, value.connection, True, value.data))


class ApplicationsHeardTheSame(Checker):
    """What an application heard by HTTP is what the node's own journal says of the request."""

    rule = "applications heard what the journals say"
    kinds = (Ask, ReportAttempt, ReportFinished, ReportFailed)

    def __init__(self, replies: Sequence[Reply]) -> None:
        super().__init__()
        self._replies = replies
        self._outcomes: dict[RequestId, str] = {}

    def observe(self, entry: Entry) -> None:
        """Note how requests end."""
        value = entry.value
        if isinstance(value, Ask):
            self._outcomes[value.request] = ABANDONED
        elif isinstance(value, ReportFinished):
            self._outcomes[value.request] = "finished"
        elif isinstance(value, ReportFailed):
            self._outcomes[value.request] = value.failure.value

    def finish(self, now: Instant) -> None:
        """Compare; what was still under way when the time was over says nothing."""
        for reply in self._replies:
            if reply.ended_at >= now:
                continue
            said = self._outcomes.get(reply.request, "not asked")
            expected = {
                Heard.ANSWERED: said == "finished",
                Heard.REFUSED: said not in ("finished", ABANDONED),
                # The answer may have been on its way when the node died.
                Heard.CUT_OFF: said != "not asked",
                Heard.NOT_ASKED: said == "not asked",
            }
            if not expected[reply.heard]:
                heard = f"{reply.heard.value} ({reply.error})" if reply.error else reply.heard.value
                what = f"{reply.request} was {said} by the journal, and {heard} by its application"
                self.violated(reply.ended_at, reply.host, what)


class ProgramsEndWhenTold(Checker):
    """No program ends by itself, and every journal can be read."""

    rule = "no program ended by itself, and every journal can be read"
    kinds = ()

    def __init__(self, world: LabWorld) -> None:
        super().__init__()
        self._world = world

    def finish(self, now: Instant) -> None:
        """Name those that did."""
        for what in (*self._world.ran.failures, *self._world.unread):
            self.violated(now, "", what)


class CoresDoTheSameAgain(Checker):
    """Law 7: a core that is fed its journal answers as it did; `LabWorld.finish` comes first."""

    rule = "every core did the same again when it was fed its journal"
    kinds = ()

    def __init__(self, world: LabWorld) -> None:
        super().__init__()
        self._world = world

    def finish(self, now: Instant) -> None:
        """Name the differences."""
        for difference in self._world.differences:
            self.violated(now, "", difference)


def watch(world: LabWorld) -> list[Checker]:
    """Have a lab's world judged by all rules that there are for it; before it is played."""
    spec, ran = world.ran.plan.spec, world.ran
    plan = Plan(spec)
    hosts = world.hosts
    people = Identities(hosts)
    grace = grace_after_fault(plan)
    other_path = plan.heartbeat * 3 // 2 if any(each.direct for each in spec.populations) else 0
    most_peers = max((each.peers_max for each in spec.populations), default=0)
    relays = [name for name, program in ran.programs.items() if program.role is Role.RELAY]
    checkers: list[Checker] = [
        # First, because the others ask it.
        people,
        LabFinished(),
        TimeNeverRunsBackwards(),
        ConnectionsEndOnce(),
        ContractKept(),
        NobodyIsWronged(),
        AnswersAreHonest(people.host_of, patience=LOST_AFTER * plan.heartbeat + 10 * SECOND),
        TheHealthyAreKept(plan, people.host_of, grace=grace),
        HeartbeatsAreAnswered(plan, people.host_of, hosts, grace=grace),
        TheDeadAreLetGo(plan, world.first_ids, margin=LATE_DEATH + other_path + REAL_TIME, grace=grace),
        AllHaveMet(plan, hosts, people.node_of, grace=grace_for_meeting(plan)),
        NothingGrows(hosts, per_thing=max(PER_THING, 2 * most_peers)),
        ApplicationsHeardTheSame(ran.replies),
        ProgramsEndWhenTold(world),
        CoresDoTheSameAgain(world),
    ]
    if ran.plan.served is Served.DESCRIBED:
        checkers.append(AnswersComeWhole())
    if relays:
        checkers.append(NothingReadableAtRelays(relays))
    if spec.served_at_least:
        checkers.append(ShareServed(spec.served_at_least))
    for checker in checkers:
        if checker.kinds != ():
            world.trace.subscribe(checker.observe, checker.kinds)
    return checkers
