"""The official client works unchanged."""

from typing import Any

import openai
import pytest
import trio
from openai.types.chat import ChatCompletionUserMessageParam

from teale_proto.effects import Path
from teale_proto.inputs import Failure, Task
from tests.io.api.scripted import (
    SOON,
    STREAMED,
    Fail,
    Finish,
    ScriptedService,
    Try,
    chat_chunk,
    chat_whole,
    openai_at,
    text_chunk,
)
from tests.io.status import BOB, CAROL

HI: ChatCompletionUserMessageParam = {"role": "user", "content": "hi"}


async def test_a_chat_answer_arrives_whole() -> None:
    service = ScriptedService(Try(), chat_whole("Hello"), Finish())
    async with openai_at(service) as run:
        answer = await run(
            lambda client: client.chat.completions.create(
                model="tiny", messages=[HI], seed=4, temperature=0.5, max_tokens=9, stop=["\n"]
            )
        )
    assert answer.choices[0].message.content == "Hello"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 3
    [asked] = service.asked
    assert (asked.task, asked.model, asked.streaming) == (Task.CHAT, "tiny", False)
    assert b'"seed":4' in asked.body
    assert b'"stop":["\\n"]' in asked.body


async def test_chunks_for_a_question_without_stream_are_joined() -> None:
    async with openai_at(ScriptedService(*STREAMED)) as run:
        answer = await run(lambda client: client.chat.completions.create(model="tiny", messages=[HI]))
    assert answer.object == "chat.completion"
    assert answer.choices[0].message.content == "Hello"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (7, 3, 10)


async def test_a_chat_answer_streams_under_one_id() -> None:
    service = ScriptedService(*STREAMED)
    async with openai_at(service) as run:
        chunks = await run(
            lambda client: list(client.chat.completions.create(model="tiny", messages=[HI], stream=True))
        )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Hello"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
    assert all(chunk.usage is None for chunk in chunks)
    assert service.asked[0].streaming


async def test_a_stream_ends_with_the_usage_when_it_was_asked_for() -> None:
    async with openai_at(ScriptedService(*STREAMED)) as run:
        chunks = await run(
            lambda client: list(
                client.chat.completions.create(
                    model="tiny", messages=[HI], stream=True, stream_options={"include_usage": True}
                )
            )
        )
    *spoken, last = chunks
    assert all(chunk.usage is None for chunk in spoken)
    assert last.choices == []
    assert last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (7, 3)
    assert last.id == spoken[0].id


async def test_the_headers_tell_who_served() -> None:
    script = (Try(CAROL, Path.RELAY), Try(BOB, Path.LAN), *STREAMED[1:])
    async with openai_at(ScriptedService(*script)) as run:
        for stream in (False, True):
            response: Any = await run(
                lambda client, stream=stream: client.chat.completions.with_raw_response.create(  # type: ignore[misc]  # lambdas' defaults cannot be annotated
                    model="tiny", messages=[HI], stream=stream
                )
            )
            assert response.headers["x-teale-served-by"] == BOB
            assert response.headers["x-teale-path"] == "lan"
            assert response.headers["x-teale-attempts"] == "2"


async def test_a_completion_arrives_whole_and_streams() -> None:
    script = (Try(), text_chunk("to "), text_chunk("be", finish="stop"), Finish())
    async with openai_at(ScriptedService(*script)) as run:
        whole = await run(lambda client: client.completions.create(model="tiny", prompt="Or not"))
        chunks = await run(lambda client: list(client.completions.create(model="tiny", prompt="Or not", stream=True)))
    assert (whole.choices[0].text, whole.choices[0].finish_reason) == ("to be", "stop")
    assert whole.usage is not None
    assert whole.usage.total_tokens == 10
    assert "".join(chunk.choices[0].text for chunk in chunks) == "to be"


async def test_embeddings_arrive() -> None:
    vectors = b'{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.5,-1.0]}],"model":"tiny"}'
    service = ScriptedService(Try(), vectors, Finish())
    async with openai_at(service) as run:
        answer = await run(lambda client: client.embeddings.create(model="tiny", input="hi"))
    assert answer.data[0].embedding == [0.5, -1.0]
    assert service.asked[0].task is Task.EMBEDDING


async def test_the_models_are_those_of_the_whole_pool() -> None:
    async with openai_at(ScriptedService()) as run:
        models = await run(lambda client: list(client.models.list()))
        one = await run(lambda client: client.models.retrieve("org/big"))
        with pytest.raises(openai.NotFoundError) as caught:
            await run(lambda client: client.models.retrieve("gone"))
    assert [model.id for model in models] == ["far", "org/big", "tiny"]
    assert {model.owned_by for model in models} == {"teale"}
    assert one.id == "org/big"
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("failure", "raised"),
    [
        (Failure.MODEL_NOT_LOADED, openai.NotFoundError),
        (Failure.QUEUE_FULL, openai.RateLimitError),
        (Failure.INVALID_REQUEST, openai.BadRequestError),
        (Failure.UNAVAILABLE, openai.InternalServerError),
    ],
)
async def test_a_failure_raises_the_clients_own_exception(
    failure: Failure, raised: type[openai.APIStatusError], stream: bool
) -> None:
    async with openai_at(ScriptedService(Try(), Fail(failure, "no luck"))) as run:
        with pytest.raises(raised, match="no luck"):
            await run(lambda client: client.chat.completions.create(model="x", messages=[HI], stream=stream))


async def test_a_failure_in_the_middle_of_a_stream_raises_rather_than_ends_it() -> None:
    script = (Try(), chat_chunk("Hel"), Fail(Failure.PEER_LOST, "the peer was lost"))
    received: list[str | None] = []

    def use(client: openai.OpenAI) -> None:
        for chunk in client.chat.completions.create(model="tiny", messages=[HI], stream=True):
            received.append(chunk.choices[0].delta.content)  # noqa: PERF401 -- what came before the error counts

    async with openai_at(ScriptedService(*script)) as run:
        with pytest.raises(openai.APIError, match="the peer was lost") as caught:
            await run(use)
    assert received == ["Hel"]
    assert caught.value.code == "peer_lost"


async def test_closing_a_stream_early_cancels_the_request() -> None:
    service = ScriptedService(Try(), chat_chunk("Hel"), trio.Event())

    def use(client: openai.OpenAI) -> str | None:
        with client.chat.completions.create(model="tiny", messages=[HI], stream=True) as stream:
            return next(iter(stream)).choices[0].delta.content

    async with openai_at(service) as run:
        assert await run(use) == "Hel"
        with trio.fail_after(SOON):
            await service.left.wait()
