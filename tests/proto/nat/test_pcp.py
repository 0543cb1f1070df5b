"""PCP messages: byte for byte as RFC 6887 draws them, the limits, and whatever else bytes can be.

RFC 6887 publishes no test vectors; those here were put together by hand from its figures 2 to 10.
"""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teale_proto.errors import LocalError, PeerError
from teale_proto.inputs import Address
from teale_proto.nat.pcp import (
    MESSAGE_BYTES_MAX,
    OPTIONS_MAX,
    UDP,
    AnnounceRequest,
    MapRequest,
    MapResponse,
    Opcode,
    Option,
    OptionCode,
    OtherRequest,
    PlainResponse,
    ResultCode,
    VersionRefused,
    decode_request,
    decode_response,
    encode,
    refuse,
)

NONCE = bytes(range(12))
MAP_BODY = bytes.fromhex(
    "000102030405060708090a0b"  # mapping nonce
    "11000000"  # UDP
    "9c409c40"  # internal port 40000, external port 40000
    "00000000000000000000ffffcb007101"  # 203.0.113.1
)
REQUEST_BYTES = (
    bytes.fromhex(
        "0201000000001c20"  # version 2, MAP, 7200 s
        "00000000000000000000ffff0a000002"  # from 10.0.0.2
    )
    + MAP_BODY
)
REQUEST = MapRequest(NONCE, UDP, 40000, 7200, "10.0.0.2", Address("203.0.113.1", 40000))
RESPONSE_BYTES = (
    bytes.fromhex(
        "0281000000001c20"  # version 2, MAP answered, success, 7200 s
        "00000bb8000000000000000000000000"  # epoch 3000 s
    )
    + MAP_BODY
)
RESPONSE = MapResponse(ResultCode.SUCCESS, 7200, 3000, NONCE, UDP, 40000, Address("203.0.113.1", 40000))


def test_a_map_request_is_what_the_figures_draw() -> None:
    assert encode(REQUEST) == REQUEST_BYTES
    assert decode_request(REQUEST_BYTES) == REQUEST


def test_a_map_response_is_what_the_figures_draw() -> None:
    assert encode(RESPONSE) == RESPONSE_BYTES
    assert decode_response(RESPONSE_BYTES) == RESPONSE


def test_announce_is_a_header_and_nothing_else() -> None:
    assert encode(AnnounceRequest("::1")) == bytes.fromhex("0200000000000000") + bytes(15) + b"\x01"
    answer = PlainResponse(Opcode.ANNOUNCE, ResultCode.SUCCESS, 7)
    assert encode(answer) == bytes.fromhex("028000000000000000000007") + bytes(12)
    assert decode_response(encode(answer)) == answer


def test_options_are_kept_as_they_are_and_padded() -> None:
    options = (Option(OptionCode.PREFER_FAILURE), Option(200, b"odd"))
    request = MapRequest(NONCE, UDP, 1, 60, "2001:db8::1", Address("::", 0), options)
    assert encode(request)[60:] == bytes.fromhex("02000000c80000036f646400")
    assert decode_request(encode(request)) == request
    assert [option.mandatory for option in options] == [True, False]


def test_what_is_not_coded_keeps_its_opcode() -> None:
    peer = REQUEST_BYTES[:1] + b"\x02" + REQUEST_BYTES[2:]
    assert decode_request(peer) == OtherRequest(Opcode.PEER, "10.0.0.2")


@pytest.mark.parametrize(
    ("data", "refused"),
    [
        ("0281000100000708" + "00" * 16, VersionRefused(2)),
        ("0181000100000708" + "00" * 16, VersionRefused(1)),
        ("0081000100000bb8", VersionRefused(0)),
    ],
)
def test_a_refused_version_is_understood_in_the_header_of_any_version(data: str, refused: VersionRefused) -> None:
    assert decode_response(bytes.fromhex(data)) == refused


def test_a_refusal_gives_the_request_back_under_a_new_header() -> None:
    refusal = refuse(REQUEST_BYTES, ResultCode.NOT_AUTHORIZED, lifetime_seconds=1800, epoch_seconds=3000)
    assert refusal is not None
    assert refusal[24:] == MAP_BODY
    assert decode_response(refusal) == MapResponse(2, 1800, 3000, NONCE, UDP, 40000, REQUEST.suggested)


def test_a_refusal_is_cut_and_filled_to_what_a_message_may_be() -> None:
    for request in (b"\x02\x01", b"\x02\x01" + bytes(1999), b"\x02\x01" + bytes(25)):
        refusal = refuse(request, ResultCode.MALFORMED_REQUEST, lifetime_seconds=1, epoch_seconds=2)
        assert refusal is not None
        assert len(refusal) <= MESSAGE_BYTES_MAX
        assert len(refusal) % 4 == 0
        assert isinstance(decode_response(refusal), PlainResponse | MapResponse)


@pytest.mark.parametrize("data", [b"", b"\x02", REQUEST_BYTES[:1] + b"\x81" + REQUEST_BYTES[2:]])
def test_what_is_no_request_is_not_answered(data: bytes) -> None:
    assert refuse(data, ResultCode.MALFORMED_REQUEST, lifetime_seconds=1, epoch_seconds=2) is None


def test_an_error_is_understood_whatever_was_wrong_with_the_options() -> None:
    broken = REQUEST_BYTES + bytes.fromhex("0100ffff")
    with pytest.raises(PeerError, match="beyond"):
        decode_request(broken)
    refusal = refuse(broken, ResultCode.MALFORMED_OPTION, lifetime_seconds=1800, epoch_seconds=0)
    assert refusal is not None
    assert isinstance(answer := decode_response(refusal), MapResponse)
    assert answer.result == ResultCode.MALFORMED_OPTION
    assert answer.options == ()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        REQUEST_BYTES[:20],
        REQUEST_BYTES[:24],
        REQUEST_BYTES[:-4],
        REQUEST_BYTES + b"\0",
        b"\x01" + REQUEST_BYTES[1:],
        REQUEST_BYTES + bytes(MESSAGE_BYTES_MAX),
        RESPONSE_BYTES,
        REQUEST_BYTES + bytes.fromhex("02000000") * (OPTIONS_MAX + 1),
    ],
)
def test_what_is_no_request_is_a_peers_error(data: bytes) -> None:
    with pytest.raises(PeerError):
        decode_request(data)


def test_as_many_options_as_there_may_be() -> None:
    request = decode_request(REQUEST_BYTES + bytes.fromhex("02000000") * OPTIONS_MAX)
    assert isinstance(request, MapRequest)
    assert len(request.options) == OPTIONS_MAX
    assert encode(request) == REQUEST_BYTES + bytes.fromhex("02000000") * OPTIONS_MAX


ANYWHERE = Address("0.0.0.0", 0)


@pytest.mark.parametrize(
    "message",
    [
        MapRequest(b"short", UDP, 1, 1, "10.0.0.1", ANYWHERE),
        MapRequest(NONCE, 256, 1, 1, "10.0.0.1", ANYWHERE),
        MapRequest(NONCE, UDP, 65536, 1, "10.0.0.1", ANYWHERE),
        MapRequest(NONCE, UDP, 1, -1, "10.0.0.1", ANYWHERE),
        MapRequest(NONCE, UDP, 1, 1, "host.test", ANYWHERE),
        MapRequest(NONCE, UDP, 1, 1, "10.0.0.1", Address("0.0.0.0", -1)),
        MapRequest(NONCE, UDP, 1, 1, "10.0.0.1", ANYWHERE, (Option(2),) * (OPTIONS_MAX + 1)),
        MapRequest(NONCE, UDP, 1, 1, "10.0.0.1", ANYWHERE, (Option(2, bytes(MESSAGE_BYTES_MAX)),)),
        MapRequest(NONCE, UDP, 1, 1, "10.0.0.1", ANYWHERE, (Option(300),)),
        PlainResponse(200, 0, 0),
        PlainResponse(0, 256, 0),
        PlainResponse(0, 0, 2**32),
    ],
)
def test_what_no_decoder_would_accept_is_our_own_error(message: MapRequest | PlainResponse) -> None:
    with pytest.raises(LocalError):
        encode(message)


hosts = st.ip_addresses().map(str).filter(lambda host: not host.startswith("::ffff:"))
ports = st.integers(0, 65535)
addresses = st.builds(Address, hosts, ports)
seconds = st.integers(0, 2**32 - 1)
nonces = st.binary(min_size=12, max_size=12)
options = st.lists(st.builds(Option, st.integers(0, 255), st.binary(max_size=40)), max_size=OPTIONS_MAX).map(tuple)
bytes_ = st.integers(0, 255)
requests = st.one_of(
    st.builds(AnnounceRequest, hosts, options),
    st.builds(MapRequest, nonces, bytes_, ports, seconds, hosts, addresses, options),
)
responses = st.one_of(
    st.builds(PlainResponse, st.integers(2, 127) | st.just(0), st.integers(2, 255) | st.just(0), seconds, seconds),
    st.builds(MapResponse, st.just(0), seconds, seconds, nonces, bytes_, ports, addresses, options),
    st.builds(MapResponse, st.integers(2, 255), seconds, seconds, nonces, bytes_, ports, addresses),
)


@given(requests)
def test_requests_come_back_as_they_were(request: MapRequest | AnnounceRequest) -> None:
    assert decode_request(encode(request)) == request


@given(responses)
def test_responses_come_back_as_they_were(response: MapResponse | PlainResponse) -> None:
    assert decode_response(encode(response)) == response


headers = st.binary(max_size=3).map(lambda start: b"\x02" + start)


@given(st.binary(max_size=1200) | st.builds(bytes.__add__, headers, st.binary(min_size=20, max_size=200)))
def test_any_bytes_are_a_message_or_a_peers_error(data: bytes) -> None:
    for decode in (decode_request, decode_response):
        try:
            message = decode(data)
        except PeerError:
            continue
        if not isinstance(message, OtherRequest | VersionRefused):
            encode(message)


@given(st.binary(max_size=2000))
def test_any_bytes_are_refused_or_met_with_silence(data: bytes) -> None:
    refusal = refuse(data, ResultCode.MALFORMED_REQUEST, lifetime_seconds=1, epoch_seconds=2)
    assert refusal is None or isinstance(decode_response(refusal), MapResponse | PlainResponse)


@given(st.integers(0, 60), st.binary(min_size=1, max_size=8))
def test_a_garbled_response_is_a_message_or_a_peers_error(at: int, noise: bytes) -> None:
    with suppress(PeerError):
        decode_response(RESPONSE_BYTES[:at] + noise + RESPONSE_BYTES[at + len(noise) :])
