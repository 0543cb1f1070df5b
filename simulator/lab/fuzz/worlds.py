"""The world that a seed draws for a lab: drawn as for the simulator, from what real programs on Linux can be.

A lab's seconds are real ones, so its worlds are smaller and shorter. Most last half a minute; some a whole one, so that
the rules about hosts that nothing has befallen come into force, and a few so long that all must have met at their end.
"""

from typing import Final

from msgspec.structs import replace

from simulator.backend import CostModel
from simulator.fidelity import Fidelity
from simulator.fuzz.worlds import Scope, drawn
from simulator.lab.plan import Served
from simulator.lab.routers import why_not
from simulator.rng import stream
from simulator.spec.access import NAT_KINDS
from simulator.spec.faults import WEIGHTS
from simulator.spec.load import Models
from simulator.spec.population import Population
from simulator.spec.world_spec import WorldSpec, settled

SLOW: Final = "slow node"
"""The one kind of fault that programs cannot be given: they are as quick as the machine."""

NATS: Final = tuple(name for name, kind in NAT_KINDS.items() if kind is None or not why_not(kind))

LAB: Final = Scope(
    nodes={(2, 4): 0.7, (5, 6): 0.3},
    relays={1: 0.6, 2: 0.4},
    lasts={(20, 30): 0.53, (30, 40): 0.33, (60, 70): 0.1, (290, 300): 0.04},
    quiet=60.0,
    quiet_from=20.0,
    begins=5.0,
    starts_within=4.0,
    ask_timeout=10.0,
    faults_max=4,
    longest=8.0,
    faults={kind: weight for kind, weight in WEIGHTS.items() if kind != SLOW},
    session=(8.0, 25.0),
    gap=(3.0, 8.0),
    # Mostly the shorter one: nothing else lets anybody notice a silence within such a run.
    heartbeats=(5.0, 5.0, 5.0, 15.0),
    nats=NATS,
)


def draw(seed: int, served: Served | None = None) -> WorldSpec:
    """Return the settled world of a seed, which `plan_of` takes, with what is to answer; None leaves that to chance."""
    spec = drawn(seed, LAB)
    has_builtin = stream(seed, "fuzz", "lab").random() < 0.2 if served is None else served is Served.BUILTIN
    populations = tuple(_real(each, has_builtin=has_builtin) for each in spec.populations)
    spec = replace(
        spec,
        name=f"lab-fuzz-{seed}",
        fidelity=Fidelity.WIRE,
        relays=tuple(replace(each, has_cost=False) for each in spec.relays),
        populations=populations,
        models=Models() if has_builtin else spec.models,
    )
    return settled(spec, seed)


def _real(population: Population, *, has_builtin: bool) -> Population:
    """Return a population with the machine's clock, and with the built-in model where it is to have that."""
    inference = CostModel() if has_builtin else population.inference
    return replace(population, clock_error_ppm=0.0, inference=inference)
