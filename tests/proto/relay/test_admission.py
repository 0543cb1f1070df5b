"""What a registration is judged by."""

import pytest

from teale_proto.inputs import NodeId
from teale_proto.relay.admission import is_signed, names_own_static_key, proves_key
from teale_proto.wire.relay import registration_proof, relay_host_name
from tests.proto.relay.relays import ALICE, BOB, registration


def test_a_proof_is_over_node_host_and_challenge() -> None:
    challenge = bytes(32)
    signature = ALICE.sign(registration_proof(ALICE.node_id, "relay.test", challenge)).hex()
    assert proves_key(ALICE.node_id, "Relay.Test.", challenge, signature)
    assert not proves_key(BOB.node_id, "relay.test", challenge, signature)
    assert not proves_key(ALICE.node_id, "other.test", challenge, signature)
    assert not proves_key(ALICE.node_id, "relay.test", b"\1" * 32, signature)
    assert not proves_key(ALICE.node_id, "relay.test", challenge, signature[:-2])
    assert not proves_key(ALICE.node_id, "relay.test", challenge, "")


def test_what_is_signed_is_pinned() -> None:
    assert registration_proof(NodeId("ab"), "R.test", b"\1\2") == b"teale-register-1\0ab\0r.test\0\1\2"


@pytest.mark.parametrize(
    ("spelt", "name"), [(" R.Test ", "r.test"), ("r.test.", "r.test"), ("[::1]", "::1"), ("::1", "::1"), ("", "")]
)
def test_a_host_has_one_spelling(spelt: str, name: str) -> None:
    assert relay_host_name(spelt) == name


def test_a_bare_signature_is_over_the_node_id() -> None:
    assert is_signed(registration(ALICE))
    assert not is_signed(registration(ALICE, node_id=BOB.node_id))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"wg_public_key": ALICE.static_public.hex()}, True),
        ({"wg_public_key": ALICE.static_public.hex().upper()}, True),
        ({"wg_public_key": BOB.static_public.hex()}, False),
        ({"wg_public_key": ""}, False),
        ({"wg_public_key": ALICE.static_public.hex(), "node_id": "00" * 32}, False),
    ],
)
def test_a_static_key_is_the_node_s_own(changes: dict[str, str], expected: bool) -> None:
    assert names_own_static_key(registration(ALICE, **changes)) is expected
