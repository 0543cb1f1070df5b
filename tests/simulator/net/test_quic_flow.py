"""Both halves of a stream without a network between them."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from simulator.net.quic_flow import (
    FIRST_WINDOW_BYTES,
    LEAST_WINDOW_BYTES,
    PERSISTENT,
    RANGES_KEPT,
    WINDOW_BYTES,
    Incoming,
    Outgoing,
    Segment,
)
from simulator.net.quic_packets import SEGMENT_BYTES
from teale_proto.contract import MILLISECOND, NEVER, Instant

TRIP = 50 * MILLISECOND


def outgoing(size_bytes: int = 0) -> Outgoing:
    flow = Outgoing(ack_delay=25 * MILLISECOND)
    flow.write(bytes(size_bytes))
    return flow


def send(flow: Outgoing, now: Instant) -> list[int]:
    """Send all that may be sent, and return the numbers of the packets."""
    numbers = []
    while (segment := flow.next()) is not None:
        numbers.append(send_one(flow, segment, now))
    return numbers


def send_one(flow: Outgoing, segment: Segment, now: Instant) -> int:
    flow.sent(segment, now)
    flow.number += 1
    return flow.number - 1


def test_no_more_is_under_way_than_the_window_allows_and_acknowledgements_widen_it() -> None:
    flow = outgoing(100 * SEGMENT_BYTES)
    first = send(flow, 0)
    assert flow.under_way_bytes == FIRST_WINDOW_BYTES
    flow.acknowledged(((0, first[-1]),), TRIP)
    assert len(send(flow, TRIP)) == 2 * len(first)


def test_a_packet_is_lost_when_three_later_ones_have_arrived() -> None:
    flow = outgoing(6 * SEGMENT_BYTES)
    assert send(flow, 0) == [0, 1, 2, 3, 4, 5]
    flow.acknowledged(((1, 2),), TRIP // 2)
    assert flow.next() is None
    flow.acknowledged(((1, 3),), TRIP // 2)
    lost = flow.next()
    assert lost is not None
    assert lost.offset == 0


def test_the_timer_doubles_and_after_some_of_it_the_window_is_the_least() -> None:
    flow = outgoing(20 * SEGMENT_BYTES)
    send(flow, 0)
    waits = []
    now = 0
    for _ in range(PERSISTENT):
        waits.append(flow.timeout_at - now)
        now = flow.timeout_at
        flow.timed_out()
        send_one(flow, flow.probe(), now)
    assert waits == [waits[0], 2 * waits[0], 4 * waits[0]]
    flow.acknowledged(((flow.number - 1, flow.number - 1),), now + TRIP)
    under_way = flow.under_way_bytes
    send(flow, now + TRIP)
    assert flow.under_way_bytes <= max(under_way, LEAST_WINDOW_BYTES + SEGMENT_BYTES)


def test_what_has_all_arrived_waits_for_nothing() -> None:
    flow = outgoing(10)
    flow.end()
    (number,) = send(flow, 0)
    assert not flow.is_idle
    assert flow.timeout_at < NEVER
    flow.acknowledged(((number, number),), TRIP)
    assert flow.is_idle
    assert flow.timeout_at == NEVER


def test_the_receiver_keeps_no_more_than_a_window_of_what_came_too_early() -> None:
    flow = Incoming()
    chunk = bytes(1000)
    for place in range(1, 2 * WINDOW_BYTES // 1000):
        assert flow.take(Segment(1000 * place, chunk, ends=False)) == b""
    assert len(flow.take(Segment(0, chunk, ends=False))) <= WINDOW_BYTES + 1000


def test_the_receiver_remembers_so_many_ranges_of_packet_numbers() -> None:
    flow = Incoming()
    for number in range(0, 4 * RANGES_KEPT, 2):
        flow.note(number)
    assert len(flow.ranges(10 * RANGES_KEPT)) == RANGES_KEPT


@given(st.lists(st.integers(0, 40), max_size=60))
def test_ranges_are_the_packet_numbers_that_came(numbers: list[int]) -> None:
    flow = Incoming()
    for number in numbers:
        flow.note(number)
    found = [each for first, last in flow.ranges(RANGES_KEPT) for each in range(first, last + 1)]
    assert sorted(found) == sorted(set(numbers))


@given(st.integers(1, 20_000), st.integers(0, 2**32))
def test_whatever_is_lost_or_comes_in_another_order_everything_is_read_once(size_bytes: int, seed: int) -> None:
    chance = Random(seed)
    data = bytes(number % 251 for number in range(size_bytes))
    flow, reader = Outgoing(ack_delay=0), Incoming()
    flow.write(data)
    flow.end()
    read = b""
    now = 0
    while not flow.is_idle:
        on_the_way = []
        while (segment := flow.next(size_max=700)) is not None:
            on_the_way.append((send_one(flow, segment, now), segment))
        if not on_the_way and flow.is_waiting:
            now = max(now, flow.timeout_at)
            flow.timed_out()
            segment = flow.probe()
            on_the_way.append((send_one(flow, segment, now), segment))
        chance.shuffle(on_the_way)
        now += TRIP
        for number, segment in on_the_way:
            if chance.random() < 0.3:
                continue
            reader.note(number)
            read += reader.take(segment)
        if chance.random() < 0.7:
            flow.acknowledged(reader.ranges(4), now)
    assert read == data
    assert reader.ended
