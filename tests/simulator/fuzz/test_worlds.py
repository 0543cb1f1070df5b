"""The worlds that seeds draw: valid, settled, small, and all different kinds of them."""

import msgspec

from simulator.fuzz.worlds import ASKS_MAX, NODES_MAX, draw
from simulator.spec.faults import ClockSkew
from simulator.spec.world_spec import Planted, WorldSpec, settled

SEEDS = range(150)
WORLDS = [draw(seed) for seed in SEEDS]


def test_a_seed_always_draws_the_same_world() -> None:
    assert [draw(seed) for seed in SEEDS] == WORLDS
    assert len({msgspec.json.encode(world) for world in WORLDS}) == len(WORLDS)


def test_a_world_is_settled_and_survives_being_written_down() -> None:
    for seed, world in zip(SEEDS, WORLDS, strict=True):
        assert settled(world, seed + 1) == world
        assert msgspec.json.decode(msgspec.json.encode(world), type=WorldSpec) == world


def test_worlds_are_small_and_short() -> None:
    for world in WORLDS:
        assert 2 <= len(world.node_names) <= NODES_MAX
        assert 60 <= world.lasts <= 420
        assert len(world.asks) <= 3 * ASKS_MAX
        assert all(ask.at + ask.timeout < world.lasts for ask in world.asks)


def test_worlds_are_of_all_kinds() -> None:
    assert {world.fidelity.value for world in WORLDS} == {"wire", "message"}
    assert {len(world.relays) for world in WORLDS} == {1, 2, 3}
    populations = [each for world in WORLDS for each in world.populations]
    assert {each.site_size > 1 for each in populations} == {True, False}
    assert {each.churn is None for each in populations} == {True, False}
    assert {each.heartbeat for each in populations} == {5.0, 15.0}
    assert len({type(fault) for world in WORLDS for fault in world.faults} - {ClockSkew}) == 6


def test_a_planted_bug_changes_nothing_else() -> None:
    world = draw(3, planted=Planted.DELIVERS_TWICE)
    assert world.planted is Planted.DELIVERS_TWICE
    assert msgspec.structs.replace(world, planted=Planted.NONE) == WORLDS[3]
