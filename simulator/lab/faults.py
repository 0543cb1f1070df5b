"""What befalls a lab while it runs: every act of a plan, done to real programs and to the internet between them.

What is done is noted as the simulator's own events (`simulator.events`), at the instant at which it was done. What a
fault finds dead already it leaves alone, as it does in a simulated world.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final

from simulator.events import (
    Crash,
    HostCrashed,
    HostMoved,
    HostStopped,
    NatRebooted,
    NatRebound,
    PartitionBegan,
    PartitionEnded,
    WeatherChanged,
)
from simulator.lab.internet import Internet
from simulator.lab.plan import Begin, Block, Kill, Leave, Move, Reboot, Return, Revive, Weather
from simulator.lab.programs import Life, Program
from simulator.net.link import Link
from simulator.trace import Entry
from teale_proto.contract import Instant, Value

Later = Callable[[Instant, Callable[[], None]], None]
"""Has something done at an instant of the lab's clock."""


class Stage:
    """Programs and internet, and what has happened to them."""

    def __init__(
        self,
        internet: Internet,
        programs: Mapping[str, Program],
        start: Callable[[Program], None],
        now: Callable[[], Instant],
        later: Later,
    ) -> None:
        """`start` begins a life of a program; what ends by itself is done `later`."""
        self.happened: Final[list[Entry]] = []
        """What befell sites, or nobody in particular, and where hosts went."""
        self.ends: Final[dict[Life, Value]] = {}
        """How lives ended that did not end by themselves."""
        self._internet = internet
        self._programs = programs
        self._start = start
        self._now = now
        self._later = later
        self._away: set[str] = set()
        self._dark: set[str] = set()
        """Hosts without power."""
        self._lines: dict[str, Link] = {name: site.line for name, site in internet.sites.items()}

    def perform(self, act: Value) -> None:
        """Do what the plan has for now."""
        self._ON[type(act)](self, act)

    # To programs.

    def _begin(self, act: Begin) -> None:
        self._start(self._programs[act.host])

    def _kill(self, act: Kill) -> None:
        program = self._programs[act.host]
        if program.is_alive:
            self._die(program, act.how)

    def _die(self, program: Program, how: Crash) -> None:
        if how is Crash.VANISH:
            # Before it dies, since a kernel says good-bye for a process that is gone.
            self._internet.cut(program.name)
            self._dark.add(program.name)
        self.ends[program.life] = HostCrashed(how)
        program.kill(self._now())

    def _revive(self, act: Revive) -> None:
        program = self._programs[act.host]
        if program.is_alive or not program.lives:
            return
        if not act.keeps_identity:
            program.forget_identity()
        self._switch_on(program)

    def _switch_on(self, program: Program) -> None:
        if program.name in self._dark:
            self._dark.remove(program.name)
            self._internet.mend(program.name)
        self._start(program)

    def _leave(self, act: Leave) -> None:
        program = self._programs[act.host]
        if not program.is_alive:
            return
        self._away.add(act.host)
        if act.properly:
            self.ends[program.life] = HostStopped()
            program.tell_to_end()
        else:
            self._die(program, Crash.VANISH)

    def _return(self, act: Return) -> None:
        program = self._programs[act.host]
        if act.host in self._away and not self._is_on(program):
            # One that is still saying good-bye has had time enough.
            program.kill(self._now())
            self._switch_on(program)
        self._away.discard(act.host)

    def _is_on(self, program: Program) -> bool:
        """Whether it lives and is to go on living."""
        return program.is_alive and program.life not in self.ends

    # To the internet.

    def _block(self, act: Block) -> None:
        self._internet.block(act.sources, act.targets)
        sources, targets = tuple(sorted(set(act.sources))), tuple(sorted(set(act.targets)))
        self._note("", PartitionBegan(sources, targets))

        def lift() -> None:
            self._internet.unblock(act.sources, act.targets)
            self._note("", PartitionEnded(sources, targets))

        self._later(act.until, lift)

    def _reboot(self, act: Reboot) -> None:
        if act.rebind:
            self._note(act.site, NatRebound((self._internet.rebind_nat(act.site),)))
        else:
            self._internet.reboot_nat(act.site)
            self._note(act.site, NatRebooted())

    def _weather(self, act: Weather) -> None:
        former = self._lines[act.site]
        self._change(act.site, act.line)
        self._later(act.until, lambda: self._change(act.site, former))

    def _change(self, site: str, line: Link) -> None:
        self._lines[site] = line
        self._internet.change_weather(site, line)
        self._note(site, WeatherChanged(line))

    def _move(self, act: Move) -> None:
        addresses = self._internet.move(act.host, act.site)
        self._note(act.host, HostMoved(act.site, tuple(addresses)))

    def _note(self, host: str, value: Value) -> None:
        self.happened.append(Entry(self._now(), host, value))

    _ON: ClassVar[dict[type[Value], Callable[[Any, Any], None]]] = {
        Begin: _begin,
        Kill: _kill,
        Revive: _revive,
        Leave: _leave,
        Return: _return,
        Block: _block,
        Reboot: _reboot,
        Weather: _weather,
        Move: _move,
    }
