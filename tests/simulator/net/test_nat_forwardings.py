"""Ports that a NAT forwards because it was told to: who comes in by them, what leaves by them, and for how long."""

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.net.nat import Allocation, Collision, Nat, NatKind, Packet
from simulator.rng import stream
from teale_proto.contract import SECOND, Instant
from teale_proto.inputs import Address
from teale_proto.nat.kinds import Mapping

OUTSIDE = "203.0.113.1"
INSIDE = Address("10.0.0.2", 40000)
OTHER = Address("10.0.0.3", 40000)
STRANGER, FRIEND = Address("198.51.100.7", 7), Address("198.51.100.8", 8)
HOUR = 3600 * SECOND
HARD = NatKind(mapping=Mapping.ADDRESS_AND_PORT_DEPENDENT, allocation=Allocation.RANDOM)


def make_nat(kind: NatKind | None = None, outside: Sequence[str] = ()) -> Nat:
    kind = kind or NatKind()
    return Nat(kind, outside or [OUTSIDE] if kind.translates else (), stream(1, "nat", "test"))


def lets_in(nat: Nat, port: int, now: Instant, host: str = OUTSIDE) -> Address | None:
    packet = nat.inbound(Packet(STRANGER, Address(host, port), b"x"), now)
    return packet.destination if packet else None


def seen_as(nat: Nat, inside: Address, remote: Address, now: Instant) -> int:
    packet = nat.outbound(Packet(inside, remote, b"x"), now)
    assert packet is not None
    return packet.source.port


@pytest.mark.parametrize("kind", [NatKind(), HARD, NatKind(collision=Collision.OVERLOAD)])
def test_a_stranger_comes_in_by_an_open_port_whatever_the_filtering(kind: NatKind) -> None:
    nat = make_nat(kind)
    assert lets_in(nat, 1234, 0) is None
    assert nat.open_port(INSIDE, 1234, HOUR, 0) == Address(OUTSIDE, 1234)
    assert lets_in(nat, 1234, HOUR - 1) == INSIDE
    assert lets_in(nat, 1234, HOUR) is None


@pytest.mark.parametrize("kind", [NatKind(), HARD])
def test_what_the_inside_sends_leaves_by_its_open_port(kind: NatKind) -> None:
    nat = make_nat(kind)
    nat.open_port(INSIDE, 1234, HOUR, 0)
    assert {seen_as(nat, INSIDE, remote, 0) for remote in (STRANGER, FRIEND)} == {1234}
    assert nat.inbound(Packet(FRIEND, Address(OUTSIDE, 1234), b""), 0) is not None


def test_an_open_port_is_taken_for_everybody_else() -> None:
    nat = make_nat()
    nat.open_port(INSIDE, OTHER.port, HOUR, 0)
    assert seen_as(nat, OTHER, STRANGER, 0) == OTHER.port + 1
    assert nat.open_port(OTHER, OTHER.port, HOUR, 0, exact=True) is None
    assert nat.open_port(OTHER, OTHER.port, HOUR, 0) == Address(OUTSIDE, OTHER.port + 1)


def test_a_port_in_use_by_another_is_not_opened_and_the_next_is() -> None:
    nat = make_nat()
    seen_as(nat, OTHER, STRANGER, 0)
    assert nat.open_port(INSIDE, OTHER.port, HOUR, 0, exact=True) is None
    outside = nat.open_port(INSIDE, OTHER.port, HOUR, 0)
    assert outside == Address(OUTSIDE, OTHER.port + 1)


def test_an_endpoint_that_has_a_mapping_keeps_its_port() -> None:
    nat = make_nat(NatKind(allocation=Allocation.RANDOM))
    port = seen_as(nat, INSIDE, FRIEND, 0)
    assert nat.open_port(INSIDE, 1234, HOUR, 0) == Address(OUTSIDE, port)
    assert lets_in(nat, port, 0) == INSIDE


def test_a_port_that_must_be_exactly_this_one_moves_the_endpoint_there() -> None:
    nat = make_nat()
    seen_as(nat, INSIDE, FRIEND, 0)
    nat.open_port(INSIDE, 1234, HOUR, 0, exact=True)
    assert seen_as(nat, INSIDE, FRIEND, 0) == 1234
    assert nat.inbound(Packet(FRIEND, Address(OUTSIDE, INSIDE.port), b""), 0) is None
    assert nat.open_port(INSIDE, 1235, HOUR, 0, exact=True) is None


def test_opening_again_prolongs_and_closing_ends_and_leaves_sessions() -> None:
    nat = make_nat()
    nat.open_port(INSIDE, 1234, HOUR, 0)
    assert nat.open_port(INSIDE, 99, HOUR, HOUR // 2) == Address(OUTSIDE, 1234)
    assert lets_in(nat, 1234, HOUR) == INSIDE
    seen_as(nat, INSIDE, FRIEND, HOUR)
    assert nat.close_port(INSIDE, HOUR)
    assert not nat.close_port(INSIDE, HOUR)
    assert lets_in(nat, 1234, HOUR) is None
    assert nat.inbound(Packet(FRIEND, Address(OUTSIDE, 1234), b""), HOUR) is not None


def test_forwardings_have_a_limit() -> None:
    nat = make_nat(NatKind(forwardings_max=3))
    opened = [nat.open_port(Address("10.0.0.2", port), 0, HOUR, 0) for port in range(1, 6)]
    assert [outside is not None for outside in opened] == [True] * 3 + [False] * 2
    assert len(nat.forwardings(0)) == 3
    assert nat.open_port(Address("10.0.0.2", 9), 0, HOUR, HOUR) is not None


@pytest.mark.parametrize("forget", [Nat.reboot, lambda nat: nat.rebind([OUTSIDE])])
def test_a_nat_that_starts_anew_has_forgotten_its_forwardings_and_counts_it(forget: Callable[[Nat], None]) -> None:
    nat = make_nat()
    nat.open_port(INSIDE, 1234, HOUR, 0)
    forget(nat)
    assert (nat.forwardings(0), nat.restarts, lets_in(nat, 1234, 0)) == ((), 1, None)
    nat.flush()
    assert nat.restarts == 1


def test_a_firewall_opens_the_port_itself() -> None:
    nat = make_nat(NatKind(translates=False))
    inside = Address("2001:db8::2", 40000)
    assert nat.open_port(inside, 1234, HOUR, 0, exact=True) is None
    assert nat.open_port(inside, 1234, HOUR, 0) == inside
    assert nat.inbound(Packet(Address("2001:db8:9::9", 9), inside, b""), 0) is not None


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 3), st.integers(0, 3), st.integers(0, 40)), max_size=60))
def test_the_range_of_ports_is_counted_right_whatever_is_opened_closed_and_sent(
    steps: list[tuple[int, int, int, int]],
) -> None:
    """A range of four ports is full exactly when four are taken; nothing is left counted at the end."""
    nat = make_nat(NatKind(port_min=2000, port_max=2003, lifetime=20 * SECOND, allocation=Allocation.SEQUENTIAL))
    now = 0
    for what, host, port, later in steps:
        now += later * SECOND // 4
        inside = Address(f"10.0.0.{host}", 1000 + port)
        if what == 0:
            nat.open_port(inside, 2000 + port, 15 * SECOND, now, exact=port % 2 == 0)
        elif what == 1:
            nat.close_port(inside, now)
        elif what == 2:
            nat.reboot()
        else:
            nat.outbound(Packet(inside, STRANGER, b""), now)
        forwarded = {forwarding.outside for forwarding in nat.forwardings(now)}
        assert nat._ports_taken.get(OUTSIDE, 0) == len(forwarded | set(nat._by_outside)) <= 4
    assert nat.sessions(now + HOUR) == 0
    assert nat._ports_taken.get(OUTSIDE, 0) == 0
