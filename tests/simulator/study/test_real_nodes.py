"""The study's parameters and light clients against the code, and against real nodes in the world of the scenario."""

from collections import defaultdict

import pytest

from scenarios.relay_scaling import NODES, RELAY, build
from simulator.net.connection import Traffic
from simulator.study.messages import model_name, sizes
from simulator.study.parameters import OPENED_FOR_A_REQUEST, SHIPPED, Parameters
from simulator.world import World
from teale_proto.contract import SECOND
from teale_proto.node import OPENINGS_MAX
from teale_proto.node_config import NodeConfig
from teale_proto.relay.client_states import RelayClientConfig
from teale_proto.relay.limits import RelayServerConfig
from teale_proto.seeking import DISCOVER_EVERY, DISCOVERED_MAX
from teale_proto.wire.binary import HEAD_BYTES, is_binary
from teale_proto.wire.codec import Unknown
from teale_proto.wire.relay import RELAY_CODEC, Discover, DiscoverResponse, Register

SINCE = 22 * SECOND
UNTIL = 37 * SECOND
"""One heartbeat interval after all have met, before anybody asks for anything."""
NAME_BYTES = len(model_name(0)) - len("model-1")
"""What the study's names of models are longer by."""
SPEED_BYTES = len(',"ewmaTokensPerSecond":41.7')
"""What a node says of its speed once it has answered something, which none has in the scenario by then."""

SIZES = sizes(binary=True, asks_for=SHIPPED.asks_for)


@pytest.fixture(scope="module")
def seen() -> list[Traffic]:
    found: list[Traffic] = []
    world = World(1)
    world.network.taps.append(found.append)
    build(world)
    world.run_until(UNTIL)
    return found


def test_the_study_uses_what_the_code_uses() -> None:
    parameters, node = Parameters(), NodeConfig("any")
    assert parameters.peers_held == node.wan_peers_max
    assert parameters.heartbeat * SECOND == node.heartbeat
    assert parameters.ping_every * SECOND == RelayClientConfig().ping_interval
    assert 0 <= parameters.discover_every * SECOND - DISCOVER_EVERY <= SECOND
    assert SHIPPED.peers_max == RelayServerConfig().peers_max
    assert SHIPPED.asks_for == DISCOVERED_MAX
    assert OPENED_FOR_A_REQUEST == OPENINGS_MAX


def test_sessions_are_kept_alive_as_often_and_with_as_many_bytes_as_the_study_says(seen: list[Traffic]) -> None:
    beats = defaultdict(list)
    for each in seen:
        if each.target == RELAY and each.at > SINCE and is_binary(each.data):
            beats[each.data[1:HEAD_BYTES]].append(len(each.data))
    messages = sum(map(len, beats.values()))
    expected = len(beats) * Parameters().beats_per_second * (UNTIL - SINCE) / SECOND
    assert messages == pytest.approx(expected, rel=0.1)
    # All nodes have opened as many, half of them hold a model, and all whom they have opened them with.
    holders = 3 / 4
    mean = holders * (SIZES.heartbeat - NAME_BYTES - SPEED_BYTES) + (1 - holders) * SIZES.heartbeat_bare
    assert sum(map(sum, beats.values())) / messages == pytest.approx(mean, rel=0.03)


def test_nodes_keep_about_as_many_sessions_as_they_are_told_to(seen: list[Traffic]) -> None:
    sessions = {each.data[1:HEAD_BYTES] for each in seen if each.target == RELAY and is_binary(each.data)}
    # All have just come: each has opened eight, but for the first, who had nobody to open one with.
    assert len(sessions) / NODES == pytest.approx(Parameters().peers_held, rel=0.25)


def test_registrations_questions_and_listings_are_as_long_as_the_study_says(seen: list[Traffic]) -> None:
    registers, discovers, listings = [], [], []
    for each in seen:
        message = None if is_binary(each.data) else RELAY_CODEC.decode(each.data)[0]
        if isinstance(message, Register):
            registers.append(len(each.data))
        elif isinstance(message, Discover):
            discovers.append(len(each.data))
        elif isinstance(message, DiscoverResponse) and message.peers:
            listings.append((len(each.data) - SIZES.listing) / len(message.peers))
        assert not isinstance(message, Unknown)
    assert sum(registers) / len(registers) == pytest.approx(SIZES.register, rel=0.1)
    assert set(discovers) == {SIZES.discover}
    # Names of models, machines and nodes are shorter in the scenario.
    assert sum(listings) / len(listings) == pytest.approx((SIZES.entry + SIZES.entry_bare) / 2, rel=0.1)
