"""One world as a value: who is there, what is asked, what goes wrong, and what must hold.

`settled` makes every draw that a description leaves to chance (faults, requests) before the run, so that the
settled description is, with the seed, the whole truth about a run: it can be kept in a capsule, compared and cut down.
"""

from enum import Enum
from typing import Annotated, Any, Final, TypeAlias

import msgspec
from msgspec import Meta

from simulator.costs import MachineProfile
from simulator.fidelity import Fidelity
from simulator.net.regions import WORLD
from simulator.net.weather import LINES
from simulator.rng import stream
from simulator.spec.faults import Fault, Partition, RandomFaults, ends_at, hosts_of
from simulator.spec.load import ASKS_MAX, AskSpec, Models, Requests
from simulator.spec.population import Population
from simulator.spec.units import COUNT_MAX, Chance, Count, Positive, Several
from teale_proto.contract import Value

FORMAT: Final = 1
"""The version of this form; a file of a later one is refused."""


STUN_MAX: Final = 16

STUN_USUAL: Final = 2
"""Servers where there are direct paths: one, and another for when that says nothing."""

StunCount: TypeAlias = Annotated[int, Meta(ge=0, le=STUN_MAX)]


class Planted(Enum):
    """Bugs that are put in on purpose, to see whether they are found. For tests only."""

    NONE = "none"
    FORGETS_HEARTBEATS = "forgets heartbeats"
    """A node forgets one heartbeat in a hundred."""
    DELIVERS_TWICE = "delivers twice"
    """A relay delivers one message in a hundred twice."""


class RelaySpec(Value, forbid_unknown_fields=True):
    """A relay; the first one of a world is called `relay-0`."""

    region: str = "europe-west"
    line: str = "data-centre"
    connections_per_address_max: Count = 256
    has_cost: bool = False
    """Whether its CPU takes time, by the profile of `simulator.relay_cost`; otherwise it is infinitely fast."""
    answers_stun: bool = False
    """Whether it is a STUN server too, with the one address that it has."""

    def __post_init__(self) -> None:
        _check_place(self.region, self.line)


class StunSpec(Value, forbid_unknown_fields=True):
    """A STUN server; the first one of a world is called `stun-0`, and nodes prefer it."""

    region: str = "europe-west"
    line: str = "data-centre"
    has_one_address: bool = False
    """Whether it cannot tell how NATs filter, as most cannot: for that RFC 5780 wants two addresses."""

    def __post_init__(self) -> None:
        _check_place(self.region, self.line)


def _check_place(region: str, line: str) -> None:
    """Raise ValueError for a region or a line that there is not."""
    if region not in WORLD.names:
        raise ValueError(f"`region`: no {region!r}; there are {', '.join(WORLD.names)}")
    if line not in LINES:
        raise ValueError(f"`line`: no {line!r}; there are {', '.join(LINES)}")


class WorldSpec(Value, forbid_unknown_fields=True, kw_only=True):
    """A world, described."""

    format: Several = FORMAT
    name: str
    summary: str = ""
    lasts: Positive = 120.0
    """Seconds of virtual time."""
    fidelity: Fidelity = Fidelity.WIRE
    relays: tuple[RelaySpec, ...] = (RelaySpec(),)
    stun: StunCount | tuple[StunSpec, ...] | None = None
    """STUN servers, or how many; by default two where any population has direct paths, and none otherwise. Without any,
    nobody finds out what he is behind, and nobody gets a direct path."""
    populations: tuple[Population, ...] = (Population(),)
    models: Models = Models()
    requests: Requests | None = None
    asks: tuple[AskSpec, ...] = ()
    """Requests one by one, besides those that `requests` draws."""
    faults: tuple[Fault, ...] = ()
    random_faults: RandomFaults | None = None
    served_at_least: Chance = 0.0
    """The share of requests that must be answered."""
    planted: Planted = Planted.NONE
    costs: MachineProfile | None = None
    """What `teale-sim calibrate` has measured: then relays and nodes take their time too, and models of which nothing
    is said that of the built-in one."""

    def __post_init__(self) -> None:
        if self.format > FORMAT:
            raise ValueError(f"`format` {self.format} is newer than this program, which reads {FORMAT}")
        names = [population.name for population in self.populations]
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise ValueError(f"`populations`: two are called {doubled[0]!r}")
        for each in self.populations:
            if each.count and each.relay >= len(self.relays):
                raise ValueError(f"`populations`: {each.name!r} uses a missing relay, {each.relay}")
        nodes = sum(population.count for population in self.populations)
        if nodes > COUNT_MAX:
            raise ValueError(f"`populations`: {nodes} nodes are too many; at most {COUNT_MAX}")
        if self.requests is not None and (asks := self.requests.count(nodes, self.lasts)) > ASKS_MAX:
            raise ValueError(f"`requests`: about {asks:.3g} of them are too many; at most {ASKS_MAX}")
        self._check_names()

    def _check_names(self) -> None:
        """Raise ValueError for a name that means two hosts, and for one that means none."""
        relays = frozenset((*self.relay_names, *(f"stun-{number}" for number in range(STUN_MAX))))
        groups = frozenset(each.name for each in self.populations)
        members = {each.member(number): each.name for each in self.populations for number in range(each.count)}
        named = {**members, **{group: group for group in groups if group in relays}}
        doubled = next((name for name in named if name in relays or (name in groups and name in members)), None)
        if doubled is not None:
            raise ValueError(f"`populations`: {named[doubled]!r} makes a second {doubled!r}; give it another name")
        for fault in self.faults:
            for host in hosts_of(fault):
                if host in groups and not isinstance(fault, Partition):
                    raise ValueError(f"`faults`: {host!r} is a population; only a partition can name one")
                if host not in members and host not in self.relay_names and host not in groups:
                    raise ValueError(f"`faults`: there is no host {host!r}")
        strange = [ask.node for ask in self.asks if ask.node not in members]
        if strange:
            raise ValueError(f"`asks`: there is no node {strange[0]!r}")

    @property
    def relay_names(self) -> tuple[str, ...]:
        """The names of the relays."""
        return tuple(f"relay-{number}" for number in range(len(self.relays)))

    @property
    def stun_servers(self) -> tuple[StunSpec, ...]:
        """The STUN servers that there are."""
        if isinstance(self.stun, tuple):
            return self.stun
        wanted = self.stun
        if wanted is None:
            wanted = STUN_USUAL if any(each.direct and each.count for each in self.populations) else 0
        regions = [relay.region for relay in self.relays] or [StunSpec().region]
        return tuple(StunSpec(region=regions[number % len(regions)]) for number in range(wanted))

    @property
    def node_names(self) -> tuple[str, ...]:
        """The names of the nodes that are there."""
        return tuple(each.member(number) for each in self.populations for number in each.numbers)

    @property
    def host_names(self) -> tuple[str, ...]:
        """The names of all hosts that faults can name, those that are left out included."""
        members = (each.member(number) for each in self.populations for number in range(each.count))
        return (*self.relay_names, *members)

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """The members of each population; a partition can name a population for all of them."""
        return {each.name: tuple(each.member(number) for number in each.numbers) for each in self.populations}


def settled(spec: WorldSpec, seed: int) -> WorldSpec:
    """Return the description with everything drawn that it leaves to chance; settling twice changes nothing."""
    faults, asks = spec.faults, spec.asks
    if spec.random_faults is not None:
        faults += spec.random_faults.draw(stream(seed, "faults", "plan"), spec.node_names, spec.relay_names)
    if spec.requests is not None and spec.node_names:
        asks += spec.requests.draw(stream(seed, "requests", "plan"), spec.node_names, spec.models, spec.lasts)
    return msgspec.structs.replace(spec, faults=faults, asks=asks, random_faults=None, requests=None)


def calm_from(spec: WorldSpec) -> float:
    """Return the second at which the last fault of a settled description is over."""
    return max((ends_at(fault) for fault in spec.faults), default=0.0)


def to_builtins(spec: WorldSpec) -> dict[str, Any]:
    """Return the description as dicts, lists and scalars, as TOML and JSON hold it; unset parts are left out."""
    # By way of JSON, whose arrays are lists: a tuple could not be changed in its place.
    found = msgspec.json.decode(msgspec.json.encode(spec))
    return {key: value for key, value in found.items() if value is not None}
