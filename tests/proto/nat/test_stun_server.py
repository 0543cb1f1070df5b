"""What a STUN server answers, from where, and how much."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teale_proto.contract import NEVER
from teale_proto.effects import SendDatagram
from teale_proto.errors import LocalError
from teale_proto.inputs import WAKE, Address, DatagramReceived
from teale_proto.nat.stun import (
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
)
from teale_proto.nat.stun_server import PADDING_BYTES_MAX, StunServer
from tests.proto.nat.test_stun import TRANSACTION, a_request, attributes

PRIMARY = Address("192.0.2.1", 3478)
ALTERNATE = Address("198.51.100.1", 3479)
CLIENT = Address("203.0.113.7", 5000)
NAMES = {
    "Da:Dp": PRIMARY,
    "Da:Cp": Address("192.0.2.1", 3479),
    "Ca:Dp": Address("198.51.100.1", 3478),
    "Ca:Cp": ALTERNATE,
}

# RFC 5780, section 6.1, table 1: where an answer comes from, by where the request went and what is to change.
ORIGINS = """
    at      none    port    address  both
    Da:Dp   Da:Dp   Da:Cp   Ca:Dp    Ca:Cp
    Da:Cp   Da:Cp   Da:Dp   Ca:Cp    Ca:Dp
    Ca:Dp   Ca:Dp   Ca:Cp   Da:Dp    Da:Cp
    Ca:Cp   Ca:Cp   Ca:Dp   Da:Cp    Da:Dp
"""
CHANGES = {
    "none": None,
    "port": ChangeRequest(address=False, port=True),
    "address": ChangeRequest(address=True, port=False),
    "both": ChangeRequest(address=True, port=True),
}
HEADER, *ROWS = [line.split() for line in ORIGINS.strip().splitlines()]
CELLS = [(row[0], change, origin) for row in ROWS for change, origin in zip(HEADER[1:], row[1:], strict=True)]


def ask(server: StunServer, *attributes: Attribute, at: Address = PRIMARY, by: Address = CLIENT) -> SendDatagram:
    (answer,) = server.handle(DatagramReceived(at, by, encode(a_request(*attributes))), 0)
    assert answer.remote == by
    return answer


@pytest.mark.parametrize(("at", "change", "origin"), CELLS)
def test_an_answer_comes_from_where_rfc_5780_says(at: str, change: str, origin: str) -> None:
    asked = CHANGES[change]
    answer = ask(StunServer(PRIMARY, ALTERNATE), *((asked,) if asked else ()), at=NAMES[at])
    message = decode(answer.data)
    assert answer.local == NAMES[origin]
    assert message.get(ResponseOrigin) == ResponseOrigin(answer.local)
    both = {row[0]: row[4] for row in ROWS}
    assert message.get(OtherAddress) == OtherAddress(NAMES[both[at]])


@pytest.mark.parametrize("client", [CLIENT, Address("2001:db8::7", 5000)])
def test_a_client_is_told_where_it_came_from(client: Address) -> None:
    message = decode(ask(StunServer(PRIMARY), by=client).data)
    assert message == Message(MessageClass.SUCCESS, TRANSACTION, (XorMappedAddress(client), ResponseOrigin(PRIMARY)))


def test_a_server_with_one_address_offers_no_other_and_refuses_to_change() -> None:
    server = StunServer(PRIMARY)
    assert server.endpoints == (PRIMARY,)
    assert decode(ask(server).data).get(OtherAddress) is None
    answer = decode(ask(server, ChangeRequest(address=False, port=True)).data)
    assert answer.message_class is MessageClass.ERROR
    assert answer.attributes == (ErrorCode(420, "Unknown Attribute"), UnknownAttributes((3,)))


def test_a_server_with_two_addresses_needs_four_sockets() -> None:
    assert sorted(map(str, StunServer(PRIMARY, ALTERNATE).endpoints)) == sorted(map(str, NAMES.values()))


@pytest.mark.parametrize("alternate", [Address(PRIMARY.host, 1), Address("198.51.100.1", PRIMARY.port)])
def test_two_endpoints_that_share_something_are_no_alternates(alternate: Address) -> None:
    with pytest.raises(LocalError, match="differs"):
        StunServer(PRIMARY, alternate)


def test_attributes_that_must_be_understood_and_are_not_are_named() -> None:
    future, priority, optional = Unknown(0x0028, b"\0\1\0\0"), Unknown(0x0024, b"\0" * 4), Unknown(0x8029, b"")
    answer = decode(ask(StunServer(PRIMARY, ALTERNATE), future, optional, priority).data)
    assert answer.get(UnknownAttributes) == UnknownAttributes((0x0028, 0x0024))
    assert decode(ask(StunServer(PRIMARY), optional).data).message_class is MessageClass.SUCCESS


def test_an_answer_is_fingerprinted_if_its_request_was() -> None:
    data = encode(a_request(fingerprinted=True))
    (answer,) = StunServer(PRIMARY).handle(DatagramReceived(PRIMARY, CLIENT, data), 0)
    assert decode(answer.data).fingerprinted


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        encode(Message(MessageClass.INDICATION, TRANSACTION)),
        encode(Message(MessageClass.SUCCESS, TRANSACTION, (MappedAddress(CLIENT),))),
        encode(Message(MessageClass.ERROR, TRANSACTION)),
        encode(Message(MessageClass.REQUEST, TRANSACTION, method=3)),
    ],
)
def test_only_binding_requests_are_answered(data: bytes) -> None:
    """Above all no answers: two servers could be set on each other."""
    assert StunServer(PRIMARY).handle(DatagramReceived(PRIMARY, CLIENT, data), 0) == []


def test_what_is_sent_to_another_socket_or_from_no_port_is_ignored() -> None:
    server, request = StunServer(PRIMARY, ALTERNATE), encode(a_request())
    assert server.handle(DatagramReceived(Address(PRIMARY.host, 9), CLIENT, request), 0) == []
    assert server.handle(DatagramReceived(PRIMARY, Address(CLIENT.host, 0), request), 0) == []


def test_padding_is_answered_by_no_more_padding_than_was_sent() -> None:
    server = StunServer(PRIMARY)
    assert decode(ask(server, Padding(1000)).data).get(Padding) == Padding(1000)
    assert decode(ask(server, Padding(9000)).data).get(Padding) == Padding(PADDING_BYTES_MAX)


@pytest.mark.parametrize("other", [None, ALTERNATE])
def test_an_answer_goes_to_another_port_of_whoever_asks_where_it_is_wanted_there(other: Address | None) -> None:
    """RFC 5780, section 7.5."""
    request = encode(a_request(ResponsePort(7000)))
    (answer,) = StunServer(PRIMARY, other).handle(DatagramReceived(PRIMARY, CLIENT, request), 0)
    assert (answer.local, answer.remote) == (PRIMARY, Address(CLIENT.host, 7000))
    assert decode(answer.data).get(XorMappedAddress) == XorMappedAddress(CLIENT)


def test_where_to_answer_from_and_to_can_be_asked_for_at_once() -> None:
    request = encode(a_request(ResponsePort(7000), CHANGES["both"] or Software("")))
    (answer,) = StunServer(PRIMARY, ALTERNATE).handle(DatagramReceived(PRIMARY, CLIENT, request), 0)
    assert (answer.local, answer.remote) == (ALTERNATE, Address(CLIENT.host, 7000))


def test_a_refusal_goes_where_the_answer_would_have_gone() -> None:
    request = encode(a_request(ResponsePort(7000), ChangeRequest(address=True, port=True)))
    (answer,) = StunServer(PRIMARY).handle(DatagramReceived(PRIMARY, CLIENT, request), 0)
    assert (answer.local, answer.remote) == (PRIMARY, Address(CLIENT.host, 7000))
    assert decode(answer.data).get(UnknownAttributes) == UnknownAttributes((3,))


@pytest.mark.parametrize("wrong", [(ResponsePort(0),), (ResponsePort(7000), Padding(10))])
def test_a_port_that_is_none_and_one_beside_padding_are_refused_to_whoever_asked(wrong: tuple[Attribute, ...]) -> None:
    assert decode(ask(StunServer(PRIMARY), *wrong).data).get(ErrorCode) == ErrorCode(400, "Bad Request")


@pytest.mark.parametrize(
    ("primary", "alternate", "client", "ratio"),
    [
        (PRIMARY, ALTERNATE, CLIENT, 2.8),
        (Address("2001:db8::1", 1), Address("2001:db8::2", 2), Address("2001:db8::3", 3), 4.6),
    ],
)
def test_the_shortest_request_is_amplified_by_no_more_than_is_documented(
    primary: Address, alternate: Address, client: Address, ratio: float
) -> None:
    answer = ask(StunServer(primary, alternate), at=primary, by=client)
    assert len(answer.data) / len(encode(a_request())) == ratio


@given(st.lists(attributes, max_size=6), st.booleans(), st.booleans())
def test_an_answer_is_never_much_longer_than_its_request(
    sent: list[Attribute], fingerprinted: bool, two_addresses: bool
) -> None:
    data = encode(a_request(*sent, fingerprinted=fingerprinted))
    for at, client, more in ((PRIMARY, CLIENT, 36), (Address("2001:db8::1", 1), Address("2001:db8::3", 3), 72)):
        other = ALTERNATE if at is PRIMARY else Address("2001:db8::2", 2)
        server = StunServer(at, other if two_addresses else None)
        answers = server.handle(DatagramReceived(at, client, data), 0)
        assert len(answers) == 1
        assert len(answers[0].data) <= len(data) + more


def test_a_server_waits_for_nothing() -> None:
    server = StunServer(PRIMARY)
    assert server.handle(WAKE, 5) == []
    assert server.deadline == NEVER


def test_software_is_for_people_and_changes_nothing() -> None:
    server = StunServer(PRIMARY)
    assert ask(server, Software("client")).data == ask(server).data
