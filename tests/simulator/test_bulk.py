"""Worlds that are filled in a loop."""

import gc

import pytest

from simulator.bulk import add_clients, add_homes
from simulator.fidelity import Fidelity
from simulator.garbage import THRESHOLDS, seldom_collected
from simulator.trace import Trace
from simulator.world import World
from teale_proto.contract import SECOND
from teale_proto.effects import Path
from teale_proto.node import Node


def paths(world: World, names: list[str]) -> list[list[Path]]:
    """Return over which paths each node has its peers."""
    cores = [world.hosts[name].core for name in names]
    return [[peer.path for peer in core.peers()] for core in cores if isinstance(core, Node)]


@pytest.mark.parametrize("fidelity", list(Fidelity))
def test_two_nodes_of_each_home_find_each_other(fidelity: Fidelity) -> None:
    world = World(1, fidelity=fidelity)
    names = add_homes(world, 20)
    world.run_until(30 * SECOND)
    assert paths(world, names) == [[Path.LAN]] * 20
    assert world.report("homes", 0.0).passed


@pytest.mark.parametrize("fidelity", list(Fidelity))
def test_every_other_client_keeps_a_session_with_one_of_the_rest(fidelity: Fidelity) -> None:
    world = World(1, fidelity=fidelity)
    names = add_clients(world, 40, relays=2)
    world.run_until(60 * SECOND)
    assert paths(world, names)[1::2] == [[Path.RELAY]] * 20
    assert sum(map(len, paths(world, names))) == 40
    assert world.report("clients", 0.0).passed


def test_a_world_that_is_not_watched_does_the_same() -> None:
    digests = []
    for watched in (True, False):
        world = World(1, fidelity=Fidelity.MESSAGE, trace=Trace(tail=0), watched=watched)
        add_homes(world, 10)
        world.run_until(20 * SECOND)
        digests.append(world.trace.digest)
    assert digests[0] == digests[1]


def test_garbage_is_looked_for_as_before_afterwards() -> None:
    before = gc.get_threshold()
    with seldom_collected():
        assert gc.get_threshold() == THRESHOLDS
    assert gc.get_threshold() == before
