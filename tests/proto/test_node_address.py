"""Node addresses: what people pass on is read as it was printed, and whatever else is pasted is refused in words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teale_proto.inputs import Address, NodeId
from teale_proto.node_address import (
    ADDRESSES_MAX,
    LENGTH_MAX,
    PARTS_MAX,
    AddressError,
    NodeAddress,
    parse_node_address,
)

NODE = NodeId("ab" * 32)
RELAY = "wss://relay.example.com/ws"
V4, V6 = Address("192.0.2.1", 4433), Address("2001:db8::1", 4433)

hosts = st.one_of(
    st.ip_addresses(v=4).filter(lambda each: not (each.is_unspecified or each.is_multicast)),
    st.ip_addresses(v=6).filter(lambda each: not (each.is_unspecified or each.is_multicast)),
)
endpoints = st.builds(Address, hosts.map(str), st.integers(1, 65535))
words = st.text("abcxyz019-._~%&=?+/", max_size=20)
relays = st.one_of(
    st.just(""),
    st.builds(
        lambda secure, path, query: f"ws{'s' * secure}://relay.example:8080/{path}?{query}", st.booleans(), words, words
    ),
)
node_addresses = st.builds(
    NodeAddress,
    st.binary(min_size=32, max_size=32).map(lambda key: NodeId(key.hex())),
    relays,
    st.lists(endpoints, max_size=ADDRESSES_MAX, unique=True).map(tuple),
)


@given(node_addresses)
def test_what_is_printed_is_read_as_it_was(address: NodeAddress) -> None:
    assert parse_node_address(str(address)) == address


@given(st.text(max_size=100), st.booleans())
def test_any_text_is_an_address_or_refused_in_words(text: str, begins_well: bool) -> None:
    try:
        parsed = parse_node_address(f"teale://{NODE}?{text}" if begins_well else text)
    except AddressError:
        return
    assert parse_node_address(str(parsed)) == parsed


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (f"teale://{NODE}", NodeAddress(NODE)),
        (f"  TEALE://{NODE.upper()}/ \n", NodeAddress(NODE)),
        (f"teale://{NODE}?", NodeAddress(NODE)),
        (f"teale://{NODE}?relay={RELAY}", NodeAddress(NODE, RELAY)),
        (f"teale://{NODE}?relay=wss%3A%2F%2Frelay.example.com%2Fws", NodeAddress(NODE, RELAY)),
        (f"teale://{NODE}?addr=192.0.2.1:4433&addr=[2001:db8::1]:4433", NodeAddress(NODE, "", (V4, V6))),
        (f"teale://{NODE}?addr=%5B2001:DB8:0::1%5D:4433", NodeAddress(NODE, "", (V6,))),
        (f"teale://{NODE}?addr=192.0.2.1:4433&addr=192.0.2.1:4433", NodeAddress(NODE, "", (V4,))),
        (f"teale://{NODE}?color=red&addr=192.0.2.1:4433&&x", NodeAddress(NODE, "", (V4,))),
        (f"teale://{NODE}?addr=192.0.2.1:4433#later", NodeAddress(NODE, "", (V4,))),
    ],
)
def test_an_address_is_read(text: str, address: NodeAddress) -> None:
    assert parse_node_address(text) == address


def test_an_address_is_printed_as_people_read_it() -> None:
    assert str(NodeAddress(NODE, RELAY, (V4, V6))) == (
        f"teale://{NODE}?relay=wss://relay.example.com/ws&addr=192.0.2.1:4433&addr=[2001:db8::1]:4433"
    )
    assert str(NodeAddress(NODE, "wss://r/?a=1&b=2")) == f"teale://{NODE}?relay=wss://r/%3Fa%3D1%26b%3D2"


def with_addr(value: str) -> str:
    return f"teale://{NODE}?addr={value}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        NODE,
        f"https://{NODE}",
        "teale://",
        f"teale://{NODE[:-1]}",
        f"teale://{NODE}0",
        f"teale://user@{NODE}",
        f"teale://{NODE}:443",
        f"teale://{NODE}/path",
        f"teale://{NODE}?relay=",
        f"teale://{NODE}?relay=http://relay.example",
        f"teale://{NODE}?relay=wss://",
        f"teale://{NODE}?relay=wss://user:secret@relay.example",
        f"teale://{NODE}?relay=wss://relay.example:0",
        f"teale://{NODE}?relay=wss://relay.example:x",
        f"teale://{NODE}?relay=wss://relay.example/%0d%0a",
        f"teale://{NODE}?relay={RELAY}&relay={RELAY}",
        f"teale://{NODE}?relay=wss://{'a' * 600}",
        f"teale://{NODE}?addr=192.0.2.1:4433\nmore",
        f"teale://{NODE}?addr=192.0.2.1:44\u202e33",
        *map(
            with_addr,
            (
                *("", "192.0.2.1", "192.0.2.1:", "192.0.2.1:0", "192.0.2.1:65536", "192.0.2.1:+1", "192.0.2.1:01"),
                *(
                    "192.0.2:1",
                    "192.0.2.256:1",
                    "[192.0.2.1]:1",
                    "2001:db8::1:1",
                    "[2001:db8::1]",
                    "[::]:1",
                    "0.0.0.0:1",
                ),
                *("[fe80::1%25eth0]:1", "[ff02::1]:1", "224.0.0.1:1", "example.com:1", "[::ffff:1.2.3.4.5]:1"),
            ),
        ),
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(AddressError):
        parse_node_address(text)


def test_everything_has_a_limit() -> None:
    addresses = [f"addr=192.0.2.{number}:1" for number in range(1, ADDRESSES_MAX + 2)]
    assert len(parse_node_address(f"teale://{NODE}?{'&'.join(addresses[:-1])}").addresses) == ADDRESSES_MAX
    with pytest.raises(AddressError, match="at most 8 addresses"):
        parse_node_address(f"teale://{NODE}?{'&'.join(addresses)}")
    with pytest.raises(AddressError, match="parts"):
        parse_node_address(f"teale://{NODE}?{'&'.join(['x=1'] * (PARTS_MAX + 1))}")
    longest = f"teale://{NODE}?x=".ljust(LENGTH_MAX, "y")
    assert parse_node_address(longest).node == NODE
    with pytest.raises(AddressError, match="characters"):
        parse_node_address(longest + "y")
