"""Nodes that meet through a relay, lose it, and prefer the LAN where there is one."""

import pytest

from teale_proto.absence import GRACE
from teale_proto.contract import SECOND
from teale_proto.effects import (
    Advertise,
    Path,
    PeerState,
    RelayState,
    ReportAttempt,
    ReportFailed,
    ReportPeer,
)
from teale_proto.inputs import (
    Failure,
    LoadedModelsChanged,
    ServiceLost,
)
from tests.proto.world import RELAY_URL, World
from tests.proto.worlds import WAN, ask, content, paths, wan


def test_through_the_relay_providers_are_connected_before_anybody_asks() -> None:
    world = wan("a", "b", "c", serving="b")
    assert paths(world, "a") == [("b", Path.RELAY)]
    assert world.node("a").peers()[0].encryption == "Noise_IK_25519_ChaChaPoly_BLAKE2s"
    assert [listed.display_name for listed in world.node("a").listed_peers()] == ["c"]
    assert world.node("a").status().peers_listed == 1


def test_no_more_relay_sessions_are_held_than_configured() -> None:
    names = "abcdefgh"
    world = wan(*names, serving=names[1:], wan_peers_max=2)
    held = [peer for peer in world.node("a").peers() if peer.path is Path.RELAY]
    assert len(held) >= 2
    opened = [c for p in world.node("a")._peers for c in p.conversations.values() if c.initiator]
    assert len(opened) <= 2


def test_when_the_relay_dies_everybody_returns_to_it_and_answers_again() -> None:
    world = wan("a", "b", serving="b")
    world.cut("relay.test", "relay crashed")
    world.vanish("relay.test")
    assert world.node("a").peers() == ()
    assert world.node("a").status().wan is RelayState.WAITING
    assert world.node("a").status().wan_reason
    world.run_for(30 * SECOND)
    world.unreachable.clear()
    world.add_relay()
    world.answering.add("b")
    world.run_for(100 * SECOND)
    assert world.node("a").status().wan is RelayState.CONNECTED
    world.feed("a", ask())
    assert content(world, "a") == "hello world"


def test_a_request_under_way_when_the_relay_dies_is_not_given_to_a_session_that_died_with_it() -> None:
    names = "abcdefgh"
    world = wan(*names, serving=names[1:])
    world.feed("a", ask())
    world.cut("relay.test", "relay crashed")
    world.vanish("relay.test")
    world.run_for(GRACE - SECOND)
    assert len(world.of("a", ReportAttempt)) == 1
    assert not world.of("a", ReportFailed), "they may all be back in a moment"
    world.run_for(SECOND)
    assert len(world.of("a", ReportAttempt)) == 1
    [failed] = world.of("a", ReportFailed)
    assert failed.failure is Failure.UNAVAILABLE


def test_a_peer_reached_over_the_lan_too_gives_up_its_relay_session() -> None:
    world = World()
    world.add_relay()
    for number, name in enumerate("ab", 1):
        world.add_node(name, number, models=("m",), wan_enabled=True, wan_relay_url=RELAY_URL)
    world.start("a", "b")
    world.run_for(20 * SECOND)
    assert paths(world, "a") == [("b", Path.RELAY)]
    world.lan_of.update(a="home", b="home")
    for name in "ab":
        world._perform(name, [Advertise(world.advertised[name].record)])
        world.feed(name, LoadedModelsChanged(("m",)))
    world.run_for(40 * SECOND)
    assert paths(world, "a") == [("b", Path.LAN)]
    assert [list(peer.conversations) for peer in world.node("a")._peers] == [[Path.LAN]]
    assert PeerState.LOST not in [report.state for report in world.of("a", ReportPeer)]


def test_when_the_lan_breaks_the_relay_takes_over() -> None:
    world = World()
    world.add_relay()
    for number, name in enumerate("ab", 1):
        world.add_node(name, number, lan="home", models=("m",), wan_enabled=True, wan_relay_url=RELAY_URL)
    world.start("a", "b")
    world.run_for(20 * SECOND)
    assert paths(world, "a") == [("b", Path.LAN)]
    for name, other in (("a", "b"), ("b", "a")):
        world.lan_of[name] = ""
        world.feed(name, ServiceLost(other))
    world.cut("a", "cable pulled", between="b")
    world.run_for(60 * SECOND)
    assert paths(world, "a") == [("b", Path.RELAY)]


@pytest.mark.parametrize("seed", range(6))
def test_nodes_that_return_to_a_relay_in_any_order_are_found_as_soon_as_they_are_back(seed: int) -> None:
    world = World()
    world.add_relay()
    for number, name in enumerate("ab"):
        world.add_node(name, 10 * seed + number + 1, models=("m",) if name == "b" else (), **WAN)
    world.start("a", "b")
    world.run_for(60 * SECOND)
    world.cut("relay.test", "relay crashed")
    world.vanish("relay.test")
    world.unreachable.clear()
    world.add_relay()
    world.answering.add("b")
    while world.node("a").status().wan is not RelayState.CONNECTED:
        world.run_for(SECOND // 4)
    world.feed("a", ask("early"))
    while world.node("b").status().wan is not RelayState.CONNECTED:
        world.run_for(SECOND // 4)
    world.feed("a", ask("late"))
    world.run_for(12 * SECOND)
    assert content(world, "a", "late") == "hello world"
