"""Which runs the study makes, and what they come to."""

from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Final, NamedTuple

from simulator.study import crowd, model
from simulator.study.ledger import Estimate, estimates
from simulator.study.parameters import DEPLOYED, DESIGNS, PUNCHING, SHIPPED, Design, Parameters

Progress = Callable[[str], None]


class Size(NamedTuple):
    """Event simulations of one size."""

    nodes: int
    designs: tuple[Design, ...]
    seeds: int
    seconds: float


class Plan(NamedTuple):
    """All runs."""

    events: tuple[Size, ...]
    nodes: tuple[int, ...]
    batches: int
    batch_nodes: int


FULL: Final = Plan(
    events=(
        Size(100, DESIGNS, 10, 120.0),
        Size(300, DESIGNS, 5, 60.0),
        Size(1_000, DESIGNS, 3, 30.0),
        Size(3_000, (DEPLOYED,), 2, 5.0),
        Size(10_000, (SHIPPED, PUNCHING), 2, 10.0),
        Size(100_000, (PUNCHING,), 1, 5.0),
    ),
    nodes=(100, 300, 1_000, 3_000, 10_000, 30_000, 100_000, 1_000_000, 10_000_000, 100_000_000),
    batches=10,
    batch_nodes=200_000,
)
QUICK: Final = Plan(
    events=(Size(100, (DEPLOYED, PUNCHING), 2, 15.0),), nodes=(100, 1_000, 10_000_000), batches=3, batch_nodes=5_000
)


class Point(NamedTuple):
    """What one design comes to at one size."""

    design: str
    nodes: int
    figures: Mapping[str, Estimate]
    runs: int
    wall_seconds: float


class Results(NamedTuple):
    """Everything that was run."""

    events: list[Point]
    model: list[Point]


def carry_out(plan: Plan, parameters: Parameters, *, seed: int, progress: Progress) -> Results:
    """Make all runs of a plan."""
    results = Results([], [])
    for size in plan.events:
        for design in size.designs:
            began = perf_counter()
            runs = [
                crowd.run(parameters, design, size.nodes, seed=seed + turn, seconds=size.seconds)
                for turn in range(size.seeds)
            ]
            point = Point(design.name, size.nodes, estimates(runs), size.seeds, perf_counter() - began)
            results.events.append(point)
            progress(f"events  {size.nodes:>11,}  {design.name:<34} {point.wall_seconds:6.1f} s")
    for nodes in plan.nodes:
        for design in DESIGNS:
            began = perf_counter()
            batches = model.run(
                parameters, design, nodes, seed=seed, batches=plan.batches, batch_nodes=plan.batch_nodes
            )
            point = Point(design.name, nodes, estimates(batches), plan.batches, perf_counter() - began)
            results.model.append(point)
        progress(f"model   {nodes:>11,}  all designs")
    return results
