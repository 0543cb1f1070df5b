"""STUN messages: the published vectors, the limits, and whatever else bytes can be."""

from hashlib import md5
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teale_proto.errors import LocalError, PeerError
from teale_proto.inputs import Address
from teale_proto.nat.stun import (
    ATTRIBUTES_MAX,
    TEXT_BYTES_MAX,
    Attribute,
    ChangeRequest,
    ErrorCode,
    MappedAddress,
    Message,
    MessageClass,
    OtherAddress,
    Padding,
    ResponseOrigin,
    ResponsePort,
    Software,
    Unknown,
    UnknownAttributes,
    XorMappedAddress,
    decode,
    encode,
    has_integrity,
)

# The four test vectors of RFC 5769, sections 2.1 to 2.4, byte for byte.
REQUEST = bytes.fromhex(
    "000100582112a442b7e7a701bc34d686fa87dfae"
    "802200105354554e207465737420636c69656e74"
    "002400046e0001ff80290008932ff9b151263b36"
    "000600096576746a3a68367659202020"
    "000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2"
    "80280004e57a3bcf"
)
IPV4_RESPONSE = bytes.fromhex(
    "0101003c2112a442b7e7a701bc34d686fa87dfae"
    "8022000b7465737420766563746f7220"
    "002000080001a147e112a643"
    "000800142b91f599fd9e90c38c7489f92af9ba53f06be7d7"
    "80280004c07d4c96"
)
IPV6_RESPONSE = bytes.fromhex(
    "010100482112a442b7e7a701bc34d686fa87dfae"
    "8022000b7465737420766563746f7220"
    "002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d9"
    "00080014a382954e4be67bf11784c97c8292c275bfe3ed41"
    "80280004c8fb0b4c"
)
LONG_TERM_REQUEST = bytes.fromhex(
    "000100602112a44278ad3433c6ad72c029da412e"
    "00060012e3839ee38388e383aae38383e382afe382b90000"
    "0015001c662f2f3439396b39353464364f4c33346f4c39465354767936347341"
    "0014000b6578616d706c652e6f726700"
    "00080014f67024656dd64a3e02b8e0712e85c9a28ca89666"
)
TRANSACTION = bytes.fromhex("b7e7a701bc34d686fa87dfae")
PASSWORD = b"VOkJxbRl1RmTxUk/WvJxBt"
USERNAME, REALM, NONCE = "\u30de\u30c8\u30ea\u30c3\u30af\u30b9", "example.org", "f//499k954d6OL34oL9FSTvy64sA"
LONG_TERM_KEY = md5(f"{USERNAME}:{REALM}:TheMatrIX".encode(), usedforsecurity=False).digest()
VECTORS = [REQUEST, IPV4_RESPONSE, IPV6_RESPONSE, LONG_TERM_REQUEST]

addresses = st.builds(lambda ip, port: Address(str(ip), port), st.ip_addresses(), st.integers(0, 0xFFFF))
texts = st.text(max_size=100).filter(lambda text: len(text.encode()) <= TEXT_BYTES_MAX)
unknown_types = st.sampled_from([0x0002, 0x0024, 0x0028, 0x8029, 0x7FFF, 0xFFFF])
attributes: st.SearchStrategy[Attribute] = st.one_of(
    *(st.builds(kind, addresses) for kind in (MappedAddress, XorMappedAddress, ResponseOrigin, OtherAddress)),
    st.builds(ChangeRequest, st.booleans(), st.booleans()),
    st.builds(Padding, st.integers(0, 1600)),
    st.builds(ResponsePort, st.integers(0, 0xFFFF)),
    st.builds(ErrorCode, st.integers(300, 699), texts),
    st.builds(UnknownAttributes, st.lists(st.integers(0, 0xFFFF), max_size=9).map(tuple)),
    st.builds(Software, texts),
    st.builds(Unknown, unknown_types, st.binary(max_size=40)),
)
messages = st.builds(
    Message,
    st.sampled_from(MessageClass),
    st.binary(min_size=12, max_size=12),
    st.lists(attributes, max_size=8).map(tuple),
    st.booleans(),
    st.integers(0, 0xFFF),
)


def a_request(*attributes: Attribute, fingerprinted: bool = False) -> Message:
    return Message(MessageClass.REQUEST, TRANSACTION, attributes, fingerprinted)


def test_the_sample_request_of_rfc_5769_is_understood() -> None:
    assert decode(REQUEST) == a_request(
        Software("STUN test client"),
        Unknown(0x0024, bytes.fromhex("6e0001ff")),
        Unknown(0x8029, bytes.fromhex("932ff9b151263b36")),
        Unknown(0x0006, b"evtj:h6vY"),
        fingerprinted=True,
    )


@pytest.mark.parametrize(
    ("vector", "host"), [(IPV4_RESPONSE, "192.0.2.1"), (IPV6_RESPONSE, "2001:db8:1234:5678:11:2233:4455:6677")]
)
def test_the_sample_responses_of_rfc_5769_are_understood(vector: bytes, host: str) -> None:
    assert decode(vector) == Message(
        MessageClass.SUCCESS,
        TRANSACTION,
        (Software("test vector"), XorMappedAddress(Address(host, 32853))),
        fingerprinted=True,
    )


@pytest.mark.parametrize("vector", [REQUEST, IPV4_RESPONSE, IPV6_RESPONSE])
def test_the_vectors_carry_the_integrity_of_their_password_and_of_no_other(vector: bytes) -> None:
    assert has_integrity(vector, PASSWORD)
    assert not has_integrity(vector, PASSWORD + b"!")
    assert not has_integrity(vector[:40] + b"!" + vector[41:], PASSWORD)


def test_the_request_with_long_term_credentials_is_made_byte_for_byte() -> None:
    """The only one of the four whose padding is zeros, as ours is."""
    message = Message(
        MessageClass.REQUEST,
        LONG_TERM_REQUEST[8:20],
        (Unknown(0x0006, USERNAME.encode()), Unknown(0x0015, NONCE.encode()), Unknown(0x0014, REALM.encode())),
    )
    assert encode(message, key=LONG_TERM_KEY) == LONG_TERM_REQUEST
    assert decode(LONG_TERM_REQUEST) == message
    assert has_integrity(LONG_TERM_REQUEST, LONG_TERM_KEY)


def test_credentials_need_not_be_understood_but_other_low_types_must() -> None:
    assert decode(LONG_TERM_REQUEST).not_understood == ()
    assert decode(REQUEST).not_understood == (0x0024,)


def test_a_plain_binding_request_is_twenty_bytes() -> None:
    assert encode(a_request()).hex() == "000100002112a442" + TRANSACTION.hex()


@pytest.mark.parametrize(
    ("attribute", "encoded"),
    [
        (MappedAddress(Address("192.0.2.1", 32853)), "00010008" + "00018055c0000201"),
        (ChangeRequest(address=True, port=False), "00030004" + "00000004"),
        (ChangeRequest(address=False, port=True), "00030004" + "00000002"),
        (ErrorCode(420, "no"), "00090006" + "000004146e6f0000"),
        (UnknownAttributes((3, 0x27, 0x7FFF)), "000a0006" + "000300277fff0000"),
        (Padding(5), "00260005" + "00" * 8),
        (ResponsePort(0x1234), "00270004" + "12340000"),
        (Software("x"), "80220001" + "78000000"),
        (ResponseOrigin(Address("::1", 1)), "802b0014" + "00020001" + "00" * 15 + "01"),
        (OtherAddress(Address("198.51.100.1", 3479)), "802c0008" + "00010d97c6336401"),
    ],
)
def test_every_attribute_has_the_bytes_of_its_rfc(attribute: Attribute, encoded: str) -> None:
    data = encode(a_request(attribute))
    assert data[20:].hex() == encoded
    assert decode(data).attributes == (attribute,)


@given(messages, st.none() | st.binary(min_size=1, max_size=30))
def test_what_is_encoded_is_decoded_to_the_same(message: Message, key: bytes | None) -> None:
    data = encode(message, key=key)
    assert decode(data) == message
    assert has_integrity(data, key or b"") == (key is not None)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_peer_error(data: bytes) -> None:
    try:
        decode(data)
    except PeerError:
        return


@given(st.sampled_from(VECTORS), st.integers(0, 120), st.binary(max_size=8), st.integers(0, 8))
def test_a_damaged_message_is_a_message_or_a_peer_error(vector: bytes, at: int, noise: bytes, skip: int) -> None:
    data = vector[:at] + noise + vector[at + skip :]
    try:
        decode(data)
        has_integrity(data, PASSWORD)
    except PeerError:
        return


@given(st.integers(0, len(IPV4_RESPONSE) - 1), st.integers(1, 255))
def test_a_fingerprint_tells_every_damaged_byte(at: int, change: int) -> None:
    damaged = bytearray(IPV4_RESPONSE)
    damaged[at] ^= change
    try:
        message = decode(bytes(damaged))
    except PeerError:
        return
    # Only damage to the type of the attribute itself hides it.
    assert not message.fingerprinted


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("00200008" + "0001a147", "reaches beyond"),
        ("00200004" + "0001a147", "malformed address"),
        ("00200014" + "0001a147" + "00" * 16, "malformed address"),
        ("00200018" + "0002a147" + "00" * 20, "malformed address"),
        ("00200000", "malformed address"),
        ("00030000", "malformed CHANGE-REQUEST"),
        ("00090004" + "00000214", "malformed ERROR-CODE"),
        ("00090004" + "00000464", "malformed ERROR-CODE"),
        ("000a0001" + "00000000", "malformed UNKNOWN-ATTRIBUTES"),
        ("80220001" + "ff000000", "not UTF-8"),
        ("802202fc" + "61" * 764, "too long"),
        ("80280004" + "00000000", "wrong FINGERPRINT"),
        ("80280000", "wrong FINGERPRINT"),
    ],
)
def test_an_impossible_attribute_is_a_peer_error(body: str, reason: str) -> None:
    attribute = bytes.fromhex(body)
    data = b"\0\1" + len(attribute).to_bytes(2, "big") + encode(a_request())[4:] + attribute
    with pytest.raises(PeerError, match=reason):
        decode(data)


@pytest.mark.parametrize(
    "data",
    [b"", REQUEST[:19], b"\x40" + REQUEST[1:], REQUEST[:4] + b"\0" + REQUEST[5:], REQUEST + b"\0" * 4, REQUEST[:-4]],
)
def test_what_is_no_stun_message_is_a_peer_error(data: bytes) -> None:
    with pytest.raises(PeerError):
        decode(data)


def test_nothing_may_follow_the_fingerprint() -> None:
    header = b"\0\1\0\x0c" + encode(a_request())[4:]
    fingerprint = (crc32(header) ^ 0x5354554E).to_bytes(4, "big")
    with pytest.raises(PeerError, match="after FINGERPRINT"):
        decode(header + b"\x80\x28\0\4" + fingerprint + b"\x80\x22\0\0")


def test_what_follows_the_integrity_is_left_out() -> None:
    data = encode(a_request(), key=PASSWORD)
    smuggled = encode(a_request(ChangeRequest(address=True, port=True)))[20:]
    longer = data[:2] + (len(data) - 20 + len(smuggled)).to_bytes(2, "big") + data[4:] + smuggled
    assert decode(longer).attributes == ()
    assert has_integrity(longer, PASSWORD)


def test_a_message_has_a_limited_number_of_attributes() -> None:
    full = a_request(*[Unknown(0x7000, b"")] * ATTRIBUTES_MAX)
    assert decode(encode(full)) == full
    data = encode(full)
    longer = data[:2] + (len(data) - 16).to_bytes(2, "big") + data[4:] + b"\x70\0\0\0"
    with pytest.raises(PeerError, match="too many"):
        decode(longer)
    with pytest.raises(LocalError, match="at most"):
        encode(a_request(*[Unknown(0x7000, b"")] * (ATTRIBUTES_MAX + 1)))


def test_of_a_repeated_attribute_the_first_counts() -> None:
    first, second = Software("first"), Software("second")
    assert decode(encode(a_request(first, second))).get(Software) == first
    assert a_request(first).get(Padding) is None


@pytest.mark.parametrize(
    "message",
    [
        Message(MessageClass.REQUEST, b"short"),
        a_request(MappedAddress(Address("stun.example.org", 1))),
        a_request(MappedAddress(Address("192.0.2.1", 65536))),
        a_request(ErrorCode(200)),
        a_request(Software("x" * 764)),
    ],
)
def test_what_nobody_could_decode_is_not_encoded(message: Message) -> None:
    with pytest.raises(LocalError):
        encode(message)


def test_a_port_to_answer_to_may_have_its_padding_counted_or_not() -> None:
    header = bytes.fromhex("000100082112a442") + TRANSACTION
    assert decode(header + bytes.fromhex("0027000212340000")).get(ResponsePort) == ResponsePort(0x1234)
    with pytest.raises(PeerError, match="RESPONSE-PORT"):
        decode(header + bytes.fromhex("0027000312340000"))
    with pytest.raises(LocalError, match="16 bits"):
        encode(a_request(ResponsePort(65536)))
