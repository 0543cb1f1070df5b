"""What came of a lab: the report and the results folder of any other run, and beside them what only a lab has.

`lab.json` says what each program used and how long it took to start, what it sent and got, what applications heard, and
on which machine all of this was. It tells of no secrets; journals do, and are kept only on request.
"""

import shutil
from collections import Counter
from pathlib import Path
from time import perf_counter
from typing import Final

import msgspec

from simulator.checkers import Checker
from simulator.lab import judging
from simulator.lab.gathering import LabWorld
from simulator.lab.internet import Counts, Traffic
from simulator.lab.load import Reply
from simulator.lab.plan import Role, Served
from simulator.lab.programs import Life, Program
from simulator.lab.run import Ran, machine
from simulator.reached import Reached
from simulator.report import Report, Statistics, judged
from simulator.results.model import MadeBy
from simulator.results.provenance import made_by
from simulator.trace import Entry
from teale_proto.contract import SECOND, Duration, Instant, Value
from teale_proto.effects import Path as PathKind
from teale_proto.effects import SendData, SendText
from teale_proto.inputs import DataReceived
from teale_proto.node import Node

LAB: Final = "lab.json"
JOURNALS: Final = "journals"
LOGS: Final = "logs"


class LifeInfo(Value):
    """One life of a program; instants are the lab's, those before its zero on the clock of its making."""

    number: int
    spawned_at: Instant
    startup: Duration | None
    """From there until it answered; None where it never did."""
    ended_at: Instant | None
    status: int | None
    cpu_us: Duration
    """Processor time of the program, and of that what it took to start; without the models that it ran."""
    cpu_us_to_start: Duration
    models_cpu_us: Duration


class ProgramInfo(Value):
    """A program, and what went through it on connections and sessions, by its journals."""

    name: str
    role: Role
    lives: tuple[LifeInfo, ...]
    messages_in: int
    messages_out: int
    bytes_in: int
    bytes_out: int
    traffic: Traffic
    """What crossed its host's cable, in packets."""

    @property
    def cpu_us(self) -> Duration:
        """Processor time of all lives."""
        return sum(life.cpu_us for life in self.lives)


class LabInfo(Value):
    """What `lab.json` holds."""

    seed: int
    zero_unix_us: Instant
    machine: dict[str, str | int]
    made_by: MadeBy
    served: Served
    notes: tuple[str, ...]
    rules_left_out: dict[str, str]
    latest_act_us: Duration
    """By how much the latest act was late."""
    programs: tuple[ProgramInfo, ...]
    replies: tuple[Reply, ...]
    wide_area: Counts
    replayed_alike: bool
    """Whether every core did the same again when it was fed its journal."""


class _Messages:
    """Counts what each host is sent and sends."""

    kinds: Final = (DataReceived, SendData, SendText)

    def __init__(self) -> None:
        self.count: Counter[tuple[str, bool]] = Counter()
        self.size_bytes: Counter[tuple[str, bool]] = Counter()

    def observe(self, entry: Entry) -> None:
        value = entry.value
        if isinstance(value, DataReceived | SendData | SendText):
            key = (entry.host, isinstance(value, DataReceived))
            self.count[key] += 1
            self.size_bytes[key] += len(value.data)


class Judged:
    """A run that is being judged: `play` it, then ask for the report.

    Whoever wants to watch subscribes to `world.trace` before that.
    """

    def __init__(self, ran: Ran) -> None:
        self.world: Final = LabWorld(ran)
        self._ran = ran
        self._statistics = Statistics()
        self._messages = _Messages()
        self._checkers: list[Checker] = []
        self.world.trace.subscribe(self._statistics.observe, Statistics.KINDS)
        self.world.trace.subscribe(self._messages.observe, _Messages.kinds)

    def play(self) -> Report:
        """Take all cores through their journals, and return what came of the run."""
        began, plan = perf_counter(), self._ran.plan
        checkers = judging.watch(self.world)
        self.world.play()
        paths = reached(self.world)
        ordinary = [each for each in checkers if not isinstance(each, judging.CoresDoTheSameAgain)]
        for checker in ordinary:
            checker.finish(plan.lasts)
        self.world.finish()
        for checker in checkers:
            if checker not in ordinary:
                checker.finish(plan.lasts)
        checks = judged(checkers)
        return Report(
            scenario=plan.spec.name,
            seed=plan.seed,
            passed=all(check.passed for check in checks),
            digest=self.world.trace.digest,
            requests=self._statistics.requests(),
            hosts_crashed=self._statistics.hosts_crashed,
            peers_lost=self._statistics.peers_lost,
            checks=checks,
            simulated_seconds=plan.lasts / SECOND,
            events=self.world.steps,
            trace_entries=self.world.trace.count,
            wall_seconds=round(self._ran.wall_seconds + perf_counter() - began, 3),
            peers_direct=paths.direct,
            peers_relayed=paths.relayed,
        )

    def info(self) -> LabInfo:
        """Return what only a lab has to tell."""
        ran, plan = self._ran, self._ran.plan
        return LabInfo(
            seed=plan.seed,
            zero_unix_us=ran.unix_zero,
            machine=machine(),
            made_by=made_by(),
            served=plan.served,
            notes=plan.notes,
            rules_left_out=judging.LEFT_OUT,
            latest_act_us=ran.latest,
            programs=tuple(self._program(program) for program in ran.programs.values()),
            replies=tuple(ran.replies),
            wide_area=ran.counts,
            replayed_alike=not self.world.differences and not self.world.unread,
        )

    def _program(self, program: Program) -> ProgramInfo:
        name, messages = program.name, self._messages
        return ProgramInfo(
            name=name,
            role=program.role,
            lives=tuple(map(_life, program.lives)),
            messages_in=messages.count[name, True],
            messages_out=messages.count[name, False],
            bytes_in=messages.size_bytes[name, True],
            bytes_out=messages.size_bytes[name, False],
            traffic=self._ran.traffic.get(name, Traffic()),
        )


def reached(world: LabWorld) -> Reached:
    """Count what nodes that look for direct paths say of their peers now."""
    looking = {node.name for node in world.ran.plan.nodes if node.is_direct}
    found: Counter[PathKind] = Counter()
    for name, host in world.hosts.items():
        if name in looking and isinstance(host.core, Node):
            found.update(peer.path for peer in host.core.peers())
    return Reached(found[PathKind.DIRECT], found[PathKind.RELAY])


def files_of(info: LabInfo, folder: Path, *, logs: bool) -> dict[str, bytes]:
    """Return the files of a lab that go beside the results of any run: `lab.json`, and the `logs` of programs."""
    files = {LAB: msgspec.json.format(msgspec.json.encode(info)) + b"\n"}
    if logs:
        for log in sorted(folder.glob("*/err.log")):
            files[f"{LOGS}/{log.parent.name}.log"] = log.read_bytes()
    return files


def keep_journals(folder: Path, target: Path) -> None:
    """Copy the journals of a run, for their owner's eyes only: they hold the keys of all nodes."""
    target.mkdir(mode=0o700, exist_ok=True)
    for journal in sorted((folder / JOURNALS).glob("*.journal")):
        shutil.copy2(journal, target / journal.name)


def _life(life: Life) -> LifeInfo:
    return LifeInfo(
        number=life.number,
        spawned_at=life.spawned_at,
        startup=None if life.ready_at is None else life.ready_at - life.spawned_at,
        ended_at=life.ended_at,
        status=life.status,
        cpu_us=life.usage.own_us,
        cpu_us_to_start=life.ready_usage.own_us,
        models_cpu_us=life.usage.children_us,
    )
