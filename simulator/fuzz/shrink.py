"""The smallest world that still breaks a rule: delta debugging over a settled description.

Every draw of a world derives from a name and a purpose, so what is left out takes nothing else along: a world without
one node is the same world for all the others. What is tried is decided by the description and by what runs come to, and
by no clock, so that shrinking ends at the same world wherever it is done; a limit on time is there for people who
wait, and the only thing that could make a difference.

Delta debugging is by Zeller and Hildebrandt, "Simplifying and isolating failure-inducing input", IEEE Transactions on
Software Engineering 28(2), 2002.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from math import ceil
from time import perf_counter
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
from msgspec.structs import replace

from simulator.fuzz.trial import Trial, run
from simulator.spec.access import PUBLIC
from simulator.spec.faults import BadWeather, Crash, Fault, NatReboot, Partition, SlowNode, hosts_of
from simulator.spec.load import AskSpec, Models
from simulator.spec.population import Population
from simulator.spec.world_spec import RelaySpec, WorldSpec, settled

T = TypeVar("T")

RUNS_MAX: Final = 400
SECONDS_MAX: Final = 60.0

Change = Callable[[WorldSpec], WorldSpec]
Run = Callable[[WorldSpec, int], Trial]


class Shrunk(NamedTuple):
    """What shrinking came to."""

    spec: WorldSpec
    trial: Trial
    """The run of `spec`."""
    runs: int


class _OutOfBudget(Exception):
    """No more runs are allowed."""


def shrink(
    spec: WorldSpec,
    seed: int,
    *,
    trial: Trial | None = None,
    runs_max: int = RUNS_MAX,
    seconds_max: float = SECONDS_MAX,
    run: Run = run,
) -> Shrunk:
    """Return the smallest world found that breaks the same rule first; `trial` is the run of `spec`, if there was one.

    Raises ValueError for a world that breaks no rule.
    """
    spec = settled(spec, seed)
    if trial is None:
        trial = run(spec, seed)
    shrinker = _Shrinker(spec, seed, trial, runs_max, perf_counter() + seconds_max, run)
    with suppress(_OutOfBudget):
        shrinker.work()
    return Shrunk(shrinker.spec, shrinker.trial, shrinker.runs)


def fewest(items: Sequence[T], still: Callable[[Sequence[T]], bool]) -> Sequence[T]:
    """Return a subsequence for which `still` holds and of which no single item can be left out; `items` is one."""
    if not items or still(()):
        return ()
    parts = 2
    while len(items) >= 2:
        size = ceil(len(items) / parts)
        for start in range(0, len(items), size):
            rest = (*items[:start], *items[start + size :])
            # Leaving out half and keeping half are the same question.
            if rest and still(rest):
                items, parts = rest, max(2, parts - 1)
                break
        else:
            if size == 1:
                break
            parts = min(len(items), 2 * parts)
    return items


class _Shrinker:
    """The smallest world so far, and what is left of the budget."""

    def __init__(self, spec: WorldSpec, seed: int, trial: Trial, runs_max: int, until: float, run: Run) -> None:
        if trial.broken is None:
            raise ValueError(f"{spec.name}: nothing to shrink, no rule was broken")
        self.spec = spec
        self.trial = trial
        self.runs = 0
        self._seed = seed
        self._rule = trial.broken.rule
        self._runs_max = runs_max
        self._until = until
        self._run = run
        self._failed: set[bytes] = set()

    def work(self) -> None:
        """Go through all passes until none of them gains anything."""
        while True:
            before = self.spec
            self._drop_faults()
            self._drop_asks()
            self._drop_nodes()
            self._drop_relays()
            for change in _simplifications(self.spec):
                self._try(change(self.spec))
            # Last, because what happens by chance happens in a smaller world too, if it is given more time.
            self._shorten()
            if self.spec == before:
                return

    def _try(self, spec: WorldSpec) -> bool:
        """Take a world instead of the present one if it breaks the same rule; return whether it does."""
        if spec == self.spec:
            return True
        key = msgspec.json.encode(spec)
        if key in self._failed:
            return False
        if self.runs >= self._runs_max or perf_counter() > self._until:
            raise _OutOfBudget
        self.runs += 1
        trial = self._run(spec, self._seed)
        if trial.broken is None or trial.broken.rule != self._rule:
            self._failed.add(key)
            return False
        self.spec, self.trial = spec, trial
        return True

    def _shorten(self) -> None:
        broken = self.trial.broken
        assert broken is not None
        if not self.trial.at_end:
            seconds = float(ceil(broken.at / 1_000_000) + 1)
            if seconds < self.spec.lasts:
                self._try(replace(self.spec, lasts=seconds))
            return
        while self.spec.lasts > 1 and self._try(replace(self.spec, lasts=float(ceil(self.spec.lasts / 2)))):
            pass
        self._try(replace(self.spec, lasts=float(ceil(self.spec.lasts * 3 / 4))))

    def _drop_faults(self) -> None:
        fewest(self.spec.faults, lambda left: self._try(replace(self.spec, faults=tuple(left))))

    def _drop_asks(self) -> None:
        fewest(self.spec.asks, lambda left: self._try(replace(self.spec, asks=tuple(left))))

    def _drop_nodes(self) -> None:
        whole = self.spec
        fewest(whole.node_names, lambda left: self._try(with_nodes(whole, left)))

    def _drop_relays(self) -> None:
        for keep in (1, 1 + max((each.relay for each in self.spec.populations), default=0)):
            if keep < len(self.spec.relays):
                self._try(_with_relays(self.spec, keep))


# What worlds can do without.


def with_nodes(spec: WorldSpec, kept: Sequence[str]) -> WorldSpec:
    """Return the world with only some of its nodes, and without what was asked of or done to the others."""
    stays = frozenset(kept)
    populations = []
    for each in spec.populations:
        numbers = [number for number in each.numbers if each.member(number) in stays]
        count = numbers[-1] + 1 if numbers else 0
        there = frozenset(numbers)
        absent = tuple(number for number in range(count) if number not in there)
        if count:
            populations.append(replace(each, count=count, absent=absent))
    names = stays.union(spec.relay_names, (each.name for each in populations))
    return replace(
        spec,
        populations=tuple(populations),
        asks=tuple(ask for ask in spec.asks if ask.node in names),
        faults=tuple(fault for each in spec.faults if (fault := _among(each, names)) is not None),
    )


def _with_relays(spec: WorldSpec, keep: int) -> WorldSpec:
    """Return the world with its first `keep` relays, which serve everybody."""
    populations = tuple(replace(each, relay=min(each.relay, keep - 1)) for each in spec.populations)
    gone = frozenset(spec.relay_names[keep:])
    names = frozenset((*spec.host_names, *spec.groups)) - gone
    faults = tuple(fault for each in spec.faults if (fault := _among(each, names)) is not None)
    return replace(spec, relays=spec.relays[:keep], populations=populations, faults=faults)


def _among(fault: Fault, names: frozenset[str]) -> Fault | None:
    """Return what is left of a fault where only the hosts of these names are there, or None."""
    if all(name in names for name in hosts_of(fault)):
        return fault
    if not isinstance(fault, Partition):
        return None
    sources = tuple(name for name in fault.sources if name in names)
    targets = tuple(name for name in fault.targets if name in names)
    return replace(fault, sources=sources, targets=targets) if sources and targets else None


# What can be simpler.


def _simplifications(spec: WorldSpec) -> Iterator[Change]:
    """Yield changes one by one; each is made to whatever the world has become by then."""
    yield lambda now: replace(now, stun=None)
    yield lambda now: replace(now, models=Models(), asks=tuple(replace(ask, model="model-1") for ask in now.asks))
    for number in range(len(spec.relays)):
        yield _changing("relays", number, lambda _: RelaySpec())
    plain = Population()
    for number in range(len(spec.populations)):
        for field, value in (
            ("churn", None),
            ("birthday", False),
            ("direct", False),
            ("access", PUBLIC),
            ("regions", {RelaySpec().region: 1.0}),
            ("clock_error_ppm", 0.0),
            ("site_size", 1),
            ("holders", 1.0),
            ("models_each", 1),
            ("inference", plain.inference),
            ("slots", plain.slots),
            ("starts_within", 0.0),
        ):
            yield _changing("populations", number, _setting(field, value))
    for number in range(len(spec.asks)):
        yield _changing("asks", number, lambda ask: AskSpec(float(ceil(ask.at)), ask.node, ask.model, words=1))
    for number, fault in enumerate(spec.faults):
        for simpler in _simpler(fault):
            yield _changing("faults", number, simpler)


def _changing(field: str, number: int, change: Callable[[Any], Any]) -> Change:
    """Return the change of one element of one tuple of a world; one that is gone by then stays it."""

    def changed(now: WorldSpec) -> WorldSpec:
        items = list(getattr(now, field))
        if number < len(items):
            items[number] = change(items[number])
        return replace(now, **{field: tuple(items)})

    return changed


def _setting(field: str, value: object) -> Callable[[Any], Any]:
    return lambda item: replace(item, **{field: value})


def _simpler(fault: Fault) -> list[Callable[[Any], Any]]:
    """Return what can be taken away from a fault without taking it away."""
    changes: list[Callable[[Any], Any]] = []
    if isinstance(fault, BadWeather):
        changes += [_setting(field, 0.0) for field in ("duplication", "reordering", "corruption", "loss")]
    elif isinstance(fault, Crash):
        changes += [_setting("keeps_identity", True), _setting("back_after", None)]
    elif isinstance(fault, NatReboot):
        changes.append(_setting("rebind", False))
    if isinstance(fault, Partition | BadWeather | SlowNode):
        changes += [_halved, _halved, _halved]
    return changes


def _halved(fault: Any) -> Any:
    return replace(fault, until=round(fault.at + (fault.until - fault.at) / 2, 6))
