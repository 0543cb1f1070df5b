"""Who a node is: keys, signatures and ids, against the published vectors of RFC 8032, libsodium and did:key."""

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import base58
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from teale_proto.errors import LocalError, PeerError
from teale_proto.inputs import NodeId
from teale_proto.secure.identity import Identity, parse_node_id, static_key_of, to_multibase, verify

EXAMPLES = settings(derandomize=True, deadline=None, max_examples=100)

DID_KEY_VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[2] / "vectors" / "did_key.json").read_text()
)["vectors"]

ALICE = Identity.from_seed(b"alice".ljust(32, b"."))


# RFC 8032, section 7.1: TEST 1, TEST 2, TEST 3.
RFC_8032 = """
9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60 d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a -    e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b
4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb 3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c 72   92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00
c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7 fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025 af82 6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a
"""  # noqa: E501


@pytest.mark.parametrize("line", RFC_8032.split("\n")[1:-1])
def test_signatures_are_those_of_rfc_8032(line: str) -> None:
    seed, public, message, signature = line.split()
    identity = Identity.from_seed(bytes.fromhex(seed))
    text = bytes.fromhex(message.replace("-", ""))
    assert identity.node_id == public
    assert identity.sign(text).hex() == signature
    assert verify(identity.node_id, text, bytes.fromhex(signature))
    assert not verify(identity.node_id, text + b".", bytes.fromhex(signature))


def test_the_static_key_is_libsodiums_conversion_of_the_identity() -> None:
    # The known answer of libsodium's own test, test/default/ed25519_convert.
    identity = Identity.from_seed(bytes.fromhex("421151a459faeade3d247115f94aedae42318124095afabe4d1451a559faedee"))
    assert identity.static_public.hex() == "f1814f0e8ff1043d8a44d25babff3cedcae6c22c3edaa48f857ae70de2baae50"
    assert identity.static_private.hex() == "8052030376d47112be7f73ed7a019293dd12ad910b654455798b4667d73de166"
    assert static_key_of(identity.node_id) == identity.static_public


@pytest.mark.parametrize("vector", DID_KEY_VECTORS, ids=lambda vector: vector["multibase"][:12])
def test_ids_and_static_keys_are_those_of_did_key(vector: dict[str, Any]) -> None:
    identity = Identity.from_seed(bytes.fromhex(vector["seed"]))
    assert to_multibase(identity.node_id) == vector["multibase"]
    assert parse_node_id(vector["multibase"]) == identity.node_id
    assert identity.static_public == base58.b58decode(vector["x25519_public"])
    assert identity.static_private == base58.b58decode(vector["x25519_private"])


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_a_seed_has_thirty_two_bytes(size: int) -> None:
    with pytest.raises(LocalError, match=f"not from {size}"):
        Identity.from_seed(bytes(size))


def test_an_identity_shows_its_id_and_nothing_else() -> None:
    for text in (repr(ALICE), str(ALICE), f"{ALICE}", f"{[ALICE]}"):
        assert ALICE.node_id in text
        assert ALICE.static_private.hex() not in text
        assert repr(ALICE.static_private)[2:-1] not in text
        assert "alice" not in text
    assert not hasattr(ALICE, "__dict__")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_an_identity_does_not_pickle(protocol: int) -> None:
    with pytest.raises(TypeError, match="holds secrets"):
        pickle.dumps(ALICE, protocol)


def test_an_identity_does_not_copy() -> None:
    with pytest.raises(TypeError, match="holds secrets"):
        copy.deepcopy(ALICE)


NOT_KEYS = {
    "zero": bytes(32),
    "one, of order 1": b"\x01" + bytes(31),
    "minus one, of order 2": b"\xec" + b"\xff" * 30 + b"\x7f",
    "of order 8": bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
    "not on the curve": b"\x02" + bytes(31),
    "not reduced": b"\xff" * 32,
}


@pytest.mark.parametrize("key", NOT_KEYS.values(), ids=NOT_KEYS.keys())
def test_a_node_id_that_is_no_key_of_prime_order_has_no_static_key(key: bytes) -> None:
    with pytest.raises(PeerError, match="not a usable public key"):
        static_key_of(NodeId(key.hex()))


@pytest.mark.parametrize("node", ["", "00", "zz" * 32, ALICE.node_id.upper(), ALICE.node_id + "\n", "é" * 64])
def test_a_node_id_of_another_form_has_no_static_key(node: str) -> None:
    with pytest.raises(PeerError, match="64 lower-case"):
        static_key_of(NodeId(node))


def test_the_two_ids_of_one_static_key_belong_to_one_private_key() -> None:
    key = bytearray.fromhex(ALICE.node_id)
    key[31] ^= 0x80
    negated = NodeId(key.hex())
    assert negated != ALICE.node_id
    assert static_key_of(negated) == ALICE.static_public
    # The two are nevertheless different ids: a signature under one says nothing under the other.
    assert not verify(negated, b"text", ALICE.sign(b"text"))


@EXAMPLES
@given(st.text(max_size=70), st.binary(max_size=100), st.binary(max_size=70) | st.binary(min_size=64, max_size=64))
def test_verifying_any_nonsense_is_just_false(node: str, message: bytes, signature: bytes) -> None:
    assert verify(NodeId(node), message, signature) is False
    assert verify(ALICE.node_id, message, signature) is False


@EXAMPLES
@given(st.binary(min_size=32, max_size=32), st.binary(min_size=64, max_size=64))
def test_verifying_under_any_key_is_just_false(key: bytes, signature: bytes) -> None:
    assert verify(NodeId(key.hex()), b"message", signature) is False


@EXAMPLES
@given(st.binary(min_size=32, max_size=32))
def test_every_key_survives_its_written_forms(key: bytes) -> None:
    node = NodeId(key.hex())
    assert parse_node_id(to_multibase(node)) == node
    assert parse_node_id(node) == node
    assert parse_node_id(f"  {node.upper()}\n") == node


@EXAMPLES
@given(st.text(max_size=100) | st.text(alphabet="z6Mk123456789ABCDEFGHJKLM", min_size=44, max_size=50))
def test_parsing_any_text_gives_an_id_or_says_what_was_expected(text: str) -> None:
    try:
        node = parse_node_id(text)
    except LocalError as error:
        reason = str(error)
    else:
        reason = ""
        assert text.strip() == to_multibase(node) or text.strip().lower() == node
    assert not reason or "a node id" in reason


WRONG_IDS = {
    "": "64 hexadecimal",
    "alice": "64 hexadecimal",
    ALICE.node_id[:-1]: "64 hexadecimal",
    ALICE.node_id + "0": "64 hexadecimal",
    "0x" + ALICE.node_id[2:]: "64 hexadecimal",
    to_multibase(ALICE.node_id)[1:]: "64 hexadecimal",
    "z" * 65: "64 hexadecimal",
    to_multibase(ALICE.node_id)[:-1] + "0": "no 0, O, I, l",
    to_multibase(ALICE.node_id)[:-1] + "é": "no 0, O, I, l",
    to_multibase(ALICE.node_id)[:-1]: "is a part missing",
    # An X25519 key, as did:key writes it, is not an identity.
    "z6LShs9GGnqk85isEBzzshkuVWrVKsRp24GnDuHk8QWkARMW": "is an Ed25519 public key",
    "z": "is a part missing",
}


@pytest.mark.parametrize(("text", "hint"), WRONG_IDS.items())
def test_a_wrong_node_id_is_refused_with_a_hint(text: str, hint: str) -> None:
    with pytest.raises(LocalError, match=hint):
        parse_node_id(text)
