"""The scenario as it was run, for its results: the program, or the description with every knob as it stood."""

from typing import Any

import tomlkit

from simulator.results.recorder import Source
from simulator.results.recorder import source_of as program_of
from simulator.scenario import Scenario
from simulator.spec.world_spec import WorldSpec, to_builtins


def source_of(scenario: Scenario) -> Source | None:
    """Return what `teale-sim run` can be given to run a scenario again; None for a program that is in no file."""
    if scenario.spec is None:
        return program_of(scenario)
    return Source("scenario.toml", toml_of(scenario.spec).encode())


def toml_of(spec: WorldSpec) -> str:
    """Return a description as TOML."""
    return tomlkit.dumps(_without_none(to_builtins(spec)))


def _without_none(value: Any) -> Any:
    """Return what TOML can hold, which has no word for nothing: a key that is missing is as good."""
    if isinstance(value, dict):
        return {key: _without_none(each) for key, each in value.items() if each is not None}
    if isinstance(value, list | tuple):
        return [_without_none(each) for each in value]
    return value
