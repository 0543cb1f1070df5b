"""One peer, several paths: what is under way goes on over another one, nothing twice, nothing lost, all in order."""

import pytest

from teale_proto.absence import AWAY_MAX, GRACE
from teale_proto.contract import SECOND
from teale_proto.delivery import KEPT_MAX, OWED_MAX
from teale_proto.effects import (
    CancelGeneration,
    Path,
    PeerState,
    ReportFailed,
    ReportFinished,
    ReportPeer,
)
from teale_proto.inputs import (
    Address,
    CancelAsk,
    ConnectionAccepted,
    ConnectionClosed,
    DataReceived,
    Failure,
    LoadedModelsChanged,
    NetworkChanged,
    StopRequested,
)
from teale_proto.liveness import ACTIVE, STANDBY_INTERVALS, SUSPECT_FOR
from teale_proto.status import PathStatus
from teale_proto.wire.cluster import DeviceInfo, Hello, InferenceRequest, ModelQuery, Received
from teale_proto.wire.numbered import numbered
from teale_proto.wire.relay import Hardware
from tests.proto.roads import Roads, emit, finish, numbers
from tests.proto.visitors import House, Visitor
from tests.proto.world import RELAY_URL, World
from tests.proto.worlds import ask, lan, paths, servers, wan


def is_whole(world: World, count: int = 100) -> bool:
    """Return whether the answer came once, to its end, in order."""
    assert numbers(world, "a") == list(range(count))
    assert not world.of("a", ReportFailed)
    return len(world.of("a", ReportFinished)) == 1


def test_what_is_said_next_goes_over_a_better_path_as_soon_as_there_is_one() -> None:
    world = Roads("a", "b", serving="b")
    world.feed("a", ask())
    emit(world, "b", range(50))
    world.join("a", "b")
    world.sizes.clear()
    emit(world, "b", range(50, 100))
    finish(world, "b")
    assert is_whole(world)
    assert not [sender for sender, receiver, _ in world.sizes if "relay.test" in (sender, receiver)]


def test_an_answer_goes_on_over_the_relay_when_the_direct_path_is_cut_in_its_middle() -> None:
    world = Roads("a", "b", serving="b")
    direct = world.join("a", "b")
    world.feed("a", ask())
    emit(world, "b", range(50))
    world.silence("a", direct)
    emit(world, "b", range(50, 80))
    assert len(numbers(world, "a")) == 50
    world.break_off("a", direct)
    assert len(numbers(world, "a")) == 80, "what was lost is said again at once"
    emit(world, "b", range(80, 100))
    finish(world, "b")
    assert is_whole(world)
    assert world.path("a", "b") is Path.RELAY


def test_a_direct_path_that_falls_silent_under_load_is_left_within_two_heartbeats() -> None:
    world = Roads("a", "b", serving="b")
    direct = world.join("a", "b")
    world.feed("a", ask())
    emit(world, "b", range(50))
    world.run_for(7 * SECOND)
    world.silence("a", direct)
    silent_at = world.now
    emit(world, "b", range(50, 100))
    finish(world, "b")
    while not world.of("a", ReportFinished):
        world.run_for(SECOND // 10)
    assert world.now - silent_at < 2 * ACTIVE
    assert is_whole(world)
    states = [(report.state, report.path) for report in world.of("a", ReportPeer)]
    assert (PeerState.DEGRADED, Path.DIRECT) in states
    assert PeerState.LOST not in [state for state, _ in states]


def test_what_is_asked_after_an_idle_direct_path_was_cut_is_answered_within_two_heartbeats() -> None:
    world = Roads("a", "b", serving="b")
    direct = world.join("a", "b")
    world.run_for(20 * SECOND)
    world.silence("a", direct)
    world.run_for(4 * SECOND)
    world.feed("a", ask())
    asked_at = world.now
    while not world.generations["b"]:
        world.run_for(SECOND // 10)
    emit(world, "b", range(100))
    finish(world, "b")
    while not world.of("a", ReportFinished):
        world.run_for(SECOND // 10)
    assert world.now - asked_at < 2 * ACTIVE, "the server turns to the relay as soon as the asker has"
    assert is_whole(world)


def test_a_request_that_a_wake_up_gives_to_an_idle_peer_leaves_nothing_due() -> None:
    world = Roads("a", "b", "c", serving="bc")
    paths = {name: world.join("a", name) for name in "bc"}
    world.run_for(30 * SECOND)
    world.feed("a", ask())
    world.run_for(1)
    [server] = [name for name in "bc" if world.generations[name]]
    world.silence("a", paths[server])
    world.hush(server)
    world.run_for(60 * SECOND)
    assert world.generations["c" if server == "b" else "b"]
    assert world.node("a").deadline > world.now


def test_another_network_ends_what_gives_no_sign_of_life_and_nothing_else() -> None:
    world = Roads("a", "b", "c", serving="bc")
    paths = {name: world.join("a", name) for name in "bc"}
    world.run_for(10 * SECOND)
    world.silence("a", paths["b"])
    world.feed("a", NetworkChanged((Address("198.51.100.1", 7475),)))
    world.run_for(SUSPECT_FOR + SECOND)
    assert world.path("a", "b") is Path.RELAY
    assert world.path("a", "c") is Path.DIRECT


def test_a_path_that_was_only_slow_makes_nothing_come_twice() -> None:
    world = Roads("a", "b", serving="b")
    direct = world.join("a", "b")
    world.feed("a", ask())
    world.silence("a", direct)
    emit(world, "b", range(50))
    world.run_for(5 * SECOND)
    assert world.conversation("b", "a", Path.DIRECT).liveness.state is PeerState.DEGRADED  # type: ignore[union-attr]
    assert len(numbers(world, "a")) == 50
    emit(world, "b", range(50, 100))
    finish(world, "b")
    assert is_whole(world)
    world.run_for(60 * SECOND)
    assert world.path("a", "b") is Path.RELAY
    assert Path.DIRECT not in world.node("a")._peers.get(world.id("b")).conversations  # type: ignore[union-attr]


def test_a_request_that_was_lost_on_its_way_is_said_again_and_answered_once() -> None:
    world = Roads("a", "b", serving="b")
    direct = world.join("a", "b")
    world.silence("a", direct)
    world.answering.add("b")
    world.feed("a", ask())
    assert not world.generations["b"]
    world.break_off("a", direct)
    assert len(world.generations["b"]) == 1
    assert len(world.of("a", ReportFinished)) == 1
    assert world.of("a", ReportFinished)[0].attempts == 1


def test_an_answer_survives_the_death_of_the_relay_when_both_return_in_time() -> None:
    world = wan("a", "b", serving="b")
    world.feed("a", ask())
    emit(world, "b", range(50))
    world.cut("relay.test", "relay crashed")
    assert world.node("a").peers() == ()
    emit(world, "b", range(50, 80))
    world.run_for(GRACE - SECOND)
    assert paths(world, "a") == [("b", Path.RELAY)]
    emit(world, "b", range(80, 100))
    finish(world, "b")
    assert is_whole(world)
    assert len(world.generations["b"]) == 1


def test_an_answer_survives_that_the_one_cable_is_pulled_and_put_back() -> None:
    world = lan("a", "b", serving="b")
    world.feed("a", ask())
    emit(world, "b", range(50))
    world.cut("a", between="b")
    emit(world, "b", range(50, 100))
    finish(world, "b")
    world.run_for(5 * SECOND)
    assert is_whole(world)
    assert paths(world, "a") == [("b", Path.LAN)]


def test_an_answer_moves_from_the_lan_to_the_relay_and_back() -> None:
    world = World()
    world.add_relay()
    for number, name in enumerate("ab", 1):
        config = {"wan_enabled": True, "wan_relay_url": RELAY_URL}
        world.add_node(name, number, lan="home", models=("m",) if name == "b" else (), **config)
    world.start("a", "b")
    world.run_for(5 * SECOND)
    assert paths(world, "a") == [("b", Path.LAN)]
    world.feed("a", ask())
    emit(world, "b", range(30))
    world.unreachable.update("ab")
    world.cut("a", between="b")
    emit(world, "b", range(30, 60))
    world.run_for(GRACE - SECOND)
    assert paths(world, "a") == [("b", Path.RELAY)]
    world.unreachable.clear()
    emit(world, "b", range(60, 80))
    world.run_for(60 * SECOND)
    assert paths(world, "a") == [("b", Path.LAN)]
    emit(world, "b", range(80, 100))
    finish(world, "b")
    assert is_whole(world)


def test_a_peer_that_does_not_come_back_is_given_up_after_the_grace() -> None:
    world = lan("a", "b", serving="b")
    world.feed("a", ask())
    emit(world, "b", range(10))
    world.unreachable.update("ab")
    world.cut("a")
    world.run_for(GRACE - 1)
    assert not world.of("a", ReportFailed)
    world.run_for(1)
    [failed] = world.of("a", ReportFailed)
    assert failed.failure is Failure.PEER_LOST
    assert "it has not come back" in failed.message
    assert world.of("b", CancelGeneration)


def test_both_sides_agree_that_nothing_goes_on_when_one_of_them_has_given_up() -> None:
    world = lan("a", "b", serving="b")
    world.feed("a", ask())
    emit(world, "b", range(10))
    before = [world.node(name)._peers._away._epoch for name in "ab"]
    # Only one of them notices that the connection is gone.
    [connection] = [connection for name, connection in world._wires if name == "a"]
    world._wires.clear()
    world.unreachable.update("ab")
    world.feed("a", ConnectionClosed(connection, "reset"))
    world.run_for(GRACE)
    assert [report.failure for report in world.of("a", ReportFailed)] == [Failure.PEER_LOST]
    assert not world.of("b", CancelGeneration), "b knows nothing yet"
    assert [world.node(name)._peers._away._epoch for name in "ab"] == [before[0] + 1, before[1]]
    world.unreachable.clear()
    world.run_for(20 * SECOND)
    assert world.of("b", CancelGeneration) == [CancelGeneration(1)]
    assert paths(world, "a") == [("b", Path.LAN)]
    world.answering.add("b")
    world.feed("a", ask("again"))
    assert world.of("a", ReportFinished)[0].request == "again"


def test_a_node_that_starts_anew_ends_what_its_former_start_had_under_way() -> None:
    world = Roads("a", "b", serving="b")
    world.join("a", "b")
    world.feed("a", ask())
    emit(world, "b", range(10))
    world.hush("b")
    for end in [end for end in world._wires if end[0] == "b"]:
        world._wires.pop(world._wires.pop(end), None)
    world.add_node("b", 2, models=("m",), lan_enabled=False, wan_enabled=True, wan_relay_url=RELAY_URL)
    world.node("b")._peers._links._common["instance"] = b"another!"
    world.start("b")
    world.run_for(30 * SECOND)
    [failed] = world.of("a", ReportFailed)
    assert "it has started anew" in failed.message
    world.answering.add("b")
    world.feed("a", ask("again"))
    assert world.of("a", ReportFinished)[0].request == "again"


def test_a_request_without_a_token_does_not_wait_for_a_node_that_has_left_where_another_can_take_it() -> None:
    world = lan("a", "b", "c", serving="bc")
    world.feed("a", ask())
    first = servers(world, "a")[0]
    second = "c" if first == "b" else "b"
    world.answering.add(second)
    world.cut("a", between=first)
    assert servers(world, "a") == [first, second]
    assert world.of("a", ReportFinished)[0].attempts == 2
    world.run_for(5 * SECOND)
    assert world.of(first, CancelGeneration), "it comes back, and hears that nobody waits for it"
    assert len(world.of("a", ReportFinished)) == 1


def test_a_request_that_is_cancelled_while_its_server_is_away_is_cancelled_there_when_it_comes_back() -> None:
    world = lan("a", "b", serving="b")
    world.feed("a", ask())
    world.cut("a", between="b")
    world.feed("a", CancelAsk("r"))
    assert not world.of("b", CancelGeneration)
    world.run_for(5 * SECOND)
    assert world.of("b", CancelGeneration)


def test_a_good_bye_is_not_waited_for_and_ends_every_path() -> None:
    world = Roads("a", "b", serving="b")
    world.join("a", "b")
    world.feed("a", ask())
    emit(world, "b", range(10))
    world.feed("b", StopRequested())
    assert world.node("a").peers() == ()
    [failed] = world.of("a", ReportFailed)
    assert failed.failure is Failure.PEER_LOST
    assert "it said good-bye" in failed.message
    assert not list(world.node("a")._peers._away)


def test_to_close_one_path_of_two_ends_no_request() -> None:
    world = Roads("a", "b", serving="b")
    world.join("a", "b")
    world.feed("a", ask())
    emit(world, "b", range(50))
    relayed = world.conversation("a", "b", Path.RELAY).handle
    out: list[object] = []
    news = world.node("a")._peers.close(relayed, "there is a better path", world.now, out)
    assert [type(each).__name__ for each in news] == ["ConversationEnded"]
    emit(world, "b", range(50, 100))
    finish(world, "b")
    assert is_whole(world)


# Heartbeats.


def test_heartbeats_on_a_direct_path_are_close_together_only_while_requests_are_under_way() -> None:
    world = Roads("a", "b", serving="b")
    world.join("a", "b")
    liveness = world.conversation("a", "b", Path.DIRECT).liveness
    assert liveness is not None
    assert liveness.interval == 15 * SECOND
    world.feed("a", ask())
    world.run_for(1)
    assert liveness.interval == ACTIVE
    world.run_for(60 * SECOND)
    assert liveness.interval == ACTIVE, "the first token takes its time"
    emit(world, "b", range(1))
    finish(world, "b")
    world.run_for(4 * ACTIVE)
    assert liveness.interval == 15 * SECOND


def test_an_idle_direct_path_beats_as_often_as_its_nats_need_it() -> None:
    world = Roads("a", "b")
    world.feed("b", LoadedModelsChanged(("m",)))
    world.run_for(60 * SECOND)
    world.join("a", "b")
    conversation = world.conversation("a", "b", Path.DIRECT)
    assert conversation.liveness is not None
    world.node("a")._peers.keep_alive(conversation.handle, 10 * SECOND)
    world.run_for(1)
    assert conversation.liveness.interval == 10 * SECOND


def test_a_relayed_conversation_that_stands_by_beats_rarely_and_at_once_when_it_is_needed() -> None:
    world = Roads("a", "b", serving="b")
    direct = world.join("a", "b")
    world.run_for(20 * SECOND)
    liveness = world.conversation("a", "b", Path.RELAY).liveness
    assert liveness is not None
    assert liveness.interval == STANDBY_INTERVALS * 15 * SECOND
    world.run_for(600 * SECOND)
    assert liveness.state is PeerState.CONNECTED
    world.break_off("a", direct)
    world.run_for(1)
    assert liveness.interval == 15 * SECOND
    assert liveness.silence(world.now) <= 1, "it was asked at once whether it lives"


def test_a_relayed_conversation_is_kept_beside_a_direct_one() -> None:
    world = Roads("a", "b", serving="b")
    world.join("a", "b")
    world.run_for(600 * SECOND)
    [status] = world.node("a").peers()
    assert status.path is Path.DIRECT
    assert status.paths == (
        PathStatus(Path.DIRECT, "b:1", PeerState.CONNECTED, 0.0),
        PathStatus(Path.RELAY, "", PeerState.CONNECTED, 0.0),
    )


# Bounds, and peers that break the rules.


def test_a_peer_that_acknowledges_nothing_is_lost_when_too_much_waits_for_it() -> None:
    world = Roads("a", "b", serving="b")
    world.feed("a", ask())
    handle = world.node("b")._peers.get(world.id("a")).handle  # type: ignore[union-attr]
    world.hush("a")
    world.hush("relay.test")
    assert handle is not None
    out: list[object] = []
    for _ in range(KEPT_MAX + 1):
        world.node("b")._peers.send(handle, ModelQuery("m"), out)
    world.run_for(1)
    assert world.of("b", ReportPeer)[-1].state is PeerState.LOST
    assert f"{KEPT_MAX} messages wait for it" in world.of("b", ReportPeer)[-1].reason
    assert world.of("b", CancelGeneration)


def test_small_talk_is_acknowledged_now_and_then_and_the_rest_with_the_next_heartbeat() -> None:
    world = lan("a", "b", serving="b")
    world.feed("a", ask())
    emit(world, "b", range(OWED_MAX + 10))
    delivery = world.node("b")._peers.get(world.id("a")).delivery  # type: ignore[union-attr]
    assert delivery is not None
    assert delivery.unacknowledged == 10
    world.run_for(15 * SECOND)
    assert delivery.unacknowledged == 0


def test_nodes_that_have_not_asked_each_other_keep_nothing() -> None:
    world = lan("a", "b", serving="b")
    world.run_for(60 * SECOND)
    assert world.node("a")._peers.get(world.id("b")).delivery is None  # type: ignore[union-attr]


def test_of_too_many_that_have_left_the_first_is_not_waited_for() -> None:
    house = House()
    for number in range(2, AWAY_MAX + 4):
        visitor = house.visit(number)
        visitor.say(greeting(visitor))
        visitor.hang_up()
    assert len(list(house.node._peers._away)) == AWAY_MAX


def greeting(visitor: Visitor, delivery: int | None = 7) -> Hello:
    device = DeviceInfo(id=visitor.identity.node_id, name="visitor", hardware=Hardware())
    return Hello(device, delivery=delivery)


REQUEST = InferenceRequest("1", b'{"model":"m"}', True)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (numbered(1, b'{"type":"heartbeat","payload":{"deviceID":"x","timestamp":1}}'), "numbers what has no number"),
        (numbered(2**63, b'{"type":"modelQuery","payload":{"modelID":"m"}}'), "too far ahead"),
        (numbered(1, numbered(2, b"{}")), "malformed"),
        (b'{"type":"received","payload":{"upTo":1}}', "never sent"),
        (b'{"type":"modelQuery","payload":{"modelID":"m"}}', "does not number"),
    ],
)
def test_whoever_breaks_the_rules_of_numbers_is_refused(record: bytes, why: str) -> None:
    house = House()
    visitor = house.visit(5)
    visitor.say(greeting(visitor))
    say(visitor, record)
    assert visitor.closed
    assert why in house.refusals[-1]


def say(visitor: Visitor, record: bytes) -> None:
    out: list[bytes] = []
    visitor.link.send_encoded(record, out)
    visitor._send(out)


@pytest.mark.parametrize("delivery", [None, 7])
def test_nobody_numbers_before_both_have_said_that_they_do(delivery: int | None) -> None:
    house = House()
    visitor = house.visit(5)
    if delivery is None:
        visitor.say(greeting(visitor, None))
    say(visitor, numbered(1, b'{"type":"modelQuery","payload":{"modelID":"m"}}'))
    assert visitor.closed


def test_a_program_that_does_not_number_is_talked_to_as_ever() -> None:
    house = House()
    visitor = house.visit(5)
    visitor.say(greeting(visitor, None))
    visitor.say(ModelQuery("m"))
    assert type(visitor.heard[-1]).__name__ == "ModelQueryResponse"
    assert not house.node._peers.get(visitor.identity.node_id).delivery  # type: ignore[union-attr]


def test_a_kind_that_is_not_known_takes_up_its_number() -> None:
    house = House()
    visitor = house.visit(5)
    visitor.say(greeting(visitor))
    say(visitor, numbered(1, b'{"type":"novelty","payload":{}}'))
    say(visitor, numbered(2, b'{"type":"modelQuery","payload":{"modelID":"m"}}'))
    assert type(visitor.heard[-1].message).__name__ == "ModelQueryResponse"
    assert visitor.heard[-1].number == 1


def test_what_is_acknowledged_is_what_was_heard() -> None:
    house = House()
    visitor = house.visit(5)
    visitor.say(greeting(visitor))
    for number in range(1, OWED_MAX + 1):
        say(visitor, numbered(number, b'{"type":"novelty","payload":{}}'))
    assert visitor.heard[-1] == Received(OWED_MAX)


def test_strangers_that_number_what_they_say_before_they_greet_are_refused() -> None:
    house = House()
    house.feed(ConnectionAccepted(90, Address("s", 1), Address("h", 1), direct=True))
    house.feed(DataReceived(90, numbered(1, b"{}")))
    assert house.refusals
