"""The scenario as it was run, for its results: the program, or the description with every knob as it stood."""

from simulator.results.recorder import Source
from simulator.results.recorder import source_of as program_of
from simulator.scenario import Scenario
from simulator.spec.writing import toml_of


def source_of(scenario: Scenario) -> Source | None:
    """Return what `teale-sim run` can be given to run a scenario again; None for a program that is in no file."""
    if scenario.spec is None:
        return program_of(scenario)
    return Source("scenario.toml", toml_of(scenario.spec).encode())
