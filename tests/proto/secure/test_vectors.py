"""The public Noise vectors, run through our own handshake layer and our own transport cipher."""

import json
from pathlib import Path
from typing import Any

import pytest

from teale_proto.secure.noise import Pattern, RawHandshake
from teale_proto.secure.records import CipherState

VECTORS: list[dict[str, Any]] = json.loads((Path(__file__).parents[2] / "vectors" / "noise.json").read_text())[
    "vectors"
]


def sides(vector: dict[str, Any]) -> tuple[RawHandshake, RawHandshake]:
    pattern = next(pattern for pattern in Pattern if pattern.protocol_name == vector["protocol_name"])
    prologue = bytes.fromhex(vector["prologue"])
    initiator = RawHandshake(
        pattern,
        initiator=True,
        static_private=bytes.fromhex(vector["init_static"]),
        ephemeral_private=bytes.fromhex(vector["init_ephemeral"]),
        prologue=prologue,
        remote_static=bytes.fromhex(vector["init_remote_static"]) if pattern is Pattern.IK else None,
    )
    responder = RawHandshake(
        pattern,
        initiator=False,
        static_private=bytes.fromhex(vector["resp_static"]),
        ephemeral_private=bytes.fromhex(vector["resp_ephemeral"]),
        prologue=prologue,
    )
    return initiator, responder


def test_the_vectors_cover_both_patterns() -> None:
    assert {vector["protocol_name"] for vector in VECTORS} == {pattern.protocol_name for pattern in Pattern}


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: f"{vector['protocol_name'][:8]}-{vector['prologue']}")
def test_every_message_of_a_vector_is_written_and_read_as_published(vector: dict[str, Any]) -> None:
    writer, reader = sides(vector)
    messages = [(bytes.fromhex(m["payload"]), bytes.fromhex(m["ciphertext"])) for m in vector["messages"]]
    while not (writer.finished and reader.finished):
        payload, ciphertext = messages.pop(0)
        assert writer.write(payload) == ciphertext
        assert reader.read(ciphertext) == payload
        writer, reader = reader, writer
    assert writer.handshake_hash.hex() == reader.handshake_hash.hex() == vector["handshake_hash"]

    assert len(messages) >= 3
    # One pair of ciphers for each direction, in the order of turns; they alternate as the messages do.
    (write_here, read_here), (write_there, read_there) = writer.split(), reader.split()
    turns = [
        (CipherState(write_here), CipherState(read_there)),
        (CipherState(write_there), CipherState(read_here)),
    ]
    for turn, (payload, ciphertext) in enumerate(messages):
        sending, receiving = turns[turn % 2]
        assert sending.encrypt(payload) == ciphertext
        assert receiving.decrypt(ciphertext) == payload


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: f"{vector['protocol_name'][:8]}-{vector['prologue']}")
def test_rekeying_is_that_of_the_library(vector: dict[str, Any]) -> None:
    # There are no public vectors of REKEY, so the library's own implementation is the second opinion.
    initiator, responder = sides(vector)
    writer, reader = initiator, responder
    while not (initiator.finished and responder.finished):
        reader.read(writer.write(b""))
        writer, reader = reader, writer
    ours = CipherState(initiator.split()[0], rekey_after=2)
    theirs = initiator._connection
    for record in range(6):
        assert ours.encrypt(b"record") == theirs.encrypt(b"record")
        if record % 2:
            theirs.rekey_outbound_cipher()
