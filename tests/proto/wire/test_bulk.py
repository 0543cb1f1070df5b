"""Bulk messages: a head and raw bytes, through links that encrypt and no others."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teale_proto.errors import PeerError
from teale_proto.link import Link
from teale_proto.wire.bulk import HEAD_BYTES_MAX, decode_bulk, encode_bulk, is_bulk
from teale_proto.wire.cluster import ModelTransferChunk
from tests.proto.test_link import lan_pair

CHUNK = ModelTransferChunk("t", "model", "file.gguf", 1 << 20, bytes(range(256)) * 10, is_last_chunk=False)


@given(data=st.binary(max_size=300), name=st.text(max_size=20), offset=st.integers(0, 2**53), last=st.booleans())
def test_what_was_encoded_is_decoded(data: bytes, name: str, offset: int, last: bool) -> None:
    chunk = ModelTransferChunk("t", "m", name, offset, data, last)
    payload = encode_bulk(chunk)
    assert is_bulk(payload)
    assert decode_bulk(payload) == chunk
    assert type(decode_bulk(payload).data) is bytes


def complaint_about(payload: bytes) -> str:
    """Return why a message is refused, "malformed message" where it is not; any error but PeerError is a failure."""
    try:
        decode_bulk(payload)
    except PeerError as error:
        return error.reason
    return "malformed message: not at all"


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_peer_error(noise: bytes) -> None:
    assert complaint_about(b"\x01" + noise).startswith("malformed message")


@given(st.integers(0, 120), st.binary(min_size=1, max_size=4))
def test_a_damaged_message_is_a_message_or_a_peer_error(at: int, noise: bytes) -> None:
    payload = encode_bulk(CHUNK)
    damaged = payload[:at] + noise + payload[at + len(noise) :]
    assert len(complaint_about(damaged)) < 100


@pytest.mark.parametrize(
    "payload",
    [
        b"\x01",
        b"\x01\x00",
        b"\x01\x00\x00data",
        b"\x01\xff\xff{}",
        b"\x01\x00\x02{}",
        b"\x01" + (HEAD_BYTES_MAX + 1).to_bytes(2, "big") + b" " * (HEAD_BYTES_MAX + 1),
        encode_bulk(CHUNK).replace(b'"data":""', b'"data":"QQ=="').replace(b"\x01\x00", b"\x01\x00", 1),
    ],
)
def test_what_does_not_fit_is_malformed(payload: bytes) -> None:
    with pytest.raises(PeerError, match="malformed message"):
        decode_bulk(payload)


def test_a_link_that_encrypts_carries_the_bytes_as_they_are() -> None:
    pair = lan_pair()
    before = sum(map(len, pair.wire))
    pieces: list[bytes] = []
    pair.links[0].send(CHUNK, pieces)
    heard = [message for piece in pieces for message in pair.links[1].receive(piece, [])]
    assert heard == [CHUNK]
    assert sum(map(len, pieces)) < len(CHUNK.data) + 200
    assert before > 0


def test_without_encryption_the_form_is_that_of_the_deployed_programs() -> None:
    out: list[bytes] = []
    Link.plaintext().send(CHUNK, out)
    assert b'"data":"AAEC' in b"".join(out)
    link = Link.plaintext()
    with pytest.raises(PeerError):
        list(link.receive(len(encode_bulk(CHUNK)).to_bytes(4, "big") + encode_bulk(CHUNK), []))
