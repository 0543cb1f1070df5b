"""A lab without processes and without a kernel: programs and an internet that do nothing but remember what was done."""

import heapq
from collections.abc import Callable, Iterable
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from simulator.events import HostCrashed, HostStarted, HostStopped
from simulator.lab.faults import Stage
from simulator.lab.internet import Internet
from simulator.lab.plan import Order, Plan, Role
from simulator.lab.programs import Life, Program
from simulator.net.link import Link
from simulator.trace import Entry
from teale_proto.contract import Instant


class Puppet(Program):
    """A program that is ready as soon as it is started, and gone as soon as it is told to end."""

    def __init__(self, name: str, stage: "Theatre") -> None:
        self.name = name
        self.role = Role.NODE
        self.lives = []
        self.folder = Path(name)
        self.identities = 1
        self._theatre = stage
        self._lives = False

    @property
    def is_alive(self) -> bool:
        return self._lives

    def start(self, journal: Path, at: Instant) -> None:
        assert not self._lives
        self._lives = True
        self.lives.append(Life(len(self.lives) + 1, journal, at))
        self._theatre.told.append(Entry(at, self.name, HostStarted(len(self.lives))))

    def tell_to_end(self) -> None:
        self.kill(self._theatre.now)

    def kill(self, at: Instant) -> None:
        if self._lives:
            self._lives = False
            self.life.ended_at = at
            end = self._theatre.stage.ends[self.life]
            assert isinstance(end, HostCrashed | HostStopped)
            self._theatre.told.append(Entry(at, self.name, end))

    def forget_identity(self) -> None:
        self.identities += 1


class Ether:
    """An internet in which every call is noted."""

    def __init__(self, plan: Plan, note: Callable[..., None]) -> None:
        self.sites = {site.name: SimpleNamespace(name=site.name, line=site.line) for site in plan.sites}
        self._note = note

    def cut(self, host: str) -> None:
        self._note("cut", host)

    def mend(self, host: str) -> None:
        self._note("mend", host)

    def block(self, sources: Iterable[str], targets: Iterable[str]) -> None:
        self._note("block", tuple(sources), tuple(targets))

    def unblock(self, sources: Iterable[str], targets: Iterable[str]) -> None:
        self._note("unblock", tuple(sources), tuple(targets))

    def reboot_nat(self, site: str) -> None:
        self._note("reboot", site)

    def rebind_nat(self, site: str) -> str:
        self._note("rebind", site)
        return "60.0.0.99"

    def change_weather(self, name: str, line: Link) -> None:
        self._note("weather", name, line)

    def move(self, host: str, site: str) -> tuple[str, ...]:
        self._note("move", host, site)
        return ("10.0.0.2",)


class Theatre:
    """Plays a plan in no time at all."""

    def __init__(self, plan: Plan) -> None:
        self.now: Instant = 0
        self.calls: list[tuple[Any, ...]] = []
        """What the internet was asked to do, with the instant."""
        self.told: list[Entry] = []
        """How lives began and ended."""
        self.ordered: list[tuple[Instant, str, bool]] = []
        """Who was asked when, and whether he was alive."""
        self._plan = plan
        self._due: list[tuple[Instant, int, Callable[[], None]]] = []
        self._number = count()
        names = [*(server.name for server in plan.servers), *(node.name for node in plan.nodes)]
        self.puppets = {name: Puppet(name, self) for name in names}
        ether = Ether(plan, lambda *call: self.calls.append((self.now, *call)))
        self.stage = Stage(
            cast("Internet", ether),
            self.puppets,
            lambda program: program.start(Path("journal"), self.now),
            lambda: self.now,
            self._later,
        )

    def play(self) -> "Theatre":
        for server in self._plan.servers:
            self.puppets[server.name].start(Path("journal"), 0)
        for act in self._plan.acts:
            self._later(act.at, lambda act=act: self._do(act))  # type: ignore[misc]  # bound in the loop
        while self._due and self._due[0][0] < self._plan.lasts:
            self.now, _, do = heapq.heappop(self._due)
            do()
        return self

    @property
    def entries(self) -> list[Entry]:
        """What a trace would tell of it."""
        return sorted((*self.told, *self.stage.happened), key=lambda entry: entry.at)

    def _do(self, act: Any) -> None:
        if isinstance(act, Order):
            self.ordered.append((self.now, act.host, self.puppets[act.host].is_alive))
        else:
            self.stage.perform(act)

    def _later(self, at: Instant, do: Callable[[], None]) -> None:
        heapq.heappush(self._due, (at, next(self._number), do))
