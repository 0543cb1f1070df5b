"""Frames that are read and written here mean what they mean to the library, however the stream is cut up."""

import os
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.protocol import CLIENT, SERVER, Protocol, Side

from teale_io.connections import Incoming
from teale_io.websocket import WebSocketFraming
from teale_io.websocket_frames import BINARY, TEXT, DataFrames, data_frame, frame_end
from teale_proto.inputs import DataReceived, MessagesReceived, PingReceived, PongReceived

EXAMPLES = settings(derandomize=True, deadline=None, max_examples=300)
SIZE_MAX = 200
SIZES = [0, 1, 125, 126, 127, 65535, 65536]


def other(side: Side) -> Side:
    return SERVER if side is CLIENT else CLIENT


# Writing.


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("side", list(Side))
@pytest.mark.parametrize(("first", "opcode"), [(TEXT, Opcode.TEXT), (BINARY, Opcode.BINARY)])
def test_the_library_reads_what_is_written_here(size: int, side: Side, first: int, opcode: Opcode) -> None:
    library = Protocol(other(side))
    payload = b"x" * size
    library.receive_data(data_frame(first, payload, b"mask" if side is CLIENT else b""))
    (frame,) = library.events_received()
    assert isinstance(frame, Frame)
    assert (frame.opcode, bytes(frame.data), frame.fin) == (opcode, payload, True)


# Reading.


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("masked", [False, True])
def test_what_the_library_writes_is_cut_here(size: int, masked: bool) -> None:
    payload = os.urandom(size)
    stream = Frame(Opcode.BINARY, payload).serialize(mask=masked)
    messages: list[bytes] = []
    assert DataFrames(masked=masked, size_max=1 << 20).cut(stream + stream, 0, messages) == 2 * len(stream)
    assert messages == [payload, payload]
    assert all(type(message) is bytes for message in messages)
    assert frame_end(stream, 0) == len(stream)
    assert all(part < frame_end(stream[:part], 0) <= len(stream) for part in range(min(len(stream), 20)))


@pytest.mark.parametrize(
    "frame",
    [
        b"\x82",
        b"\x82\x05",
        b"\x82\x05four",
        b"\x82\x7e\x00",
        b"\x82\x7f" + b"\xff" * 8,
        b"\x82\x7e\x00\xc9" + bytes(201),
        b"\x82\x85mask12345",
        b"\x81\x01\xff",
        b"\x02\x01x",
        b"\x80\x01x",
        b"\xc2\x01x",
        b"\x83\x01x",
        b"\x88\x00",
        b"\x89\x00",
        b"\x8a\x00",
    ],
)
def test_what_is_unusual_or_incomplete_is_left_alone(frame: bytes) -> None:
    messages: list[bytes] = []
    before = data_frame(BINARY, b"one") + data_frame(TEXT, "zwölf".encode())
    assert DataFrames(masked=False, size_max=SIZE_MAX).cut(before + frame, 0, messages) == len(before)
    assert messages == [b"one", "zwölf".encode()]


# Whole connections: ours against the library's state machine alone.


def frames(side: Side) -> st.SearchStrategy[bytes]:
    """Return frames that `side` could send, sensible and not."""
    masked = side is CLIENT

    def serialized(opcode: Opcode, data: bytes, fin: bool, rsv1: bool, honest: bool) -> bytes:
        if opcode.value >= 8:
            data, fin = data[:125], fin or honest
        head = ((0x80 if fin else 0) | (0x40 if rsv1 and not honest else 0) | opcode.value,)
        body = data_frame(0, data, b"mask" if masked == honest or masked else b"")
        return bytes(head) + body[1:]

    return st.builds(
        serialized,
        st.sampled_from([*Opcode, Opcode.TEXT, Opcode.BINARY, Opcode.BINARY]),
        st.sampled_from([b"", b"text", b"\xff\xfe", b"\x03\xe8bye", "schön".encode(), bytes(126), bytes(SIZE_MAX)])
        | st.binary(max_size=SIZE_MAX + 1),
        st.booleans() | st.just(True),
        st.booleans(),
        st.booleans() | st.just(True),
    ) | st.binary(max_size=6)


def heard(framing: WebSocketFraming, pieces: list[bytes]) -> tuple[list[Incoming], bytes, str]:
    """Return what a framing makes of a stream in pieces: the inputs, the replies, and why it ended."""
    events: list[Incoming] = []
    replies = b""
    for piece in pieces:
        received = framing.receive(1, piece)
        events += received.events
        replies += received.reply
        if received.ended:
            return events, replies, received.ended
    return events, replies, ""


def flat(events: list[Incoming]) -> Iterator[Incoming]:
    for event in events:
        if isinstance(event, MessagesReceived):
            yield from (DataReceived(event.connection, message) for message in event.messages)
        else:
            yield event


def heard_by_the_library(side: Side, stream: bytes) -> tuple[list[Incoming], bool]:
    """Return what the library alone makes of a stream, up to where it fails, and whether it is open then."""
    library = Protocol(side, max_size=SIZE_MAX)
    events: list[Incoming] = []
    message, is_text = b"", False
    library.receive_data(stream)
    for frame in library.events_received():
        assert isinstance(frame, Frame)
        if frame.opcode is Opcode.PING:
            events.append(PingReceived(1))
        elif frame.opcode is Opcode.PONG:
            events.append(PongReceived(1))
        elif frame.opcode is not Opcode.CLOSE:
            is_text = frame.opcode is Opcode.TEXT or (is_text and frame.opcode is Opcode.CONT)
            message += bytes(frame.data)
            if frame.fin:
                try:
                    if is_text:
                        message.decode()
                except UnicodeDecodeError:
                    return events, False
                events.append(DataReceived(1, message))
                message = b""
    return events, library.state.name == "OPEN"


@EXAMPLES
@given(data=st.data(), side=st.sampled_from(list(Side)), joins=st.booleans())
def test_a_stream_means_what_it_means_to_the_library_however_it_is_cut_up(
    data: st.DataObject, side: Side, joins: bool
) -> None:
    stream = b"".join(data.draw(st.lists(frames(other(side)), max_size=8)))
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=6))
    pieces = [stream[start:end] for start, end in pairwise([0, *sorted(cuts), len(stream)])]
    expected, is_open = heard_by_the_library(side, stream)
    for cut_up in ([stream], pieces, [bytes([byte]) for byte in stream]):
        events, _, ended = heard(WebSocketFraming(side, message_bytes_max=SIZE_MAX, joins=joins), cut_up)
        assert list(flat(events)) == expected
        assert (not ended) is is_open


def test_messages_that_come_together_are_told_together_where_that_is_wanted() -> None:
    stream = data_frame(TEXT, b"a", b"mask") + data_frame(BINARY, b"b", b"mask")
    ping = data_frame(0x89, b"", b"mask")
    events, replies, ended = heard(WebSocketFraming(SERVER, joins=True), [stream + ping + stream[:7]])
    assert events == [MessagesReceived(1, (b"a", b"b")), PingReceived(1), DataReceived(1, b"a")]
    assert (replies, ended) == (b"\x8a\x00", "")


def test_the_librarys_state_lives_only_as_long_as_it_is_needed() -> None:
    framing = WebSocketFraming(SERVER)
    framing.receive(1, data_frame(0x89, b"", b"mask"))
    assert framing._library is None
    framing.receive(1, data_frame(0x01, b"frag", b"mask"))
    assert framing._library is not None
    framing.receive(1, data_frame(0x80, b"ment", b"mask"))
    assert framing._library is None


def test_a_frame_that_trickles_in_costs_time_in_proportion_to_its_size() -> None:
    framing = WebSocketFraming(SERVER)
    frame = data_frame(BINARY, bytes(1 << 20), b"mask")
    for start in range(0, len(frame) - 1, 64):
        assert not framing.receive(1, frame[start : min(start + 64, len(frame) - 1)]).events
    assert framing.receive(1, frame[-1:]).events == [DataReceived(1, bytes(1 << 20))]


def test_nothing_is_said_after_the_good_bye() -> None:
    framing = WebSocketFraming(SERVER)
    assert framing.goodbye("enough", 1013) == b"\x88\x08\x03\xf5enough"
    assert framing.text(b"x") == framing.data(b"x") == framing.ping() == framing.goodbye("again", 1000) == b""
    assert not framing.may_close
    framing.receive(1, data_frame(0x88, b"\x03\xf5", b"mask"))
    assert framing.may_close
