"""What goes wrong: a plan of faults as values, written in a scenario or drawn from the seed.

Every fault names its host or site and its instants in seconds. What it does is in `simulator.spec.build`; that a
fault finds its host dead already, or its population shrunk, makes it do nothing.
"""

from typing import Annotated, Final, TypeAlias

import msgspec

from simulator.events import Crash as How
from simulator.rng import SplitMix64, weighted
from simulator.spec.units import Chance, Loss, Positive, Seconds, Weight
from teale_proto.contract import Value


class Crash(Value, tag_field="kind", tag="crash", forbid_unknown_fields=True):
    """A host dies, and may come back."""

    host: str
    at: Seconds
    how: How = How.RESET
    back_after: Seconds | None = None
    """None is never."""
    keeps_identity: bool = True
    """Whether the disk with its keys survives; a node that lost it comes back as somebody else."""


class Partition(Value, tag_field="kind", tag="partition", forbid_unknown_fields=True):
    """Nothing passes from `sources` to `targets`; the other way only where it says so too."""

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    at: Seconds
    until: Seconds
    both_ways: bool = True

    def __post_init__(self) -> None:
        _check_order(self.at, self.until)


class NatReboot(Value, tag_field="kind", tag="nat reboot", forbid_unknown_fields=True):
    """The NATs of a host's site forget all sessions; with `rebind`, the site gets other outside addresses too."""

    host: str
    at: Seconds
    rebind: bool = False


class BadWeather(Value, tag_field="kind", tag="bad weather", forbid_unknown_fields=True):
    """A host's access line loses, corrupts, doubles and reorders for a while."""

    host: str
    at: Seconds
    until: Seconds
    loss: Loss = 0.0
    corruption: Loss = 0.0
    duplication: Chance = 0.0
    reordering: Chance = 0.0

    def __post_init__(self) -> None:
        _check_order(self.at, self.until)


class SlowNode(Value, tag_field="kind", tag="slow node", forbid_unknown_fields=True):
    """A host takes `delay` seconds to look at anything that comes in."""

    host: str
    at: Seconds
    until: Seconds
    delay: Positive = 0.5

    def __post_init__(self) -> None:
        _check_order(self.at, self.until)


class ClockSkew(Value, tag_field="kind", tag="clock skew", forbid_unknown_fields=True):
    """A host's clock runs fast (or slow, below nought) by so many parts per million from its next life on."""

    host: str
    ppm: Annotated[float, msgspec.Meta(ge=-500_000, le=500_000)]


class Roam(Value, tag_field="kind", tag="roam", forbid_unknown_fields=True):
    """A host leaves its access line for a cellular one of its own, as a laptop does that leaves the house."""

    host: str
    at: Seconds


WEIGHTS: Final = {
    "crash": 0.35,
    "relay death": 0.1,
    "partition": 0.15,
    "nat reboot": 0.1,
    "bad weather": 0.12,
    "slow node": 0.08,
    "roam": 0.1,
}
"""How often each kind of fault is drawn, unless a description says otherwise."""

FAULTS_MAX: Final = 10_000
"""Faults of one plan."""

Fault: TypeAlias = Crash | Partition | NatReboot | BadWeather | SlowNode | ClockSkew | Roam


class RandomFaults(Value, forbid_unknown_fields=True):
    """A plan that is drawn: so many faults, all of which are over by `until`."""

    count: Annotated[int, msgspec.Meta(ge=0, le=FAULTS_MAX)] = 4
    since: Seconds = 15.0
    until: Seconds = 60.0
    longest: Positive = 20.0
    """Seconds that one fault lasts at most."""
    weights: dict[str, Weight] = msgspec.field(default_factory=lambda: dict(WEIGHTS))

    def __post_init__(self) -> None:
        strange = [name for name in self.weights if name not in _DRAWN]
        if strange:
            raise ValueError(f"`weights`: no {strange[0]!r}; there are {', '.join(_DRAWN)}")
        if sum(self.weights.values()) <= 0:
            raise ValueError("`weights`: at least one weight must be positive")
        if self.until < self.since:
            raise ValueError("`until` is not before `since`")

    def draw(self, rng: SplitMix64, nodes: tuple[str, ...], relays: tuple[str, ...]) -> tuple[Fault, ...]:
        """Return the plan, in the order in which it begins."""
        if not nodes or not relays:
            return ()
        faults = []
        for _ in range(self.count):
            at = _between(rng, self.since, self.until)
            until = _between(rng, at, min(self.until, at + self.longest))
            faults.append((at, _drawn(rng, weighted(rng, self.weights), nodes, relays, at, until)))
        return tuple(fault for _, fault in sorted(faults, key=lambda each: each[0]))


def begins_at(fault: Fault) -> float:
    """Return when a fault begins, in seconds."""
    return 0.0 if isinstance(fault, ClockSkew) else fault.at


def ends_at(fault: Fault) -> float:
    """Return when a fault is over, in seconds; what never comes back is over when it is gone."""
    if isinstance(fault, Partition | BadWeather | SlowNode):
        return fault.until
    if isinstance(fault, Crash) and fault.back_after is not None:
        return fault.at + fault.back_after
    return begins_at(fault)


def hosts_of(fault: Fault) -> tuple[str, ...]:
    """Return the hosts that a fault names."""
    return (*fault.sources, *fault.targets) if isinstance(fault, Partition) else (fault.host,)


_DRAWN: Final = ("crash", "relay death", "partition", "nat reboot", "bad weather", "slow node", "clock skew", "roam")


def _check_order(at: float, until: float) -> None:
    if until < at:
        raise ValueError(f"`until` is {until:g}, and so before `at`, {at:g}")


def _between(rng: SplitMix64, low: float, high: float) -> float:
    return round(low + (high - low) * rng.random(), 6)


def _drawn(
    rng: SplitMix64, kind: str, nodes: tuple[str, ...], relays: tuple[str, ...], at: float, until: float
) -> Fault:
    host, lasts = rng.choice(nodes), round(until - at, 6)
    how = rng.choice(tuple(How))
    match kind:
        case "crash":
            back = rng.random() < 0.7
            return Crash(host, at, how, lasts if back else None, keeps_identity=rng.random() < 0.8)
        case "relay death":
            return Crash(rng.choice(relays), at, how, lasts)
        case "partition":
            # Of the others, at most a third, and the relays as often as not.
            others = [each for each in nodes if each != host]
            cut = rng.sample(others, rng.randrange(len(others) // 3 + 1))
            targets = (*sorted(cut), *(relays if rng.random() < 0.5 or not cut else ()))
            return Partition((host,), targets, at, until, both_ways=rng.random() < 0.5)
        case "nat reboot":
            return NatReboot(host, at, rebind=rng.random() < 0.5)
        case "bad weather":
            loss, more = 0.3 * rng.random(), [0.05 * rng.random() for _ in range(3)]
            return BadWeather(host, at, until, round(loss, 3), *(round(each, 3) for each in more))
        case "slow node":
            return SlowNode(host, at, until, round(0.05 + rng.random(), 3))
        case "clock skew":
            return ClockSkew(host, round(400 * (rng.random() - 0.5), 1))
    return Roam(host, at)
