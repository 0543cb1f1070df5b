"""Scenarios that take no time, for sweeps over their seeds."""

from pathlib import Path

from simulator.scenario import load
from simulator.sweep.plan import Job, plan

PROGRAM = """
import os

from simulator.scenario import Scenario
from simulator.events import HostStopped
from teale_proto.contract import SECOND


def build(world):
    world.engine.call_at(SECOND, world.trace.record, SECOND, "a", HostStopped())
    world.trace.record(0, str(world.rng("b").next64()), HostStopped())
    {body}


SCENARIO = Scenario(name="tiny", summary="Next to nothing.", lasts=2 * SECOND, build=build)
"""


def program(folder: Path, body: str = "pass") -> Path:
    """Write a program and return its file."""
    path = folder / "tiny.py"
    path.write_text(PROGRAM.format(body=body))
    return path


def jobs_of(folder: Path, body: str = "pass", *, seeds: int = 3) -> list[Job]:
    """Return the jobs of a sweep over the seeds of a program."""
    path = program(folder, body)
    return plan(load(str(path)), path, seeds=seeds)
