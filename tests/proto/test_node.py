"""Nodes that ask and answer: when all is well, and when it is not."""

from typing import Any

import pytest

from teale_proto.absence import GRACE
from teale_proto.asking import ASKS_MAX, ATTEMPTS_MAX, BODY_MAX, PATIENCE
from teale_proto.contract import SECOND
from teale_proto.effects import (
    CancelGeneration,
    Path,
    PeerState,
    RelayState,
    ReportAttempt,
    ReportChunk,
    ReportFailed,
    ReportFinished,
    ReportPeer,
    ReportRefusal,
)
from teale_proto.errors import LocalError, PeerError
from teale_proto.inputs import (
    Address,
    CancelAsk,
    ConnectFailed,
    ConnectionAccepted,
    ConnectionClosed,
    ConnectionOpened,
    DataReceived,
    Failure,
    GenerationChunk,
    GenerationFailed,
    GenerationFinished,
    LoadedModelsChanged,
    PongReceived,
    Started,
    StopRequested,
)
from teale_proto.node import Node, NodeConfig
from teale_proto.wire.framing import frame
from teale_proto.wire.relay import RELAY_CODEC, RelayData
from tests.proto.world import UNIX_TIME_AT_ZERO, World, chunk, identity
from tests.proto.worlds import BODY, WAN, ask, content, lan, paths, servers, wan


def test_nodes_on_one_lan_meet_and_know_each_other() -> None:
    world = lan("a", "b", "c", serving="b")
    assert {name for name, _ in paths(world, "a")} == {"b", "c"}
    status = next(status for status in world.node("a").peers() if status.display_name == "b")
    assert (status.path, status.state) == (Path.LAN, PeerState.CONNECTED)
    assert status.encryption == "Noise_XX_25519_ChaChaPoly_BLAKE2s"
    assert status.loaded_models == ("m",)
    assert status.node_id == world.id("b")


@pytest.mark.parametrize("make", [lan, wan])
def test_one_asks_and_another_answers(make: Any) -> None:
    world = make("a", "b", serving="b")
    world.answering.add("b")
    world.feed("a", ask())
    path = Path.LAN if make is lan else Path.RELAY
    assert world.of("a", ReportAttempt) == [ReportAttempt("r", world.id("b"), path)]
    assert content(world, "a") == "hello world"
    assert world.of("a", ReportFinished) == [ReportFinished("r", world.id("b"), path, 3, 2, 1)]
    assert world.generations["b"][0].body == BODY


@pytest.mark.parametrize("make", [lan, wan])
def test_nobody_between_them_can_read_it(make: Any) -> None:
    world = make("a", "b", serving="b")
    seen: list[bytes] = []
    world.taps.append(lambda _from, _to, data: seen.append(_unwrapped(data)))
    world.answering.add("b")
    world.feed("a", ask())
    assert content(world, "a") == "hello world"
    assert seen
    assert not any(word in data for data in seen for word in (b"secret", b"hello", b"world", b"content"))


def _unwrapped(data: bytes) -> bytes:
    """Return what a relay could see: the bytes that `relayData` carries, or the bytes themselves."""
    try:
        message, _ = RELAY_CODEC.decode(data)
    except PeerError:
        return data
    return message.data if isinstance(message, RelayData) else data


def test_without_encryption_everybody_can_read_it_which_shows_that_the_tap_works() -> None:
    world = lan("a", "b", serving="b", lan_encrypted=False)
    seen: list[bytes] = []
    world.taps.append(lambda _from, _to, data: seen.append(data))
    world.answering.add("b")
    world.feed("a", ask())
    assert content(world, "a") == "hello world"
    assert any(b"secret" in data for data in seen)
    assert world.node("a").peers()[0].encryption == "none"
    assert world.node("a").status().lan_encryption == "off"


def test_a_node_that_encrypts_refuses_plaintext_and_dials_encrypted_itself() -> None:
    world = World()
    world.add_node("a", 1, lan="home", lan_encrypted=False)
    world.add_node("b", 2, lan="home")
    world.start("a", "b")
    world.run_for(5 * SECOND)
    assert any("does not encrypt" in report.reason for report in world.of("b", ReportRefusal))
    assert [peer.encryption for peer in world.node("a").peers()] == ["Noise_XX_25519_ChaChaPoly_BLAKE2s"]


def test_streams_that_come_in_pieces_make_no_difference() -> None:
    world = lan("a", "b", serving="b", started=False)
    world.split = True
    world.start("a", "b")
    world.answering.add("b")
    world.run_for(5 * SECOND)
    world.feed("a", ask())
    assert content(world, "a") == "hello world"


def test_a_node_with_the_model_answers_itself() -> None:
    world = lan("a", "b", serving="ab")
    world.answering.update("ab")
    world.feed("a", ask())
    assert world.of("a", ReportAttempt) == [ReportAttempt("r", world.id("a"), Path.LOCAL)]
    assert content(world, "a") == "hello world"
    assert world.of("a", ReportFinished)[0].tokens_out == 2
    assert not world.generations["b"]


def test_two_that_dial_each_other_at_once_end_up_with_one_connection() -> None:
    world = lan("a", "b")
    for name, other in (("a", "b"), ("b", "a")):
        assert [peer for peer, _ in paths(world, name)] == [other]
        assert len(world.of(name, ReportPeer)) == 1
    assert len(world._wires) == 2


@pytest.mark.parametrize("make", [lan, wan])
def test_a_request_whose_server_vanishes_before_the_first_token_goes_to_another(make: Any) -> None:
    world = make("a", "b", "c", serving="bc")
    world.feed("a", ask())
    first = servers(world, "a")[0]
    second = "c" if first == "b" else "b"
    world.answering.add(second)
    world.vanish(first)
    world.run_for(46 * SECOND)
    assert [report.server for report in world.of("a", ReportAttempt)][1] == world.id(second)
    assert content(world, "a") == "hello world"
    assert world.of("a", ReportFinished)[0].attempts == 2
    assert not world.of("a", ReportFailed)


def test_a_request_whose_server_vanishes_after_a_token_ends_with_an_honest_error() -> None:
    world = lan("a", "b", "c", serving="bc")
    world.feed("a", ask())
    first = servers(world, "a")[0]
    world.feed(first, GenerationChunk(1, chunk("half")))
    world.vanish(first)
    world.run_for(46 * SECOND)
    assert content(world, "a") == "half"
    [failed] = world.of("a", ReportFailed)
    assert failed.failure is Failure.PEER_LOST
    assert "three heartbeats missed" in failed.message
    assert len(world.of("a", ReportAttempt)) == 1


def test_a_peer_that_vanishes_is_degraded_and_then_lost_within_three_heartbeats() -> None:
    world = lan("a", "b", serving="b")
    at = world.now
    world.vanish("b")
    world.run_until(at + 46 * SECOND)
    states = [report.state for report in world.of("a", ReportPeer)]
    assert states == [PeerState.CONNECTED, PeerState.DEGRADED, PeerState.LOST]
    assert world.node("a").peers() == ()


def test_peers_stay_connected_as_long_as_both_live() -> None:
    world = lan("a", "b")
    world.run_for(3600 * SECOND)
    assert [report.state for report in world.of("a", ReportPeer)] == [PeerState.CONNECTED]
    status = world.node("a").peers()[0]
    assert status.silent_seconds <= 15
    assert status.round_trip_ms == 0


def test_a_node_that_stops_says_good_bye() -> None:
    world = lan("a", "b", serving="b")
    world.feed("a", ask())
    world.feed("b", StopRequested())
    assert world.of("a", ReportPeer)[-1].state is PeerState.LOST
    assert world.of("a", ReportPeer)[-1].reason == "it said good-bye"
    assert [report.failure for report in world.of("a", ReportFailed)] == [Failure.UNAVAILABLE]
    assert world.of("b", CancelGeneration)
    with pytest.raises(LocalError, match="stopping"):
        world.feed("b", ask())


def test_a_stopping_node_ends_its_own_requests_and_leaves_the_relay() -> None:
    world = wan("a", "b", serving="b")
    world.feed("a", ask())
    world.feed("a", StopRequested())
    assert [report.failure for report in world.of("a", ReportFailed)] == [Failure.UNAVAILABLE]
    assert world.of("b", CancelGeneration)
    assert world.node("a").status().wan is RelayState.OFF
    assert world.of("b", ReportPeer)[-1].state is PeerState.LOST


def test_a_cancelled_request_stops_the_work() -> None:
    world = lan("a", "b", serving="b")
    world.feed("a", ask())
    world.feed("a", CancelAsk("r"))
    assert world.of("b", CancelGeneration) == [CancelGeneration(1)]
    assert [report.failure for report in world.of("a", ReportFailed)] == [Failure.CANCELLED]
    world.feed("b", GenerationChunk(1, chunk("late")))
    world.feed("b", GenerationFinished(1, 1, 1))
    assert not world.of("a", ReportChunk)
    world.feed("a", CancelAsk("r"))
    world.feed("a", CancelAsk("never heard of"))
    assert len(world.of("a", ReportFailed)) == 1


def test_a_request_that_takes_too_long_ends_and_stops_the_work() -> None:
    world = lan("a", "b", serving="b")
    world.feed("a", ask(timeout=20 * SECOND))
    world.run_for(21 * SECOND)
    assert [report.failure for report in world.of("a", ReportFailed)] == [Failure.TIMEOUT]
    assert world.of("b", CancelGeneration)


def test_an_asker_that_goes_away_stops_the_work() -> None:
    world = lan("a", "b", serving="b")
    world.feed("a", ask())
    world.unreachable.update("ab")
    world.cut("a")
    world.run_for(GRACE - 1)
    assert world.node("b").status().running == 1, "it may come back"
    world.run_for(1)
    assert world.of("b", CancelGeneration) == [CancelGeneration(1)]
    assert world.node("b").status().running == 0


def test_a_backend_that_fails_before_the_first_token_is_not_the_end() -> None:
    world = lan("a", "b", "c", serving="bc")
    world.feed("a", ask())
    first = servers(world, "a")[0]
    world.answering.add("c" if first == "b" else "b")
    world.feed(first, GenerationFailed(1, Failure.INTERNAL_ERROR, "out of memory"))
    assert content(world, "a") == "hello world"
    assert world.of("a", ReportFinished)[0].attempts == 2


def test_a_backend_that_fails_after_the_first_token_is() -> None:
    world = lan("a", "b", "c", serving="bc")
    world.feed("a", ask())
    first = servers(world, "a")[0]
    world.feed(first, GenerationChunk(1, chunk("half")))
    world.feed(first, GenerationFailed(1, Failure.INTERNAL_ERROR, "out of memory"))
    [failed] = world.of("a", ReportFailed)
    assert (failed.failure, failed.message) == (Failure.INTERNAL_ERROR, "out of memory")


def test_an_invalid_request_is_not_tried_elsewhere() -> None:
    world = lan("a", "b", "c", serving="bc")
    world.feed("a", ask())
    world.feed(servers(world, "a")[0], GenerationFailed(1, Failure.INVALID_REQUEST, "temperature is a number"))
    [failed] = world.of("a", ReportFailed)
    assert (failed.failure, failed.attempts) == (Failure.INVALID_REQUEST, 1)


def test_a_request_is_tried_a_few_times_and_then_fails_with_every_reason() -> None:
    names = "abcdefg"
    world = lan(*names, serving=names[1:])
    world.feed("a", ask())
    for _ in range(ATTEMPTS_MAX):
        world.feed(servers(world, "a")[-1], GenerationFailed(1, Failure.INTERNAL_ERROR, "broken"))
    [failed] = world.of("a", ReportFailed)
    assert failed.attempts == ATTEMPTS_MAX
    assert len(set(servers(world, "a"))) == ATTEMPTS_MAX


def test_when_all_have_failed_the_error_names_their_reasons() -> None:
    world = lan("a", "b", serving="b")
    world.feed("a", ask())
    world.feed("b", GenerationFailed(1, Failure.INTERNAL_ERROR, "broken"))
    [failed] = world.of("a", ReportFailed)
    assert failed.failure is Failure.UNAVAILABLE
    assert failed.message == f"no node could answer ({world.id('b')[:8]}: broken)"


def test_a_local_backend_that_fails_is_replaced_by_a_peer() -> None:
    world = lan("a", "b", serving="ab")
    world.answering.add("b")
    world.feed("a", ask())
    world.feed("a", GenerationFailed(1, Failure.INTERNAL_ERROR, "the model process died"))
    assert servers(world, "a") == ["a", "b"]
    assert content(world, "a") == "hello world"


def test_a_model_that_nobody_has_is_said_to_be_missing_at_once() -> None:
    world = lan("a", "b")
    world.feed("a", ask(model="gpt-5"))
    [failed] = world.of("a", ReportFailed)
    assert (failed.failure, failed.attempts) == (Failure.MODEL_NOT_LOADED, 0)
    assert "'gpt-5'" in failed.message


def test_a_model_that_nobody_at_the_relay_has_is_said_to_be_missing_as_soon_as_the_relay_has_said_so() -> None:
    world = wan("a", "b")
    world.run_for(14 * SECOND)
    world.feed("a", ask(model="gpt-5"))
    assert world.of("a", ReportFailed)[0].failure is Failure.MODEL_NOT_LOADED
    for number in range(3):
        world.feed("a", ask(f"again {number}", model="gpt-5"))
    assert len(world.of("a", ReportFailed)) < 4, "the relay is asked again when it may be"
    world.run_for(PATIENCE)
    assert len(world.of("a", ReportFailed)) == 4


def test_a_node_that_came_after_the_last_listing_is_found_for_a_request() -> None:
    world = wan("a", "b")
    world.run_for(3 * SECOND)
    world.add_node("late", 9, models=("m",), **WAN)
    world.answering.add("late")
    world.start("late")
    world.feed("a", ask())
    world.run_for(11 * SECOND)
    assert content(world, "a") == "hello world"


def test_a_request_waits_for_the_relay_to_connect() -> None:
    world = World()
    world.add_relay()
    world.add_node("b", 2, models=("m",), **WAN)
    world.answering.add("b")
    world.start("b")
    world.add_node("a", 1, **WAN)
    world._busy = True  # hold back what follows from Started
    world._queue.append(("a", Started(1)))
    world._queue.append(("a", ask()))
    world._busy = False
    world.feed("b", LoadedModelsChanged(("m",)))
    world.run_for(12 * SECOND)
    assert content(world, "a") == "hello world"


def test_a_model_whose_only_node_has_gone_is_unavailable_and_not_unknown() -> None:
    world = lan("a", "b", serving="b")
    world.cut("b")
    world.unreachable.add("b")
    world.feed("a", ask())
    assert not world.of("a", ReportFailed), "it may come back at once"
    world.run_for(2 * SECOND)
    [failed] = world.of("a", ReportFailed)
    assert failed.failure is Failure.UNAVAILABLE
    assert "none of them can be reached now" in failed.message


def test_without_its_relay_a_node_says_that_this_is_why() -> None:
    world = World()
    world.add_node("a", 1, **WAN)
    world.start("a")
    world.feed("a", ask())
    [failed] = world.of("a", ReportFailed)
    assert failed.failure is Failure.UNAVAILABLE
    assert "the relay is not connected (connection refused)" in failed.message


def test_when_every_queue_is_full_the_error_says_so() -> None:
    world = lan("a", serving="a", queue_max=1)
    for number in range(3):
        world.feed("a", ask(f"r{number}"))
    [failed] = world.of("a", ReportFailed)
    assert failed.failure in (Failure.QUEUE_FULL, Failure.UNAVAILABLE)
    assert failed.request == "r2"
    status = world.node("a").status()
    assert (status.running, status.queue_depth, status.asked) == (1, 1, 2)


def test_a_peer_with_a_full_queue_refuses_and_another_is_asked() -> None:
    world = lan("a", "b", "c", serving="bc", queue_max=1)
    for node in "bc":
        for number in range(2):
            world.feed(node, ask(f"own-{number}"))
    world.feed("a", ask())
    assert sorted(servers(world, "a")) == ["b", "c"]
    [failed] = world.of("a", ReportFailed)
    assert failed.failure is Failure.QUEUE_FULL
    assert "queue of this node is full" in failed.message


def test_askers_take_turns_at_a_busy_node() -> None:
    world = lan("a", "b", "c", serving="c")
    for number in range(3):
        world.feed("a", ask(f"a{number}"))
    world.feed("b", ask("b0"))
    for job in range(1, 5):
        world.answer("c", world.generations["c"][job - 1])
    assert [generation.job for generation in world.generations["c"]] == [1, 2, 4, 3]


def test_one_asker_cannot_fill_the_queue_against_the_others() -> None:
    world = lan("a", "b", "c", serving="c", queue_max=8)
    for number in range(8):
        world.feed("a", ask(f"a{number}"))
    assert world.node("c").status().queue_depth == 4
    for number in range(4):
        world.feed("b", ask(f"b{number}"))
    assert world.node("c").status().queue_depth == 6
    assert not [failed for failed in world.of("b", ReportFailed) if failed.request == "b0"]


def test_speed_is_learnt_and_told() -> None:
    world = lan("a", "b", serving="b")
    world.feed("a", ask())
    world.run_for(SECOND)
    world.answer("b", world.generations["b"][0], *"0123456789")
    world.run_for(16 * SECOND)
    assert world.node("a").peers()[0].tokens_per_second == pytest.approx(10.0)
    assert not world.node("a").peers()[0].in_flight


def test_a_model_that_comes_and_goes_is_known_to_all_at_once() -> None:
    world = lan("a", "b")
    world.feed("b", LoadedModelsChanged(("m",)))
    assert world.node("a").peers()[0].loaded_models == ("m",)
    assert world.advertised["b"].record.models == ("m",)
    world.feed("b", LoadedModelsChanged(()))
    world.feed("a", ask())
    assert world.of("a", ReportFailed)[0].failure is Failure.MODEL_NOT_LOADED


def test_a_request_for_a_model_that_has_just_been_unloaded_goes_elsewhere() -> None:
    world = lan("a", "b", serving="b")
    node = world.node("b")
    node._exchange.models = ()
    world.feed("a", ask())
    [failed] = world.of("a", ReportFailed)
    assert "has not loaded the model" in failed.message


def test_explain_names_every_candidate_and_changes_nothing() -> None:
    world = lan("a", "b", "c", serving="bc")
    before = world.node("a").deadline
    explanation = world.node("a").explain("m", world.rng)
    assert {candidate.display_name for candidate in explanation.candidates} == {"a", "b", "c"}
    assert sum(candidate.won for candidate in explanation.candidates) == 1
    assert world.node("a").deadline == before


def test_illegal_commands_are_refused_before_anything_changed() -> None:
    node = Node(NodeConfig(display_name="a"), identity(1), World().rng, unix_time_at_zero=UNIX_TIME_AT_ZERO)
    with pytest.raises(LocalError, match="has not started"):
        node.handle(ask(), 0)
    node.handle(Started(1), 10)
    with pytest.raises(LocalError, match="starts once"):
        node.handle(Started(1), 10)
    with pytest.raises(LocalError, match="time ran backwards"):
        node.handle(Started(1), 9)
    with pytest.raises(LocalError, match="at least one"):
        Node(NodeConfig(display_name="a", queue_max=0), identity(1), World().rng, unix_time_at_zero=0)
    with pytest.raises(LocalError, match="heartbeat"):
        Node(NodeConfig(display_name="a", heartbeat=1), identity(1), World().rng, unix_time_at_zero=0)


def test_one_request_id_is_under_way_once_and_not_too_many_are() -> None:
    world = lan("a", serving="a", queue_max=5000)
    world.feed("a", ask())
    with pytest.raises(LocalError, match="already under way"):
        world.node("a").handle(ask(), world.now)
    with pytest.raises(LocalError, match="bytes where"):
        world.node("a").handle(ask("big", body=b"x" * (BODY_MAX + 1)), world.now)
    for number in range(ASKS_MAX - 1):
        world.feed("a", ask(f"r{number}"))
    with pytest.raises(LocalError, match="1024 requests"):
        world.node("a").handle(ask("one more"), world.now)


def test_what_is_said_of_connections_that_are_no_more_is_ignored() -> None:
    world = lan("a")
    node = world.node("a")
    for event in (
        ConnectionOpened(99),
        ConnectFailed(99, "x"),
        DataReceived(99, b"x"),
        ConnectionClosed(99, "x"),
        PongReceived(99),
        GenerationChunk(9, b"{}"),
        GenerationFinished(9, 1, 1),
        GenerationFailed(9, Failure.INTERNAL_ERROR, "x"),
    ):
        assert node.handle(event, world.now) == []


def test_addresses_are_shown_as_people_write_them() -> None:
    world = World()
    world.add_node("c", 3, lan_encrypted=False)
    world.start("c")
    world.feed("c", ConnectionAccepted(2, Address("fe80::1", 5), Address("::", 1)))
    world.feed("c", DataReceived(2, frame(b'{"hello":{"deviceInfo":{"id":"u","name":"x","hardware":{}}}}')))
    assert world.node("c").peers()[0].address == "[fe80::1]:5"
