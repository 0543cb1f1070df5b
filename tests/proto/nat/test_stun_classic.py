"""Binding requests without a magic cookie, byte for byte as RFC 3489 has them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teale_proto.effects import SendDatagram
from teale_proto.inputs import Address, DatagramReceived
from teale_proto.nat.stun import MAGIC_COOKIE
from teale_proto.nat.stun_classic import answer

CLIENT = Address("203.0.113.9", 40000)
SERVER = Address("192.0.2.1", 3478)
OTHER = Address("192.0.2.2", 3479)
TRANSACTION = bytes(range(16))


def request(attributes: str = "", *, kind: str = "0001", transaction: bytes = TRANSACTION) -> DatagramReceived:
    body = bytes.fromhex(attributes)
    data = bytes.fromhex(kind) + len(body).to_bytes(2, "big") + transaction + body
    return DatagramReceived(SERVER, CLIENT, data)


def answered(asked: DatagramReceived, alternate: Address | None = None) -> SendDatagram:
    said = answer(asked, alternate)
    assert said is not None
    assert said.remote == CLIENT
    assert said.data[4:20] == TRANSACTION
    assert int.from_bytes(said.data[2:4], "big") == len(said.data) - 20
    return said


MAPPED = "0001 0008 0001 9c40 cb007109"
SOURCE = "0004 0008 0001 0d96 c0000201"
CHANGED = "0005 0008 0001 0d97 c0000202"


def test_it_says_where_a_request_came_from_and_where_the_answer_does() -> None:
    said = answered(request())
    assert said.local == SERVER
    assert said.data[:2] == b"\1\1"
    assert said.data[20:] == bytes.fromhex(MAPPED + SOURCE)


def test_a_second_address_is_offered() -> None:
    assert answered(request(), OTHER).data[20:] == bytes.fromhex(MAPPED + SOURCE + CHANGED)


@pytest.mark.parametrize(
    ("flags", "origin"),
    [
        (0, SERVER),
        (2, Address(SERVER.host, OTHER.port)),
        (4, Address(OTHER.host, SERVER.port)),
        (6, OTHER),
    ],
)
def test_the_answer_comes_from_where_it_was_asked_to(flags: int, origin: Address) -> None:
    assert answered(request(f"0003 0004 000000{flags:02x}"), OTHER).local == origin


def test_a_change_that_cannot_be_had_is_refused() -> None:
    said = answered(request("0003 0004 00000002"))
    assert said.local == SERVER
    assert said.data[:2] == b"\1\x11"
    assert said.data[20:48] == bytes.fromhex("0009 0018 0000 0414") + b"Unknown Attribute   "
    assert said.data[48:] == bytes.fromhex("000a 0004 0003 0003")
    assert answered(request("0003 0004 00000000")).data[:2] == b"\1\1"


def test_no_answer_is_sent_to_an_address_in_the_request() -> None:
    asked = request("0002 0008 0001 0050 c6336401")
    said = answered(asked, OTHER)
    assert said.remote == CLIENT
    assert said.data[-8:] == bytes.fromhex("000a 0004 0002 0002")


def test_a_request_with_a_cookie_is_somebody_elses() -> None:
    assert answer(request(transaction=MAGIC_COOKIE.to_bytes(4, "big") + bytes(12))) is None


@pytest.mark.parametrize("kind", ["0101", "0111", "0002", "4001"])
def test_what_is_no_request_has_no_answer(kind: str) -> None:
    assert answer(request(kind=kind)) is None


@pytest.mark.parametrize("attributes", ["0003", "0003 0004 0000", "0003 0008 00000000", "8022 0000" * 33])
def test_what_is_malformed_has_no_answer(attributes: str) -> None:
    assert answer(request(attributes)) is None


def test_there_is_no_such_thing_over_ipv6() -> None:
    six = Address("2001:db8::1", 3478)
    assert answer(DatagramReceived(six, Address("2001:db8::9", 1), request().data)) is None


@given(st.binary(max_size=120))
def test_nothing_makes_it_raise_or_gain_more_than_a_little(data: bytes) -> None:
    said = answer(DatagramReceived(SERVER, CLIENT, data), OTHER)
    assert said is None or len(said.data) <= len(data) + 44


@given(st.binary(max_size=100))
def test_no_attributes_make_it_raise_or_gain_more_than_a_little(body: bytes) -> None:
    data = b"\0\1" + len(body).to_bytes(2, "big") + TRANSACTION + body
    said = answer(DatagramReceived(SERVER, CLIENT, data), OTHER)
    assert said is None or len(said.data) <= len(data) + 44
