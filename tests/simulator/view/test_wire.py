from simulator.view.wire import UNDER_WAY_MAX, Carried, Direction, Sent


def sent(data: bytes, at: int = 0) -> Sent:
    return Sent(at, "a", "b", data)


def test_a_message_has_arrived_when_its_last_byte_has() -> None:
    direction, first, second = Direction(), sent(b"abcdef"), sent(b"ghi")
    direction.send(first, bulk=False)
    direction.send(second, bulk=False)
    assert direction.receive(5, b"abcd", whole=False) == []
    assert direction.receive(6, b"efgh", whole=False) == [first]
    assert direction.receive(7, b"i", whole=False) == [second]
    assert (first.arrived_at, second.arrived_at) == (6, 7)


def test_what_is_bulk_may_be_overtaken() -> None:
    direction, slow, quick = Direction(), sent(b"bulk bulk"), sent(b"quick")
    direction.send(slow, bulk=True)
    direction.send(quick, bulk=False)
    assert direction.receive(5, b"quickbulk", whole=False) == [quick]
    assert direction.receive(6, b" bulk", whole=False) == [slow]


def test_whole_messages_are_known_again_by_what_is_in_them_and_those_before_them_are_lost() -> None:
    direction, lost, came = Direction(), sent(b"1"), sent(b"2")
    direction.send(lost, bulk=False)
    direction.send(came, bulk=False)
    assert direction.receive(5, b"2", whole=True) == [came]
    assert direction.receive(6, b"1", whole=True) == []
    assert (lost.arrived_at, lost.data) == (None, None)


def test_after_bytes_that_nobody_sent_a_stream_tells_no_arrivals_rather_than_wrong_ones() -> None:
    direction, message = Direction(), sent(b"abc")
    direction.send(message, bulk=False)
    assert direction.receive(5, b"x", whole=False) == []
    assert (message.arrived_at, message.is_untold) == (None, True)


def test_a_stream_goes_on_with_the_first_message_that_is_known_again() -> None:
    direction, missed, known, last = Direction(), sent(b"missed"), sent(b"known again"), sent(b"last")
    direction.send(missed, bulk=False)
    assert direction.receive(5, b"nobody's", whole=False) == []
    direction.send(known, bulk=False)
    direction.send(last, bulk=False)
    assert direction.receive(6, b"kno", whole=False) == []
    assert direction.receive(7, b"known ag", whole=False) == []
    assert direction.receive(8, b"ainla", whole=False) == [known]
    assert direction.receive(9, b"st", whole=False) == [last]
    assert (missed.is_untold, known.is_untold, last.is_untold) == (True, False, False)


def test_so_many_messages_may_be_under_way_and_of_more_the_oldest_are_lost() -> None:
    direction = Direction()
    messages = [sent(b"%d" % number) for number in range(UNDER_WAY_MAX + 1)]
    for message in messages:
        direction.send(message, bulk=False)
    assert messages[0].data is None
    assert messages[1].data == b"1"


def test_a_message_of_two_requests_is_neither_s() -> None:
    carried = Carried()
    carried.note(1)
    carried.note(1)
    assert (carried.request, carried.is_mixed) == (1, False)
    carried.note(2)
    assert carried.is_mixed
