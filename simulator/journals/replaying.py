"""A core is made again from its journal and fed what it was fed; law 7 says that it answers the same.

What it is fed and what it answers become the entries of a trace, at Unix time, so that the journals of all programs
of one machine, sorted by time, are the trace of what happened there.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

from simulator.events import CoreMisused
from simulator.journal import AnyCore
from simulator.rng import stream
from simulator.trace import Entry
from teale_proto.contract import Instant, Value
from teale_proto.journal import (
    Ended,
    Ending,
    Fed,
    Header,
    JournalError,
    NodeMade,
    ReplayingRng,
    digest_of,
)
from teale_proto.node import Node
from teale_proto.relay.server import RelayServer
from teale_proto.secure.suite import NOISE

DIFFERENCES_MAX: Final = 100
"""Differences that are told; after the first one all that follows may differ."""
SUITES: Final = {"noise": NOISE}
REFUSED: Final = "LocalError"


class Replayed:
    """What a journal came to when its core was taken through it again."""

    def __init__(self, header: Header) -> None:
        self.header: Final = header
        self.entries: list[Entry] = []
        """Every input and then its effects, at Unix time in microseconds; empty where they were taken as they came."""
        self.differences: list[str] = []
        """What was not as recorded, the first DIFFERENCES_MAX of it; none means that law 7 holds."""
        self.differing = 0
        """How much was not as recorded in all."""
        self.steps = 0
        self.inputs: Counter[str] = Counter()
        self.effects: Counter[str] = Counter()
        self.refused = 0
        """Inputs that the core refused, then as now; they are no entries, as nothing came of them."""
        self.ending: Ending | None = None
        """How the journal ends; None where the program was killed."""
        self.first_at: Instant | None = None
        self.last_at: Instant | None = None
        """Unix time in microseconds of the first and last input."""
        self.core: AnyCore
        """The core as it was at the end."""

    @property
    def is_equal(self) -> bool:
        """Whether everything was as recorded."""
        return not self.differences


class Replay:
    """Takes a new core through a journal, record by record, for whoever wants to look at it in between.

    Raises JournalError for a journal whose core cannot be made.
    """

    __slots__ = ("_rng", "core", "result")

    def __init__(self, header: Header) -> None:
        self.result: Final = Replayed(header)
        """What it has come to so far."""
        self._rng = ReplayingRng(header.draws, otherwise=stream(0, header.host, "journal"))
        self.core: Final = new_core(header, self._rng)
        self.result.core = self.core
        _note(self.result, "when it was made", self._rng)

    def feed(self, record: Fed | Ended, tell: Callable[[Entry], object]) -> None:
        """Feed the core what it was fed; what comes of it is told."""
        result = self.result
        if isinstance(record, Ended):
            result.ending = record.why
            return
        self._rng.load(record.draws)
        _step(result, self.core, record, tell)
        _note(result, f"step {result.steps}, {type(record.event).__name__}", self._rng)

    def end(self) -> Replayed:
        """Return what it has come to, when all has been fed."""
        self._rng.load(())
        _note(self.result, "at the end", self._rng)
        return self.result


def replayed(header: Header, rest: Iterable[Fed | Ended], tell: Callable[[Entry], object] | None = None) -> Replayed:
    """Take a new core through a journal; entries go to `tell`, or are kept where there is none.

    Raises JournalError for a journal whose core cannot be made.
    """
    replay = Replay(header)
    for record in rest:
        replay.feed(record, replay.result.entries.append if tell is None else tell)
        if isinstance(record, Ended):
            break
    return replay.end()


def new_core(header: Header, rng: ReplayingRng) -> AnyCore:
    """Return the core of a journal as it was when it was made; raises JournalError where that cannot be."""
    suite = SUITES.get(header.suite)
    if suite is None:
        raise JournalError(f"made with the suite {header.suite[:40]!r}, which is not known here")
    made = header.made
    try:
        if isinstance(made, NodeMade):
            return Node(made.config, made.identity, rng, unix_time_at_zero=header.unix_time_at_zero, suite=suite)
        return RelayServer(made.config, rng, unix_time_at_zero=header.unix_time_at_zero, suite=suite)
    except Exception as error:
        raise JournalError(f"what is in its header makes no core: {error!r}") from error


def _step(result: Replayed, core: AnyCore, step: Fed, say: Callable[[Entry], object]) -> None:
    name = type(step.event).__name__
    at, host = result.header.unix_time_at_zero + step.now, result.header.host
    result.steps += 1
    result.inputs[name] += 1
    result.first_at = at if result.first_at is None else result.first_at
    result.last_at = at
    effects: tuple[Value, ...] = ()
    raised = told = ""
    try:
        effects = tuple(core.handle(step.event, step.now))
    except Exception as error:
        raised, told = type(error).__name__, repr(error)
    where = f"step {result.steps} at {step.now} µs, {name}"
    if raised != step.raised:
        _differ(result, f"{where}: {told or 'nothing was raised'}, where {step.raised or 'nothing'} was raised")
    elif digest_of(effects) != step.digest:
        _differ(result, f"{where}: other effects than recorded, now {_names(effects)}")
    if raised == REFUSED:
        result.refused += 1
        return
    say(Entry(at, host, step.event))
    for effect in effects:
        result.effects[type(effect).__name__] += 1
        say(Entry(at, host, effect))
    if raised:
        say(Entry(at, host, CoreMisused(f"the core raised on {name}: {told}")))


def _note(result: Replayed, where: str, rng: ReplayingRng) -> None:
    for difference in rng.differences:
        _differ(result, f"{where}: {difference}")
    rng.differences.clear()


def _differ(result: Replayed, difference: str) -> None:
    result.differing += 1
    if len(result.differences) < DIFFERENCES_MAX:
        result.differences.append(difference)


def _names(effects: tuple[Value, ...]) -> str:
    return ", ".join(type(effect).__name__ for effect in effects) or "none"
