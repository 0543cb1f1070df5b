"""The study's light clients against real nodes in the world of the scenario: how often, and how much, they say."""

from collections import defaultdict

import pytest

from scenarios.relay_scaling import NODES, RELAY, build
from simulator.net.connection import Traffic
from simulator.study.messages import sizes
from simulator.study.parameters import Parameters
from simulator.world import World
from teale_proto.contract import SECOND
from teale_proto.wire.binary import HEAD_BYTES, is_binary
from teale_proto.wire.codec import Unknown
from teale_proto.wire.relay import RELAY_CODEC, Discover, DiscoverResponse, Register

SINCE = 22 * SECOND
UNTIL = 37 * SECOND
"""One heartbeat interval after all have met, before anybody asks for anything."""


@pytest.fixture(scope="module")
def seen() -> list[Traffic]:
    found: list[Traffic] = []
    world = World(1)
    world.network.taps.append(found.append)
    build(world)
    world.run_until(UNTIL)
    return found


def test_sessions_are_kept_alive_as_often_and_with_as_many_bytes_as_the_study_says(seen: list[Traffic]) -> None:
    beats = defaultdict(list)
    for each in seen:
        if each.target == RELAY and each.at > SINCE and is_binary(each.data):
            beats[each.data[1:HEAD_BYTES]].append(len(each.data))
    messages = sum(map(len, beats.values()))
    expected = len(beats) * Parameters().beats_per_second * (UNTIL - SINCE) / SECOND
    assert messages == pytest.approx(expected, rel=0.1)
    assert sum(map(sum, beats.values())) / messages == pytest.approx(sizes(binary=True).heartbeat, rel=0.15)


def test_nodes_keep_about_as_many_sessions_as_they_are_told_to(seen: list[Traffic]) -> None:
    sessions = {each.data[1:HEAD_BYTES] for each in seen if each.target == RELAY and is_binary(each.data)}
    # All have just come: each has opened eight, but for the first, who had nobody to open one with.
    assert len(sessions) / NODES == pytest.approx(Parameters().peers_held, rel=0.25)


def test_registrations_and_listings_are_as_long_as_the_study_says(seen: list[Traffic]) -> None:
    registers, discovers, listings = [], [], []
    for each in seen:
        message = None if is_binary(each.data) else RELAY_CODEC.decode(each.data)[0]
        if isinstance(message, Register):
            registers.append(len(each.data))
        elif isinstance(message, Discover):
            discovers.append(len(each.data))
        elif isinstance(message, DiscoverResponse) and message.peers:
            listings.append(len(each.data) / len(message.peers))
        assert not isinstance(message, Unknown)
    size = sizes(binary=True)
    assert sum(registers) / len(registers) == pytest.approx(size.register, rel=0.25)
    assert sum(discovers) / len(discovers) == pytest.approx(size.discover, rel=0.05)
    assert sum(listings) / len(listings) == pytest.approx((size.entry + size.entry_bare) / 2, rel=0.25)
