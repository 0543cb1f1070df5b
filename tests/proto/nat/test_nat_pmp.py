"""NAT-PMP messages: byte for byte as RFC 6886 draws them, the limits, and whatever else bytes can be."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teale_proto.errors import LocalError, PeerError
from teale_proto.nat.nat_pmp import (
    AddressRequest,
    AddressResponse,
    MapRequest,
    MapResponse,
    Opcode,
    Refused,
    Request,
    Response,
    ResultCode,
    decode_request,
    decode_response,
    encode,
)

# RFC 6886 publishes no test vectors; these were put together by hand from the figures of sections 3.2 and 3.3.
REQUESTS: dict[str, Request] = {
    "0000": AddressRequest(),
    "000100009c409c4000001c20": MapRequest(Opcode.MAP_UDP, 40000, 40000, 7200),
    "000200000050000000000000": MapRequest(Opcode.MAP_TCP, 80, 0, 0),
}
RESPONSES: dict[str, Response] = {
    "0080000000000bb8cb007101": AddressResponse(3000, "203.0.113.1"),
    "0081000000000bb89c40904000001c20": MapResponse(Opcode.MAP_UDP, 3000, 40000, 36928, 7200),
    "0081000100000bb8": Refused(1, ResultCode.UNSUPPORTED_VERSION, 3000),
    "0082000200000bb8005000000000000a": Refused(2, ResultCode.NOT_AUTHORIZED, 3000),
}


@pytest.mark.parametrize(("data", "request_"), REQUESTS.items())
def test_requests_are_what_the_figures_draw(data: str, request_: Request) -> None:
    assert encode(request_) == bytes.fromhex(data)
    assert decode_request(bytes.fromhex(data)) == request_


@pytest.mark.parametrize(("data", "response"), RESPONSES.items())
def test_responses_are_what_the_figures_draw(data: str, response: Response) -> None:
    assert bytes.fromhex(data).startswith(encode(response))
    assert decode_response(bytes.fromhex(data)) == response


@pytest.mark.parametrize("data", ["", "00", "0001", "0003" + "00" * 10, "0081" + "00" * 10, "01" + "00" * 11, "000000"])
def test_what_is_no_request_is_a_peers_error(data: str) -> None:
    with pytest.raises(PeerError):
        decode_request(bytes.fromhex(data))


NO_RESPONSES = [
    *("", "0080", "0080" + "00" * 4, "0080" + "00" * 6, "0080" + "00" * 12, "0081" + "00" * 10),
    *("0001" + "00" * 14, "0281" + "00" * 14, "0083" + "00" * 14, "0081000200000bb8" + "00" * 1100),
]


@pytest.mark.parametrize("data", NO_RESPONSES)
def test_what_is_no_response_is_a_peers_error(data: str) -> None:
    with pytest.raises(PeerError):
        decode_response(bytes.fromhex(data))


@pytest.mark.parametrize(
    "message",
    [
        MapRequest(Opcode.ADDRESS, 1, 1, 1),
        MapRequest(Opcode.MAP_UDP, 65536, 1, 1),
        MapResponse(Opcode.MAP_UDP, -1, 1, 1, 1),
        MapResponse(Opcode.MAP_UDP, 1, 1, 1, 2**32),
        AddressResponse(1, "2001:db8::1"),
        AddressResponse(2**32, "192.0.2.1"),
        Refused(1, 0, 1),
        Refused(128, 1, 1),
    ],
)
def test_what_no_decoder_would_accept_is_our_own_error(message: Request | Response) -> None:
    with pytest.raises(LocalError):
        encode(message)


ports = st.integers(0, 65535)
seconds = st.integers(0, 2**32 - 1)
protocols = st.sampled_from([Opcode.MAP_UDP, Opcode.MAP_TCP])


@given(st.builds(AddressRequest) | st.builds(MapRequest, protocols, ports, ports, seconds))
def test_requests_come_back_as_they_were(request: Request) -> None:
    assert decode_request(encode(request)) == request


@given(
    st.builds(AddressResponse, seconds, st.ip_addresses(v=4).map(str))
    | st.builds(MapResponse, protocols, seconds, ports, ports, seconds)
    | st.builds(Refused, st.integers(0, 127), st.integers(1, 65535), seconds)
)
def test_responses_come_back_as_they_were(response: Response) -> None:
    assert decode_response(encode(response)) == response


@given(st.binary(max_size=40) | st.binary(max_size=20).map(lambda rest: b"\0" + rest))
def test_any_bytes_are_a_message_or_a_peers_error(data: bytes) -> None:
    for decode in (decode_request, decode_response):
        with suppress(PeerError):
            assert encode(decode(data))
