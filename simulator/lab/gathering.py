"""After a run: all journals through their cores again, side by side by the machine's clock, as the trace of one world.

Every core is fed its next input when its turn has come, so that whoever watches the trace may look at the cores of all
hosts as they were at that instant, as in a simulated world. What the lab did comes into it: hosts that started and
died, NATs, weather. Requests go by the names that the plan has for them, and instants count from the lab's zero.
"""

import heapq
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from typing import Final

import msgspec

from simulator.clock import TRUE_CLOCK, Clock
from simulator.events import HostStarted
from simulator.journal import AnyCore
from simulator.journals import Journal, JournalError, Replay, read
from simulator.lab.plan import Role
from simulator.lab.programs import Life
from simulator.lab.run import Ran
from simulator.results.model import HostInfo, Place
from simulator.results.topology import box
from simulator.trace import Entry, Trace
from teale_proto.contract import Instant, Value
from teale_proto.effects import ReportAttempt, ReportChunk, ReportFailed, ReportFinished
from teale_proto.inputs import Ask, CancelAsk, DataReceived, MessagesReceived, NodeId, RequestId
from teale_proto.journal import Ended, Fed
from teale_proto.node import Node

_ROLES: Final = {Role.NODE: "node", Role.RELAY: "relay", Role.STUN: "server"}
_OF_REQUESTS: Final = (Ask, CancelAsk, ReportAttempt, ReportChunk, ReportFinished, ReportFailed)

Record = Callable[[Instant, str, Value], None]


class LabHost:
    """A host as checkers see it: its core as it was at the instant of the entry that they are told."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.core: AnyCore | None = None
        self.clock: Clock = TRUE_CLOCK
        self.lives = 0

    @property
    def alive(self) -> bool:
        """Whether a core is being driven."""
        return self.core is not None


class Tape:
    """The journal of one life, at the place that it has come to."""

    def __init__(self, host: LabHost, life: Life, journal: Journal, zero: Instant) -> None:
        self.host = host
        self.life = life
        self.replay = Replay(journal.header)
        self.begins_at = journal.header.unix_time_at_zero - zero
        """The instant of the lab's clock at which the program's own clock shows nothing."""
        self._records = journal.steps()
        self._next: Fed | Ended | None = next(self._records, None)
        self._names: dict[RequestId, RequestId] = {}

    @property
    def at(self) -> Instant | None:
        """When its next step was; None when there is none."""
        return self.begins_at + self._next.now if isinstance(self._next, Fed) else None

    def step(self, record: Record) -> None:
        """Take the core one step on, and record what went in and what came out."""
        assert isinstance(self._next, Fed), "there is a next step"
        at, found = max(0, self.begins_at + self._next.now), list[Entry]()
        fed, self._next = self._next, None
        self.replay.feed(fed, found.append)
        for entry in found:
            for value in self._as_simulated(entry.value):
                record(at, self.host.name, value)
        self._next = next(self._records, None)

    def finish(self) -> list[str]:
        """Take the core to the end of its journal; return what was not as recorded."""
        while self._next is not None:
            self.replay.feed(self._next, _to_nobody)
            self._next = next(self._records, None) if isinstance(self._next, Fed) else None
        return self.replay.end().differences

    def _as_simulated(self, value: Value) -> Iterator[Value]:
        """Yield what stands for an entry in a simulated world."""
        if isinstance(value, MessagesReceived):
            # There, every message is heard by itself.
            yield from (DataReceived(value.connection, message) for message in value.messages)
        elif isinstance(value, _OF_REQUESTS):
            if isinstance(value, Ask):
                self._names[value.request] = name_in(value.body) or value.request
            yield msgspec.structs.replace(value, request=self._names.get(value.request, value.request))
        else:
            yield value


class LabWorld:
    """What a lab was, as a world that can be watched: its hosts, its trace, and who is who."""

    kind: Final = "lab"

    def __init__(self, ran: Ran) -> None:
        self.ran: Final = ran
        self.trace: Final = Trace()
        self.hosts: Final[dict[str, LabHost]] = {name: LabHost(name) for name in ran.programs}
        self.node_ids: Final[dict[str, NodeId]] = {}
        """The node id of each host that is a node, by the host's name."""
        self.differences: Final[list[str]] = []
        """Where a core did not do again what it had done, with the name of the journal."""
        self.unread: Final[list[str]] = []
        """Journals that could not be read, and why."""
        self._tapes: list[Tape] = []
        self._turns: list[tuple[Instant, int, int, Callable[[], None]]] = []
        self._number = count()
        for name, program in ran.programs.items():
            for life in program.lives:
                self._open(name, life)

    @property
    def now(self) -> Instant:
        """How far it has come: it is looked at when all is over."""
        return self.ran.plan.lasts

    @property
    def steps(self) -> int:
        """How many inputs all cores have been fed."""
        return sum(tape.replay.result.steps for tape in self._tapes)

    def host_infos(self, serving: frozenset[str]) -> tuple[HostInfo, ...]:
        """Return who is in it."""
        del serving
        return tuple(map(self._host_info, self.hosts))

    def _host_info(self, name: str) -> HostInfo:
        ran = self.ran
        role = _ROLES[ran.programs[name].role]
        site = ran.sites.get(name)
        places = tuple(Place(site or "internet", address) for address in ran.addresses.get(name, ()))
        drawn = next((each for each in ran.plan.sites if each.name == site), None)
        behind = " behind ".join(box(kind) for kind in reversed(drawn.access.nats)) if drawn is not None else ""
        return HostInfo(name, role, places, behind)

    @property
    def first_ids(self) -> dict[NodeId, str]:
        """The host of each node, by the id that the node had at first."""
        made = ((tape, tape.replay.core) for tape in self._tapes if tape.life.number == 1)
        return {core.node_id: tape.host.name for tape, core in made if isinstance(core, Node)}

    def play(self) -> None:
        """Record everything that happened until the lab's time was over."""
        for entry in self.ran.happened:
            self._at(entry.at, 0, partial(self.trace.record, entry.at, entry.host, entry.value))
        for tape in self._tapes:
            begins_at = _beginning(tape)
            if begins_at is not None:
                self._at(begins_at, 1, partial(self._begin, tape, begins_at))
        while self._turns and self._turns[0][0] < self.ran.plan.lasts:
            heapq.heappop(self._turns)[3]()

    def finish(self) -> None:
        """Take every core to the end of its journal, beyond the lab's time, to see whether it does the same again."""
        for tape in self._tapes:
            try:
                found = tape.finish()
            except (JournalError, OSError) as error:
                found = [str(error)]
            self.differences.extend(f"{tape.life.journal.name}: {difference}" for difference in found)

    def _open(self, name: str, life: Life) -> None:
        try:
            self._tapes.append(Tape(self.hosts[name], life, read(life.journal), self.ran.unix_zero))
        except FileNotFoundError:
            # It was killed before it began.
            return
        except (JournalError, OSError) as error:
            self.unread.append(f"{life.journal.name}: {error}")

    def _begin(self, tape: Tape, at: Instant) -> None:
        host = tape.host
        host.lives += 1
        host.core = tape.replay.core
        host.clock = Clock(reads=-tape.begins_at)
        if isinstance(host.core, Node):
            self.node_ids[host.name] = host.core.node_id
        self.trace.record(at, host.name, HostStarted(host.lives))
        self._wait_for(tape, at)

    def _step(self, tape: Tape, at: Instant) -> None:
        try:
            tape.step(self.trace.record)
        except (JournalError, OSError) as error:
            self.unread.append(f"{tape.life.journal.name}: {error}")
        self._wait_for(tape, at)

    def _wait_for(self, tape: Tape, now: Instant) -> None:
        """Have the next step of a life done when its turn comes, or its end."""
        if tape.at is not None:
            at = max(0, tape.at)
            self._at(at, 1, partial(self._step, tape, at))
            return
        end = self.ran.ends.get(tape.life)
        if end is not None:
            at = max(now, tape.life.ended_at or 0)
            self._at(at, 2, partial(self._end, tape, at, end))

    def _end(self, tape: Tape, at: Instant, end: Value) -> None:
        tape.host.core = None
        self.trace.record(at, tape.host.name, end)

    def _at(self, at: Instant, order: int, do: Callable[[], None]) -> None:
        heapq.heappush(self._turns, (at, order, next(self._number), do))


def name_in(body: bytes) -> RequestId | None:
    """Return the name that the lab gave to a request; None for one of somebody else's."""
    try:
        return msgspec.json.decode(body, type=_Named).user
    except msgspec.DecodeError:
        return None


def _beginning(tape: Tape) -> Instant | None:
    """Return when a life began: a node's with its first input, a server's when it listened; None if it never did."""
    first, ready = tape.at, tape.life.ready_at
    if isinstance(tape.replay.core, Node) or ready is None:
        return None if first is None else max(0, first)
    # What listens before zero was up by then.
    listening = 0 if tape.life.number == 1 else ready
    return listening if first is None else max(0, min(first, listening))


class _Named(msgspec.Struct):
    user: RequestId | None = None


def _to_nobody(entry: Entry) -> None:
    """Nobody is interested."""
