"""Model servers over real sockets: good ones, slow ones, and those that break in the middle."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import trio

from teale_io.inference.base import GenerationError, Usage
from teale_io.inference.openai_upstream import MODELS_MAX, OpenAIUpstream
from teale_io.inference.sse import EVENT_BYTES_MAX
from teale_proto.errors import LocalError
from teale_proto.inputs import Failure, Task
from tests.io.inference.fake_upstream import (
    DONE,
    GOOD_STREAM,
    Exchange,
    FakeUpstream,
    Play,
    event,
    fake_upstream,
)
from tests.io.inference.support import Running, chat, running

SSE = "text/event-stream; charset=utf-8"


@asynccontextmanager
async def asked(play: Play, **options: Any) -> AsyncIterator[tuple[Running, FakeUpstream]]:
    """Run a backend on a server that answers as `play` does."""
    async with fake_upstream(play) as server, running(OpenAIUpstream(server.url, **options)) as run:
        yield run, server


async def failure_of(play: Play, *, streaming: bool = True, **options: Any) -> GenerationError:
    async with asked(play, **options) as (run, _):
        with pytest.raises(GenerationError) as failed:
            await run.ask(chat(), streaming=streaming)
    return failed.value


def streams(data: bytes) -> Play:
    async def play(exchange: Exchange) -> None:
        await exchange.begin(SSE)
        await exchange.send(data)

    return play


def answers(body: bytes, status: int = 200) -> Play:
    async def play(exchange: Exchange) -> None:
        await exchange.answer(body, status=status)

    return play


async def test_a_streamed_answer_is_passed_on_without_its_usage() -> None:
    async with asked(streams(GOOD_STREAM)) as (run, server):
        reply = await run.ask(chat(stream_options={"include_usage": True}, extra=[1.50]), streaming=True)
    assert reply.streamed_text == "Grüß €ott"
    assert reply.finish_reason == "stop"
    assert reply.usage == Usage(3, 2)
    assert not any("usage" in chunk for chunk in reply.chunks)
    assert b"\n" not in b"".join(reply.raw)
    assert b", " not in b"".join(reply.raw)
    sent = server.requests[-1]
    assert sent.path == "/v1/chat/completions"
    assert sent.body["model"] == "big"
    assert sent.body["stream"] is True
    assert sent.body["stream_options"] == {"include_usage": True}
    assert b'"extra":[1.5' in sent.raw_body
    assert "authorization" not in sent.headers


async def test_a_stream_may_be_split_anywhere_even_in_a_character() -> None:
    async def play(exchange: Exchange) -> None:
        await exchange.begin(SSE)
        for byte in GOOD_STREAM:
            await exchange.send(bytes([byte]))

    async with asked(play) as (run, _):
        assert (await run.ask(chat(), streaming=True)).streamed_text == "Grüß €ott"


async def test_a_stream_without_end_mark_or_usage_is_still_whole() -> None:
    async with asked(streams(event("a") + event("b") + event(finish_reason="length"))) as (run, _):
        reply = await run.ask(chat(), streaming=True)
    assert reply.finish_reason == "length"
    assert reply.usage == Usage(0, 2)


async def test_whatever_a_server_sends_after_the_end_mark_is_not_waited_for() -> None:
    async def play(exchange: Exchange) -> None:
        await exchange.begin(SSE)
        await exchange.send(GOOD_STREAM)
        await exchange.gone()

    async with asked(play) as (run, _):
        assert (await run.ask(chat(), streaming=True)).usage == Usage(3, 2)


async def test_a_whole_answer_is_one_compact_object_with_usage() -> None:
    body = b'{ "id": "x",\n "choices": [ {"message": {"content": "a  b"}} ], "usage": {"prompt_tokens": 7} }'
    async with asked(answers(body)) as (run, server):
        reply = await run.ask(chat(stream=True), streaming=False)
    assert reply.raw == [b'{"id":"x","choices":[{"message":{"content":"a  b"}}],"usage":{"prompt_tokens":7}}']
    assert reply.usage == Usage(7, 0)
    assert "stream" not in server.requests[-1].body


async def test_a_whole_answer_without_usage_gets_one() -> None:
    async with asked(answers(b'{"choices":[]}')) as (run, _):
        reply = await run.ask(chat(), streaming=False)
    assert reply.whole["usage"] == {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


async def test_embeddings_are_never_streamed() -> None:
    async with asked(answers(b'{"data":[{"embedding":[1.0]}],"usage":{"prompt_tokens":4}}')) as (run, server):
        reply = await run.ask({"input": "a"}, task=Task.EMBEDDING, streaming=True)
    assert reply.whole["data"] == [{"embedding": [1.0]}]
    assert reply.usage == Usage(4, 0)
    assert server.requests[-1].path == "/v1/embeddings"
    assert server.requests[-1].body == {"input": "a", "model": "big"}


@pytest.mark.parametrize(
    ("status", "failure"),
    [
        (400, Failure.INVALID_REQUEST),
        (404, Failure.MODEL_NOT_LOADED),
        (408, Failure.TIMEOUT),
        (422, Failure.INVALID_REQUEST),
        (429, Failure.UNAVAILABLE),
        (500, Failure.INTERNAL_ERROR),
        (502, Failure.UNAVAILABLE),
        (503, Failure.UNAVAILABLE),
        (504, Failure.TIMEOUT),
        (302, Failure.INTERNAL_ERROR),
    ],
)
async def test_an_error_status_has_a_meaning_and_a_message(status: int, failure: Failure) -> None:
    error = await failure_of(answers(b'{"error": {"message": "the reason\\n"}}', status))
    assert (error.failure, error.message) == (failure, "the reason")


@pytest.mark.parametrize("body", [b"", b"<html>", b"[1]", b'{"error": 5}', b"\xff", b"[" * 9999])
async def test_an_error_without_a_readable_message_says_its_status(body: bytes) -> None:
    error = await failure_of(answers(body, 400))
    assert error.message == "The model server answered with status 400."


async def test_the_message_of_an_error_is_short_and_printable() -> None:
    error = await failure_of(answers(msgspec.json.encode({"error": "\x1b[31m" + "x" * 10_000}), 400))
    assert len(error.message) < 501
    assert "\x1b" not in error.message


@pytest.mark.parametrize(
    "data",
    [
        event("a"),
        event("a") + b"data: {",
        event("a") + b'data: {"choices": 5}\n\n' + DONE,
        event("a") + b'data: "\xff"\n\n' + DONE,
        event("a") + b'data: {"error": {"message": "out of memory"}}\n\n' + DONE,
        b"",
        b"data: " + b"x" * EVENT_BYTES_MAX,
    ],
    ids=["ends early", "ends in an event", "wrong shape", "not text", "an error", "empty", "too long"],
)
async def test_a_stream_that_breaks_is_an_internal_error(data: bytes) -> None:
    assert (await failure_of(streams(data))).failure is Failure.INTERNAL_ERROR


async def test_a_connection_that_drops_in_the_middle_is_an_internal_error() -> None:
    async def play(exchange: Exchange) -> None:
        await exchange.begin(SSE, length=100_000)
        await exchange.send(event("a"))

    chunks: list[bytes] = []
    async with asked(play) as (run, _):
        with pytest.raises(GenerationError, match="dropped the answer in the middle") as failed:
            await run.ask(chat(), streaming=True, on_chunk=chunks.append)
    assert failed.value.failure is Failure.INTERNAL_ERROR
    assert len(chunks) == 1


async def test_a_connection_that_drops_after_the_last_chunk_costs_only_the_usage() -> None:
    async def play(exchange: Exchange) -> None:
        await exchange.begin(SSE, length=100_000)
        await exchange.send(event("a") + event(finish_reason="stop"))

    async with asked(play) as (run, _):
        assert (await run.ask(chat(), streaming=True)).usage == Usage(0, 1)


async def test_a_whole_answer_that_drops_is_an_internal_error() -> None:
    async def play(exchange: Exchange) -> None:
        await exchange.begin("application/json", length=1000)
        await exchange.send(b'{"choices":')

    assert (await failure_of(play, streaming=False)).failure is Failure.INTERNAL_ERROR


async def test_a_server_that_hangs_up_before_it_answers_is_unavailable() -> None:
    async def play(exchange: Exchange) -> None:
        pass

    assert (await failure_of(play)).failure is Failure.UNAVAILABLE


async def test_a_server_that_does_not_stream_is_an_internal_error() -> None:
    error = await failure_of(answers(b'{"choices":[]}'))
    assert (error.failure, error.message) == (Failure.INTERNAL_ERROR, "The model server does not stream.")


@pytest.mark.parametrize("begun", [True, False])
async def test_a_server_that_falls_silent_is_unavailable(begun: bool) -> None:
    async def play(exchange: Exchange) -> None:
        if begun:
            await exchange.begin(SSE)
            await exchange.send(event("a"))
        await exchange.gone()

    error = await failure_of(play, silence=0.05)
    assert (error.failure, error.message) == (Failure.UNAVAILABLE, "The model server said nothing for 0.05 s.")


async def test_a_cancelled_request_hangs_up_and_the_next_one_is_answered() -> None:
    hung_up = trio.Event()

    async def play(exchange: Exchange) -> None:
        await exchange.begin(SSE)
        await exchange.send(event("a"))
        await exchange.gone()
        hung_up.set()

    async with asked(play) as (run, server):
        with trio.CancelScope() as scope:
            await run.ask(chat(), streaming=True, on_chunk=lambda chunk: scope.cancel())
        assert scope.cancelled_caught
        with trio.fail_after(10):
            await hung_up.wait()
        server.play = streams(GOOD_STREAM)
        assert (await run.ask(chat(), streaming=True)).streamed_text == "Grüß €ott"


async def test_a_body_that_is_no_object_does_not_reach_the_server() -> None:
    async with asked(streams(GOOD_STREAM)) as (run, server):
        for body in (b"", b"[1]", b'{"a":', b'{"a":"\xff"}', b"[" * 100_000):
            with pytest.raises(GenerationError) as refused:
                await run.ask(body, streaming=True)
            assert refused.value.failure is Failure.INVALID_REQUEST
        assert {request.method for request in server.requests} == {"GET"}


async def test_the_key_goes_to_the_server_and_nowhere_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TEST_KEY", "sk-secret")
    async with asked(answers(b'{"error": {"message": "bad key sk-secret"}}', 401), api_key_env="TEST_KEY") as (
        run,
        server,
    ):
        with pytest.raises(GenerationError, match="refused this node's API key") as refused:
            await run.ask(chat())
        assert refused.value.failure is Failure.UNAVAILABLE
        assert {request.headers["authorization"] for request in server.requests} == {"Bearer sk-secret"}
        assert "sk-secret" not in repr(vars(run.backend))
    assert "sk-secret" not in str(capsys.readouterr())


@pytest.mark.parametrize(("key", "problem"), [("", "TEST_KEY is not set"), ("a\nb", "TEST_KEY does not hold")])
async def test_a_key_that_is_missing_is_a_problem(monkeypatch: pytest.MonkeyPatch, key: str, problem: str) -> None:
    monkeypatch.setenv("TEST_KEY", key)
    async with fake_upstream() as server:
        backend = OpenAIUpstream(server.url, api_key_env="TEST_KEY")
        async with running(backend, loaded=False):
            await trio.testing.wait_all_tasks_blocked()
            assert problem in backend.problem
        assert server.requests == []


async def test_the_models_follow_the_server_through_its_absence() -> None:
    async with fake_upstream() as server:
        backend = OpenAIUpstream(f"{server.url}/v1/", poll_interval=0.02, poll_first=0.001)
        async with running(backend) as run:
            assert backend.models == ("big", "small")
            server.models = b'{"data": [{"id": "new"}]}'
            await run.until(lambda: backend.models == ("new",))
            server.models_status = 503
            await run.until(lambda: backend.models == ())
            assert "answered with status 503" in backend.problem
            server.models_status = 200
            await run.until(lambda: backend.models == ("new",))
            assert backend.problem == ""
            assert {request.path for request in server.requests} == {"/v1/models"}


async def test_a_server_that_is_away_is_found_as_soon_as_it_is_back() -> None:
    async with fake_upstream() as server:
        port = server.port
    backend = OpenAIUpstream(f"http://127.0.0.1:{port}", poll_first=0.01)
    async with running(backend, loaded=False) as run:
        with pytest.raises(GenerationError, match="cannot be reached") as refused:
            await run.ask(chat(), model="big")
        assert refused.value.failure is Failure.UNAVAILABLE
        async with fake_upstream(streams(GOOD_STREAM), port=port):
            await run.until(lambda: backend.models == ("big", "small"))
            assert (await run.ask(chat(), streaming=True)).usage == Usage(3, 2)


async def test_a_server_that_went_away_is_noticed_by_the_next_request() -> None:
    async with fake_upstream() as server:
        backend = OpenAIUpstream(server.url, poll_interval=1000)
        async with running(backend) as run:
            server.models_status = 500

            async def hang_up(exchange: Exchange) -> None:
                pass

            server.play = hang_up
            with pytest.raises(GenerationError, match="cannot be reached"):
                await run.ask(chat())
            await run.until(lambda: backend.models == ())


@pytest.mark.parametrize(
    ("listed", "models"),
    [
        ([{"id": "b"}, {"id": "a"}, {"id": "b"}], ("b", "a")),
        ([{"id": ""}, {"id": "x" * 257}, {"id": "ok"}], ("ok",)),
        ([{"id": str(number)} for number in range(1000)], tuple(str(number) for number in range(MODELS_MAX))),
    ],
)
async def test_the_list_of_models_is_bounded_and_each_is_named_once(listed: list[Any], models: tuple[str, ...]) -> None:
    async with fake_upstream() as server:
        server.models = msgspec.json.encode({"data": listed})
        async with running(OpenAIUpstream(server.url)) as run:
            assert run.backend.models == models


async def test_only_the_models_that_were_chosen_are_served() -> None:
    async with fake_upstream() as server, running(OpenAIUpstream(server.url, only=("small", "other"))) as run:
        assert run.backend.models == ("small",)


@pytest.mark.parametrize(
    "url", ["", "localhost:8080", "ftp://host", "http://", "http://user:secret@host", "http://h/?a=b", "http://h:x"]
)
def test_a_url_that_is_none_is_refused_without_quoting_it(url: str) -> None:
    with pytest.raises(LocalError) as refused:
        OpenAIUpstream(url)
    assert "secret" not in str(refused.value)
