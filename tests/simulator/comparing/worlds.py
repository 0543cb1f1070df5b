"""Little worlds to compare, and runs of them."""

from collections.abc import Mapping
from functools import lru_cache

from simulator.comparing.comparison import Comparison, Setting, compared
from simulator.comparing.measured import Figure, Measured, PathCount, Samples
from simulator.comparing.simulating import simulated
from simulator.spec.access import Mixture
from simulator.spec.load import AskSpec
from simulator.spec.population import Population
from simulator.spec.world_spec import WorldSpec

NEAR = Mixture(nats={"eim-apdf": 1.0}, lines={"flat-9ms": 1.0})
FAR = Mixture(nats={"eim-apdf": 1.0}, lines={"flat-39ms": 1.0})


def couple(access: Mixture = NEAR) -> WorldSpec:
    """Return a world in which one asks and another serves, over a direct path."""
    asker, server = (
        Population(
            name=name,
            count=1,
            access=access,
            regions={"europe-west": 1.0},
            direct=True,
            holders=holders,
            starts_at=starts_at,
            starts_within=0.2,
        )
        for name, holders, starts_at in (("asker", 0.0, 2.0), ("server", 1.0, 0.0))
    )
    asks = (AskSpec(4.0, "asker-0", words=4), *(AskSpec(12.0 + at, "asker-0", words=4) for at in range(5)))
    return WorldSpec(name="couple", lasts=20.0, populations=(asker, server), asks=asks, stun=2)


@lru_cache
def runs(first: int, count: int, *, is_far: bool = False) -> tuple[Measured, ...]:
    """Return what some seeds of the couple come to."""
    return tuple(simulated(couple(FAR if is_far else NEAR), seed) for seed in range(first, first + count))


def held(simulated_runs: tuple[Measured, ...], lab: tuple[Measured, ...], grain: int = 1000) -> Comparison:
    """Return a comparison of runs."""
    seeds = tuple(tuple(run.seed for run in each) for each in (simulated_runs, lab))
    return compared(Setting("couple", seeds[0], seeds[1], grain=grain), simulated_runs, lab)


def measured(
    seed: int,
    figures: Mapping[Figure, tuple[int, ...]] | None = None,
    paths: Mapping[tuple[str, str], int] | None = None,
    broken: tuple[str, ...] = (),
) -> Measured:
    """Return a run that came to just this."""
    samples = tuple(Samples(figure.measure, figure.what, values) for figure, values in (figures or {}).items())
    counts = tuple(PathCount(cell, path, pairs) for (cell, path), pairs in (paths or {}).items())
    return Measured(seed, samples, counts, broken)
