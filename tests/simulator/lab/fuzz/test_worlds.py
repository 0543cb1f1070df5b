"""The worlds that seeds draw for a lab: what real programs on Linux can be, small, short, and of all kinds."""

from collections import Counter
from pathlib import Path

from simulator.fuzz.worlds import SIMULATED, drawn
from simulator.lab.fuzz.worlds import LAB, NATS, draw
from simulator.lab.plan import Served, plan_of
from simulator.spec.access import NAT_KINDS
from simulator.spec.reading import read_toml
from simulator.spec.world_spec import settled
from simulator.spec.writing import toml_of

SEEDS = range(120)
WORLDS = [draw(seed) for seed in SEEDS]
PLANS = [plan_of(world, seed) for seed, world in enumerate(WORLDS)]


def test_a_lab_can_be_every_one_of_them_with_nothing_left_out() -> None:
    assert [plan.spec for plan in PLANS] == WORLDS
    assert not [note for plan in PLANS for note in plan.notes if note.startswith("left out")]


def test_a_seed_always_draws_the_same_world_and_it_survives_being_written_as_toml(tmp_path: Path) -> None:
    assert [draw(seed) for seed in SEEDS] == WORLDS
    file = tmp_path / "world.toml"
    for seed, world in enumerate(WORLDS[:40]):
        assert settled(world, seed + 1) == world
        file.write_text(toml_of(world), encoding="utf-8")
        assert read_toml(file) == world


def test_they_are_small_and_short_and_leave_every_request_its_time() -> None:
    for world in WORLDS:
        assert 2 <= len(world.node_names) <= 6
        assert 1 <= len(world.relays) <= 2
        assert 20 <= world.lasts <= 300
        assert all(ask.at + ask.timeout < world.lasts for ask in world.asks)
    # A few are longer, for the rules about hosts that were left in peace.
    assert sum(world.lasts <= 40 for world in WORLDS) > 0.7 * len(WORLDS)
    assert 1 <= sum(world.lasts > 70 for world in WORLDS) <= 0.1 * len(WORLDS)


def test_they_are_of_all_kinds() -> None:
    faults = Counter(type(fault).__name__ for world in WORLDS for fault in world.faults)
    assert set(faults) == {"Crash", "Partition", "NatReboot", "BadWeather", "Roam"}
    populations = [each for world in WORLDS for each in world.populations]
    for several in (
        {each.site_size > 1 for each in populations},
        {each.churn is None for each in populations},
        {each.direct for each in populations},
        {each.birthday for each in populations},
        {plan.served is Served.BUILTIN for plan in PLANS},
    ):
        assert several == {True, False}


def test_what_answers_can_be_chosen() -> None:
    for served in Served:
        assert {plan_of(draw(seed, served), seed).served for seed in range(20)} == {served}


def test_they_are_behind_every_nat_that_linux_can_be_and_no_other() -> None:
    refused = {"apdm-eif", "apdm-adf"}
    assert set(NATS) == set(NAT_KINDS) - refused
    named = {name for world in WORLDS for each in world.populations for name in each.mixture.nats}
    assert named == set(NATS)


def test_the_scope_decides_what_is_drawn_and_a_simulator_can_be_more() -> None:
    assert drawn(3, LAB).lasts != drawn(3, SIMULATED).lasts
    assert any("slow node" in drawn(seed, SIMULATED).random_faults.weights for seed in range(3))  # type: ignore[union-attr]  # it has some
    assert "slow node" not in LAB.faults
