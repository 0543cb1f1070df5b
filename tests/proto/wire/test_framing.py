"""Frames: however a stream is cut up, the same frames come out of it."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from teale_proto.errors import PeerError
from teale_proto.wire.framing import FRAME_MAX, HEADER_BYTES, FrameReader, frame

EXAMPLES = settings(derandomize=True, deadline=None, max_examples=200)

SIZE_MAX = 40

# Streams that are mostly frames, some of them too large, with nonsense and a cut end now and then.
STREAMS = st.lists(
    st.binary(max_size=SIZE_MAX + 2).map(frame) | st.binary(max_size=12) | st.just(b"\xff\xff\xff\xff"), max_size=6
).map(b"".join)


def feed(pieces: list[bytes]) -> tuple[list[bytes], str | None]:
    """Return the frames and the final error of a stream that arrives in pieces."""
    reader = FrameReader(SIZE_MAX)
    frames: list[bytes] = []
    try:
        for piece in pieces:
            for payload in reader.frames(piece):
                frames.append(payload)  # noqa: PERF402 - those before an error count
    except PeerError as error:
        return frames, error.reason
    return frames, None


def expected(stream: bytes) -> tuple[list[bytes], str | None]:
    """The same, read off the whole stream by the definition."""
    frames: list[bytes] = []
    while len(stream) >= HEADER_BYTES:
        size = int.from_bytes(stream[:HEADER_BYTES], "big")
        if size > SIZE_MAX:
            return frames, f"frame of {size} bytes where {SIZE_MAX} are allowed"
        if len(stream) < HEADER_BYTES + size:
            break
        frames.append(stream[HEADER_BYTES : HEADER_BYTES + size])
        stream = stream[HEADER_BYTES + size :]
    return frames, None


@EXAMPLES
@given(stream=STREAMS, cuts=st.lists(st.integers(0, 300), max_size=10))
def test_the_split_of_a_stream_never_changes_its_frames(stream: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    pieces = [stream[start:end] for start, end in pairwise(edges)]
    assert b"".join(pieces) == stream
    assert feed([stream]) == feed(pieces) == feed([bytes([byte]) for byte in stream]) == expected(stream)


@EXAMPLES
@given(st.lists(st.binary(max_size=SIZE_MAX), max_size=10))
def test_frames_come_back_as_they_were_sent(payloads: list[bytes]) -> None:
    assert feed([b"".join(map(frame, payloads))]) == (payloads, None)


def test_a_frame_is_a_big_endian_length_and_its_payload() -> None:
    assert frame(b'{"a":1}') == b'\x00\x00\x00\x07{"a":1}'
    assert frame(b"") == b"\x00\x00\x00\x00"


def test_payloads_are_bytes_and_no_views_of_the_buffer() -> None:
    reader = FrameReader(SIZE_MAX)
    (payload,) = reader.frames(frame(b"payload"))
    list(reader.frames(frame(b"another")))
    assert type(payload) is bytes
    assert payload == b"payload"


def test_an_announcement_of_four_gibibytes_costs_four_bytes() -> None:
    reader = FrameReader(2**20)
    assert list(reader.frames(b"\xff\xff\xff")) == []
    with pytest.raises(PeerError, match=f"frame of {FRAME_MAX} bytes where 1048576 are allowed"):
        list(reader.frames(b"\xff"))
    assert reader.buffered_bytes == HEADER_BYTES


@pytest.mark.parametrize("size_max", [0, 1, 1000])
def test_the_limit_is_the_largest_size_that_passes(size_max: int) -> None:
    assert list(FrameReader(size_max).frames(frame(bytes(size_max)))) == [bytes(size_max)]
    with pytest.raises(PeerError):
        list(FrameReader(size_max).frames((size_max + 1).to_bytes(4, "big")))


def test_frames_before_one_that_is_too_large_are_still_delivered() -> None:
    reader, received = FrameReader(4), []
    with pytest.raises(PeerError):  # noqa: PT012 - the frames before the error are the point
        for payload in reader.frames(frame(b"good") + frame(b"large") + frame(b"good")):
            received.append(payload)  # noqa: PERF402 - as above
    assert received == [b"good"]


def test_the_limit_may_change_from_one_frame_to_the_next() -> None:
    reader, received = FrameReader(5), []
    for payload in reader.frames(frame(b"hello") + frame(b"a longer one") + frame(b"x")):
        received.append(payload)
        reader.size_max = 12
    assert received == [b"hello", b"a longer one", b"x"]


def test_an_unfinished_frame_is_counted() -> None:
    reader = FrameReader(100)
    assert reader.buffered_bytes == 0
    list(reader.frames(frame(b"whole") + frame(b"unfinished")[:9]))
    assert reader.buffered_bytes == 9
    assert list(reader.frames(frame(b"unfinished")[9:])) == [b"unfinished"]
    assert reader.buffered_bytes == 0


def test_frames_that_the_caller_left_are_not_lost() -> None:
    reader = FrameReader(100)
    frames = reader.frames(frame(b"one") + frame(b"two"))
    assert next(frames) == b"one"
    frames.close()  # type: ignore[attr-defined]  # an Iterator to callers, a generator to this test
    assert list(reader.frames(b"")) == [b"two"]
