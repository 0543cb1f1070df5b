"""What passes between two nodes through a relay, and what does not."""

import pytest

from teale_proto.contract import SECOND, Duration
from teale_proto.inputs import WAKE
from teale_proto.relay.server import RelayServer
from teale_proto.relay.switch import Switch
from teale_proto.wire.relay import (
    RELAY_CODEC,
    Answer,
    Candidate,
    ConnectionInfo,
    DiscoverResponse,
    Error,
    IceCandidate,
    Offer,
    PeerJoined,
    PeerLeft,
    RegisterAck,
    RegisterChallenge,
    RelayClose,
    RelayData,
    RelayMessage,
    RelayOpen,
    RelayReady,
)
from tests.proto.relay.relays import ALICE, BOB, CAROL, MALLORY, RawNode, Relay

TO_BOB = (ALICE.node_id, BOB.node_id, "s")
TO_ALICE = (BOB.node_id, ALICE.node_id, "s")
INFO = ConnectionInfo("203.0.113.9", 5000, "10.0.0.9", 5000, "fullCone")


def pair() -> tuple[Relay, RawNode, RawNode]:
    relay = Relay()
    return relay, relay.node(ALICE), relay.node(BOB)


def opened() -> tuple[Relay, RawNode, RawNode]:
    """Return a relay and two nodes with an open session."""
    relay, alice, bob = pair()
    alice.say(RelayOpen(*TO_BOB))
    bob.say(RelayReady(*TO_ALICE))
    alice.take()
    bob.take()
    return relay, alice, bob


def count(relay: Relay) -> int:
    return relay.server.metrics(relay.now).sessions


def test_a_session_is_opened_taken_up_used_and_closed() -> None:
    relay, alice, bob = pair()
    alice.say(RelayOpen(*TO_BOB))
    assert bob.take() == [RelayOpen(*TO_BOB)]
    bob.say(RelayReady(*TO_ALICE))
    assert alice.take() == [RelayReady(*TO_ALICE)]
    alice.say(RelayData(*TO_BOB, b"question"))
    assert bob.take() == [RelayData(*TO_BOB, b"question")]
    bob.say(RelayData(*TO_ALICE, b"answer"))
    assert alice.take() == [RelayData(*TO_ALICE, b"answer")]
    bob.say(RelayClose(*TO_ALICE))
    assert alice.take() == [RelayClose(*TO_ALICE)]
    assert bob.take() == []
    assert count(relay) == 0


@pytest.mark.parametrize(
    "message",
    [
        Offer(*TO_BOB, INFO, "00"),
        Answer(*TO_BOB, INFO, "00"),
        IceCandidate(*TO_BOB, Candidate("10.0.0.9", 5000, "host", 7)),
    ],
)
def test_signals_are_passed_on_as_they_are(message: RelayMessage) -> None:
    _, alice, bob = pair()
    alice.say(message)
    assert bob.take() == [message]
    assert alice.take() == []


@pytest.mark.parametrize("message", [Offer(*TO_BOB, INFO, "00"), RelayOpen(*TO_BOB)])
def test_a_node_that_is_not_there_cannot_be_reached(message: RelayMessage) -> None:
    relay = Relay()
    alice = relay.node(ALICE)
    alice.say(message)
    assert alice.take() == [Error("peer_not_found", "that node is not registered here", session_id="s")]
    assert count(relay) == 0
    assert alice.closed is None


@pytest.mark.parametrize(
    "message",
    [
        Offer(*TO_BOB, INFO, "00"),
        RelayOpen(*TO_BOB),
        RelayReady(*TO_BOB),
        RelayData(*TO_BOB, b"forged"),
        RelayClose(*TO_BOB),
    ],
)
def test_nothing_passes_that_names_another_sender(message: RelayMessage) -> None:
    relay, alice, bob = opened()
    mallory = relay.node(MALLORY)
    mallory.say(message)
    assert mallory.take() == [Error("invalid_message", "the message names another node as its sender")]
    assert alice.take() == bob.take() == []
    assert count(relay) == 1


def test_data_passes_only_in_an_open_session() -> None:
    _, alice, bob = pair()
    alice.say(RelayData(*TO_BOB, b"early"))
    alice.say(RelayOpen(*TO_BOB))
    alice.say(RelayData(*TO_BOB, b"early too"))
    assert bob.take() == [RelayOpen(*TO_BOB)]
    assert alice.take() == [Error("invalid_message", "there is no such open session", session_id="s")] * 2


def test_data_passes_only_between_the_two_that_the_session_is_of() -> None:
    relay, alice, bob = opened()
    mallory = relay.node(MALLORY)
    for message in (
        RelayData(MALLORY.node_id, BOB.node_id, "s", b"intruding"),
        RelayReady(MALLORY.node_id, BOB.node_id, "s"),
    ):
        mallory.say(message)
        assert mallory.take() == [Error("invalid_message", "there is no such open session", session_id="s")]
    mallory.say(RelayClose(MALLORY.node_id, BOB.node_id, "s"))
    alice.say(RelayData(ALICE.node_id, MALLORY.node_id, "s", b"astray"))
    assert bob.take() == mallory.take() == []
    assert alice.take() == [Error("invalid_message", "there is no such open session", session_id="s")]
    assert count(relay) == 1


def test_only_the_other_side_takes_a_session_up() -> None:
    _, alice, bob = pair()
    alice.say(RelayOpen(*TO_BOB))
    bob.take()
    alice.say(RelayReady(*TO_BOB))
    assert alice.last.code == "invalid_message"
    assert bob.take() == []


def test_a_session_is_taken_up_once() -> None:
    _, alice, bob = opened()
    bob.say(RelayReady(*TO_ALICE))
    assert alice.take() == bob.take() == []


def test_a_session_id_that_is_taken_is_refused() -> None:
    relay, alice, bob = opened()
    carol = relay.node(CAROL)
    carol.say(RelayOpen(CAROL.node_id, BOB.node_id, "s"))
    bob.say(RelayOpen(*TO_ALICE))
    refusal = Error("session_refused", "the session's id is taken", session_id="s")
    assert carol.take() == bob.take() == [refusal]
    assert alice.take() == []


def test_who_opened_a_session_may_open_it_anew() -> None:
    relay, alice, bob = opened()
    alice.say(RelayOpen(*TO_BOB))
    assert bob.take() == [RelayOpen(*TO_BOB)]
    alice.say(RelayData(*TO_BOB, b"not taken up yet"))
    assert bob.take() == []
    bob.say(RelayReady(*TO_ALICE))
    alice.say(RelayData(*TO_BOB, b"now"))
    assert bob.take() == [RelayData(*TO_BOB, b"now")]
    assert count(relay) == 1


def test_a_session_needs_two_nodes() -> None:
    relay, alice, _ = pair()
    alice.say(RelayOpen(ALICE.node_id, ALICE.node_id, "s"))
    assert alice.take() == [Error("invalid_message", "a session needs two nodes", session_id="s")]
    assert count(relay) == 0


def test_to_close_what_is_not_open_is_no_offence() -> None:
    _, alice, bob = pair()
    alice.say(RelayClose(*TO_BOB))
    assert alice.take() == bob.take() == []


def test_a_session_that_nobody_takes_up_ends_for_both() -> None:
    relay, alice, bob = pair()
    alice.say(RelayOpen(*TO_BOB))
    bob.take()
    relay.advance(15 * SECOND - 1)
    assert count(relay) == 1
    relay.advance(1)
    assert alice.take() == [RelayClose(*TO_ALICE)]
    assert bob.take() == [RelayClose(*TO_BOB)]
    assert count(relay) == 0


def pass_time(duration: Duration, relay: Relay, *alive: RawNode) -> None:
    """Let time pass while the nodes ping."""
    until = relay.now + duration
    while relay.now < until:
        relay.advance(min(25 * SECOND, until - relay.now))
        for node in alive:
            node.ping()


def test_a_session_that_is_not_used_ends_for_both() -> None:
    relay, alice, bob = opened()
    for _ in range(3):
        pass_time(100 * SECOND, relay, alice, bob)
        alice.say(RelayData(*TO_BOB, b"still here"))
    assert bob.take() == [RelayData(*TO_BOB, b"still here")] * 3
    pass_time(120 * SECOND - 1, relay, alice, bob)
    assert count(relay) == 1
    pass_time(1, relay, alice, bob)
    assert alice.take() == [RelayClose(*TO_ALICE)]
    assert bob.take() == [RelayClose(*TO_BOB)]
    assert count(relay) == 0


@pytest.mark.parametrize("how", ["hang up", "replaced"])
def test_a_node_that_goes_away_ends_its_sessions(how: str) -> None:
    relay, alice, bob = opened()
    carol = relay.node(CAROL)
    carol.say(RelayOpen(CAROL.node_id, ALICE.node_id, "other"))
    if how == "hang up":
        alice.hang_up()
    else:
        relay.node(ALICE)
    assert bob.take() == [RelayClose(*TO_BOB)]
    assert carol.take() == [RelayClose(ALICE.node_id, CAROL.node_id, "other")]
    assert count(relay) == 0


@pytest.mark.parametrize(
    "message",
    [
        RegisterChallenge("00"),
        RegisterAck(ALICE.node_id, 0.0, 300),
        DiscoverResponse(()),
        PeerJoined(BOB.node_id),
        PeerLeft(BOB.node_id),
        Error("replaced", "go away"),
    ],
)
def test_what_only_a_relay_says_is_refused(message: RelayMessage) -> None:
    _, alice, bob = pair()
    alice.say(message)
    assert alice.take() == [Error("invalid_message", "only a relay sends that")]
    assert bob.take() == []


def test_an_unknown_kind_is_refused_and_forgiven() -> None:
    _, alice, _ = pair()
    for _ in range(30):
        alice.say_json({"type": "teleport", "payload": {}})
    assert {message.code for message in alice.take() if isinstance(message, Error)} == {"unsupported_message"}
    assert alice.closed is None


def test_malformed_json_and_malformed_messages_have_different_codes() -> None:
    _, alice, _ = pair()
    alice.say_bytes(b'{"type":"relayOpen",')
    assert alice.last.code == "invalid_json"
    alice.say_bytes(b"\xff\xfe")
    assert alice.last.code == "invalid_json"
    alice.say_bytes(b"[" * 100_000)
    assert alice.last.code == "invalid_json"
    alice.say_json({"type": "relayOpen", "payload": {"fromNodeID": 7}})
    assert alice.last.code == "invalid_message"
    alice.say_json({"relayOpen": {}, "relayClose": {}})
    assert alice.last.code == "invalid_message"


def test_every_message_has_its_handler() -> None:
    assert RelayServer._ON.keys() | Switch._ON.keys() == RELAY_CODEC.kinds.keys()
    assert not RelayServer._ON.keys() & Switch._ON.keys()


def test_a_spurious_wake_does_nothing() -> None:
    relay, *_ = opened()
    deadline = relay.server.deadline
    assert relay.feed(WAKE) == []
    assert relay.server.deadline == deadline
