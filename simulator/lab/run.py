"""One run of a lab: the internet is built, the programs are started, the plan is followed, and all is taken down.

The lab's clock begins when all relays and STUN servers are up. Acts are done at their instants, as exactly as a machine
that is busy with all of it can; when what was done is noted. Whatever happens, an error, Ctrl-C or a SIGTERM included,
nothing of it is left; and where the lab itself is killed, the kernel ends its programs and lets go of its namespaces.
"""

import heapq
import os
import platform
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from time import monotonic_ns, perf_counter, sleep, time_ns
from types import FrameType
from typing import Final

from simulator.events import Crash, HostCrashed
from simulator.lab import programs as all_programs
from simulator.lab.certificates import Authority
from simulator.lab.faults import Stage
from simulator.lab.internet import Counts, Internet, Traffic
from simulator.lab.load import Applications, Reply
from simulator.lab.plan import Begin, Block, Kill, Leave, Move, Order, Plan, Reboot, Return, Revive, Weather
from simulator.lab.programs import Life, Program, file_name, node_program, server_program
from simulator.trace import Entry
from teale_proto.contract import SECOND, Duration, Instant, Value

Tell = Callable[[str], None]
"""Is told in a line what goes on."""

LOOK: Final[Duration] = SECOND // 50
"""How often the programs are looked at."""
HEARING_SECONDS: Final = 3.0
"""How long applications may take to hear that their node is gone."""

_STOPPING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class LabClock:
    """Microseconds since the lab's zero, by the clock that all programs of this machine share."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Make this instant zero."""
        self._zero = monotonic_ns()
        self.unix_zero: Instant = time_ns() // 1000
        """Unix time at the lab's zero, in microseconds: what puts journals on this clock."""

    def now(self) -> Instant:
        """Return the present instant."""
        return (monotonic_ns() - self._zero) // 1000


class Ran:
    """A run as it was, before its journals are read."""

    def __init__(self, plan: Plan, unix_zero: Instant) -> None:
        self.plan: Final = plan
        self.unix_zero: Final = unix_zero
        self.programs: dict[str, Program] = {}
        self.happened: list[Entry] = []
        self.ends: dict[Life, Value] = {}
        """How lives ended before the end."""
        self.failures: list[str] = []
        """Programs that ended by themselves, and what else was not as it should be."""
        self.replies: list[Reply] = []
        self.traffic: dict[str, Traffic] = {}
        self.counts = Counts()
        self.addresses: dict[str, tuple[str, ...]] = {}
        self.sites: dict[str, str] = {}
        """The site in which each host is at the end, if it is in any."""
        self.wall_seconds = 0.0
        self.latest: Duration = 0
        """By how much the latest act was late."""


def run(plan: Plan, folder: Path, tell: Tell = lambda _: None) -> Ran:
    """Run a plan, with the programs' files below `folder`; raises LabError where it cannot be done.

    Only the main thread of a process may do this: programs end with the thread that started them.
    """
    began = perf_counter()
    with ExitStack() as stack:
        stack.enter_context(_stopped_by_signals())
        internet = stack.enter_context(Internet(plan.seed))
        _build(plan, internet)
        tell(f"{len(plan.sites)} sites, {len(plan.nodes)} nodes, {len(plan.servers)} servers: building the internet")
        internet.start()
        programs = _programs(plan, internet, folder)
        clock = LabClock()
        # Before the internet goes: what has nothing to talk over any more would log about it.
        stack.callback(lambda: all_programs.kill(programs.values(), clock.now))
        journals = folder / "journals"
        journals.mkdir(mode=0o700)
        servers = [programs[server.name] for server in plan.servers]
        for program in servers:
            program.start(_journal(journals, program), clock.now())
        tell("starting relays and STUN servers")
        all_programs.wait_until_ready(servers, clock.now)
        clock.begin()
        ran = _Running(plan, internet, programs, journals, clock, tell).run()
    ran.wall_seconds = perf_counter() - began
    return ran


class _Running:
    """What goes on from zero to the end."""

    def __init__(
        self,
        plan: Plan,
        internet: Internet,
        programs: Mapping[str, Program],
        journals: Path,
        clock: LabClock,
        tell: Tell,
    ) -> None:
        self._plan = plan
        self._internet = internet
        self._programs = programs
        self._journals = journals
        self._tell = tell
        self._clock = clock
        self._number = count()
        self._due: list[tuple[Instant, int, Callable[[], None]]] = []
        self._ran = Ran(plan, self._clock.unix_zero)
        # The internet takes calls of one thread at a time, and applications connect through it.
        self._lock = threading.Lock()
        self._stage = Stage(internet, programs, self._start, self._clock.now, self._later)
        self._applications = Applications(self._connect, self._clock.now)

    def run(self) -> Ran:
        for act in self._plan.acts:
            self._later(act.at, partial(self._perform, act))
        self._tell("everything is up: the lab's clock begins")
        now = 0
        while now < self._plan.lasts:
            while self._due and self._due[0][0] <= now:
                at, _, do = heapq.heappop(self._due)
                self._ran.latest = max(self._ran.latest, now - at)
                do()
            for program in self._programs.values():
                if program.look(self._clock.now()):
                    self._changed(program)
            next_at = min(self._due[0][0] if self._due else self._plan.lasts, self._plan.lasts)
            sleep(max(0, min(LOOK, next_at - self._clock.now())) / SECOND)
            now = self._clock.now()
        return self._ended()

    def _ended(self) -> Ran:
        ran = self._ran
        self._tell("the time is over: ending the programs")
        with self._lock:
            ran.traffic = {name: self._internet.traffic(name) for name in self._programs}
            ran.counts = self._internet.counts()
        nodes = {each.name for each in self._plan.nodes}
        for part in (nodes, {*self._programs} - nodes):
            all_programs.end([self._programs[name] for name in sorted(part)], self._clock.now)
        self._applications.finish(HEARING_SECONDS)
        ran.programs = dict(self._programs)
        ran.happened, ran.ends, ran.replies = self._stage.happened, self._stage.ends, self._applications.replies
        for name, host in self._internet.hosts.items():
            ran.addresses[name] = host.addresses
            if host.site is not None:
                ran.sites[name] = host.site.name
        return ran

    def _later(self, at: Instant, act: Callable[[], None]) -> None:
        heapq.heappush(self._due, (at, next(self._number), act))

    def _perform(self, act: Value) -> None:
        if isinstance(act, Order):
            self._applications.ask(self._programs[act.host], act)
            return
        with self._lock:
            self._stage.perform(act)
        self._say(_told(act))

    def _start(self, program: Program) -> None:
        program.start(_journal(self._journals, program), self._clock.now())

    def _changed(self, program: Program) -> None:
        """Note that a program became ready, or has ended."""
        life = program.life
        if program.is_alive:
            took = ((life.ready_at or 0) - life.spawned_at) / SECOND
            self._say(f"{program.name} is up, {took:.1f} s after it was started")
        elif life not in self._stage.ends:
            if life.number == 1:
                all_programs.check(program)
            said = f"{program.name} ended by itself with status {life.status}"
            self._stage.ends[life] = HostCrashed(Crash.RESET)
            self._ran.failures.append(f"{said}: {program.log}")
            self._say(said)

    def _connect(self, host: str, port: int) -> socket.socket:
        with self._lock:
            return self._internet.connect(host, port)

    def _say(self, what: str) -> None:
        self._tell(f"{self._clock.now() / SECOND:7.1f} s  {what}")


def _build(plan: Plan, internet: Internet) -> None:
    """Say what there is: servers, sites, and the hosts in them."""
    for server in plan.servers:
        internet.add_server(server.name, server.addresses, server.line, region=server.region)
    for site in plan.sites:
        access = site.access
        internet.add_site(
            site.name,
            access.nats,
            site.line,
            region=site.region,
            only_tcp_443=access.only_tcp_443,
            offers_port_mapping=access.offers_port_mapping and access.is_behind_nat,
        )
    for node in plan.nodes:
        internet.add_host(node.name, node.site)


def _programs(plan: Plan, internet: Internet, folder: Path) -> dict[str, Program]:
    """Return all programs, none of which has been started."""
    made: dict[str, Program] = {}
    authority = Authority(folder)
    for number, server in enumerate(plan.servers):
        home = folder / f"server-{number}-{file_name(server.name)}"
        made[server.name] = server_program(server, home, internet.host(server.name).prefix, authority)
    for number, node in enumerate(plan.nodes):
        home = folder / f"node-{number}-{file_name(node.name)}"
        made[node.name] = node_program(node, home, internet.host(node.name).prefix, plan.seed, authority)
    return made


def _journal(journals: Path, program: Program) -> Path:
    return journals / f"{program.folder.name}.life-{len(program.lives) + 1}.journal"


def _told(act: Value) -> str:
    """Return what an act does, for people who watch."""
    match act:
        case Begin():
            return f"{act.host} is started"
        case Kill():
            return f"{act.host} dies ({act.how.value})"
        case Revive():
            return f"{act.host} is switched on again" + ("" if act.keeps_identity else ", as somebody else")
        case Leave():
            return f"{act.host} leaves" + ("" if act.properly else " without a word")
        case Return():
            return f"{act.host} returns"
        case Block():
            until = f"until {act.until / SECOND:g} s"
            return f"nothing passes from {' '.join(act.sources)} to {' '.join(act.targets)} {until}"
        case Reboot():
            return f"the NATs of {act.site} forget everything" + (", and get another address" if act.rebind else "")
        case Weather():
            return f"bad weather on the line of {act.site} until {act.until / SECOND:g} s"
        case Move():
            return f"{act.host} goes to {act.site}"
    return type(act).__name__


# Signals.


class Interrupted(KeyboardInterrupt):
    """A signal asked the lab to end."""


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Have the signals that end a program raise Interrupted, so that everything is taken down."""

    def stop(number: int, _: FrameType | None) -> None:
        for each in _STOPPING:
            # Once is enough: what takes everything down is not to be interrupted.
            signal.signal(each, signal.SIG_IGN)
        raise Interrupted(signal.Signals(number).name)

    former = {number: signal.signal(number, stop) for number in _STOPPING}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def machine() -> dict[str, str | int]:
    """Return what a run was done on."""
    return {
        "kernel": platform.release(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "processors": len(os.sched_getaffinity(0)),
    }
