"""Planted bugs do what they say, to those whom they are for, and nowhere without being asked for."""

from collections import Counter
from itertools import pairwise

import pytest

from simulator.fuzz.trial import run
from simulator.fuzz.worlds import draw
from simulator.net.regions import WORLD
from simulator.planted import plant
from simulator.rng import stream
from simulator.spec.build import build
from simulator.spec.population import Population
from simulator.spec.units import microseconds
from simulator.spec.world_spec import Planted, WorldSpec
from simulator.trace import Entry
from simulator.world import World
from teale_proto.effects import SendData, SendText

QUIET = WorldSpec(
    name="quiet",
    lasts=120.0,
    populations=(Population(count=4, access="public", heartbeat=5.0, starts_within=1.0),),
)


def sent(planted: Planted) -> tuple[World, dict[str, list[bytes]]]:
    """Run a quiet world and return what each host handed to its connections."""
    world = World(5, regions=WORLD)
    build(QUIET, world)
    plant(world, planted)
    messages: dict[str, list[bytes]] = {}

    def note(entry: Entry) -> None:
        if isinstance(entry.value, SendData | SendText):
            messages.setdefault(entry.host, []).append(entry.value.data)

    world.trace.subscribe(note)
    world.run_until(microseconds(QUIET.lasts))
    return world, messages


def test_nothing_is_planted_unless_it_is_asked_for() -> None:
    untouched = World(5, regions=WORLD)
    build(QUIET, untouched)
    untouched.run_until(microseconds(QUIET.lasts))
    assert sent(Planted.NONE)[0].trace.digest == untouched.trace.digest


def test_forgetful_nodes_send_fewer_heartbeats_and_lose_nobody() -> None:
    (sound, before), (forgetful, after) = sent(Planted.NONE), sent(Planted.FORGETS_HEARTBEATS)
    fewer = sum(map(len, before.values())) - sum(map(len, after.values()))
    # Of 4 nodes with 3 peers each and a heartbeat every 5 s, one in a hundred: with its answer, and both by the relay.
    assert 0 < fewer < 40
    assert sound.report("", 0.0).peers_lost == forgetful.report("", 0.0).peers_lost == 0


def test_a_repeating_relay_says_some_messages_twice_and_nodes_do_not() -> None:
    _, messages = sent(Planted.DELIVERS_TWICE)
    doubled = {host: sum(one == other for one, other in pairwise(said)) for host, said in messages.items()}
    assert doubled.pop("relay-0") >= 1
    assert set(doubled.values()) == {0}
    assert set(Counter(sent(Planted.NONE)[1]["relay-0"]).values()) == {1}


@pytest.mark.parametrize("planted", [Planted.FORGETS_HEARTBEATS, Planted.DELIVERS_TWICE])
def test_a_planted_bug_is_as_reproducible_as_everything_else(planted: Planted) -> None:
    spec = draw(4, planted=planted)
    trial = run(spec, 4)
    assert trial.broken is not None
    assert run(spec, 4) == trial
    assert run(draw(4), 4).broken is None


def test_the_streams_of_planted_bugs_are_nobody_else_s() -> None:
    assert stream(1, "node-0", "planted").next64() != stream(1, "node-0", "core 1").next64()
