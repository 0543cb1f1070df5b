"""Server-sent events, split anywhere."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teale_io.inference.sse import EventReader
from teale_proto.errors import PeerError

STREAM = (
    '\ufeffdata: {"a": "€"}\n\n'
    ": a comment\r\n\r\n"
    "event: message\rid: 5\rdata:first\rdata: second\r\r"
    "retry: 10\n\n"
    "data\n\n"
    "data: [DONE]\r\n\r\n"
).encode()
EVENTS = [b'{"a": "\xe2\x82\xac"}', b"first\nsecond", b"", b"[DONE]"]


@given(st.sets(st.integers(0, len(STREAM))))
def test_events_are_the_same_wherever_the_stream_is_split(cuts: set[int]) -> None:
    reader = EventReader()
    ends = [*sorted(cuts), len(STREAM)]
    events = [event for a, b in zip([0, *ends], ends, strict=False) for event in reader.feed(STREAM[a:b])]
    assert events + reader.finish() == EVENTS


@given(st.lists(st.binary() | st.sampled_from([b"\r", b"\n", b"data:", b"data: x"])))
def test_any_bytes_give_the_same_events_in_one_piece_or_many(pieces: list[bytes]) -> None:
    reader, whole = EventReader(), EventReader()
    events = [event for piece in pieces for event in reader.feed(piece)]
    assert events + reader.finish() == whole.feed(b"".join(pieces)) + whole.finish()


def test_an_event_that_the_end_cuts_short_of_its_empty_line_counts() -> None:
    reader = EventReader()
    assert reader.feed(b"data: a\n\ndata: [DONE]") == [b"a"]
    assert reader.finish() == [b"[DONE]"]
    assert reader.finish() == []


def test_an_event_may_be_as_long_as_allowed_and_not_longer() -> None:
    assert EventReader(size_max=16).feed(b"data: 0123456789\n\n") == [b"0123456789"]
    with pytest.raises(PeerError):
        EventReader(size_max=16).feed(b"data: 0123456789a")
    with pytest.raises(PeerError):
        EventReader(size_max=16).feed(b"data: 0123\ndata: 4567\n")


def test_comments_that_keep_a_connection_alive_never_add_up() -> None:
    reader = EventReader(size_max=16)
    for _ in range(100):
        assert reader.feed(b": still here\n") == []
    assert reader.feed(b"data: 0123456789\n\n") == [b"0123456789"]
