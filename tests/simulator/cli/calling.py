"""Calls of `teale-sim` within this process, and small scenarios to call it with."""

from pathlib import Path

from click.testing import CliRunner, Result

from simulator.cli import main

PROGRAM = """
from simulator.scenario import Scenario
from teale_proto.contract import SECOND


def build(world):
    {body}


SCENARIO = Scenario(name="little", summary="Nothing much.", lasts=5 * SECOND, build=build)
"""

DESCRIPTION = """
name = "hamlet"
summary = "Three neighbours."
lasts = 40.0

[[populations]]
name = "house"
count = 3
regions = { europe-west = 1.0 }
starts_within = 1.0

[[asks]]
at = 20.0
node = "house-1"

[[faults]]
kind = "crash"
host = "house-2"
at = 25.0
"""


def call(*arguments: object) -> Result:
    """Return what a call of `teale-sim` came to."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def program(folder: Path, body: str = "pass") -> Path:
    """Write a scenario that is a program, and return its file."""
    return written(folder, "little.py", PROGRAM.format(body=body))


def description(folder: Path, text: str = DESCRIPTION) -> Path:
    """Write a scenario that is a description, and return its file."""
    return written(folder, "hamlet.toml", text)


def written(folder: Path, name: str, text: str) -> Path:
    """Write a file and return it."""
    path = folder / name
    path.write_text(text)
    return path
