"""Backends, servers and clients that misbehave, through whole nodes: nothing leaks, nothing waits for ever."""

import json
import os
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import psutil
import pytest
import trio

from teale_io.inference.base import Backend
from teale_io.inference.builtin import TINY_MODEL, builtin_backend
from teale_io.inference.llama import LlamaBackend
from teale_io.inference.openai_upstream import OpenAIUpstream
from teale_io.inference.worker_protocol import LlamaParameters
from tests.e2e.harness import SAFETY_SECONDS, Stage, eventually
from tests.e2e.stalling import MODEL as STALLING
from tests.e2e.stalling import stalling_server
from tests.io.inference.fake_upstream import DONE, Exchange, FakeUpstream, event, fake_upstream
from tests.io.inference.support import ANSWER, QUESTION
from tests.io.inference.test_llama_faults import impostor
from tests.io.live import CHAT, Answering, Footprint, Live, client_of, live_node, question

MANY = 100


async def ask(node: Live, content: str, **more: Any) -> httpx.Response:
    async with client_of(node) as client:
        return await client.post(CHAT, json=question(content, **more))


async def beginning_of(node: Live, content: str) -> trio.SocketStream:
    """Ask for a stream, and return the connection when the first event has come; closing it is going away."""
    body = json.dumps(question(content, stream=True)).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    connection = await trio.open_tcp_stream("127.0.0.1", node.api_port)
    await connection.send_all(head.encode() + b"\r\n\r\n" + body)
    received = b""
    while b"data: " not in received:
        received += await connection.receive_some()
    return connection


def text_of(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    text: str = response.json()["choices"][0]["message"]["content"]
    return text.strip()


def events_of(response: httpx.Response) -> list[Any]:
    """Return what a stream said, its end mark included."""
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


async def status_of(node: Live) -> dict[str, Any]:
    async with client_of(node) as client:
        status: dict[str, Any] = (await client.get("/api/status")).json()
    return status


# A hundred at once.


async def test_a_hundred_requests_at_once_on_one_slot_are_all_answered_once_and_the_status_is_true() -> None:
    backend = Answering(open_gate=False)
    before = await Footprint.taken()
    async with live_node(backend) as node:
        at_rest = await Footprint.taken()
        replies: dict[str, str] = {}

        async def one(number: int) -> None:
            content = f"number {number}"
            replies[content] = text_of(await ask(node, content))

        async with trio.open_nursery() as nursery:
            for number in range(MANY):
                nursery.start_soon(one, number)
            await node.until(lambda: node.load == (1, MANY - 1, MANY))
            status = await status_of(node)
            assert (status["running"], status["queue_depth"], status["asked"]) == (1, MANY - 1, MANY)
            backend.gate.set()
        assert replies == {content: content for content in replies}
        assert len(replies) == MANY
        assert Counter(backend.asked) == Counter(list(replies))
        assert backend.running_most == 1
        assert node.load == (0, 0, 0)
        await at_rest.regained()
    await before.regained()


async def test_what_the_queue_cannot_take_is_refused_at_once_and_told_when_to_come_back() -> None:
    backend = Answering(open_gate=False)
    async with live_node(backend, queue_max=9) as node:
        at_rest = await Footprint.taken()
        replies: list[httpx.Response] = []

        async def one(number: int) -> None:
            replies.append(await ask(node, f"number {number}", stream=number % 2 == 0))

        async with trio.open_nursery() as nursery:
            for number in range(MANY):
                nursery.start_soon(one, number)
            await node.until(lambda: len(replies) == MANY - 10)
            assert {reply.status_code for reply in replies} == {429}
            assert {reply.headers["retry-after"] for reply in replies} == {"5"}
            assert {reply.json()["error"]["code"] for reply in replies} == {"queue_full"}
            assert node.load == (1, 9, 10)
            backend.gate.set()
        assert Counter(reply.status_code for reply in replies) == {429: MANY - 10, 200: 10}
        assert len(backend.asked) == 10
        await at_rest.regained()


async def test_askers_take_turns_however_many_requests_one_of_them_has() -> None:
    backend = Answering(open_gate=False)
    async with live_node(backend, name="alice") as alice, live_node(name="bob") as bob:
        bob.meet(alice, "m")
        await bob.until(lambda: any(peer.loaded_models for peer in bob.live.peers()))
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(ask, alice, f"alice {number}")
            await alice.until(lambda: alice.load == (1, 19, 20))
            for number in range(4):
                nursery.start_soon(ask, bob, f"bob {number}")
            await alice.until(lambda: alice.load == (1, 23, 20))
            backend.gate.set()
    waited = [asked.split()[0] for asked in backend.asked[1:]]
    assert waited[:8] in (["alice", "bob"] * 4, ["bob", "alice"] * 4)
    assert waited.count("alice") == 19


# Clients that go away.


async def test_a_client_that_goes_away_in_mid_stream_stops_the_backend_and_frees_the_slot() -> None:
    backend = Answering(open_gate=False)
    async with live_node(backend) as node:
        at_rest = await Footprint.taken()
        async with await beginning_of(node, "a b c"):
            assert node.load == (1, 0, 1)
        await node.until(lambda: backend.cancelled == 1)
        assert backend.tokens == 1
        await node.until(lambda: node.load == (0, 0, 0))
        backend.gate.set()
        assert text_of(await ask(node, "next please")) == "next please"
        await at_rest.regained()


async def test_a_client_that_goes_away_while_it_waits_leaves_the_queue() -> None:
    backend = Answering(open_gate=False)
    async with live_node(backend) as node, trio.open_nursery() as nursery:
        nursery.start_soon(ask, node, "first")
        await node.until(lambda: node.load == (1, 0, 1))
        impatient = trio.CancelScope()

        async def second() -> None:
            with impatient:
                await ask(node, "second")

        nursery.start_soon(second)
        await node.until(lambda: node.load == (1, 1, 2))
        impatient.cancel()
        await node.until(lambda: node.load == (1, 0, 1))
        backend.gate.set()
    assert backend.asked == ["first"]


# Model processes that die, hang or answer nonsense.

TINY_PATH = os.path.join(os.path.dirname(__file__), "../../teale_io/inference/tiny.gguf")


def tiny(**options: Any) -> LlamaBackend:
    parameters = LlamaParameters(TINY_PATH, name=TINY_MODEL, context=256, n_threads=1, n_threads_batch=1)
    return LlamaBackend(parameters, **options)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGABRT, signal.SIGSTOP])
@pytest.mark.parametrize("stream", [True, False])
async def test_the_fall_of_a_model_process_is_one_honest_error_and_the_next_request_is_answered(
    how: signal.Signals, stream: bool
) -> None:
    before = await Footprint.taken()
    backend = tiny(silence=2)
    async with live_node(backend) as node:
        await node.until(lambda: bool(backend.models))
        at_rest = await Footprint.taken()
        pid, child = backend.process_id, backend._child
        assert pid is not None
        assert child is not None
        # Stopped before it is asked, so that it has said nothing when it falls.
        os.kill(pid, signal.SIGSTOP)
        async with trio.open_nursery() as nursery:

            async def fall() -> None:
                # Not a moment before it has the job: until then another process would be waited for.
                await node.until(lambda: child._jobs == 1)
                os.kill(pid, how)
                if how is signal.SIGABRT:
                    os.kill(pid, signal.SIGCONT)

            nursery.start_soon(fall)
            failed = await ask(node, QUESTION, model=TINY_MODEL, stream=stream, temperature=0)
        assert failed.status_code == 503
        assert "model" in failed.json()["error"]["message"]
        answered = await ask(node, QUESTION, model=TINY_MODEL, temperature=0)
        assert text_of(answered) == ANSWER
        assert backend.process_id != pid
        assert node.load == (0, 0, 0)
        assert not (await status_of(node))["problems"]
        await at_rest.regained()
    await before.regained()


@pytest.mark.parametrize(
    "answer", ['write(b"garbage that is no frame")', "say(Piece(1, b'not JSON'))", "say(Done(1, -1, 0))"]
)
async def test_nonsense_from_a_model_process_reaches_nobody(answer: str) -> None:
    program = f"hear(); say(Loaded(5)); hear(); {answer}; time.sleep(1000)"
    before = await Footprint.taken()
    backend = LlamaBackend(LlamaParameters("m"), command=impostor(program))
    async with live_node(backend) as node:
        await node.until(lambda: bool(backend.models))
        failed = await ask(node, "anybody?", stream=True)
        assert failed.status_code == 503
        assert "nonsense" in failed.json()["error"]["message"]
        assert node.load == (0, 0, 0)
    await before.regained()


async def test_the_status_says_what_keeps_a_model_from_being_served() -> None:
    backend = LlamaBackend(LlamaParameters("/nowhere/model.gguf"))
    async with live_node(backend) as node:
        await node.until(lambda: bool(backend.problem))
        assert (await status_of(node))["problems"] == [backend.problem]


# Model servers that are slow, drop the answer, or send half a character.


async def through_a_node(upstream: FakeUpstream, **more: Any) -> httpx.Response:
    backend: Backend = OpenAIUpstream(upstream.url, silence=1)
    before = await Footprint.taken()
    async with live_node(backend) as node:
        await node.until(lambda: bool(backend.models))
        response = await ask(node, "anybody?", model="big", **more)
        await node.until(lambda: node.load == (0, 0, 0))
    await before.regained()
    return response


async def test_an_answer_that_comes_byte_by_byte_is_whole() -> None:
    async def play(exchange: Exchange) -> None:
        await exchange.begin("text/event-stream")
        for byte in event("Grüß €ott") + event(finish_reason="stop") + DONE:
            await exchange.send(bytes([byte]))
            await trio.lowlevel.checkpoint()

    async with fake_upstream(play) as upstream:
        response = await through_a_node(upstream, stream=True)
    first, last, end = events_of(response)
    assert first["choices"][0]["delta"]["content"] == "Grüß €ott"
    assert (last["choices"][0]["finish_reason"], end) == ("stop", "[DONE]")


HALF_A_CHARACTER = b'data: {"choices":[{"index":0,"delta":{"content":"\xe2\x82"}}]}\n\n'


@pytest.mark.parametrize("rest", [b"", HALF_A_CHARACTER, b"data: {\n\n", b'data: {"choices":[{"delta":{"cont'])
async def test_an_answer_that_breaks_ends_with_an_error_and_without_the_mark_of_its_end(rest: bytes) -> None:
    async def play(exchange: Exchange) -> None:
        await exchange.begin("text/event-stream")
        await exchange.send(event("Once") + rest)

    async with fake_upstream(play) as upstream:
        response = await through_a_node(upstream, stream=True)
    first, last = events_of(response)
    assert first["choices"][0]["delta"]["content"] == "Once"
    assert last["error"]["code"] == "internal_error"


async def test_a_server_that_falls_silent_in_the_middle_is_given_up() -> None:
    async def play(exchange: Exchange) -> None:
        await exchange.begin("text/event-stream")
        await exchange.send(event("Once"))
        await exchange.gone()

    async with fake_upstream(play) as upstream:
        response = await through_a_node(upstream, stream=True)
    assert events_of(response)[-1]["error"]["message"] == "The model server said nothing for 1 s."


async def test_a_whole_answer_may_take_longer_than_silence_is_allowed_to_last() -> None:
    async def play(exchange: Exchange) -> None:
        await trio.sleep(1.5)
        await exchange.answer(b'{"choices":[{"index":0,"message":{"role":"assistant","content":"At last"}}]}')

    async with fake_upstream(play) as upstream:
        assert text_of(await through_a_node(upstream)) == "At last"


async def test_the_builtin_model_serves_a_crowd() -> None:
    backend = builtin_backend()
    async with live_node(backend, max_concurrent_requests=4) as node:
        await node.until(lambda: bool(backend.models))
        replies: list[str] = []

        async def one() -> None:
            replies.append(text_of(await ask(node, QUESTION, model=TINY_MODEL, temperature=0)))

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(one)
        assert replies == [ANSWER] * 20


# The whole program.


def test_a_program_survives_its_model_under_a_crowd_and_ends_with_honest_words(stage: Stage) -> None:
    crowd, slots = 30, 2
    with stalling_server() as url, ThreadPoolExecutor(crowd) as pool:
        node = stage.node("solo", builtin_model=True, openai_urls=[url], max_concurrent_requests=slots)
        eventually(lambda: len(node.models()) == 2, "both models are there")
        assert node.chat(QUESTION).text == ANSWER
        process = psutil.Process(node.pid)
        files_at_rest = process.num_fds()
        [model_process] = process.children()

        asked = [pool.submit(node.chat, QUESTION) for _ in range(crowd)]
        eventually(lambda: node.get("/api/status")["queue_depth"] > crowd // 2, "most of them wait")
        model_process.kill()
        replies = [each.result(SAFETY_SECONDS) for each in asked]
        failed = [reply for reply in replies if reply.error]
        assert len(failed) <= slots, "only those that it was working on"
        assert all("model process died" in str(reply.error) for reply in failed)
        assert {reply.text for reply in replies if not reply.error} == {ANSWER}
        status = node.get("/api/status")
        assert (status["running"], status["queue_depth"], status["asked"], status["problems"]) == (0, 0, 0, [])
        eventually(lambda: process.num_fds() <= files_at_rest, "all files are closed")
        assert len(process.children()) == 1

        unfinished = pool.submit(node.chat, "tell me", model=STALLING)
        eventually(lambda: node.get("/api/status")["running"], "an answer is under way")
        began_at = time.monotonic()
        assert node.stop() == 0
        assert time.monotonic() - began_at < 10
        reply = unfinished.result(SAFETY_SECONDS)
        assert not reply.is_done
        assert reply.error is not None
        assert reply.error["message"] == "this node is stopping"
        assert not (node.home / "node.json").exists()
