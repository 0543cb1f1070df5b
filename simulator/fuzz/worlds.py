"""The world that a seed draws: small, varied, and as nasty as a description can make it.

Small worlds break rules as well as large ones do, and a hundred of them fit into the time of one. Times are short
beside those of real life, so that nodes come, go and meet again within a minute or two.
"""

from typing import Final

import msgspec
from msgspec.structs import replace

from simulator.backend import CostModel
from simulator.fidelity import Fidelity
from simulator.net.regions import WORLD
from simulator.rng import SplitMix64, stream, weighted
from simulator.spec.access import MIXTURES, NAT_KINDS, Mixture
from simulator.spec.faults import WEIGHTS, RandomFaults
from simulator.spec.load import Models, Requests
from simulator.spec.population import Churn, Population
from simulator.spec.world_spec import Planted, RelaySpec, WorldSpec, settled
from teale_proto.contract import Value

NODES_MAX: Final = 30
ASKS_MAX: Final = 30

_NAMES: Final = ("home", "office", "road")
_LINES: Final = ("data-centre", "fibre", "good-wifi", "bad-wifi", "4g", "low-orbit")


class Scope(Value):
    """Which worlds are drawn. Times are in seconds, pairs are bounds, and chances are relative to each other."""

    nodes: dict[tuple[int, int], float] = msgspec.field(
        default_factory=lambda: {(2, 6): 0.5, (7, 14): 0.35, (15, NODES_MAX): 0.15}
    )
    relays: dict[int, float] = msgspec.field(default_factory=lambda: {1: 0.6, 2: 0.3, 3: 0.1})
    lasts: dict[tuple[int, int], float] = msgspec.field(
        default_factory=lambda: {(60, 120): 0.5, (120, 180): 0.3, (300, 420): 0.2}
    )
    quiet: float = 300.0
    """Worlds that last so long have no faults after `quiet_from`: all has settled at their end, and rules about that
    can be checked."""
    quiet_from: float = 60.0
    begins: float = 10.0
    """Nothing is asked and nothing breaks before that."""
    starts_within: float = 15.0
    ask_timeout: float = 30.0
    faults_max: int = 6
    longest: float = 25.0
    """How long one fault lasts at most."""
    faults: dict[str, float] = msgspec.field(default_factory=lambda: dict(WEIGHTS))
    session: tuple[float, float] = (30.0, 90.0)
    """Bounds of the median of how long nodes that come and go stay, and below of how long they stay away."""
    gap: tuple[float, float] = (5.0, 25.0)
    heartbeats: tuple[float, ...] = (5.0, 15.0)
    nats: tuple[str, ...] = tuple(NAT_KINDS)


SIMULATED: Final = Scope()
"""What a simulator can be."""


def draw(seed: int, *, planted: Planted = Planted.NONE) -> WorldSpec:
    """Return the settled world of a seed; a planted bug changes nothing else about it."""
    return settled(replace(drawn(seed, SIMULATED), planted=planted), seed)


def drawn(seed: int, scope: Scope) -> WorldSpec:
    """Return the world that a seed draws from a scope, with its faults and requests still to be drawn."""
    rng = stream(seed, "fuzz", "world")
    lasts = float(rng.between(*weighted(rng, scope.lasts)))
    relays = tuple(_relay(rng) for _ in range(weighted(rng, scope.relays)))
    nodes = rng.between(*weighted(rng, scope.nodes))
    kinds = min(nodes, rng.between(1, len(_NAMES)))
    parts = [nodes // kinds + (number < nodes % kinds) for number in range(kinds)]
    heartbeat = rng.choice(scope.heartbeats)
    models = Models(count=rng.between(1, 3))
    populations = tuple(
        _with_direct(seed, _population(rng, scope, name, count, relays=len(relays), heartbeat=heartbeat))
        for name, count in zip(_NAMES, parts, strict=False)
    )
    faults_until = scope.quiet_from if lasts >= scope.quiet else lasts * 0.7
    return WorldSpec(
        name=f"fuzz-{seed}",
        lasts=lasts,
        fidelity=Fidelity.WIRE if rng.random() < (0.6 if nodes <= 12 else 0.2) else Fidelity.MESSAGE,
        relays=relays,
        populations=populations,
        models=models,
        requests=_requests(rng, scope, nodes, lasts),
        random_faults=RandomFaults(
            count=rng.randrange(scope.faults_max + 1),
            since=scope.begins,
            until=faults_until,
            longest=scope.longest,
            weights=scope.faults,
        ),
    )


def _relay(rng: SplitMix64) -> RelaySpec:
    return RelaySpec(region=rng.choice(WORLD.names), has_cost=rng.random() < 0.1)


def _population(rng: SplitMix64, scope: Scope, name: str, count: int, *, relays: int, heartbeat: float) -> Population:
    churn = None
    if rng.random() < 0.25:
        churn = Churn(session_median=_within(rng, scope.session), gap_median=_within(rng, scope.gap))
    return Population(
        name=name,
        count=count,
        access=_access(rng, scope),
        site_size=rng.between(2, 5) if rng.random() < 0.4 else 1,
        relay=rng.randrange(relays),
        holders=round(0.3 + 0.7 * rng.random(), 2),
        models_each=rng.between(1, 2),
        heartbeat=heartbeat,
        slots=rng.between(1, 4),
        peers_max=rng.between(2, 8),
        starts_within=round(scope.starts_within * rng.random(), 1),
        churn=churn,
        inference=CostModel(failure_chance=0.2 if rng.random() < 0.3 else 0.0, tokens_max=120),
        clock_error_ppm=float(rng.randrange(200)) if rng.random() < 0.5 else 0.0,
    )


def _within(rng: SplitMix64, bounds: tuple[float, float]) -> float:
    low, high = bounds
    return low + (high - low) * rng.random()


def _with_direct(seed: int, population: Population) -> Population:
    """Return a population whose members may look for direct paths, and may guess ports for that.

    Drawn from a stream of its own, so that the worlds of all seeds are otherwise what they were before this was.
    """
    rng = stream(seed, "fuzz", f"direct {population.name}")
    direct, birthday = rng.random() < 0.5, rng.random() < 0.2
    return replace(population, direct=direct, birthday=direct and birthday)


def _access(rng: SplitMix64, scope: Scope) -> str | Mixture:
    """Return a ready-made mixture, or one kind of NAT on one kind of line."""
    if rng.random() < 0.5:
        return rng.choice(tuple(MIXTURES))
    nat = rng.choice(scope.nats)
    return Mixture(
        nats={nat: 1.0}, lines={rng.choice(_LINES): 1.0}, carrier_grade=0.5, udp_blocked=0.1, port_mapping=0.3
    )


def _requests(rng: SplitMix64, scope: Scope, nodes: int, lasts: float) -> Requests | None:
    wanted = rng.randrange(ASKS_MAX + 1)
    # Two seconds beside its own time, so that slow hosts and wrong clocks come to an end of it too.
    until = lasts - scope.ask_timeout - 2
    if not wanted or until <= scope.begins + 5:
        return None
    per_node_hour = wanted * 3600 / (nodes * (until - scope.begins))
    return Requests(
        per_node_hour=per_node_hour, since=scope.begins, until=until, words_max=400, timeout=scope.ask_timeout
    )
