"""Runs that never were: journals of cores in the worlds of the tests, as programs of a lab would have left them."""

from collections.abc import Mapping
from pathlib import Path

from simulator.events import Crash, HostCrashed
from simulator.lab.plan import Role, plan_of
from simulator.lab.programs import Life, Program
from simulator.lab.run import Ran
from simulator.spec.population import Population
from simulator.spec.world_spec import WorldSpec
from teale_proto.contract import SECOND, Instant
from tests.proto.world import UNIX_TIME_AT_ZERO
from tests.simulator.journals.lives import LIVES, recorded

SPEC = WorldSpec(
    name="two",
    lasts=3600.0,
    populations=(Population(name="a", count=1), Population(name="b", count=1)),
)
JOURNALS = {
    "relay-0": LIVES["relay"],
    "a-0": LIVES["node behind a relay, asking"],
    "b-0": LIVES["node behind a relay, answering"],
}
BEGAN: Instant = SECOND
"""How long before the lab's zero the programs' own clocks showed nothing."""


def program(name: str, folder: Path, journals: list[Path]) -> Program:
    made = Program(name, Role.RELAY if name.startswith("relay") else Role.NODE, folder / name, ())
    for number, journal in enumerate(journals, 1):
        life = Life(number, journal, 0)
        life.ready_at = 0
        made.lives.append(life)
    return made


def ran(folder: Path, *, killed: Mapping[str, Instant] | None = None, spec: WorldSpec = SPEC) -> Ran:
    """Return a run in which a asks b over a relay; those that were `killed` died at these instants."""
    run = Ran(plan_of(spec, 1), UNIX_TIME_AT_ZERO + BEGAN)
    for name, life in JOURNALS.items():
        journal = recorded(life, folder / f"{name}.journal", host="whatever it says")
        run.programs[name] = program(name, folder, [journal])
        run.addresses[name] = ("192.0.2.1",)
    for name, at in (killed or {}).items():
        life_of = run.programs[name].life
        life_of.ended_at = at
        run.ends[life_of] = HostCrashed(Crash.RESET)
    return run
