"""Answers are put together from whatever serving nodes send."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from teale_io.api.answers import (
    CHOICES_MAX,
    TOOL_CALLS_MAX,
    Stamp,
    join_pieces,
    read_embeddings,
    read_piece,
    stream_chunk,
    usage_of,
)
from teale_proto.effects import Path, ReportFinished
from teale_proto.errors import PeerError
from teale_proto.inputs import Task
from tests.io.api.scripted import chat_chunk, chat_whole, text_chunk
from tests.io.status import BOB

CHAT = Stamp(Task.CHAT, "tiny", token="0", created=9)
TEXT = Stamp(Task.COMPLETION, "tiny", token="0", created=9)
FINISHED = ReportFinished("r", BOB, Path.LAN, 7, 3, 1)
UNCOUNTED = ReportFinished("r", BOB, Path.LAN, 0, 0, 1)
USAGE_ONLY = b'{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}'


def join(*pieces: bytes, stamp: Stamp = CHAT, finished: ReportFinished = FINISHED) -> Any:
    return msgspec.json.decode(join_pieces(stamp, map(read_piece, pieces), finished))


def choices(*of: dict[str, Any]) -> bytes:
    return msgspec.json.encode({"choices": of})


def delta(**members: Any) -> bytes:
    return choices({"index": 0, "delta": members})


def test_a_whole_answer_stays_as_it_is() -> None:
    assert join(chat_whole("Hi")) == msgspec.json.decode(chat_whole("Hi"))
    assert join(chat_whole("Hi"), USAGE_ONLY)["id"] == "theirs"


def test_a_whole_answer_without_usage_gets_it() -> None:
    assert join(choices({"index": 0, "message": {"content": "Hi"}}))["usage"]["total_tokens"] == 10


def test_no_chunks_make_an_empty_answer() -> None:
    assert join()["choices"][0]["message"] == {"role": "assistant", "content": ""}
    assert join(stamp=TEXT)["choices"][0]["text"] == ""


def test_texts_are_joined_and_names_are_not() -> None:
    answer = join(
        delta(role="assistant", content="a", reasoning_content="x"),
        delta(role="assistant", content="b", reasoning_content="y"),
        choices({"index": 0, "delta": {}, "finish_reason": "length"}),
    )
    [choice] = answer["choices"]
    assert choice["message"] == {"role": "assistant", "content": "ab", "reasoning_content": "xy"}
    assert choice["finish_reason"] == "length"
    assert answer["id"] == "chatcmpl-0"


def test_tool_calls_are_joined_by_their_index() -> None:
    answer = join(
        delta(tool_calls=[{"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}}]),
        delta(tool_calls=[{"index": 1, "id": "c2", "function": {"name": "g", "arguments": "{}"}}, "nonsense"]),
        delta(tool_calls=[{"index": 0, "function": {"arguments": '{"a":'}}]),
        delta(tool_calls=[{"index": 0, "function": {"arguments": "1}"}}]),
    )
    message = answer["choices"][0]["message"]
    assert message["content"] is None
    assert message["tool_calls"] == [
        {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}},
        {"id": "c2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]


def test_log_probabilities_are_strung_together() -> None:
    first = choices({"index": 0, "delta": {"content": "a"}, "logprobs": {"content": [{"token": "a"}]}})
    second = choices({"index": 0, "delta": {"content": "b"}, "logprobs": {"content": [{"token": "b"}]}})
    assert join(first, second)["choices"][0]["logprobs"] == {"content": [{"token": "a"}, {"token": "b"}]}


def test_completions_of_several_prompts_keep_apart() -> None:
    answer = join(
        choices({"index": 1, "text": "b"}),
        choices({"index": 0, "text": "a"}),
        choices({"index": 1, "text": "B", "finish_reason": "stop"}),
        stamp=TEXT,
    )
    assert [(c["index"], c["text"], c["finish_reason"]) for c in answer["choices"]] == [
        (0, "a", None),
        (1, "bB", "stop"),
    ]


def test_one_text_chunk_is_a_whole_completion() -> None:
    answer = join(text_chunk("be", finish="stop"), stamp=TEXT)
    assert (answer["id"], answer["choices"][0]["text"]) == ("t", "be")
    assert answer["usage"]["completion_tokens"] == 3


def test_choices_and_tool_calls_have_limits() -> None:
    assert len(join(*(choices({"index": i, "delta": {}}) for i in range(CHOICES_MAX)))["choices"]) == CHOICES_MAX
    with pytest.raises(PeerError):
        join(*(choices({"index": i, "delta": {}}) for i in range(CHOICES_MAX + 1)))
    calls = [delta(tool_calls=[{"index": i, "function": {}}]) for i in range(TOOL_CALLS_MAX + 1)]
    assert len(join(*calls[:-1])["choices"][0]["message"]["tool_calls"]) == TOOL_CALLS_MAX
    with pytest.raises(PeerError):
        join(*calls)


def test_the_usage_that_an_answer_tells_counts_where_the_protocol_counted_nothing() -> None:
    assert join(chat_chunk("a"), USAGE_ONLY, finished=UNCOUNTED)["usage"]["total_tokens"] == 2
    assert join(chat_chunk("a"), USAGE_ONLY)["usage"]["total_tokens"] == 10
    assert usage_of(UNCOUNTED, None)["total_tokens"] == 0


def streamed(data: bytes, *, usage_wanted: bool = False) -> Any:
    chunk = stream_chunk(CHAT, read_piece(data), usage_wanted=usage_wanted)
    return None if chunk is None else msgspec.json.decode(chunk)


def test_a_streamed_chunk_gets_our_stamp_and_keeps_what_we_do_not_know() -> None:
    chunk = streamed(b'{"id":"x","choices":[{"delta":{"content":"a"},"extra":1}],"system_fingerprint":"f","usage":{}}')
    assert chunk == {
        "id": "chatcmpl-0",
        "object": "chat.completion.chunk",
        "created": 9,
        "model": "tiny",
        "choices": [{"delta": {"content": "a"}, "extra": 1}],
        "system_fingerprint": "f",
    }
    assert streamed(chat_chunk("a"), usage_wanted=True)["usage"] is None


def test_a_whole_answer_is_streamed_as_one_chunk() -> None:
    [choice] = streamed(chat_whole("Hi"))["choices"]
    assert choice["delta"] == {"role": "assistant", "content": "Hi"}
    assert choice["finish_reason"] == "stop"
    assert "message" not in choice


def test_a_chunk_that_only_tells_the_usage_is_not_streamed() -> None:
    assert streamed(USAGE_ONLY) is None


@pytest.mark.parametrize(
    "pieces", [[], [b'{"data":[]}', b'{"data":[]}'], [b'{"data":1}'], [b"nonsense"], [b'{"error":{"x":1},"data":[]}']]
)
def test_embeddings_come_in_one_piece(pieces: list[bytes]) -> None:
    with pytest.raises(PeerError):
        read_embeddings(pieces)
    assert read_embeddings([b'{"data":[]}']) == b'{"data":[]}'


JSON_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "choices",
                    "delta",
                    "message",
                    "content",
                    "tool_calls",
                    "function",
                    "name",
                    "index",
                    "logprobs",
                    "text",
                    "usage",
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@given(st.lists(JSON_VALUES, max_size=4), st.sampled_from([CHAT, TEXT]))
def test_any_json_is_an_answer_or_a_peer_error(documents: list[Any], stamp: Stamp) -> None:
    pieces = [msgspec.json.encode(document) for document in documents]
    try:
        read = [read_piece(piece) for piece in pieces]
        for piece in read:
            chunk = stream_chunk(stamp, piece, usage_wanted=True)
            assert chunk is None or b"\n" not in chunk
        join_pieces(stamp, read, FINISHED)
    except PeerError:
        pass


@given(
    st.lists(
        st.dictionaries(st.sampled_from(["delta", "text", "message", "index", "logprobs"]), JSON_VALUES), max_size=4
    )
)
def test_any_choices_are_joined_or_refused(of: list[dict[str, Any]]) -> None:
    try:
        answer = join(*(choices(choice) for choice in of))
    except PeerError:
        return
    assert answer["choices"]
