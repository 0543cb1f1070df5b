"""The scenarios that are made to be compared: what they come to in the simulator."""

from collections import Counter

import pytest

from simulator.comparing.cast import cell_name
from simulator.comparing.measured import Measure
from simulator.comparing.simulating import simulated
from simulator.scenario import load
from simulator.spec.world_spec import WorldSpec

HARD = ("adm-adf", "hard", "sequential")
"""Kinds that give different peers different ports, and filter."""


def described(name: str) -> WorldSpec:
    spec = load(name).spec
    assert spec is not None
    return spec


def expected(one: str, other: str) -> str:
    """Return over what two kinds end up talking, by the matrix of docs/explanation/direct-paths.md."""
    if "blocked" in (one, other):
        return "relay"
    if one == other == "sequential":
        # Both can be foreseen.
        return "direct"
    return "relay" if one in HARD and other in HARD else "direct"


def test_every_cell_of_the_nat_matrix_ends_as_the_matrix_says() -> None:
    spec = described("nat_matrix")
    names = [population.name for population in spec.populations]
    assert len(names) == 12
    run = simulated(spec, 1)
    assert run.broken == ()
    found = {(each.cell, each.path): each.pairs for each in run.paths}
    assert found == {
        (cell_name(one, other), expected(one, other)): 1 if one == other else 4
        for place, one in enumerate(names)
        for other in names[place:]
    }


@pytest.mark.parametrize("milliseconds", [20, 80])
def test_ten_pairs_ask_over_the_relay_first_and_then_over_what_they_have(milliseconds: int) -> None:
    spec = described(f"cells_{milliseconds}ms")
    run = simulated(spec, 1)
    assert run.broken == ()
    assert Counter(each.path for each in run.paths) == {"direct": 8, "relay": 2}
    tokens = {each.what: each.values for each in run.samples if each.measure is Measure.FIRST_TOKEN}
    cells = {each.cell for each in run.paths}
    assert len(cells) == 10
    for each in run.paths:
        later = tokens[f"{each.cell}, {each.path}"]
        assert len(later) >= 5
        # There and back, and what it takes to read the prompt.
        assert 2 * milliseconds * 1000 < sorted(later)[2] < (2 * milliseconds + 60) * 1000
    # Two relayed pairs ask six times, and six others once, while their NATs are being found out.
    assert sum(len(tokens.get(f"{cell}, relay", ())) for cell in cells) == 18


def test_under_load_everything_goes_through_the_relay_and_is_answered() -> None:
    run = simulated(described("relay_load"), 1)
    assert run.broken == ()
    found = {(each.measure, each.what): each.values for each in run.samples}
    assert found[Measure.MESSAGES_IN, "relay-0"][0] > 3_000
    outcomes = {each.what: each.values[0] for each in run.samples if each.measure is Measure.OUTCOMES}
    assert outcomes.keys() == {"finished", "doubled", "open at the end"}
    assert outcomes["finished"] > 100
