"""The gate: what passes at a limit and what one past it, to the microsecond."""

import pytest

from teale_proto.contract import MILLISECOND, SECOND
from teale_proto.errors import LocalError
from teale_proto.relay.limits import Flow, FlowLimit, Traffic
from teale_proto.relay.server import RelayServerConfig
from teale_proto.relay.traffic import Excess, Gate, Scope, Source, TrafficLimit, address_key

WIDE = Traffic()
A, B = "192.0.2.1", "192.0.2.2"


def gate(
    client: Traffic = WIDE, address: Traffic = WIDE, total: Traffic = WIDE, *, per_address: int = 256, idle: int = 4096
) -> Gate:
    return Gate(
        RelayServerConfig(
            client_traffic=client,
            address_traffic=address,
            total_traffic=total,
            connections_per_address_max=per_address,
            idle_addresses_max=idle,
            message_bytes_max=1,
        )
    )


def entered(door: Gate, host: str = A, now: int = 0) -> Source:
    source = door.enter(host, now)
    assert source is not None
    return source


def messages(per_second: int, burst: int) -> Traffic:
    return Traffic(messages=Flow(per_second, burst))


def test_a_flow_grants_its_burst_and_one_more_is_too_much() -> None:
    limit = FlowLimit(Flow(per_second=10, burst=3))
    assert limit.wait(3, 0) == 0
    assert limit.wait(4, 0) == 100 * MILLISECOND
    assert not limit.take(4, 0)
    assert limit.take(3, 0)
    assert limit.wait(1, 0) == 100 * MILLISECOND
    assert limit.wait(1, 99_999) == 1
    assert not limit.take(1, 99_999)
    assert limit.wait(1, 100_000) == 0
    assert limit.wait(2, 100_000) == 100 * MILLISECOND
    assert limit.take(1, 100_000)
    assert not limit.take(1, 100_000)


def test_a_flow_is_exact_at_any_rate() -> None:
    slow, fast = FlowLimit(Flow(per_second=3, burst=1)), FlowLimit(Flow(per_second=7_000_000_001, burst=1 << 30))
    assert slow.take(1, 0)
    assert slow.wait(1, 333_333) == 1
    assert not slow.take(1, 333_333)
    assert slow.take(1, 333_334)
    assert fast.take(1 << 30, 5)
    assert fast.wait(7_000, 5) == 1
    assert fast.wait(7_001, 6) == 1
    assert fast.take(7_000, 6)


def test_a_flow_that_rests_is_full_and_never_fuller() -> None:
    limit = FlowLimit(Flow(per_second=1, burst=2))
    assert limit.is_full(0)
    assert limit.take(2, 10 * SECOND)
    assert not limit.is_full(12 * SECOND - 1)
    assert limit.is_full(12 * SECOND)
    assert limit.wait(2, 100 * SECOND) == 0
    assert limit.wait(3, 100 * SECOND) == SECOND


def test_what_is_given_back_was_never_taken() -> None:
    limit, other = FlowLimit(Flow(per_second=3, burst=5)), FlowLimit(Flow(per_second=3, burst=5))
    for each in (limit, other):
        assert each.take(4, 0)
    assert limit.take(1, SECOND)
    limit.give_back(1)
    assert [limit.wait(amount, SECOND) for amount in range(1, 9)] == [
        other.wait(amount, SECOND) for amount in range(1, 9)
    ]


def test_messages_and_bytes_are_both_looked_at() -> None:
    limit = TrafficLimit(Traffic(Flow(1, burst=2), Flow(100, burst=100)))
    assert limit.take(3, 0, 0) == SECOND
    assert limit.take(1, 150, 0) == SECOND // 2
    assert limit.take(3, 250, 0) == 3 * SECOND // 2
    assert limit.take(1, 100, 0) == 0
    assert limit.take(1, 1, 0) == 10 * MILLISECOND
    assert limit.take(1, 0, 0) == 0
    assert limit.take(1, 0, 0) == SECOND


def test_no_limit_is_no_limit() -> None:
    limit = TrafficLimit(Traffic())
    for _ in range(2):
        assert limit.take(10**9, 10**15, 0) == 0
    limit.give_back(1, 1)
    assert limit.is_full(0)


@pytest.mark.parametrize(
    ("scope", "limits"),
    [
        (Scope.CLIENT, (messages(1, 2), WIDE, WIDE)),
        (Scope.ADDRESS, (WIDE, messages(1, 2), WIDE)),
        (Scope.TOTAL, (WIDE, WIDE, messages(1, 2))),
    ],
)
def test_each_scope_has_its_limit(scope: Scope, limits: tuple[Traffic, Traffic, Traffic]) -> None:
    door = gate(*limits)
    source = entered(door)
    assert [door.admit(source, 1, 10, 0) for _ in range(3)] == [None, None, Excess(scope, SECOND)]
    assert door.admit(source, 1, 10, SECOND - 1) == Excess(scope, 1)
    assert door.admit(source, 1, 10, SECOND) is None
    assert (door.messages, door.size_bytes) == (source.messages, source.size_bytes) == (3, 30)
    door.count_refused(Excess(scope, 1))
    assert door.excesses == {**dict.fromkeys(Scope, 0), scope: 1}


def test_what_a_wider_scope_refuses_is_charged_to_nobody() -> None:
    door = gate(client=messages(1, 2), total=messages(1, 1))
    source = entered(door)
    assert door.admit(source, 1, 0, 0) is None
    assert door.admit(source, 1, 0, 0) == Excess(Scope.TOTAL, SECOND)
    assert door.admit(source, 1, 0, SECOND) is None
    assert door.admit(source, 1, 0, 2 * SECOND) is None


def test_clients_of_one_address_share_and_those_of_another_do_not() -> None:
    door = gate(address=messages(1, 2))
    one, other, elsewhere = entered(door), entered(door), entered(door, B)
    assert door.admit(one, 1, 0, 0) is None
    assert door.admit(other, 1, 0, 0) is None
    assert door.admit(one, 1, 0, 0) == door.admit(other, 1, 0, 0) == Excess(Scope.ADDRESS, SECOND)
    assert door.admit(elsewhere, 2, 0, 0) is None


def test_what_comes_together_passes_or_exceeds_together() -> None:
    door = gate(client=messages(1, 5))
    source = entered(door)
    assert door.admit(source, 6, 60, 0) == Excess(Scope.CLIENT, SECOND)
    assert door.admit(source, 5, 50, 0) is None
    assert (source.messages, source.size_bytes) == (5, 50)
    assert door.messages_last_minute(0) == 5


def test_an_address_holds_so_many_connections_and_one_more_is_refused() -> None:
    door = gate(per_address=2)
    first, second = entered(door), entered(door)
    assert door.enter(A, 0) is None
    entered(door, B)
    door.leave(first, 0)
    third = entered(door)
    assert door.enter(A, 0) is None
    for source in (second, third):
        door.leave(source, 0)
    entered(door)


def test_to_reconnect_gains_nothing_until_all_is_back() -> None:
    door = gate(address=messages(1, 10))
    source = entered(door)
    assert door.admit(source, 10, 0, 0) is None
    door.leave(source, 0)
    again = entered(door, now=SECOND)
    assert door.admit(again, 2, 0, SECOND) == Excess(Scope.ADDRESS, SECOND)
    door.leave(again, SECOND)
    assert len(door._addresses) == 1
    entered(door, B, now=10 * SECOND)
    assert list(door._addresses) == [B]


def test_so_many_addresses_without_a_connection_are_remembered() -> None:
    door = gate(address=messages(1, 1), idle=3)
    for number in range(10):
        source = entered(door, f"192.0.2.{number}")
        assert door.admit(source, 1, 0, 0) is None
        door.leave(source, 0)
    assert list(door._addresses) == list(door._idle) == ["192.0.2.7", "192.0.2.8", "192.0.2.9"]


def test_a_connection_that_replaces_another_goes_on_with_its_allowance() -> None:
    door = gate(client=messages(1, 5))
    former, later = entered(door), entered(door)
    assert door.admit(former, 5, 0, 0) is None
    later.inherit(former)
    assert door.admit(later, 1, 0, 0) == Excess(Scope.CLIENT, SECOND)


@pytest.mark.parametrize(
    ("host", "key"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("node-17", "node-17"),
    ],
)
def test_one_customer_s_addresses_are_one(host: str, key: str) -> None:
    assert address_key(host) == key


@pytest.mark.parametrize(
    "limits",
    [
        {"client_traffic": Traffic(messages=Flow(0, burst=1))},
        {"address_traffic": Traffic(messages=Flow(1, burst=0))},
        {"total_traffic": Traffic(size_bytes=Flow(1, burst=(1 << 20) - 1))},
    ],
)
def test_limits_that_nothing_could_meet_are_the_operator_s_mistake(limits: dict[str, Traffic]) -> None:
    with pytest.raises(LocalError):
        Gate(RelayServerConfig(**limits))  # type: ignore[arg-type]  # a dictionary of traffic alone
