"""The world that a seed draws: small, varied, and as nasty as a description can make it.

Small worlds break rules as well as large ones do, and a hundred of them fit into the time of one. Times are short
beside those of real life, so that nodes come, go and meet again within a minute or two.
"""

from typing import Final

from msgspec.structs import replace

from simulator.backend import CostModel
from simulator.fidelity import Fidelity
from simulator.net.regions import WORLD
from simulator.rng import SplitMix64, stream, weighted
from simulator.spec.access import MIXTURES, NAT_KINDS, Mixture
from simulator.spec.faults import RandomFaults
from simulator.spec.load import Models, Requests
from simulator.spec.population import Churn, Population
from simulator.spec.world_spec import Planted, RelaySpec, WorldSpec, settled

NODES_MAX: Final = 30
ASKS_MAX: Final = 30
ASK_TIMEOUT: Final = 30.0

_SIZES: Final = {(2, 6): 0.5, (7, 14): 0.35, (15, NODES_MAX): 0.15}
_LASTS: Final = {(60, 120): 0.5, (120, 180): 0.3, (300, 420): 0.2}
"""Seconds; in the longest runs all has settled at the end, and rules about that can be checked."""
_NAMES: Final = ("home", "office", "road")
_LINES: Final = ("data-centre", "fibre", "good-wifi", "bad-wifi", "4g", "low-orbit")


def draw(seed: int, *, planted: Planted = Planted.NONE) -> WorldSpec:
    """Return the settled world of a seed; a planted bug changes nothing else about it."""
    rng = stream(seed, "fuzz", "world")
    lasts = float(rng.between(*weighted(rng, _LASTS)))
    relays = tuple(_relay(rng) for _ in range(weighted(rng, {1: 0.6, 2: 0.3, 3: 0.1})))
    nodes = rng.between(*weighted(rng, _SIZES))
    kinds = min(nodes, rng.between(1, len(_NAMES)))
    parts = [nodes // kinds + (number < nodes % kinds) for number in range(kinds)]
    heartbeat = rng.choice((5.0, 15.0))
    models = Models(count=rng.between(1, 3))
    populations = tuple(
        _with_direct(seed, _population(rng, name, count, relays=len(relays), heartbeat=heartbeat))
        for name, count in zip(_NAMES, parts, strict=False)
    )
    quiet = lasts >= 300
    faults_until = 60.0 if quiet else lasts * 0.7
    spec = WorldSpec(
        name=f"fuzz-{seed}",
        lasts=lasts,
        fidelity=Fidelity.WIRE if rng.random() < (0.6 if nodes <= 12 else 0.2) else Fidelity.MESSAGE,
        relays=relays,
        populations=populations,
        models=models,
        requests=_requests(rng, nodes, lasts),
        random_faults=RandomFaults(count=rng.randrange(7), since=10.0, until=faults_until, longest=25.0),
        planted=planted,
    )
    return settled(spec, seed)


def _relay(rng: SplitMix64) -> RelaySpec:
    return RelaySpec(region=rng.choice(WORLD.names), has_cost=rng.random() < 0.1)


def _population(rng: SplitMix64, name: str, count: int, *, relays: int, heartbeat: float) -> Population:
    churn = None
    if rng.random() < 0.25:
        churn = Churn(session_median=30.0 + 60 * rng.random(), gap_median=5.0 + 20 * rng.random())
    return Population(
        name=name,
        count=count,
        access=_access(rng),
        site_size=rng.between(2, 5) if rng.random() < 0.4 else 1,
        relay=rng.randrange(relays),
        holders=round(0.3 + 0.7 * rng.random(), 2),
        models_each=rng.between(1, 2),
        heartbeat=heartbeat,
        slots=rng.between(1, 4),
        peers_max=rng.between(2, 8),
        starts_within=round(15 * rng.random(), 1),
        churn=churn,
        inference=CostModel(failure_chance=0.2 if rng.random() < 0.3 else 0.0, tokens_max=120),
        clock_error_ppm=float(rng.randrange(200)) if rng.random() < 0.5 else 0.0,
    )


def _with_direct(seed: int, population: Population) -> Population:
    """Return a population whose members may look for direct paths, and may guess ports for that.

    Drawn from a stream of its own, so that the worlds of all seeds are otherwise what they were before this was.
    """
    rng = stream(seed, "fuzz", f"direct {population.name}")
    direct, birthday = rng.random() < 0.5, rng.random() < 0.2
    return replace(population, direct=direct, birthday=direct and birthday)


def _access(rng: SplitMix64) -> str | Mixture:
    """Return a ready-made mixture, or one kind of NAT on one kind of line."""
    if rng.random() < 0.5:
        return rng.choice(tuple(MIXTURES))
    nat = rng.choice(tuple(NAT_KINDS))
    return Mixture(
        nats={nat: 1.0}, lines={rng.choice(_LINES): 1.0}, carrier_grade=0.5, udp_blocked=0.1, port_mapping=0.3
    )


def _requests(rng: SplitMix64, nodes: int, lasts: float) -> Requests | None:
    wanted = rng.randrange(ASKS_MAX + 1)
    # Two seconds beside its own time, so that slow hosts and wrong clocks come to an end of it too.
    until = lasts - ASK_TIMEOUT - 2
    if not wanted or until <= 15:
        return None
    per_node_hour = wanted * 3600 / (nodes * (until - 10))
    return Requests(per_node_hour=per_node_hour, since=10.0, until=until, words_max=400, timeout=ASK_TIMEOUT)
