"""What one node, or many, can make a relay keep or do."""

import pytest

from teale_proto.contract import SECOND
from teale_proto.relay.limits import Rate, RateLimit
from teale_proto.relay.server import RelayServerConfig
from teale_proto.wire.relay import Candidate as Address
from teale_proto.wire.relay import Capabilities, Error, Hardware, IceCandidate, RegisterAck, RelayOpen
from tests.proto.relay.relays import ALICE, BOB, CAROL, HOST, MALLORY, RawNode, Relay, identity, registration


def config(**changes: int) -> RelayServerConfig:
    return RelayServerConfig(names=(HOST,), **changes)  # type: ignore[arg-type]  # the limits are integers


def test_a_rate_grants_its_burst_and_then_one_an_interval() -> None:
    limit = RateLimit(Rate(burst=2, interval=10))
    assert [limit.take(100) for _ in range(4)] == [0, 0, 10, 10]
    assert limit.take(107) == 3
    assert limit.take(110) == 0
    assert limit.take(110) == 10
    assert [limit.take(1000) for _ in range(3)] == [0, 0, 10]


def test_a_stranger_s_message_is_small() -> None:
    relay = Relay()
    stranger = RawNode(relay, ALICE)
    stranger.say_bytes(b" " * (16 << 10))
    assert stranger.last.code == "invalid_json"
    stranger.say_bytes(b" " * ((16 << 10) + 1))
    assert stranger.closed == "message of 16385 bytes where 16384 are allowed"
    assert relay.refusals == [stranger.closed]


def test_a_node_s_message_is_at_most_a_mebibyte() -> None:
    relay = Relay()
    alice = relay.node(ALICE)
    alice.say_bytes(b" " * (1 << 20))
    assert alice.closed is None
    alice.say_bytes(b" " * ((1 << 20) + 1))
    assert alice.closed is not None


def test_a_registration_stays_small_however_much_its_node_may_send() -> None:
    relay = Relay()
    alice = relay.node(ALICE)
    models = tuple(f"{number:0200}" for number in range(100))
    alice.say(registration(ALICE, capabilities=Capabilities(hardware=Hardware(), loaded_models=models)))
    assert alice.last.code == "invalid_register"
    assert relay.server.listings()[0].loaded_models == ("tiny",)


def test_ten_offences_are_forgiven_and_one_more_is_not() -> None:
    relay = Relay()
    alice = relay.node(ALICE)
    for _ in range(10):
        alice.say_bytes(b"nonsense")
    assert alice.closed is None
    alice.say_bytes(b"nonsense")
    assert alice.closed == "too many offences, the last one: malformed message: not well-formed JSON"
    assert alice.kinds() == ["error"] * 11
    assert relay.refusals == [alice.closed]


def test_offences_are_forgiven_with_time() -> None:
    relay = Relay()
    alice = relay.node(ALICE)
    for _ in range(20):
        alice.say_bytes(b"nonsense")
        for _ in range(4):
            relay.advance(15 * SECOND)
            alice.ping()
    assert alice.closed is None


def test_the_oldest_stranger_makes_room_for_the_next() -> None:
    relay = Relay(config(strangers_max=2))
    known = relay.node(CAROL)
    first, second = RawNode(relay, ALICE), RawNode(relay, BOB)
    third = RawNode(relay, MALLORY)
    assert first.last.code == "overloaded"
    assert first.closed is not None
    second.register()
    third.register()
    assert relay.server.health().peers == 3
    assert known.closed is None


def test_a_connection_gets_so_many_challenges() -> None:
    relay = Relay(config(challenges_max=3))
    stranger = RawNode(relay, ALICE)
    for _ in range(3):
        stranger.say(registration(ALICE))
    assert stranger.closed is None
    stranger.say(registration(ALICE))
    assert stranger.closed == "too many attempts to register"


def test_a_full_relay_takes_nobody_new_but_lets_its_own_come_back() -> None:
    relay = Relay(config(registrations_max=2))
    relay.node(ALICE)
    relay.node(BOB)
    carol = RawNode(relay, CAROL)
    carol.register()
    assert carol.last == Error("overloaded", "the relay holds as many nodes as it may")
    assert carol.closed is not None
    again = RawNode(relay, BOB)
    again.register()
    assert isinstance(again.last, RegisterAck)
    assert relay.server.health().peers == 2


def test_a_node_opens_so_many_sessions() -> None:
    relay = Relay(config(sessions_per_node_max=2))
    alice, bob, _ = relay.node(ALICE), relay.node(BOB), relay.node(CAROL)
    for session in ("one", "two", "three"):
        alice.say(RelayOpen(ALICE.node_id, BOB.node_id, session))
    assert alice.take() == [Error("session_refused", "too many sessions", session_id="three")]
    assert len(bob.inbox) == 2
    # What others opened with Bob does not keep him from opening his own.
    bob.say(RelayOpen(BOB.node_id, CAROL.node_id, "four"))
    assert relay.server.metrics(relay.now).sessions == 3


def test_a_relay_carries_so_many_sessions() -> None:
    relay = Relay(config(sessions_max=1))
    alice, bob = relay.node(ALICE), relay.node(BOB)
    alice.say(RelayOpen(ALICE.node_id, BOB.node_id, "one"))
    bob.say(RelayOpen(BOB.node_id, ALICE.node_id, "two"))
    assert bob.last == Error("session_refused", "too many sessions", session_id="two")


@pytest.mark.parametrize("kind", ["relayOpen", "iceCandidate"])
def test_nobody_can_be_pestered_without_end(kind: str) -> None:
    relay = Relay(
        RelayServerConfig(names=(HOST,), introductions=Rate(burst=3, interval=SECOND), sessions_per_node_max=1000)
    )
    mallory, bob = relay.node(MALLORY), relay.node(BOB)

    def pester(number: int) -> None:
        ids = (MALLORY.node_id, BOB.node_id, f"session {number}")
        mallory.say(RelayOpen(*ids) if kind == "relayOpen" else IceCandidate(*ids, Address("::1", 1, "host", 1)))

    for number in range(5):
        pester(number)
    assert len(bob.inbox) == 3
    assert mallory.take() == [
        Error("rate_limited", "sessions and signals come too often", 1.0, f"session {number}") for number in (3, 4)
    ]
    relay.advance(SECOND)
    pester(5)
    assert len(bob.inbox) == 4
    assert mallory.closed is None


def test_to_reconnect_gains_nothing() -> None:
    relay = Relay(RelayServerConfig(names=(HOST,), introductions=Rate(burst=1, interval=SECOND)))
    relay.node(BOB)
    relay.node(ALICE).say(RelayOpen(ALICE.node_id, BOB.node_id, "one"))
    again = relay.node(ALICE)
    again.say(RelayOpen(ALICE.node_id, BOB.node_id, "two"))
    assert again.last.code == "rate_limited"


def test_everything_that_nodes_leave_behind_is_forgotten() -> None:
    relay = Relay()
    for number in range(50):
        one, other = relay.node(identity(100 + number)), relay.node(BOB)
        one.say(RelayOpen(one.id, BOB.node_id, "session"))
        one.hang_up()
        other.hang_up()
    metrics = relay.server.metrics(relay.now)
    assert (metrics.peers, metrics.sessions) == (0, 0)
    server = relay.server
    assert not server._connections
    assert not server._strangers
    assert len(server._timers) == 0
    assert not server._directory._by_model
    assert not server._switch._sessions._by_node
    assert not server._switch._sessions._opened
