"""What a sweep consists of: its cells, and one job for each run.

A job is complete: it holds the description, or the text of the program, so that a worker on another machine needs no
files. For such a worker it also holds a fingerprint of the code, since results of two versions must not end up in one
table.
"""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, Final

import msgspec

from simulator.scenario import Scenario, ScenarioError, with_settings
from simulator.sweep.values import Axis
from teale_proto.contract import Value

RUNS_MAX: Final = 1_000_000
"""Runs of one sweep."""


class Job(Value):
    """One run that is to be done."""

    number: int
    """Its place among the rows."""
    cell: int
    seed: int
    settings: dict[str, Any]
    """The values of its cell, by the path of each axis."""
    spec: bytes
    """The description as JSON; empty for a program."""
    program: str
    """The text of the scenario's file, where that is a program."""
    file: str
    """The name of that file, for messages."""
    code: str = ""
    """The fingerprint of the code that must run it; "" for whatever does."""


def cells_of(axes: Sequence[Axis]) -> list[dict[str, Any]]:
    """Return every combination of values; the last axis changes fastest. Without axes there is one empty cell."""
    paths = [axis.path for axis in axes]
    return [dict(zip(paths, values, strict=True)) for values in product(*(axis.values for axis in axes))]


def plan(
    scenario: Scenario,
    file: Path,
    *,
    axes: Sequence[Axis] = (),
    settings: Mapping[str, Any] | None = None,
    first_seed: int = 0,
    seeds: int = 1,
) -> list[Job]:
    """Return the jobs of a sweep, cell by cell and seed by seed.

    `settings` hold in every cell. Raises ScenarioError for a knob that is not there and a value that it does not take,
    whichever cell it is in, and for more than `RUNS_MAX` runs.
    """
    doubled = [axis.path for axis in axes if sum(other.path == axis.path for other in axes) > 1]
    if doubled:
        raise ScenarioError(f"{doubled[0]} is varied twice")
    count = seeds
    for axis in axes:
        count *= len(axis.values)
    if count > RUNS_MAX:
        raise ScenarioError(f"{count} runs are too many for one sweep; at most {RUNS_MAX}")
    fixed = with_settings(scenario, settings or {})
    jobs: list[Job] = []
    for cell, values in enumerate(cells_of(axes)):
        spec = _encoded(with_settings(fixed, values))
        program = "" if spec else file.read_text(encoding="utf-8")
        jobs += [
            Job(len(jobs) + turn, cell, first_seed + turn, values, spec, program, str(file)) for turn in range(seeds)
        ]
    return jobs


def _encoded(scenario: Scenario) -> bytes:
    return b"" if scenario.spec is None else msgspec.json.encode(scenario.spec)
