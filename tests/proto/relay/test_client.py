"""A relay client: how it gets registered, stays so, and comes back."""

from itertools import product

import pytest

from teale_proto.contract import NEVER, SECOND
from teale_proto.effects import CloseConnection, Connect, RelayState, ReportRelay, SendPing, SendText, WebSocketUrl
from teale_proto.errors import LocalError
from teale_proto.inputs import StopRequested
from teale_proto.relay.client import PeersListed, Refused, Registered, RelayTimer
from teale_proto.relay.client_states import NEXT_STATE, RelayTrigger, relay_url
from teale_proto.relay.server import RelayServerConfig
from teale_proto.wire.codec import Flavour
from teale_proto.wire.relay import RELAY_CODEC, Capabilities, DiscoverFilter, Hardware, Register
from tests.proto.relay.relays import (
    ALICE,
    BOB,
    CAPABILITIES,
    HOST,
    LEGACY,
    MALLORY,
    REMOTE,
    ClientNode,
    RawNode,
    Relay,
    registration,
)
from tests.proto.relay.scripted import ScriptedRelay


@pytest.mark.parametrize("config", [RelayServerConfig(names=(HOST,)), LEGACY])
def test_a_client_proves_its_key_and_is_registered(config: RelayServerConfig) -> None:
    relay = Relay(config)
    alice = relay.client(ALICE)
    assert alice.states == ["connecting", "registering", "connected"]
    assert alice.take_news() == [Registered(REMOTE.host)]
    assert [listing.proved for listing in relay.server.listings()] == [True]


def test_a_client_dials_with_its_node_id() -> None:
    alice = Relay().client(ALICE)
    assert alice.effects[1] == Connect(1, WebSocketUrl(f"ws://{HOST}/ws?node={ALICE.node_id}"))


@pytest.mark.parametrize(
    ("url", "dialled"),
    [
        ("wss://r.test/ws", "wss://r.test/ws?node=N"),
        ("ws://r.test:8080", "ws://r.test:8080/?node=N"),
        ("ws://[::1]:8080/ws", "ws://[::1]:8080/ws?node=N"),
        ("wss://r.test/ws?token=a%26b&x=", "wss://r.test/ws?token=a%26b&x=&node=N"),
        ("wss://r.test/ws?node=old#fragment", "wss://r.test/ws?node=N"),
    ],
)
def test_the_node_id_goes_into_the_query(url: str, dialled: str) -> None:
    assert relay_url(url, ALICE.node_id) == dialled.replace("N", ALICE.node_id)


@pytest.mark.parametrize("url", ["https://r.test/ws", "r.test", "ws://", "ws://[::1/ws", ""])
def test_a_url_that_is_no_websocket_s_is_our_mistake(url: str) -> None:
    with pytest.raises(LocalError, match="looks like"):
        ClientNode(Relay(), ALICE, url=url)


def test_every_state_and_trigger_leads_somewhere_or_is_refused() -> None:
    expected = """
                 start       retry       opened       acknowledged  lost     stop
    off          connecting  -           -            -             -        -
    connecting   -           -           registering  -             waiting  off
    registering  -           -           -            connected     waiting  off
    connected    -           -           -            -             waiting  off
    waiting      -           connecting  -            -             -        off
    """
    header, *rows = (line.split() for line in expected.strip().splitlines())
    table = {
        (RelayState(row[0]), RelayTrigger(trigger)): RelayState(to)
        for row in rows
        for trigger, to in zip(header, row[1:], strict=True)
        if to != "-"
    }
    assert table == NEXT_STATE
    assert {key[0] for key in product(RelayState, RelayTrigger)} == {key[0] for key in NEXT_STATE}


def test_a_step_that_is_illegal_raises_and_changes_nothing() -> None:
    alice = ClientNode(Relay(), ALICE)
    for step in (alice.client.opened, lambda now, out: alice.client.closed("", now, out)):
        with pytest.raises(LocalError, match="makes no sense"):
            step(0, alice.effects)
    alice.client.start(0, alice.effects)
    effects = list(alice.effects)
    with pytest.raises(LocalError, match="start makes no sense to a relay client that is connecting"):
        alice.client.start(0, alice.effects)
    assert alice.effects == effects


# Connections that fail.


def test_attempts_are_repeated_after_one_second_to_a_minute() -> None:
    relay = Relay()
    relay.is_reachable = False
    alice = relay.client(ALICE)
    relay.advance(600 * SECOND)
    waits = [e.retry_in for e in alice.effects if isinstance(e, ReportRelay) and e.retry_in is not None]
    assert len(waits) > 10
    for step, wait in zip((1, 2, 4, 8, 16, 30, 30, 30), waits, strict=False):
        assert step * SECOND <= wait <= 2 * step * SECOND
    assert (alice.client.state, alice.client.reason) == (RelayState.WAITING, "unreachable")
    relay.is_reachable = True
    relay.advance(60 * SECOND)
    assert (alice.client.state, alice.client.reason) == (RelayState.CONNECTED, "")


def test_the_reason_stays_while_another_attempt_is_made() -> None:
    relay = ScriptedRelay(ALICE)
    relay.client.failed("no route", 0, relay.out)
    relay.advance(2 * SECOND)
    assert (relay.client.state, relay.client.reason) == (RelayState.CONNECTING, "no route")


def test_a_thousand_nodes_do_not_come_back_in_one_instant() -> None:
    waits = set()
    for seed in range(20):
        relay = Relay()
        relay.is_reachable = False
        alice = relay.client(ALICE, seed=seed)
        relay.advance(10 * SECOND)
        waits.add(alice.timers.deadline)
    assert len(waits) == 20


def test_only_a_registration_that_holds_makes_the_next_failure_a_first_one() -> None:
    relay = ScriptedRelay(ALICE)
    waits = []
    for held in (0, 0, 0, 29, 0, 31, 0):
        relay.accept()
        relay.acknowledge()
        for _ in range(held):
            relay.advance(SECOND)
        relay.client.closed("reset", relay.now, relay.out)
        report = relay.out[-1]
        assert isinstance(report, ReportRelay)
        assert report.retry_in is not None
        waits.append(report.retry_in / SECOND)
        relay.advance(report.retry_in)
    for wait, step in zip(waits, (1, 2, 4, 8, 16, 1, 2), strict=True):
        assert step <= wait <= 2 * step


def test_a_driver_that_never_answers_is_not_waited_for() -> None:
    relay = ScriptedRelay(ALICE)
    relay.advance(15 * SECOND)
    assert CloseConnection(1, "the relay does not answer") in relay.out
    assert relay.client.connection is None
    relay.advance(2 * SECOND)
    assert relay.client.connection == 3


def test_a_relay_that_does_not_acknowledge_is_given_up_after_ten_seconds() -> None:
    relay = ScriptedRelay(ALICE)
    relay.accept()
    relay.advance(10 * SECOND - 1)
    assert relay.client.connection == 1
    relay.advance(1)
    assert relay.client.state is RelayState.WAITING
    assert CloseConnection(1, "the relay did not acknowledge our registration") in relay.out


def test_pings_go_out_every_25_seconds_and_silence_is_noticed_after_60() -> None:
    relay = ScriptedRelay(ALICE)
    relay.accept()
    relay.acknowledge()
    relay.advance(60 * SECOND - 1)
    assert relay.out.count(SendPing(1)) == 2
    assert relay.client.connection == 1
    relay.advance(1)
    assert relay.client.state is RelayState.WAITING
    assert relay.client.reason == "the relay has fallen silent"


def test_after_a_change_of_network_the_relay_has_five_seconds_to_answer_a_ping() -> None:
    relay = ScriptedRelay(ALICE)
    relay.accept()
    relay.acknowledge()
    relay.advance(10 * SECOND)
    relay.client.network_changed(relay.now, relay.out)
    relay.advance(2 * SECOND)
    relay.client.ponged(relay.now)
    relay.advance(10 * SECOND)
    assert relay.client.state is RelayState.CONNECTED
    relay.client.network_changed(relay.now, relay.out)
    relay.advance(5 * SECOND)
    assert relay.client.connection is None
    assert relay.client.reason == "the relay does not answer since the network changed"
    relay.client.network_changed(relay.now, relay.out)
    relay.advance(1)
    assert relay.client.connection is not None, "another network is a reason to wait no longer"


@pytest.mark.parametrize("sign", ["pong", "data", "nonsense"])
def test_any_sign_of_life_counts(sign: str) -> None:
    relay = ScriptedRelay(ALICE)
    relay.accept()
    relay.acknowledge()
    for _ in range(3):
        relay.advance(59 * SECOND)
        match sign:
            case "pong":
                relay.client.ponged(relay.now)
            case "data":
                relay.say_bytes(b'{"type":"peerJoined","payload":{"nodeID":"%s"}}' % BOB.node_id.encode())
            case _:
                relay.say_bytes(b"?")
    assert relay.client.state is RelayState.CONNECTED


def test_a_relay_and_a_client_that_say_nothing_else_stay_together() -> None:
    relay = Relay()
    alice = relay.client(ALICE)
    relay.advance(3600 * SECOND)
    assert alice.states == ["connecting", "registering", "connected"]


# What the relay says for a good-bye.


def test_the_relay_s_refusal_is_the_reason_that_people_see() -> None:
    relay = Relay(RelayServerConfig(names=("other.test",)))
    alice = relay.client(ALICE)
    text = f'this relay does not go by "{HOST}": its operator must add that name to the relay\'s names'
    assert alice.take_news() == [Refused("invalid_register", text)]
    assert alice.client.reason == f"the relay says: {text}"


def test_a_replaced_client_says_why() -> None:
    relay = Relay()
    first = relay.client(ALICE, seed=1)
    relay.client(ALICE, seed=2)
    assert first.client.reason == "the relay says: the same node registered on another connection"


def test_a_relay_that_stops_is_tried_again() -> None:
    relay = Relay()
    alice = relay.client(ALICE)
    relay.feed(StopRequested())
    assert alice.client.reason == "the relay says: the relay is stopping"
    assert alice.client.state is RelayState.WAITING


def test_what_the_relay_says_is_shown_on_one_line() -> None:
    relay = ScriptedRelay(ALICE)
    relay.accept()
    relay.say_json({"type": "error", "payload": {"code": "odd\n", "message": "a\x1b[2Jb" + "c" * 1000}})
    (news,) = relay.news
    assert news == Refused("odd ", "a [2Jb" + "c" * 250)


# Stopping.


def test_a_client_that_stops_closes_its_connection_and_waits_for_nothing() -> None:
    relay = Relay()
    alice = relay.client(ALICE)
    alice.client.stop(relay.now, alice.effects)
    alice.carry_out()
    assert alice.effects[-2:] == [CloseConnection(1, "stopping"), ReportRelay(RelayState.OFF)]
    assert alice.timers.deadline == NEVER
    assert relay.server.health().peers == 0
    assert alice.client.stop(relay.now, alice.effects) == ()
    alice.start()
    assert alice.client.state is RelayState.CONNECTED


def test_a_client_can_be_stopped_while_it_waits() -> None:
    relay = Relay()
    relay.is_reachable = False
    alice = relay.client(ALICE)
    alice.client.stop(relay.now, alice.effects)
    assert alice.timers.deadline == NEVER
    assert alice.client.reason == ""


# What it offers and asks for.


def test_new_capabilities_are_told_at_once_and_only_once() -> None:
    relay = Relay()
    alice = relay.client(ALICE)
    changed = Capabilities(hardware=Hardware(), loaded_models=("huge",))
    for _ in range(2):
        alice.client.set_capabilities(changed, relay.now, alice.effects)
    alice.carry_out()
    assert [listing.loaded_models for listing in relay.server.listings()] == [("huge",)]
    assert sum(isinstance(effect, SendText) for effect in alice.effects) == 3


def test_capabilities_that_change_while_registering_are_told_afterwards() -> None:
    relay = ScriptedRelay(ALICE)
    relay.accept()
    changed = Capabilities(hardware=Hardware(), loaded_models=("huge",))
    relay.client.set_capabilities(changed, relay.now, relay.out)
    assert [message.capabilities for message in relay.said(Register)] == [CAPABILITIES]
    relay.acknowledge()
    assert [message.capabilities for message in relay.said(Register)] == [CAPABILITIES, changed]


def test_peers_can_be_asked_for_every_ten_seconds_and_once_in_between() -> None:
    relay = Relay()
    bob = relay.node(BOB)
    alice = relay.client(ALICE)
    wanted = DiscoverFilter(model_id="tiny")
    asked = []
    for _ in range(21):
        asked.append(alice.client.discover(wanted, relay.now, alice.effects))
        alice.carry_out()
        relay.advance(SECOND)
    assert [second for second, done in enumerate(asked) if done] == [0, 1, 10, 20]
    listings = [news.peers for news in alice.news if isinstance(news, PeersListed)]
    assert [[peer.node_id for peer in peers] for peers in listings] == [[bob.id]] * 4


def test_nobody_is_asked_while_the_relay_is_not_connected() -> None:
    relay = ScriptedRelay(ALICE)
    assert not relay.client.discover(None, 0, relay.out)
    relay.accept()
    assert not relay.client.discover(None, 0, relay.out)
    relay.acknowledge()
    assert relay.client.discover(None, 0, relay.out)
    assert relay.client.discover(None, 0, relay.out)
    assert not relay.client.discover(None, 0, relay.out)
    assert relay.client.discover_at == 10 * SECOND


def test_a_relay_that_wants_to_be_asked_later_is_asked_later() -> None:
    relay = ScriptedRelay(ALICE)
    relay.accept()
    relay.acknowledge()
    assert relay.client.discover(None, relay.now, relay.out)
    relay.say_json({"error": {"code": "rate_limited", "message": "later", "retryAfterSeconds": 42}})
    assert relay.take_news()[-1] == Refused("rate_limited", "later")
    relay.advance(42 * SECOND - 1)
    assert not relay.client.discover(None, relay.now, relay.out)
    relay.advance(1)
    assert relay.client.discover(None, relay.now, relay.out)


@pytest.mark.parametrize("seconds", ["1e300", "1000000"])
def test_a_relay_cannot_keep_us_waiting_for_ever(seconds: str) -> None:
    relay = ScriptedRelay(ALICE)
    relay.accept()
    relay.acknowledge()
    relay.say_bytes(b'{"error":{"code":"rate_limited","message":"","retryAfterSeconds":%b}}' % seconds.encode())
    for _ in range(300):
        relay.advance(SECOND)
        relay.client.ponged(relay.now)
    assert relay.client.discover(None, relay.now, relay.out)


# Relays that speak otherwise.


def test_a_deployed_relay_is_spoken_to_in_its_own_words() -> None:
    relay = ScriptedRelay(ALICE)
    relay.accept()
    relay.say_json({"registerAck": {"nodeID": ALICE.node_id, "registeredAt": 1.5, "ttlSeconds": 300}})
    relay.say_json({"peerJoined": {"nodeID": BOB.node_id, "displayName": "Bob"}})
    relay.say_json({"peerLeft": {"nodeID": BOB.node_id}})
    relay.say_json({"somethingNew": {}})
    assert relay.take_news() == [Registered()]
    relay.client.discover(DiscoverFilter(max_peers=5), relay.now, relay.out)
    assert relay.texts[-1] == (
        b'{"discover":{"requestingNodeID":"%s","filter":{"maxPeers":5}}}' % ALICE.node_id.encode()
    )


def test_a_swift_relay_is_answered_in_swift() -> None:
    relay = ScriptedRelay(ALICE)
    relay.accept()
    relay.say_json({"registerAck": {"_0": {"nodeID": ALICE.node_id, "registeredAt": 1.5, "ttlSeconds": 300}}})
    relay.client.discover(None, relay.now, relay.out)
    assert relay.texts[-1] == b'{"discover":{"_0":{"requestingNodeID":"%s"}}}' % ALICE.node_id.encode()


def test_a_relay_that_objects_to_the_documented_dialect_gets_the_one_that_it_objects_in() -> None:
    relay = ScriptedRelay(ALICE)
    relay.accept()
    relay.say_json({"error": {"code": "unsupported_message", "message": "unknown kind: type"}})
    assert relay.take_news() == []
    assert [RELAY_CODEC.decode(text)[1] for text in relay.texts] == [Flavour.DOCUMENTED, Flavour.DEPLOYED]
    relay.say_json({"error": {"code": "unsupported_message", "message": "still no"}})
    assert relay.take_news() == [Refused("unsupported_message", "still no")]


def test_a_relay_that_keeps_silent_is_tried_in_the_other_dialect() -> None:
    relay = ScriptedRelay(ALICE)
    for _ in range(3):
        relay.accept()
        relay.advance(15 * SECOND)
    flavours = [RELAY_CODEC.decode(text)[1] for text in relay.texts]
    assert flavours == [Flavour.DOCUMENTED, Flavour.DEPLOYED, Flavour.DOCUMENTED]


def test_a_relay_that_says_something_but_no_acknowledgement_keeps_its_dialect() -> None:
    relay = ScriptedRelay(ALICE)
    relay.accept()
    relay.say_json({"type": "news", "payload": {}})
    relay.advance(15 * SECOND)
    relay.accept()
    assert [RELAY_CODEC.decode(text)[1] for text in relay.texts] == [Flavour.DOCUMENTED] * 2


def test_the_timers_of_a_client_have_names() -> None:
    names = {"retry", "connect", "register", "settle", "ping", "silence", "check"}
    assert {timer.value for timer in RelayTimer} == names


def test_a_stolen_registration_ends_when_the_owner_comes() -> None:
    relay = Relay(LEGACY)
    mallory = RawNode(relay, MALLORY)
    mallory.say(registration(ALICE))
    assert mallory.kinds()[0] == "registerAck"
    alice = relay.client(ALICE)
    assert alice.client.state is RelayState.CONNECTED
    assert mallory.closed is not None
    mallory = RawNode(relay, MALLORY)
    mallory.say(registration(ALICE))
    assert mallory.kinds() == ["registerChallenge"]
    assert alice.client.state is RelayState.CONNECTED
