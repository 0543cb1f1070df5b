"""Bodies in the shape of OpenAI's API, good and bad."""

from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from teale_io.inference.base import GenerationError
from teale_io.inference.requests import (
    EMBEDDING_INPUTS_MAX,
    STOPS_MAX,
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    Message,
    Sampling,
    parse_request,
)
from teale_proto.inputs import Failure, Task

HELLO = {"messages": [{"role": "user", "content": "hello"}]}


def parse(task: Task, body: dict[str, Any]) -> Any:
    return parse_request(task, msgspec.json.encode(body))


def test_a_bare_chat_gets_the_defaults() -> None:
    assert parse(Task.CHAT, HELLO) == ChatRequest((Message("user", "hello"),), Sampling(), (), None)


def test_every_field_of_a_chat_is_heard() -> None:
    body = {
        "model": "any",
        "messages": [
            {"role": "developer", "content": "be brief"},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": None},
        ],
        "temperature": 0,
        "top_p": 1,
        "seed": -5,
        "stop": ["x", "y"],
        "max_tokens": 3,
        "max_completion_tokens": 4,
        "stream": True,
        "stream_options": {"include_usage": True},
        "user": "somebody",
        "n": 1,
        "tools": [],
        "response_format": {"type": "text"},
        "logit_bias": None,
    }
    assert parse(Task.CHAT, body) == ChatRequest(
        (Message("system", "be brief"), Message("user", "ab"), Message("assistant", "")),
        Sampling(temperature=0, top_p=1, seed=-5),
        ("x", "y"),
        4,
    )


def test_a_completion_is_sixteen_tokens_unless_asked_otherwise() -> None:
    assert parse(Task.COMPLETION, {"prompt": ["p"]}) == CompletionRequest("p", Sampling(), (), 16)
    assert parse(Task.COMPLETION, {"prompt": "p", "max_tokens": 1}).max_tokens == 1


def test_embeddings_take_one_string_or_many() -> None:
    assert parse(Task.EMBEDDING, {"input": "a"}) == EmbeddingRequest(("a",), base64=False, dimensions=None)
    body = {"input": ["a", "b"], "encoding_format": "base64", "dimensions": 5}
    assert parse(Task.EMBEDDING, body) == EmbeddingRequest(("a", "b"), base64=True, dimensions=5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"messages": []}, "at least one message"),
        ({"messages": [{"role": "wizard", "content": ""}]}, r"\$\.messages\[0\]\.role"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "Only text"),
        ({"messages": [{"role": "assistant", "tool_calls": [{}]}]}, "Tool calls"),
        ({"temperature": 3}, r"\$\.temperature"),
        ({"temperature": "hot"}, r"\$\.temperature"),
        ({"top_p": -1}, r"\$\.top_p"),
        ({"max_tokens": 0}, r"\$\.max_tokens"),
        ({"seed": 1.5}, r"\$\.seed"),
        ({"stop": ["x"] * (STOPS_MAX + 1)}, "'stop' may hold"),
        ({"stop": ""}, "stop sequence must have"),
        ({"n": 2}, "'n' is not supported"),
        ({"tools": [{"type": "function"}]}, "'tools' is not supported"),
        ({"logprobs": True}, "'logprobs' is not supported"),
        ({"response_format": {"type": "json_object"}}, "'response_format' is not supported"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(GenerationError, match=message) as refused:
        parse(Task.CHAT, HELLO | fields)
    assert refused.value.failure is Failure.INVALID_REQUEST


@pytest.mark.parametrize(
    ("task", "body"),
    [
        (Task.COMPLETION, {}),
        (Task.COMPLETION, {"prompt": ["a", "b"]}),
        (Task.COMPLETION, {"prompt": [1, 2]}),
        (Task.COMPLETION, {"prompt": "a", "echo": True}),
        (Task.EMBEDDING, {"input": []}),
        (Task.EMBEDDING, {"input": ["a", ""]}),
        (Task.EMBEDDING, {"input": [[1, 2]]}),
        (Task.EMBEDDING, {"input": ["a"] * (EMBEDDING_INPUTS_MAX + 1)}),
        (Task.EMBEDDING, {"input": "a", "encoding_format": "hex"}),
    ],
)
def test_other_tasks_refuse_what_is_not_theirs(task: Task, body: dict[str, Any]) -> None:
    with pytest.raises(GenerationError) as refused:
        parse(task, body)
    assert refused.value.failure is Failure.INVALID_REQUEST


@given(st.sampled_from(Task), st.binary() | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(repr))
def test_any_bytes_are_a_request_or_an_invalid_one(task: Task, body: bytes | str) -> None:
    with suppress(GenerationError):
        parse_request(task, body if isinstance(body, bytes) else body.encode())
