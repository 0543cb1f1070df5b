"""How one thing is measured: done several times, with pauses of one length in between, against a process's clock."""

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from os import urandom
from typing import Final, NamedTuple, Protocol, TypeVar

from simulator.calibrating.clocks import CLOCK, Wait
from simulator.calibrating.figures import Samples
from simulator.calibrating.programs import Program
from teale_proto.secure.identity import Identity


class Closes(Protocol):
    """Something that is to be closed."""

    def close(self) -> None:
        """Close it."""


C = TypeVar("C", bound=Closes)

PAUSES_MS: Final = (0.0, 1.0, 5.0, 20.0, 80.0, 250.0)
"""Between the answer to one message and the next one."""
SHORT_MS: Final = 1.0
"""The pause in which everything but messages is measured."""
TOLD_APART: Final = 20
"""As often must something be done in a round for single ones to be held against the middle one."""
LONG_MS: Final = 250.0
"""A pause after which a program is as good as asleep."""


class Plan(NamedTuple):
    """How often each thing is done in a round."""

    rounds: int
    alone: dict[float, int]
    """Messages, by the milliseconds between them."""
    windows: int
    """Of messages under way at once."""
    registrations: int
    others: int
    answers: int
    as_in_lab: bool = False
    """Whether the programs write journals and have neighbours, as those of a lab do."""


THOROUGH: Final = Plan(5, dict(zip(PAUSES_MS, (400, 150, 50, 25, 7, 4), strict=True)), 16, 30, 40, 3)
QUICK: Final = Plan(2, dict(zip(PAUSES_MS, (200, 80, 20, 9, 5, 3), strict=True)), 4, 10, 20, 1)


class Meter:
    """Measures what a program spends on things that are done to it."""

    def __init__(self, program: Program, samples: Samples) -> None:
        self._program: Final = program
        self._samples: Final = samples

    def now_us(self) -> float:
        """Return the processor time that the program has used up to now."""
        return self._program.cpu.read_us()

    def cost_us(self, do: Callable[[], object]) -> float:
        """Return the processor time that the program spends while something is done."""
        before = self._program.cpu.read_us()
        do()
        return self._program.cpu.read_us() - before

    def each_us(self, do: Callable[[], object], count: int, *, pause_ms: float = SHORT_MS) -> float:
        """Return what the program spends on one of several things, a pause apart."""

        def all_of_them() -> None:
            for _ in range(count):
                do()
                time.sleep(pause_ms / 1000)

        return self.cost_us(all_of_them) / count

    def alone(self, name: str, do: Callable[[], object], *, pause_ms: float, count: int) -> None:
        """Do something that is answered several times; keep what each costs, takes, and finds the program idle for."""
        taken, costs, periods = [], [], []
        for _ in range(count):
            before, sent, wait = self._program.cpu.read_us(), time.perf_counter(), Wait()
            do()
            taken.append(wait.seconds() * 1e6)
            if pause_ms:
                time.sleep(pause_ms / 1000)
            periods.append((time.perf_counter() - sent) * 1e6)
            costs.append(self._program.cpu.read_us() - before)
        # The middle one, where single ones can be told apart: now and then a program does something of its own.
        cost = middle(costs) if self._program.cpu.precision is CLOCK else sum(costs) / count
        usual = middle(taken)
        for what, value in (("cpu", cost), ("idle", middle(periods) - cost), ("latency", usual)):
            self._samples.add(alone(name, pause_ms, what), value)
        if count >= TOLD_APART and pause_ms:
            for each in taken:
                self._samples.add(scatter(name), each / usual)


def kept(stack: ExitStack, thing: C) -> C:
    """Return something that is closed at the end of a stack."""
    stack.callback(thing.close)
    return thing


def alone(name: str, pause_ms: float, what: str) -> str:
    """Return the name of the samples of something that was done alone."""
    return f"{name} after {pause_ms:g} ms, {what}, µs"


def scatter(name: str) -> str:
    """Return the name of the samples of how many times as long as usual something took that was done alone."""
    return f"{name}, times the usual"


def middle(values: Sequence[float]) -> float:
    """Return the middle one, and of two the smaller: what else goes on makes things slower, and never quicker."""
    return statistics.median_low(values)


def new_identity() -> Identity:
    """Return a key that nobody has."""
    return Identity.from_seed(urandom(32))
