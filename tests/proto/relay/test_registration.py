"""Who may register at a relay, and who stays registered."""

import pytest

from teale_proto.contract import SECOND
from teale_proto.effects import CloseConnection
from teale_proto.errors import LocalError
from teale_proto.inputs import WAKE, Address, ConnectionAccepted, ConnectionClosed, DataReceived, StopRequested
from teale_proto.relay.server import RelayServerConfig
from teale_proto.wire.codec import Flavour
from teale_proto.wire.fields import wire_date
from teale_proto.wire.relay import (
    Capabilities,
    Discover,
    Error,
    Hardware,
    RegisterAck,
    RegisterProof,
    registration_proof,
)
from tests.proto.relay.relays import (
    ALICE,
    BOB,
    CONFIG,
    HOST,
    LEGACY,
    LOCAL,
    MALLORY,
    REMOTE,
    UNIX_TIME_AT_ZERO,
    RawNode,
    Relay,
    identity,
    registration,
)


def test_a_node_that_proves_its_key_is_registered() -> None:
    relay = Relay()
    alice = RawNode(relay, ALICE)
    relay.advance(3 * SECOND)
    alice.say(registration(ALICE, wg_public_key=ALICE.static_public.hex()))
    assert alice.kinds() == ["registerChallenge"]
    assert len(alice.last.challenge) == 64
    assert relay.server.health().peers == 0
    alice.prove(alice.last.challenge)
    assert alice.last == RegisterAck(ALICE.node_id, wire_date(UNIX_TIME_AT_ZERO + 3 * SECOND), 300)
    assert relay.server.health().peers == 1


def test_challenges_differ() -> None:
    relay = Relay()
    challenges = set()
    for number in range(5):
        node = RawNode(relay, identity(number + 10))
        node.say(registration(node.identity))
        challenges.add(node.last.challenge)
    assert len(challenges) == 5


def assert_refused(node: RawNode, code: str, text: str) -> None:
    assert isinstance(node.last, Error)
    assert node.last.code == code
    assert text in node.last.message


def test_the_bare_signature_of_deployed_nodes_is_not_enough() -> None:
    relay = Relay()
    alice = RawNode(relay, ALICE)
    alice.say(registration(ALICE))
    relay.advance(10 * SECOND)
    assert_refused(alice, "invalid_register", "no registration in time")
    assert alice.closed is not None
    assert relay.server.health().peers == 0


def test_a_signature_by_another_key_proves_nothing() -> None:
    relay = Relay()
    mallory = RawNode(relay, MALLORY)
    mallory.say(registration(ALICE))
    proof = MALLORY.sign(registration_proof(ALICE.node_id, HOST, bytes.fromhex(mallory.last.challenge)))
    mallory.say(RegisterProof(ALICE.node_id, proof.hex()))
    assert_refused(mallory, "invalid_register", "does not prove the key")
    assert mallory.closed is not None
    assert relay.refusals == ["the signature does not prove the key"]


def test_a_captured_proof_is_worth_nothing_on_another_connection() -> None:
    relay = Relay()
    alice = RawNode(relay, ALICE)
    alice.say(registration(ALICE))
    proof = ALICE.sign(registration_proof(ALICE.node_id, HOST, bytes.fromhex(alice.last.challenge))).hex()
    alice.say(RegisterProof(ALICE.node_id, proof))
    assert alice.kinds()[-1] == "registerAck"

    mallory = RawNode(relay, MALLORY)
    mallory.say(registration(ALICE))
    mallory.say(RegisterProof(ALICE.node_id, proof))
    assert_refused(mallory, "invalid_register", "does not prove the key")
    assert alice.closed is None


def test_a_proof_that_another_relay_obtained_is_worth_nothing_here() -> None:
    """Mallory runs evil.test, and hands our challenge to Alice, who dials evil.test and signs that."""
    relay = Relay()
    mallory = RawNode(relay, MALLORY)
    mallory.say(registration(ALICE))
    proof = ALICE.sign(registration_proof(ALICE.node_id, "evil.test", bytes.fromhex(mallory.last.challenge)))
    mallory.say(RegisterProof(ALICE.node_id, proof.hex()))
    assert_refused(mallory, "invalid_register", "does not prove the key")

    mallory = RawNode(relay, MALLORY, host="evil.test")
    mallory.say(registration(ALICE))
    assert_refused(mallory, "invalid_register", '"evil.test": its operator must add that name')
    assert mallory.closed is not None


@pytest.mark.parametrize(
    ("host", "local", "accepted"),
    [
        (HOST, "192.0.2.1", True),
        ("RELAY.Test.", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("192.0.2.2", "192.0.2.1", False),
        ("[2001:db8::1]", "2001:db8:0::1", True),
        ("2001:db8::1", "2001:db8::1", True),
        ("localhost", "127.0.0.1", True),
        ("localhost", "::1", True),
        ("localhost", "::ffff:127.0.0.1", True),
        ("localhost", "192.0.2.1", False),
        ("127.0.0.1", "127.0.0.1", True),
        ("", "127.0.0.1", False),
        ("other.test", "127.0.0.1", False),
        (HOST, "not an address", True),
        ("not an address", "not an address", False),
    ],
)
def test_the_host_that_was_dialled_must_be_this_relay(host: str, local: str, accepted: bool) -> None:
    alice = RawNode(Relay(), ALICE, host=host, local=Address(local, 443))
    alice.say(registration(ALICE))
    assert alice.kinds() == ["registerChallenge"] if accepted else (alice.closed or "").startswith("this relay")


def test_a_host_that_could_upset_a_terminal_is_not_quoted() -> None:
    relay = Relay()
    mallory = RawNode(relay, MALLORY, host="\x1b[2J")
    mallory.say(registration(MALLORY))
    assert relay.refusals == [
        "this relay does not go by the name that was dialled: its operator must add that name to the relay's names"
    ]


def test_an_expired_challenge_is_refused() -> None:
    relay = Relay(LEGACY)
    alice = RawNode(relay, ALICE)
    alice.say(registration(ALICE))
    relay.advance(10 * SECOND + 1)
    alice.prove(alice.last.challenge)
    assert_refused(alice, "invalid_register", "expired")
    assert [listing.proved for listing in relay.server.listings()] == [False]


def test_a_challenge_can_be_answered_once() -> None:
    relay = Relay()
    alice = RawNode(relay, ALICE)
    alice.say(registration(ALICE))
    challenge = alice.last.challenge
    alice.prove(challenge)
    alice.prove(challenge)
    assert_refused(alice, "invalid_register", "no challenge is open")


def test_a_proof_must_be_of_the_node_that_wants_to_register() -> None:
    alice = RawNode(Relay(), ALICE)
    alice.say(registration(ALICE))
    alice.prove(alice.last.challenge, node_id=BOB.node_id)
    assert_refused(alice, "invalid_register", "does not prove the key")


def test_asking_again_makes_the_former_challenge_void() -> None:
    alice = RawNode(Relay(), ALICE)
    alice.say(registration(ALICE))
    former = alice.last.challenge
    alice.say(registration(ALICE))
    assert alice.last.challenge != former
    alice.prove(former)
    assert_refused(alice, "invalid_register", "does not prove the key")


def test_the_public_key_is_the_node_id() -> None:
    alice = RawNode(Relay(), ALICE)
    alice.say(registration(ALICE, public_key=BOB.node_id))
    assert_refused(alice, "invalid_register", "publicKey")


def test_a_static_key_must_follow_from_the_node_id() -> None:
    relay = Relay()
    alice = RawNode(relay, ALICE)
    alice.register(wg_public_key=BOB.static_public.hex())
    assert_refused(alice, "invalid_register", "wgPublicKey")

    alice = relay.node(ALICE)
    alice.say(registration(ALICE, wg_public_key=BOB.static_public.hex()))
    assert_refused(alice, "invalid_register", "wgPublicKey")
    assert alice.closed is not None


def test_a_stranger_can_do_nothing_but_register() -> None:
    relay = Relay()
    stranger = RawNode(relay, ALICE)
    stranger.say(Discover(ALICE.node_id))
    assert_refused(stranger, "invalid_message", "register first")


def test_to_register_again_updates_what_is_known() -> None:
    relay = Relay()
    alice = relay.node(ALICE)
    relay.advance(5 * SECOND)
    changed = Capabilities(hardware=Hardware(), loaded_models=("huge",), is_available=False)
    alice.say(registration(ALICE, capabilities=changed, display_name="renamed"))
    assert alice.last == RegisterAck(ALICE.node_id, wire_date(UNIX_TIME_AT_ZERO), 300)
    (listing,) = relay.server.listings()
    assert (listing.display_name, listing.loaded_models, listing.is_available) == ("renamed", ("huge",), False)


def test_a_connection_has_one_node() -> None:
    relay = Relay()
    alice = relay.node(ALICE)
    alice.say(registration(BOB))
    assert_refused(alice, "invalid_register", "another node")
    assert relay.server.health().peers == 1


def test_a_node_that_comes_back_replaces_its_former_connection() -> None:
    relay = Relay()
    former = relay.node(ALICE)
    bob = relay.node(BOB)
    latter = relay.node(ALICE)
    assert_refused(former, "replaced", "another connection")
    assert former.closed == "replaced by a newer connection"
    assert latter.closed is None
    assert relay.server.health().peers == 2
    assert bob.inbox == []
    assert relay.refusals == []


def test_what_a_replaced_connection_still_says_is_ignored() -> None:
    relay = Relay()
    former = relay.node(ALICE)
    relay.node(ALICE)
    assert relay.feed(DataReceived(former.connection, b"{}")) == []
    assert relay.feed(ConnectionClosed(former.connection, "reset")) == []
    former.ping()
    assert relay.server.health().peers == 1


def test_a_node_leaves_with_its_connection_and_nobody_is_told() -> None:
    relay = Relay()
    alice, bob = relay.node(ALICE), relay.node(BOB)
    alice.hang_up()
    assert relay.server.health().peers == 1
    assert bob.inbox == []


# Deployed nodes, where the operator lets them in.


def test_with_the_switch_a_bare_signature_is_acknowledged_at_once() -> None:
    relay = Relay(LEGACY)
    alice = RawNode(relay, ALICE, Flavour.DEPLOYED)
    alice.say(registration(ALICE, wg_public_key="00" * 32))
    assert alice.kinds() == ["registerAck", "registerChallenge"]
    assert [listing.proved for listing in relay.server.listings()] == [False]


def test_with_the_switch_one_of_our_nodes_ends_up_proved() -> None:
    relay = Relay(LEGACY)
    alice = RawNode(relay, ALICE)
    alice.register()
    assert alice.kinds() == ["registerAck", "registerChallenge", "registerAck"]
    assert [listing.proved for listing in relay.server.listings()] == [True]


def test_with_the_switch_a_false_bare_signature_gets_a_challenge_only() -> None:
    relay = Relay(LEGACY)
    mallory = RawNode(relay, MALLORY)
    mallory.say(registration(ALICE, signature="00" * 64))
    assert mallory.kinds() == ["registerChallenge"]


def test_a_replayed_registration_never_replaces_a_proved_one() -> None:
    relay = Relay(LEGACY)
    alice = RawNode(relay, ALICE)
    alice.register()
    mallory = RawNode(relay, MALLORY)
    mallory.say(registration(ALICE))
    assert mallory.kinds() == ["registerChallenge"]
    assert alice.closed is None
    mallory.prove(mallory.last.challenge)
    assert mallory.closed is not None
    assert alice.closed is None


def test_a_proved_registration_replaces_a_replayed_one() -> None:
    relay = Relay(LEGACY)
    mallory = RawNode(relay, MALLORY)
    mallory.say(registration(ALICE))
    alice = RawNode(relay, ALICE)
    alice.say(registration(ALICE, signature="00" * 64))
    assert mallory.closed is None
    alice.prove(alice.last.challenge)
    assert mallory.closed == "replaced by a newer connection"
    assert [listing.proved for listing in relay.server.listings()] == [True]


def test_a_bare_registration_replaces_a_bare_one() -> None:
    relay = Relay(LEGACY)
    former, latter = RawNode(relay, ALICE), RawNode(relay, ALICE)
    former.say(registration(ALICE))
    latter.say(registration(ALICE))
    assert former.closed is not None
    assert latter.closed is None


def test_an_unproved_node_with_a_foreign_static_key_cannot_become_proved() -> None:
    relay = Relay(LEGACY)
    alice = RawNode(relay, ALICE)
    alice.say(registration(ALICE))
    challenge = alice.last.challenge
    alice.say(registration(ALICE, wg_public_key=BOB.static_public.hex()))
    assert alice.kinds()[-1] == "registerAck"
    alice.prove(challenge)
    assert_refused(alice, "invalid_register", "wgPublicKey")
    assert relay.server.health().peers == 0


def test_with_the_switch_a_full_relay_sends_no_challenge() -> None:
    relay = Relay(RelayServerConfig(names=(HOST,), allow_legacy_register=True, registrations_max=0))
    alice = RawNode(relay, ALICE)
    alice.say(registration(ALICE))
    assert alice.kinds() == ["error"]
    assert_refused(alice, "overloaded", "as many nodes")


# Silence, and the end.


def test_a_stranger_has_ten_seconds() -> None:
    relay = Relay()
    stranger = RawNode(relay, ALICE)
    relay.advance(10 * SECOND - 1)
    assert stranger.closed is None
    relay.advance(1)
    assert stranger.closed == "no registration in time"


def test_a_node_that_is_silent_for_a_minute_is_dropped() -> None:
    relay = Relay()
    alice, bob = relay.node(ALICE), relay.node(BOB)
    for _ in range(6):
        relay.advance(25 * SECOND)
        bob.ping()
        if relay.now == 50 * SECOND:
            assert alice.closed is None
    assert alice.closed == "silent for 60 s"
    assert bob.closed is None
    relay.advance(60 * SECOND - 1)
    assert bob.closed is None
    relay.advance(1)
    assert bob.closed is not None


def test_silence_is_never_longer_than_a_registration_holds() -> None:
    relay = Relay(RelayServerConfig(names=(HOST,), ttl=30 * SECOND))
    alice = relay.node(ALICE)
    relay.advance(30 * SECOND)
    assert alice.closed == "silent for 30 s"


def test_a_relay_that_stops_says_so() -> None:
    relay = Relay()
    alice, stranger = relay.node(ALICE), RawNode(relay, BOB)
    relay.feed(StopRequested())
    for node in (alice, stranger):
        assert_refused(node, "shutting_down", "stopping")
        assert node.closed == "the relay is stopping"
    late = ConnectionAccepted(100, REMOTE, LOCAL, HOST)
    assert relay.feed(late)[0] == CloseConnection(100, "the relay is stopping", 1012)
    assert relay.server.health().peers == 0
    assert relay.feed(WAKE) == []


# Our caller's mistakes.


def test_a_connection_id_that_is_taken_is_refused() -> None:
    relay = Relay()
    alice = relay.node(ALICE)
    with pytest.raises(LocalError, match="open already"):
        relay.server.handle(ConnectionAccepted(alice.connection, REMOTE, LOCAL, HOST), relay.now)


def test_time_does_not_run_backwards() -> None:
    relay = Relay(CONFIG)
    relay.server.handle(WAKE, 5)
    with pytest.raises(LocalError, match="backwards"):
        relay.server.handle(WAKE, 4)
