"""What a node signs to register: bound to itself, to the relay that it dialled, and to one challenge."""

import pytest

from teale_proto.inputs import NodeId
from teale_proto.wire.relay import legacy_registration, registration_proof, relay_host_name

NODE = NodeId("aa" * 32)


def test_the_legacy_registration_signs_the_id_as_text() -> None:
    assert legacy_registration(NODE) == b"a" * 64


def test_a_proof_names_its_purpose_the_node_the_relay_and_the_challenge() -> None:
    assert registration_proof(NODE, "relay.example", b"\x01\x02") == (
        b"teale-register-1\0" + b"a" * 64 + b"\0relay.example\0\x01\x02"
    )


def test_no_two_registrations_sign_the_same() -> None:
    proofs = {
        registration_proof(node, host, challenge)
        for node in (NODE, NodeId("bb" * 32))
        for host in ("relay.example", "other.example")
        for challenge in (b"one", b"two")
    }
    assert len(proofs) == 8


@pytest.mark.parametrize(
    ("written", "compared"),
    [
        ("Relay.Example", "relay.example"),
        ("relay.example.", "relay.example"),
        (" relay.example ", "relay.example"),
        ("[2001:DB8::1]", "2001:db8::1"),
        ("192.0.2.1", "192.0.2.1"),
    ],
)
def test_a_host_has_one_spelling(written: str, compared: str) -> None:
    assert relay_host_name(written) == compared
    assert registration_proof(NODE, written, b"c") == registration_proof(NODE, compared, b"c")
