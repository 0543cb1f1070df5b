"""What a relay can do to a client: refuse, delay and drop, and nothing else."""

import pytest

from teale_proto.contract import SECOND
from teale_proto.effects import CloseConnection, RelayState, ReportRefusal
from teale_proto.inputs import NodeId
from teale_proto.relay.client import PeersListed, RelayClientConfig, SessionClosed, SessionData, SessionOpened
from teale_proto.relay.listings import salvaged
from teale_proto.wire.codec import Flavour
from teale_proto.wire.relay import (
    RELAY_CODEC,
    Candidate,
    Discover,
    DiscoverResponse,
    Error,
    IceCandidate,
    PeerListing,
    Register,
    RegisterAck,
    RegisterChallenge,
    RegisterProof,
    RelayClose,
    RelayData,
    RelayMessage,
    RelayOpen,
    RelayReady,
)
from tests.proto.relay.relays import ALICE, BOB, CAPABILITIES, CAROL, identity, registration
from tests.proto.relay.scripted import ScriptedRelay, connected

FROM_BOB = (BOB.node_id, ALICE.node_id, "s")


def listing(number: int) -> PeerListing:
    return entry(identity(number).node_id)


def entry(node: NodeId, public_key: NodeId | None = None) -> PeerListing:
    return PeerListing(node, public_key or node, "a node", CAPABILITIES, 0.0)


def with_session() -> ScriptedRelay:
    relay = connected(ALICE)
    relay.say(RelayOpen(*FROM_BOB))
    assert relay.take_news() == [SessionOpened("s", BOB.node_id, initiator=False)]
    relay.out.clear()
    return relay


@pytest.mark.parametrize(
    "message",
    [
        RelayOpen(BOB.node_id, CAROL.node_id, "new"),
        RelayOpen(ALICE.node_id, ALICE.node_id, "new"),
        RelayData(BOB.node_id, CAROL.node_id, "s", b"x"),
        RelayData(CAROL.node_id, ALICE.node_id, "s", b"x"),
        RelayData(ALICE.node_id, ALICE.node_id, "s", b"x"),
        RelayClose(CAROL.node_id, ALICE.node_id, "s"),
        RelayClose(BOB.node_id, CAROL.node_id, "s"),
        RelayClose(BOB.node_id, ALICE.node_id, "unknown"),
        RelayReady(*FROM_BOB),
        RelayReady(BOB.node_id, ALICE.node_id, "unknown"),
        RelayOpen(CAROL.node_id, ALICE.node_id, "s"),
        IceCandidate(BOB.node_id, CAROL.node_id, "s", Candidate("::1", 1, "host", 1)),
        RegisterAck(ALICE.node_id, 0.0, 1),
        DiscoverResponse((entry(BOB.node_id),)),
        Error("peer_not_found", "which one?", session_id="unknown"),
        registration(BOB),
        RegisterProof(BOB.node_id, "00"),
        Discover(BOB.node_id),
    ],
    ids=lambda message: type(message).__name__,
)
def test_what_is_not_for_us_or_not_true_changes_nothing(message: RelayMessage) -> None:
    relay = with_session()
    relay.say(message)
    assert relay.take_news() == []
    assert relay.out == []
    relay.say(RelayData(*FROM_BOB, b"still open"))
    assert relay.take_news() == [SessionData("s", BOB.node_id, b"still open")]


def test_an_acknowledgement_of_another_node_is_ignored() -> None:
    relay = ScriptedRelay(ALICE)
    relay.accept()
    relay.say(RegisterAck(BOB.node_id, 0.0, 300))
    assert relay.client.state is RelayState.REGISTERING


def test_nothing_is_passed_on_before_we_are_registered() -> None:
    relay = ScriptedRelay(ALICE)
    relay.accept()
    relay.out.clear()
    relay.say(RelayOpen(*FROM_BOB))
    assert relay.take_news() == []
    assert relay.out == []


def test_what_comes_while_there_is_no_connection_is_ignored() -> None:
    relay = ScriptedRelay(ALICE)
    relay.acknowledge()
    assert relay.client.state is RelayState.CONNECTING


def test_a_session_of_ours_answers_only_to_its_peer() -> None:
    relay = connected(ALICE)
    session = relay.client.open_session(BOB.node_id, relay.now, relay.out)
    relay.say(RelayReady(CAROL.node_id, ALICE.node_id, session))
    relay.say(RelayData(BOB.node_id, ALICE.node_id, session, b"early"))
    relay.say(RelayOpen(BOB.node_id, ALICE.node_id, session))
    assert relay.take_news() == []
    relay.say(RelayReady(BOB.node_id, ALICE.node_id, session))
    relay.say(RelayReady(BOB.node_id, ALICE.node_id, session))
    assert relay.take_news() == [SessionOpened(session, BOB.node_id, initiator=True)]


def test_data_of_an_unknown_session_is_answered_once() -> None:
    relay = connected(ALICE)
    for _ in range(3):
        relay.say(RelayData(*FROM_BOB, b"x"))
    assert relay.said(RelayClose) == [RelayClose(ALICE.node_id, BOB.node_id, "s")]
    assert relay.take_news() == []


def test_unknown_sessions_leave_little_behind() -> None:
    relay = connected(ALICE)
    for number in range(1000):
        relay.say(RelayData(BOB.node_id, ALICE.node_id, f"s{number}", b"x"))
    assert len(relay.client._sessions._dismissed) == 256


def test_others_open_so_many_sessions_and_no_more() -> None:
    relay = connected(ALICE)
    for number in range(300):
        relay.say(RelayOpen(identity(1000 + number).node_id, ALICE.node_id, f"s{number}"))
    opened = [news for news in relay.take_news() if isinstance(news, SessionOpened)]
    assert len(opened) == 256
    assert len(relay.said(RelayClose)) == 44
    relay.say(RelayOpen(identity(1299).node_id, ALICE.node_id, "s299"))
    assert len(relay.said(RelayClose)) == 44
    relay.say(RelayClose(identity(1000).node_id, ALICE.node_id, "s0"))
    relay.say(RelayOpen(identity(1299).node_id, ALICE.node_id, "s299"))
    assert [type(news) for news in relay.take_news()] == [SessionClosed, SessionOpened]


def test_a_session_that_cannot_be_opened_anew_is_closed() -> None:
    relay = connected(ALICE, config=RelayClientConfig(sessions_max=1))
    relay.say(RelayOpen(*FROM_BOB))
    relay.say(RelayOpen(*FROM_BOB))
    assert [type(news) for news in relay.take_news()] == [SessionOpened, SessionClosed, SessionOpened]


def test_challenges_are_answered_so_many_times() -> None:
    relay = ScriptedRelay(ALICE)
    relay.accept()
    for _ in range(10):
        relay.say(RegisterChallenge("ab" * 32))
    assert len(relay.said(RegisterProof)) == 4


def test_listings_name_each_node_once_and_never_ourselves_nor_a_foreign_key() -> None:
    relay = connected(ALICE)
    relay.client.discover(None, relay.now, relay.out)
    bob, carol = entry(BOB.node_id), entry(CAROL.node_id)
    relay.say(DiscoverResponse((bob, entry(ALICE.node_id), carol, bob, entry(identity(9).node_id, BOB.node_id))))
    assert relay.take_news() == [PeersListed((bob, carol))]


def test_an_answer_that_was_not_asked_for_is_ignored() -> None:
    relay = connected(ALICE)
    relay.client.discover(None, relay.now, relay.out)
    for _ in range(2):
        relay.say(DiscoverResponse(()))
    assert relay.take_news() == [PeersListed(())]


def test_listings_are_cut_where_we_want_no_more() -> None:
    relay = connected(ALICE, config=RelayClientConfig(listings_max=3))
    relay.client.discover(None, relay.now, relay.out)
    relay.say(DiscoverResponse(tuple(listing(number) for number in range(100, 110))))
    assert relay.take_news() == [PeersListed(tuple(listing(number) for number in (100, 101, 102)))]


@pytest.mark.parametrize("flavour", list(Flavour))
def test_one_odd_neighbour_does_not_hide_the_others(flavour: Flavour) -> None:
    relay = connected(ALICE)
    relay.client.discover(None, relay.now, relay.out)
    good = RELAY_CODEC.encode(DiscoverResponse((entry(BOB.node_id),)), flavour)
    assert good.count(b"[{") == 1
    relay.say_bytes(good.replace(b"[{", b'[{"nodeID":"bad"},' + b'{"tier":' * 100 + b"1" + b"}" * 100 + b",{"))
    assert relay.take_news() == [PeersListed((entry(BOB.node_id),))]
    assert salvaged(b'{"type":"peers","payload":{"peers":7}}') is None
    assert salvaged(b'{"type":"relayOpen","payload":{}}') is None


def test_nonsense_is_forgiven_ten_times() -> None:
    relay = connected(ALICE)
    for _ in range(10):
        relay.say_bytes(b'{"type":"registerAck","payload":{"nodeID":1}}')
    assert relay.out == []
    relay.say_bytes(b"?")
    assert relay.client.state is RelayState.WAITING
    assert relay.out[:2] == [
        ReportRefusal(1, "malformed message: not well-formed JSON"),
        CloseConnection(1, "the relay misbehaves: malformed message: not well-formed JSON"),
    ]


def test_a_message_that_is_too_long_ends_the_connection() -> None:
    relay = connected(ALICE)
    relay.say_bytes(b" " * ((1 << 20) + (1 << 16)))
    assert relay.out == []
    relay.say_bytes(b" " * ((1 << 20) + (1 << 16) + 1))
    assert relay.client.state is RelayState.WAITING
    assert relay.out[0] == ReportRefusal(1, "message too long")


def test_a_relay_that_misbehaved_is_tried_again_with_a_clean_slate() -> None:
    relay = connected(ALICE)
    for _ in range(11):
        relay.say_bytes(b"?")
    relay.advance(2 * SECOND)
    relay.accept()
    relay.acknowledge()
    relay.say_bytes(b"?")
    assert relay.client.state is RelayState.CONNECTED
    assert len(relay.said(Register)) == 1
