"""Numbered messages: whatever becomes of the paths, each arrives once and in order; and what is kept is bounded."""

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from teale_proto.delivery import (
    IN_FLIGHT_BYTES_MAX,
    IN_FLIGHT_MAX,
    KEPT_BYTES_MAX,
    KEPT_MAX,
    OWED_BYTES_MAX,
    OWED_MAX,
    Delivery,
    DeliveryError,
)
from teale_proto.errors import PeerError
from teale_proto.link import MESSAGE_MAX
from teale_proto.wire.cluster import InferenceCancel
from teale_proto.wire.numbered import PREFIX_BYTES, is_numbered, numbered, opened


def said(text: str) -> InferenceCancel:
    return InferenceCancel(text)


class End:
    """One side: what it keeps, and what it has heard."""

    def __init__(self) -> None:
        self.delivery = Delivery()
        self.said: list[str] = []
        self.heard: list[str] = []
        self.best: int | None = None

    def hear(self, record: bytes) -> None:
        number, payload = opened(record)
        for message in self.delivery.take(number, said(payload.decode()), len(record)):
            assert isinstance(message, InferenceCancel)
            self.heard.append(message.request_id)


class Roads:
    """Two ends and up to three conversations between them, each of which keeps order until it breaks."""

    def __init__(self) -> None:
        self.ends = (End(), End())
        self.roads: dict[int, tuple[deque[bytes | int], deque[bytes | int]]] = {}
        self.opened = 0

    def open(self) -> None:
        if len(self.roads) < 3:
            self.opened += 1
            self.roads[self.opened] = (deque(), deque())
            for number in (0, 1):
                self.choose(number, self.opened)

    def choose(self, number: int, road: int) -> None:
        """Have one side say everything over this road from now on."""
        self.ends[number].best = road
        self.flush(number)

    def flush(self, number: int) -> None:
        end = self.ends[number]
        if end.best is not None:
            self.roads[end.best][number].extend(end.delivery.due(end.best))

    def say(self, number: int, text: str) -> None:
        end = self.ends[number]
        end.said.append(text)
        record = None if end.best is None else end.delivery.at_once(text.encode(), end.best)
        if record is not None:
            assert end.best is not None
            self.roads[end.best][number].append(record)
        else:
            assert end.delivery.keep(text.encode())
            self.flush(number)

    def carry(self, number: int, road: int) -> None:
        """Let what one side has said first on a road arrive, and be acknowledged there where that is owed."""
        if not self.roads[road][number]:
            return
        record = self.roads[road][number].popleft()
        if isinstance(record, int):
            self.ends[1 - number].delivery.acknowledged(record)
            self.flush(1 - number)
        else:
            self.ends[1 - number].hear(record)
            self.acknowledge(1 - number, road, at_once=False)

    def acknowledge(self, number: int, road: int, *, at_once: bool) -> None:
        up_to = self.ends[number].delivery.acknowledgement(at_once=at_once)
        if up_to is not None:
            self.roads[road][number].append(up_to)

    def tire(self, number: int, road: int) -> None:
        """Have one side hold a road for silent, though it is not, and take another one."""
        others = [each for each in self.roads if each != road]
        if others:
            self.ends[number].delivery.went_silent(road)
            self.choose(number, others[-1])

    def cut(self, road: int) -> None:
        """Break a road: whatever is on it is lost."""
        del self.roads[road]
        for number, end in enumerate(self.ends):
            end.delivery.went_silent(road)
            end.best = next(iter(self.roads), None)
            if not self.roads:
                end.delivery.rest()
            self.flush(number)

    def calm(self) -> None:
        """Let everything arrive, and be acknowledged."""
        if not self.roads:
            self.open()
        for _ in range(4):
            for road in self.roads:
                for number in (0, 1):
                    while self.roads[road][number]:
                        self.carry(number, road)
                    self.acknowledge(1 - number, road, at_once=True)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["open", "say", "say", "say", "carry", "carry", "carry", "ack", "choose", "tire", "cut"]),
        st.integers(0, 1),
        st.integers(0, 99),
    ),
    max_size=120,
)


@settings(deadline=None, max_examples=300)
@given(STEPS)
def test_whatever_becomes_of_the_roads_each_message_arrives_once_and_in_order(
    steps: list[tuple[str, int, int]],
) -> None:
    world = Roads()
    for count, (step, number, which) in enumerate(steps):
        road = list(world.roads)[which % len(world.roads)] if world.roads else None
        if step == "open":
            world.open()
        elif step == "say":
            world.say(number, f"{count}")
        elif road is None:
            continue
        elif step == "carry":
            world.carry(number, road)
        elif step == "ack":
            world.acknowledge(number, road, at_once=True)
        elif step == "choose":
            world.choose(number, road)
        elif step == "tire":
            world.tire(number, road)
        else:
            world.cut(road)
        for end, other in (world.ends, reversed(world.ends)):
            assert other.heard == end.said[: len(other.heard)]
    world.calm()
    for end, other in (world.ends, reversed(world.ends)):
        assert other.heard == end.said
        assert end.delivery.unacknowledged == 0
        assert end.delivery._flight_bytes == end.delivery._kept_bytes == end.delivery._held_bytes == 0


def test_what_was_lost_goes_out_again_before_what_is_new_and_only_what_was_lost() -> None:
    delivery = Delivery()
    for text in (b"a", b"b"):
        delivery.keep(text)
    assert [opened(record) for record in delivery.due(1)] == [(1, b"a"), (2, b"b")]
    delivery.keep(b"c")
    assert [opened(record) for record in delivery.due(2)] == [(3, b"c")]
    delivery.keep(b"d")
    delivery.went_silent(1)
    assert [opened(record) for record in delivery.due(2)] == [(1, b"a"), (2, b"b"), (4, b"d")]
    assert delivery.due(2) == []


def test_what_was_lost_on_two_roads_goes_out_in_order() -> None:
    delivery = Delivery()
    for road, text in enumerate((b"a", b"b", b"c")):
        delivery.keep(text)
        delivery.due(road)
    delivery.went_silent(2)
    delivery.went_silent(0)
    assert [opened(record) for record in delivery.due(1)] == [(1, b"a"), (3, b"c")]


def test_what_is_acknowledged_after_all_is_not_said_again() -> None:
    delivery = Delivery()
    for text in (b"a", b"b", b"c"):
        delivery.keep(text)
    delivery.due(1)
    delivery.went_silent(1)
    delivery.acknowledged(2)
    assert [opened(record) for record in delivery.due(2)] == [(3, b"c")]
    delivery.acknowledged(1)
    delivery.acknowledged(3)
    assert delivery.unacknowledged == delivery._flight_bytes == 0


def test_a_message_that_overtakes_waits_for_those_before_it() -> None:
    delivery = Delivery()
    assert list(delivery.take(3, said("c"), 10)) == []
    assert list(delivery.take(2, said("b"), 10)) == []
    assert list(delivery.take(3, said("c"), 10)) == []
    assert list(delivery.take(1, said("a"), 10)) == [said("a"), said("b"), said("c")]
    assert list(delivery.take(2, said("b"), 10)) == []


def test_acknowledgements_are_owed_after_so_many_messages_or_bytes_or_at_once() -> None:
    delivery = Delivery()
    assert delivery.acknowledgement(at_once=True) is None
    for number in range(1, OWED_MAX):
        delivery.take(number, said("x"), 1)
    assert delivery.acknowledgement(at_once=False) is None
    delivery.take(OWED_MAX, said("x"), 1)
    assert delivery.acknowledgement(at_once=False) == OWED_MAX
    assert delivery.acknowledgement(at_once=True) is None
    delivery.take(OWED_MAX + 1, said("x"), OWED_BYTES_MAX)
    assert delivery.acknowledgement(at_once=False) == OWED_MAX + 1
    delivery.take(1, said("x"), 1)
    assert delivery.acknowledgement(at_once=True) == OWED_MAX + 1, "whoever repeats itself has not heard it"


def test_an_acknowledgement_that_a_path_may_have_lost_is_repeated() -> None:
    delivery = Delivery()
    delivery.take(1, said("x"), 1)
    assert delivery.acknowledgement(at_once=True) == 1
    delivery.went_silent(7)
    assert delivery.acknowledgement(at_once=True) == 1


def test_no_more_is_under_way_than_may_be_held_back_and_the_rest_follows_when_it_is_acknowledged() -> None:
    sender, receiver = Delivery(), Delivery()
    for number in range(IN_FLIGHT_MAX + 10):
        assert sender.keep(b"%d" % number)
    first = sender.due(1)
    assert len(first) == IN_FLIGHT_MAX
    for record in reversed(first):
        receiver.take(*_taken(record))
    up_to = receiver.acknowledgement(at_once=True)
    assert up_to == IN_FLIGHT_MAX
    sender.acknowledged(up_to)
    assert len(sender.due(1)) == 10
    assert sender.unacknowledged == 10


def _taken(record: bytes) -> tuple[int, InferenceCancel, int]:
    return opened(record)[0], said("x"), len(record)


def test_a_message_goes_out_at_once_only_where_nothing_waits_before_it() -> None:
    delivery = Delivery()
    first = delivery.at_once(b"a", 1)
    assert first is not None
    assert opened(first) == (1, b"a")
    delivery.went_silent(1)
    assert delivery.at_once(b"b", 2) is None
    assert [opened(record) for record in delivery.due(2)] == [(1, b"a")]
    assert delivery.keep(b"b")
    assert delivery.at_once(b"c", 2) is None
    assert len(delivery.due(2)) == 1
    for _ in range(IN_FLIGHT_MAX - 2):
        assert delivery.at_once(b"x", 2)
    assert delivery.at_once(b"x", 2) is None
    assert Delivery().at_once(bytes(IN_FLIGHT_BYTES_MAX), 1) is None


def test_bytes_under_way_are_bounded_and_there_is_room_for_the_largest_message_beside_what_is_not_owed() -> None:
    assert IN_FLIGHT_BYTES_MAX >= MESSAGE_MAX + OWED_BYTES_MAX
    sender, receiver = Delivery(), Delivery()
    for _ in range(12):
        assert sender.keep(bytes(2**20))
    first = sender.due(1)
    assert sum(map(len, first)) <= IN_FLIGHT_BYTES_MAX < sum(map(len, first)) + 2**20 + PREFIX_BYTES
    for record in reversed(first):
        receiver.take(*_taken(record))


def test_a_peer_that_acknowledges_nothing_is_kept_so_much_for_and_no_more() -> None:
    delivery = Delivery()
    for _ in range(KEPT_MAX):
        assert delivery.keep(b"x")
    assert not delivery.keep(b"x")
    delivery = Delivery()
    large = bytes(2**20)
    for _ in range(KEPT_BYTES_MAX // (2**20 + PREFIX_BYTES)):
        assert delivery.keep(large)
    assert not delivery.keep(large)


@pytest.mark.parametrize("up_to", [3, 2**53])
def test_to_acknowledge_what_was_never_sent_is_against_the_rules(up_to: int) -> None:
    delivery = Delivery()
    for text in (b"a", b"b", b"c"):
        delivery.keep(text)
        if text == b"b":
            delivery.due(1)
    with pytest.raises(DeliveryError, match="never sent"):
        delivery.acknowledged(up_to)
    delivery.acknowledged(2)
    delivery.acknowledged(1)
    assert delivery.unacknowledged == 1


def test_numbers_that_are_too_far_ahead_are_against_the_rules() -> None:
    delivery = Delivery()
    delivery.take(IN_FLIGHT_MAX, said("x"), 1)
    for number in (IN_FLIGHT_MAX + 1, 2**64 - 1):
        with pytest.raises(DeliveryError, match="too far ahead"):
            delivery.take(number, said("x"), 1)


def test_bytes_that_come_too_early_are_bounded() -> None:
    delivery = Delivery()
    delivery.take(2, said("x"), IN_FLIGHT_BYTES_MAX)
    with pytest.raises(DeliveryError, match="too far ahead"):
        delivery.take(3, said("x"), 1)
    delivery.rest()
    delivery.take(3, said("x"), 1)


@given(st.integers(1, 2**64 - 1), st.binary(min_size=1, max_size=50))
def test_a_number_and_its_message_come_back(number: int, payload: bytes) -> None:
    record = numbered(number, payload)
    assert is_numbered(record)
    assert len(record) == PREFIX_BYTES + len(payload)
    assert opened(record) == (number, payload)


@pytest.mark.parametrize(
    "payload", [b"\x02", b"\x02" + bytes(7), b"\x02" + bytes(7) + b"\x01", b"\x02" + bytes(8) + b"{}"]
)
def test_a_number_that_is_none_is_malformed(payload: bytes) -> None:
    with pytest.raises(PeerError, match="a number that is none"):
        opened(payload)
