"""Two real clients and a real relay: sessions from one end to the other."""

import pytest

from teale_proto.contract import SECOND
from teale_proto.effects import CloseConnection, SendData, SendText
from teale_proto.errors import LocalError
from teale_proto.inputs import NodeId, StopRequested
from teale_proto.relay.client import (
    DATA_BYTES_MAX,
    AddressVouched,
    PeersListed,
    Refused,
    Registered,
    RelayTimer,
    SessionClosed,
    SessionData,
    SessionOpened,
    SessionTimer,
    SignalReceived,
)
from teale_proto.wire.binary import encode_binary
from teale_proto.wire.codec import Flavour
from teale_proto.wire.relay import PEER_NOT_FOUND, Candidate, IceCandidate, RelayClose, RelayData, RelayOpen, RelayReady
from tests.proto.relay.relays import ALICE, BOB, CAROL, REMOTE, ClientNode, Relay, identity
from tests.proto.relay.scripted import connected


def pair() -> tuple[Relay, ClientNode, ClientNode]:
    relay = Relay()
    alice, bob = relay.client(ALICE, seed=1), relay.client(BOB, seed=2)
    assert alice.take_news() == bob.take_news() == [Registered(REMOTE.host)]
    return relay, alice, bob


def open_session(relay: Relay, opener: ClientNode, peer: NodeId) -> str:
    session = opener.client.open_session(peer, relay.now, opener.effects)
    opener.carry_out()
    return session


def send(relay: Relay, sender: ClientNode, session: str, data: bytes) -> bool:
    sent = sender.client.send(session, data, relay.now, sender.effects)
    sender.carry_out()
    return sent


def opened() -> tuple[Relay, ClientNode, ClientNode, str]:
    relay, alice, bob = pair()
    session = open_session(relay, alice, bob.id)
    assert alice.take_news() == [SessionOpened(session, bob.id, initiator=True)]
    assert bob.take_news() == [SessionOpened(session, alice.id, initiator=False)]
    return relay, alice, bob, session


def test_data_goes_both_ways_in_a_session() -> None:
    relay, alice, bob, session = opened()
    assert send(relay, alice, session, b"question")
    assert bob.take_news() == [SessionData(session, alice.id, b"question")]
    assert send(relay, bob, session, b"")
    assert alice.take_news() == [SessionData(session, bob.id, b"")]


def test_two_of_ours_talk_in_binary_messages() -> None:
    relay, alice, bob, session = opened()
    send(relay, alice, session, b"question")
    assert alice.effects[-1] == SendData(1, encode_binary(session, b"question"))
    assert bob.heard[-1] == encode_binary(session, b"question")


def test_with_a_node_that_reads_only_json_it_is_the_relay_that_translates() -> None:
    relay = Relay()
    alice, bob = relay.client(ALICE), relay.node(BOB)
    session = open_session(relay, alice, bob.id)
    bob.say(RelayReady(bob.id, alice.id, session))
    send(relay, alice, session, b"question")
    assert bob.last == RelayData(alice.id, bob.id, session, b"question")
    bob.say(RelayData(bob.id, alice.id, session, b"answer"))
    assert alice.take_news()[-1] == SessionData(session, bob.id, b"answer")


def test_a_relay_that_does_not_answer_the_offer_gets_json() -> None:
    relay = connected(ALICE)
    session = relay.client.open_session(BOB.node_id, relay.now, relay.out)
    relay.say(RelayReady(BOB.node_id, ALICE.node_id, session))
    relay.client.send(session, b"question", relay.now, relay.out)
    assert relay.said(RelayData) == [RelayData(ALICE.node_id, BOB.node_id, session, b"question")]
    relay.say_bytes(encode_binary(session, b"unasked"))
    assert SessionData(session, BOB.node_id, b"unasked") not in relay.news


@pytest.mark.parametrize("message", [encode_binary(32 * "0", b"x"), b"\x01", b"\x01" + bytes(15)])
def test_binary_messages_of_no_session_change_nothing(message: bytes) -> None:
    _, alice, bob, _ = opened()
    alice.hear(message)
    assert alice.take_news() == bob.take_news() == []


def test_as_much_data_as_fits_passes_and_not_a_byte_more() -> None:
    relay, alice, bob, session = opened()
    data = bytes(DATA_BYTES_MAX)
    send(relay, alice, session, data)
    assert bob.take_news() == [SessionData(session, alice.id, data)]
    with pytest.raises(LocalError, match="fit into one message"):
        send(relay, alice, session, data + b"\0")


@pytest.mark.parametrize("closer", [0, 1])
def test_either_side_ends_a_session_and_the_other_hears_of_it(closer: int) -> None:
    relay, alice, bob, session = opened()
    nodes = (alice, bob)
    nodes[closer].client.close_session(session, relay.now, nodes[closer].effects)
    nodes[closer].carry_out()
    other = nodes[1 - closer]
    assert other.take_news() == [SessionClosed(session, nodes[closer].id, "the other side closed it")]
    assert nodes[closer].take_news() == []
    assert relay.server.metrics(relay.now).sessions == 0
    assert not send(relay, alice, session, b"late")
    assert not send(relay, bob, session, b"late")


def test_data_that_crosses_a_close_is_dropped_in_silence() -> None:
    relay, alice, bob, session = opened()
    bob.client.close_session(session, relay.now, bob.effects)
    before = len(bob.effects)
    bob.hear(
        b'{"type":"relayData","payload":{"fromNodeID":"%s","toNodeID":"%s","sessionID":"%s","data":""}}'
        % (alice.id.encode(), bob.id.encode(), session.encode())
    )
    assert bob.take_news() == []
    assert not any(isinstance(effect, SendText) for effect in bob.effects[before:])


def test_to_close_an_unknown_session_does_nothing() -> None:
    relay, alice, _ = pair()
    before = list(alice.effects)
    alice.client.close_session("unknown", relay.now, alice.effects)
    assert alice.effects == before


def test_a_peer_that_is_not_there_is_named_at_once() -> None:
    relay, alice, _ = pair()
    session = open_session(relay, alice, CAROL.node_id)
    assert alice.take_news() == [SessionClosed(session, CAROL.node_id, PEER_NOT_FOUND)]
    assert alice.timers.remaining(SessionTimer(session), relay.now) is None


def test_a_peer_that_does_not_answer_is_given_up_after_ten_seconds() -> None:
    relay, alice, _ = pair()
    mute = relay.node(CAROL)
    session = open_session(relay, alice, mute.id)
    relay.advance(10 * SECOND - 1)
    assert alice.take_news() == []
    relay.advance(1)
    assert alice.take_news() == [SessionClosed(session, mute.id, "the peer does not answer")]
    assert mute.last == RelayClose(alice.id, mute.id, session)


def test_a_session_that_was_not_taken_up_carries_nothing() -> None:
    relay, alice, _ = pair()
    mute = relay.node(CAROL)
    session = open_session(relay, alice, mute.id)
    assert not send(relay, alice, session, b"early")


def test_a_peer_that_vanishes_ends_its_sessions() -> None:
    relay, alice, bob, session = opened()
    bob.client.stop(relay.now, bob.effects)
    bob.carry_out()
    assert alice.take_news() == [SessionClosed(session, bob.id, "the other side closed it")]


def test_all_sessions_end_with_the_connection() -> None:
    relay, alice, bob, session = opened()
    second = open_session(relay, bob, alice.id)
    alice.take_news()
    relay.feed(StopRequested())
    reason = "the relay connection was lost"
    assert alice.take_news() == [
        Refused("shutting_down", "the relay is stopping"),
        SessionClosed(session, bob.id, reason),
        SessionClosed(second, bob.id, reason),
    ]
    assert not send(relay, alice, session, b"late")
    alice.client.close_session(session, relay.now, alice.effects)


def test_stopping_says_good_bye_in_every_session() -> None:
    relay, alice, bob, session = opened()
    before = len(alice.effects)
    assert alice.client.stop(relay.now, alice.effects) == [SessionClosed(session, bob.id, "stopped here")]
    kinds = [type(effect) for effect in alice.effects[before:]]
    assert kinds[:2] == [SendText, CloseConnection]
    alice.carry_out()
    assert bob.take_news() == [SessionClosed(session, alice.id, "the other side closed it")]


def test_sessions_need_a_relay_and_two_nodes() -> None:
    relay = Relay()
    alice = ClientNode(relay, ALICE)
    with pytest.raises(LocalError, match="not connected"):
        open_session(relay, alice, BOB.node_id)
    alice.start()
    with pytest.raises(LocalError, match="two nodes"):
        open_session(relay, alice, ALICE.node_id)


def test_a_deployed_peer_can_be_talked_to() -> None:
    relay, alice, _ = pair()
    carol = relay.node(CAROL, Flavour.DEPLOYED)
    carol.say(RelayOpen(carol.id, alice.id, "theirs"))
    assert alice.take_news() == [SessionOpened("theirs", carol.id, initiator=False)]
    assert carol.raw[-1].startswith(b'{"relayReady":{"fromNodeID":')
    carol.say(RelayData(carol.id, alice.id, "theirs", b"hi"))
    assert alice.take_news() == [SessionData("theirs", carol.id, b"hi")]


def test_a_peer_may_open_its_session_anew() -> None:
    relay, alice, _ = pair()
    carol = relay.node(CAROL)
    for _ in range(2):
        carol.say(RelayOpen(carol.id, alice.id, "theirs"))
    assert alice.take_news() == [
        SessionOpened("theirs", carol.id, initiator=False),
        SessionClosed("theirs", carol.id, "the peer opened it anew"),
        SessionOpened("theirs", carol.id, initiator=False),
    ]
    carol.say(RelayData(carol.id, alice.id, "theirs", b"hi"))
    assert alice.take_news() == [SessionData("theirs", carol.id, b"hi")]


def test_one_peer_opens_so_many_sessions_and_no_more() -> None:
    relay, alice, _ = pair()
    carol = relay.node(CAROL)
    for number in range(10):
        carol.say(RelayOpen(carol.id, alice.id, f"s{number}"))
    assert [news.session for news in alice.take_news() if isinstance(news, SessionOpened)] == [
        f"s{number}" for number in range(8)
    ]
    assert carol.kinds() == ["relayReady"] * 8 + ["relayClose"] * 2
    # It does not keep Alice from opening her own, nor others from reaching her.
    session = open_session(relay, alice, BOB.node_id)
    assert alice.take_news() == [SessionOpened(session, BOB.node_id, initiator=True)]


def test_the_relay_tells_whether_it_sees_the_other_side_where_it_says_that_it_is() -> None:
    relay, alice, bob, session = opened()
    for host, is_seen in ((REMOTE.host, True), ("203.0.113.99", False)):
        assert alice.client.confirm_address(session, host, alice.effects)
        alice.carry_out()
        assert alice.take_news() == [AddressVouched(session, host, is_seen)]
    assert not bob.take_news()
    # Of a session that is somebody else's nothing is confirmed.
    carol = relay.client(CAROL, seed=3)
    carol.take_news()
    assert carol.client.confirm_address(session, REMOTE.host, carol.effects)
    carol.carry_out()
    assert carol.take_news() == [AddressVouched(session, REMOTE.host, is_seen=False)]


def test_signals_arrive() -> None:
    relay, alice, _ = pair()
    carol = relay.node(CAROL)
    signal = IceCandidate(carol.id, alice.id, "s", Candidate("192.0.2.9", 9, "host", 1))
    carol.say(signal)
    assert alice.take_news() == [SignalReceived(signal)]


def test_a_client_finds_the_others() -> None:
    relay, alice, bob = pair()
    others = {bob.id} | {relay.node(identity(number)).id for number in range(60, 64)}
    assert alice.client.discover(None, relay.now, alice.effects)
    alice.carry_out()
    (news,) = alice.take_news()
    assert isinstance(news, PeersListed)
    assert {peer.node_id for peer in news.peers} == others


def test_nothing_is_left_of_sessions_that_ended() -> None:
    relay, alice, bob = pair()
    for _ in range(400):
        session = open_session(relay, alice, bob.id)
        bob.client.close_session(session, relay.now, bob.effects)
        bob.carry_out()
        relay.advance(SECOND)
    for node in (alice, bob):
        assert len(node.client._sessions) == 0
        assert len(node.client._sessions._dismissed) <= 256
        assert len(node.timers) <= len(RelayTimer)
