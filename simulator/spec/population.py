"""Who is there: so many nodes of a kind, how they are online, what they hold, and when they come and go.

Every member draws from a stream of its own, named after it: one member more, or one left out, changes nothing for
the others. That is what lets a fuzzer shrink a world without turning it into another.
"""

from typing import Final

import msgspec

from simulator.backend import CostModel
from simulator.net.regions import WORLD
from simulator.rng import SplitMix64, lognormal
from simulator.spec.access import MIXTURES, Mixture
from simulator.spec.units import Chance, Count, PartsPerMillion, Positive, Seconds, Several, Sigma, Weight
from teale_proto.contract import SECOND, Value
from teale_proto.liveness import INTERVALS

ANYWHERE: Final = dict.fromkeys(WORLD.names, 1.0)

HEARTBEATS: Final = tuple(interval / SECOND for interval in INTERVALS)


class Churn(Value, forbid_unknown_fields=True):
    """Coming and going. Sessions and the gaps between them are lognormal: most are short, a few very long."""

    session_median: Positive = 3600.0
    """Seconds online."""
    session_sigma: Sigma = 1.0
    gap_median: Positive = 1800.0
    """Seconds offline."""
    gap_sigma: Sigma = 1.0
    leaves_properly: Chance = 0.7
    """The chance that a node says good-bye, rather than vanish."""

    def session(self, rng: SplitMix64) -> float:
        """Return how many seconds a node stays."""
        return lognormal(rng, self.session_median, self.session_sigma)

    def gap(self, rng: SplitMix64) -> float:
        """Return how many seconds a node stays away."""
        return lognormal(rng, self.gap_median, self.gap_sigma)


class Population(Value, forbid_unknown_fields=True):
    """So many nodes that have something in common."""

    name: str = "node"
    """Its members are called `name-0`, `name-1` and so on."""
    count: Count = 10
    absent: tuple[Count, ...] = ()
    """Members that are left out; the others keep their numbers, and with them all that chance gave them."""
    access: str | Mixture = "home"
    """A ready-made mixture of access networks by its name, or one of one's own."""
    regions: dict[str, Weight] = msgspec.field(default_factory=lambda: dict(ANYWHERE))
    site_size: Several = 1
    """Nodes that share one access line and one LAN."""
    relay: Count = 0
    """Which of the world's relays they use."""
    holders: Chance = 1.0
    """The chance that a node holds models at all."""
    models_each: Count = 1
    """How many models a holder holds, drawn by their popularity."""
    heartbeat: Positive = 15.0
    """One of those that nodes agree on: 5, 15 or 30 s."""
    slots: Several = 4
    """Requests that a node serves at once."""
    peers_max: Count = 8
    """Sessions through the relay that a node keeps."""
    direct: bool = False
    """Whether its members look for direct paths to those whom only the relay reaches; that needs STUN servers."""
    birthday: bool = False
    """Whether they may open and probe hundreds of ports for that."""
    starts_at: Seconds = 0.0
    """Nobody is there before that."""
    starts_within: Seconds = 5.0
    """How long after that everybody has come; drawn evenly."""
    churn: Churn | None = None
    inference: CostModel = CostModel()
    clock_error_ppm: PartsPerMillion = 0.0
    """The most by which a node's clock runs fast or slow, in parts per million; drawn evenly."""

    def __post_init__(self) -> None:
        if isinstance(self.access, str) and self.access not in MIXTURES:
            raise ValueError(f"`access`: no {self.access!r}; there are {', '.join(MIXTURES)}, or describe one")
        strange = [region for region in self.regions if region not in WORLD.names]
        if strange:
            raise ValueError(f"`regions`: no {strange[0]!r}; there are {', '.join(WORLD.names)}")
        if not sum(self.regions.values()):
            raise ValueError("`regions`: at least one weight must be positive")
        if not self.name:
            raise ValueError("`name` is empty")
        if self.heartbeat not in HEARTBEATS:
            there_are = ", ".join(f"{each:g}" for each in HEARTBEATS)
            raise ValueError(f"`heartbeat`: no {self.heartbeat:g}; there are {there_are}")

    @property
    def mixture(self) -> Mixture:
        """The access networks of its members."""
        return MIXTURES[self.access] if isinstance(self.access, str) else self.access

    @property
    def numbers(self) -> list[int]:
        """The numbers of the members that are there."""
        absent = frozenset(self.absent)
        return [number for number in range(self.count) if number not in absent]

    def member(self, number: int) -> str:
        """Return the name of a member."""
        return f"{self.name}-{number}"
