"""A model server says what a simulated backend says, in the time that this takes, and stops when nobody listens."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from time import perf_counter

import httpx
import msgspec
import pytest

from simulator.backend import ANSWER_MARKER, CostModel, GenerationInput, SimulatedBackend
from simulator.engine import Engine
from simulator.lab.model_server import ModelServer
from simulator.rng import stream
from teale_proto.effects import StartGeneration
from teale_proto.inputs import GenerationChunk, GenerationFinished, Task

QUICK = CostModel(tokens_per_second=1000.0, prefill_tokens_per_second=1e6, tokens_min=3, tokens_max=9)
BODY = {"model": "model-1", "messages": [{"role": "user", "content": "hello"}], "user": "somebody"}


@pytest.fixture
def url() -> Iterator[str]:
    with server(QUICK) as found:
        yield found


class server:  # noqa: N801 - reads as what it is
    """Runs the program; its URL."""

    def __init__(self, cost: CostModel, *, life: int = 1) -> None:
        words = ["--port", "0", "--models", "model-1", "model-2", "--seed", "7", "--host", "node-3"]
        more = ["--cost", msgspec.json.encode(cost).decode(), "--life", str(life)]
        self._command = [sys.executable, "-m", "simulator.lab.model_server", *words, *more]

    def __enter__(self) -> str:
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip().removeprefix("listening on ")

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.communicate()


def simulated(cost: CostModel, streaming: bool) -> list[GenerationInput]:
    """Return what the backend of a simulated node says to the same request."""
    engine, said = Engine(), list[GenerationInput]()
    backend = SimulatedBackend(engine, stream(7, "node-3", "backend"), cost, said.append)
    backend.models = ("model-1",)
    body = msgspec.json.encode({**BODY, "stream": streaming})
    backend.start(StartGeneration(1, Task.CHAT, "model-1", body, streaming))
    engine.run_until(60_000_000)
    return said


def events_of(url: str, client: httpx.Client) -> list[bytes]:
    body = {**BODY, "stream": True, "stream_options": {"include_usage": True}}
    answer = client.post(f"{url}/chat/completions", json=body)
    assert answer.headers["content-type"] == "text/event-stream"
    return [line.removeprefix("data: ").encode() for line in answer.text.splitlines() if line]


def test_it_lists_its_models(url: str) -> None:
    listed = httpx.get(f"{url}/models", trust_env=False).json()
    assert [each["id"] for each in listed["data"]] == ["model-1", "model-2"]


def test_it_streams_what_the_simulated_node_would_say(url: str) -> None:
    said = simulated(QUICK, streaming=True)
    with httpx.Client(trust_env=False) as client:
        *chunks, usage, done = events_of(url, client)
    assert chunks == [each.chunk for each in said if isinstance(each, GenerationChunk)]
    assert done == b"[DONE]"
    finished = said[-1]
    assert isinstance(finished, GenerationFinished)
    counted = msgspec.json.decode(usage)["usage"]
    assert (counted["prompt_tokens"], counted["completion_tokens"]) == (finished.tokens_in, finished.tokens_out)


def test_it_answers_in_one_piece_as_well_and_goes_on_to_another_request(url: str) -> None:
    [whole, _] = simulated(QUICK, streaming=False)
    assert isinstance(whole, GenerationChunk)
    with httpx.Client(trust_env=False) as client:
        first = client.post(f"{url}/chat/completions", json=BODY)
        second = client.post(f"{url}/chat/completions", json=BODY)
    assert first.content == whole.chunk
    assert ANSWER_MARKER in second.text


def test_a_model_that_it_has_not_got_is_a_404(url: str) -> None:
    answer = httpx.post(f"{url}/chat/completions", json={**BODY, "model": "model-9"}, trust_env=False)
    assert answer.status_code == 404
    assert answer.json()["error"]["message"]
    assert httpx.get(f"{url}/nothing", trust_env=False).status_code == 404


def test_it_fails_as_often_as_it_is_said_to() -> None:
    with server(CostModel(failure_chance=1.0, tokens_min=1, tokens_max=1, tokens_per_second=1000.0)) as url:
        answer = httpx.post(f"{url}/chat/completions", json=BODY, trust_env=False)
    assert answer.status_code == 500
    assert "failed" in answer.json()["error"]["message"]


def test_it_takes_the_time_that_it_is_said_to_take() -> None:
    cost = CostModel(tokens_per_second=40.0, jitter=0.0, tokens_min=20, tokens_max=20, prefill_tokens_per_second=1e6)
    with server(cost) as url, httpx.Client(trust_env=False) as client:
        client.get(f"{url}/models")
        began = perf_counter()
        events_of(url, client)
        took = perf_counter() - began
    # Never too short; how much longer is the machine's matter.
    assert took >= 0.5


def test_another_life_draws_anew() -> None:
    def lengths(life: int) -> list[int]:
        with server(QUICK, life=life) as url, httpx.Client(trust_env=False) as client:
            return [len(events_of(url, client)) for _ in range(6)]

    assert lengths(1) == lengths(1) != lengths(2)


def test_a_job_is_given_up_when_whoever_asked_goes_away() -> None:
    """The one place to see it is the server itself, which then waits for nothing."""
    slow = CostModel(tokens_per_second=20.0, tokens_min=1000, tokens_max=1000)

    async def ask_and_leave() -> None:
        models = ModelServer(("model-1",), slow, seed=1, host="x", life=1)
        async with await asyncio.start_server(models.serve, "127.0.0.1", 0) as listener:
            reader, writer = await asyncio.open_connection(*listener.sockets[0].getsockname()[:2])
            body = msgspec.json.encode({**BODY, "stream": True})
            head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            await reader.readuntil(b"word-1")
            assert len(models.waiting) == 1
            writer.close()
            async with asyncio.timeout(10):
                while models.waiting:
                    await asyncio.sleep(0)

    asyncio.run(ask_and_leave())
