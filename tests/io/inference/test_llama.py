"""The built-in model in a real child process."""

import base64
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from teale_io.inference.base import GenerationError
from teale_io.inference.builtin import TINY_MODEL, builtin_backend
from teale_io.inference.llama import LlamaBackend
from teale_io.inference.llama_process import open_process
from teale_io.inference.requests import EmbeddingRequest, parse_request
from teale_io.inference.worker_protocol import (
    Cancel,
    Done,
    Generate,
    LlamaParameters,
    Load,
    Loaded,
    Piece,
    Refused,
)
from teale_proto.inputs import Failure, Task
from tests.io.inference.support import ANSWER, QUESTION, chat, running

LONG = {"temperature": 2.0, "top_p": 1.0, "min_p": 0.0, "top_k": 0}
"""Sampling so wild that the model hardly ever finds the end before the context is full."""


def tiny_path() -> str:
    return str(Path(__file__).parents[3] / "teale_io" / "inference" / "tiny.gguf")


async def test_a_streamed_answer_is_the_known_sentence() -> None:
    async with running(builtin_backend()) as run:
        reply = await run.ask(chat(), streaming=True)
    assert reply.streamed_text == ANSWER
    assert reply.chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert reply.finish_reason == "stop"
    assert reply.chunks[-1]["choices"][0]["delta"] == {}
    assert [chunk["choices"][0]["finish_reason"] for chunk in reply.chunks[:-1]] == [None] * (len(reply.chunks) - 1)
    assert {chunk["object"] for chunk in reply.chunks} == {"chat.completion.chunk"}
    assert {chunk["model"] for chunk in reply.chunks} == {TINY_MODEL}
    assert len({chunk["id"] for chunk in reply.chunks}) == 1
    assert not any("usage" in chunk for chunk in reply.chunks)
    assert (reply.usage.tokens_in, reply.usage.tokens_out) == (11, 23)


async def test_a_whole_answer_is_one_object_with_usage() -> None:
    async with running(builtin_backend()) as run:
        first, second = await run.ask(chat()), await run.ask(chat())
    assert first.text == second.text == ANSWER
    assert first.whole["object"] == "chat.completion"
    assert first.whole["id"] != second.whole["id"]
    assert first.whole["usage"] == {"prompt_tokens": 11, "completion_tokens": 23, "total_tokens": 34}
    assert (first.usage.tokens_in, first.usage.tokens_out) == (11, 23)


async def test_a_completion_continues_the_prompt() -> None:
    prompt = f"<|user|>{QUESTION}<|end|><|assistant|>"
    async with running(builtin_backend()) as run:
        body = {"prompt": prompt, "temperature": 0, "max_tokens": 100}
        whole = await run.ask(body, task=Task.COMPLETION)
        parts = await run.ask(body, task=Task.COMPLETION, streaming=True)
        short = await run.ask({"prompt": prompt, "temperature": 0}, task=Task.COMPLETION)
    assert whole.whole["object"] == "text_completion"
    assert whole.whole["choices"][0]["text"] == ANSWER
    assert "".join(chunk["choices"][0]["text"] for chunk in parts.chunks) == ANSWER
    assert parts.finish_reason == "stop"
    assert (short.usage.tokens_out, short.finish_reason) == (16, "length")


async def test_a_seed_decides_the_answer() -> None:
    async with running(builtin_backend()) as run:
        answers = [(await run.ask(chat("hello", seed=seed, max_tokens=60, **LONG))).text for seed in (1, 2, 1)]
    assert answers[0] == answers[2] != answers[1]


async def test_the_answer_ends_before_a_stop_sequence() -> None:
    async with running(builtin_backend()) as run:
        # Stop sequences that lie across tokens: neither they nor parts of them are shown.
        streamed = await run.ask(chat(stop=["nope", "ings in the"]), streaming=True)
        whole = await run.ask(chat(stop="ings in the"))
    assert streamed.streamed_text == whole.text == "Return a list of the substr"
    assert streamed.finish_reason == whole.finish_reason == "stop"


@pytest.mark.parametrize("fields", [{"max_tokens": 5}, {"max_completion_tokens": 5}])
async def test_max_tokens_bounds_the_answer(fields: dict[str, Any]) -> None:
    async with running(builtin_backend()) as run:
        reply = await run.ask(chat(**fields), streaming=True)
    assert reply.usage.tokens_out == 5
    assert reply.finish_reason == "length"
    assert ANSWER.startswith(reply.streamed_text)


async def test_an_answer_ends_where_the_context_does() -> None:
    async with running(LlamaBackend(LlamaParameters(tiny_path(), context=20, n_threads=1))) as run:
        reply = await run.ask(chat(max_tokens=1000))
        # The model goes on from a full context as it does from an empty one.
        short = await run.ask(chat(max_tokens=3))
    assert reply.finish_reason == "length"
    assert (reply.usage.tokens_in, reply.usage.tokens_out) == (11, 9)
    assert ANSWER.startswith(reply.text)
    assert reply.text.startswith(short.text)


async def test_a_prompt_longer_than_the_context_is_refused_and_the_next_one_answered() -> None:
    async with running(builtin_backend()) as run:
        with pytest.raises(GenerationError, match=r"context is 256 tokens.* alone has \d+") as refused:
            await run.ask(chat("word " * 400))
        assert refused.value.failure is Failure.INVALID_REQUEST
        assert (await run.ask(chat())).text == ANSWER


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"messages": 1}', b'{"messages": []}', b"[" * 100_000])
async def test_a_malformed_body_is_refused_before_it_reaches_the_model(body: bytes) -> None:
    with pytest.raises(GenerationError) as refused:
        await builtin_backend().generate(Task.CHAT, TINY_MODEL, body, streaming=True, emit=lambda chunk: None)
    assert refused.value.failure is Failure.INVALID_REQUEST


async def test_an_unknown_model_is_not_loaded() -> None:
    with pytest.raises(GenerationError) as refused:
        await builtin_backend().generate(Task.CHAT, "other", b"{}", streaming=True, emit=lambda chunk: None)
    assert refused.value.failure is Failure.MODEL_NOT_LOADED


async def test_embeddings_are_unit_vectors_in_either_format() -> None:
    async with running(builtin_backend()) as run:
        texts = ["hello world", "what does str.split do?"]
        plain = await run.ask({"input": texts}, task=Task.EMBEDDING)
        packed = await run.ask({"input": texts, "encoding_format": "base64"}, task=Task.EMBEDDING, streaming=True)
        assert (await run.ask(chat())).text == ANSWER
    vectors = [item["embedding"] for item in plain.whole["data"]]
    assert [len(vector) for vector in vectors] == [192, 192]
    assert sum(x * x for x in vectors[0]) == pytest.approx(1)
    unpacked = [struct.unpack("<192f", base64.b64decode(item["embedding"])) for item in packed.whole["data"]]
    assert unpacked[1] == pytest.approx(vectors[1], abs=1e-6)
    assert plain.usage.tokens_out == 0
    assert plain.whole["usage"]["prompt_tokens"] == plain.usage.tokens_in > 5


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"input": "word " * 400}, "embeds at most 256"), ({"input": "a", "dimensions": 3}, "192 dimensions")],
)
async def test_embeddings_that_cannot_be_are_refused(fields: dict[str, Any], message: str) -> None:
    async with running(builtin_backend()) as run:
        with pytest.raises(GenerationError, match=message) as refused:
            await run.ask(fields, task=Task.EMBEDDING)
    assert refused.value.failure is Failure.INVALID_REQUEST


async def test_embeddings_can_be_switched_off() -> None:
    async with running(LlamaBackend(LlamaParameters(tiny_path(), n_threads=1, embedding=False))) as run:
        assert run.backend.models == ("tiny",)
        with pytest.raises(GenerationError, match="switched off"):
            await run.ask({"input": "a"}, task=Task.EMBEDDING)


async def test_a_cancelled_answer_stops_in_the_same_process_and_leaves_the_model_usable() -> None:
    backend = builtin_backend()
    async with running(backend) as run:
        before = backend.process_id
        chunks = 0
        with trio.CancelScope() as scope:

            def count(chunk: bytes) -> None:
                nonlocal chunks
                chunks += 1
                if chunks == 3:
                    scope.cancel()

            await run.ask(chat("hello", seed=5, **LONG), streaming=True, on_chunk=count)
        assert scope.cancelled_caught
        reply = await run.ask(chat(), streaming=True)
        assert reply.streamed_text == ANSWER
        assert backend.process_id == before
        assert chunks < 20


async def test_a_request_that_is_cancelled_while_it_waits_costs_the_running_one_nothing() -> None:
    async with running(builtin_backend()) as run, trio.open_nursery() as nursery:
        waiting = trio.CancelScope()
        replies = []

        async def first() -> None:
            replies.append(await run.ask(chat(), streaming=True, on_chunk=lambda chunk: waiting.cancel()))

        async def second() -> None:
            with waiting:
                await run.ask(chat())

        nursery.start_soon(first)
        nursery.start_soon(second)
    assert replies[0].streamed_text == ANSWER


async def test_concurrent_requests_take_turns() -> None:
    replies = {}
    async with running(builtin_backend()) as run, trio.open_nursery() as nursery:

        async def ask(number: int) -> None:
            replies[number] = await run.ask(chat(max_tokens=number + 1), streaming=True)

        for number in range(8):
            nursery.start_soon(ask, number)
    assert sorted(replies) == list(range(8))
    assert all(reply.usage.tokens_out == number + 1 for number, reply in replies.items())


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGABRT])
async def test_the_death_of_the_process_fails_its_request_and_the_next_is_answered(how: signal.Signals) -> None:
    backend = builtin_backend()
    async with running(backend) as run:
        before = backend.process_id
        assert before is not None
        killed = False

        def kill(chunk: bytes) -> None:
            nonlocal killed
            if not killed:
                killed = True
                os.kill(before, how)

        with pytest.raises(
            GenerationError, match=f"model process died .signal {how.value}. and is being restarted"
        ) as failed:
            await run.ask(chat("hello", seed=5, **LONG), streaming=True, on_chunk=kill)
        assert failed.value.failure is Failure.INTERNAL_ERROR
        assert backend.models == (TINY_MODEL,)
        assert (await run.ask(chat())).text == ANSWER
        assert backend.process_id != before
        assert run.changes == 1
        assert backend.problem == ""


async def test_requests_that_waited_behind_a_dead_process_are_answered_by_the_next() -> None:
    backend = builtin_backend()
    answers = []
    async with running(backend) as run, trio.open_nursery() as nursery:

        async def doomed() -> None:
            pid = backend.process_id
            assert pid is not None
            with pytest.raises(GenerationError, match="model process died"):
                await run.ask(
                    chat("hello", seed=5, **LONG), streaming=True, on_chunk=lambda chunk: os.kill(pid, signal.SIGKILL)
                )

        async def patient() -> None:
            answers.append((await run.ask(chat())).text)

        await nursery.start(_started(doomed))
        for _ in range(3):
            nursery.start_soon(patient)
    assert answers == [ANSWER] * 3


async def test_a_process_that_ignores_a_cancel_is_killed_and_replaced() -> None:
    backend = LlamaBackend(LlamaParameters(tiny_path(), n_threads=1, n_threads_batch=1), cancel_grace=0.05)
    async with running(backend) as run:
        before = backend.process_id
        assert before is not None
        with trio.CancelScope() as scope:

            def freeze(chunk: bytes) -> None:
                os.kill(before, signal.SIGSTOP)
                scope.cancel()

            await run.ask(chat("hello", seed=5, **LONG), streaming=True, on_chunk=freeze)
        assert (await run.ask(chat())).text == ANSWER
        assert backend.process_id != before


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "cannot be read: No such file"),
        (b"not a model", "is not a GGUF file"),
        (b"GGUF\x03\0\0\0" + b"\xff" * 64, "cannot be loaded"),
    ],
)
async def test_a_file_that_is_no_model_is_a_problem_with_a_reason(
    tmp_path: Path, content: bytes | None, problem: str
) -> None:
    path = tmp_path / "bad.gguf"
    if content is not None:
        path.write_bytes(content)
    backend = LlamaBackend(LlamaParameters(str(path)))
    async with running(backend, loaded=False) as run:
        with pytest.raises(GenerationError, match=problem) as refused:
            await run.ask(chat(), model="bad")
        assert refused.value.failure is Failure.MODEL_NOT_LOADED
        assert backend.models == ()
        assert problem in backend.problem


@pytest.mark.parametrize(
    ("library", "problem"),
    [
        ("raise ModuleNotFoundError", r"pip install 'teale\[llama\]'"),
        # What a library prints, from Python or from C, does not get between the frames.
        (
            "import os; print('noise'); os.write(1, b'noise'); raise ImportError('a reason')",
            "cannot be loaded: a reason",
        ),
        ("import os; os.abort()", "While it was loading 'teale-tiny', the model process died .signal 6."),
    ],
)
async def test_a_library_that_cannot_be_used_is_a_problem_with_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str, problem: str
) -> None:
    (tmp_path / "llama_cpp.py").write_text(library)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    async with running(builtin_backend(), loaded=False) as run:
        with pytest.raises(GenerationError, match=problem) as refused:
            await run.ask(chat(), model=TINY_MODEL)
        assert refused.value.failure is Failure.MODEL_NOT_LOADED


async def test_a_model_that_appears_later_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "late.gguf"
    backend = LlamaBackend(LlamaParameters(str(path), n_threads=1, n_threads_batch=1), load_retry=0.01)
    async with running(backend, loaded=False) as run:
        with pytest.raises(GenerationError, match="cannot be read"):
            await run.ask(chat(), model="late")
        path.symlink_to(tiny_path())
        await run.until(lambda: backend.models == ("late",))
        assert backend.problem == ""
        assert (await run.ask(chat())).text == ANSWER


async def test_a_request_does_not_wait_for_ever_for_a_model_that_is_being_loaded() -> None:
    # Nobody runs this backend, so its model never comes.
    backend = LlamaBackend(LlamaParameters(tiny_path(), "slow"), patience=0.01)
    with pytest.raises(GenerationError, match="still being loaded") as refused:
        await backend.generate(Task.CHAT, "slow", b'{"messages": [{"role": "user"}]}', streaming=True, emit=print)
    assert refused.value.failure is Failure.UNAVAILABLE


async def test_the_model_process_ends_when_its_standard_input_does() -> None:
    child = await open_process()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(child.write)
        child.send(Load(LlamaParameters(tiny_path()), "tiny"))
        with trio.fail_after(30):
            assert isinstance(await child.receive(), Loaded)
            assert child.process.stdin is not None
            # This is what the death of a node looks like from inside, SIGKILL included.
            await child.process.stdin.aclose()
            assert await child.process.wait() == 0
        await child.end()
        nursery.cancel_scope.cancel()


async def test_a_cancel_stops_a_job_wherever_it_is() -> None:
    hello = parse_request(Task.CHAT, b'{"messages": [{"role": "user", "content": "hello"}]}')
    long = EmbeddingRequest(("hello world",) * 2048, base64=False, dimensions=None)
    child = await open_process()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(child.write)
        child.send(Load(LlamaParameters(tiny_path(), n_threads=1, n_threads_batch=1), "tiny"))
        with trio.fail_after(60):
            assert isinstance(await child.receive(), Loaded)
            child.send(Cancel(1))
            child.send(Generate(1, "before it began", Task.CHAT, hello, True))
            assert await child.receive() == Refused(1, Failure.CANCELLED, "The request was cancelled.")
            child.send(Generate(2, "in the middle", Task.EMBEDDING, long, True))
            child.send(Cancel(2))
            assert await child.receive() == Refused(2, Failure.CANCELLED, "The request was cancelled.")
            child.send(Generate(3, "not at all", Task.CHAT, hello, False))
            assert isinstance(await child.receive(), Piece)
            assert isinstance(await child.receive(), Done)
        await child.end()
        nursery.cancel_scope.cancel()


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="waits for a process that is not its child: Linux only")
async def test_the_model_process_does_not_outlive_a_node_that_was_killed() -> None:
    program = """
import sys, trio
from teale_io.inference.builtin import builtin_backend
backend = builtin_backend()
trio.run(backend.run, lambda: print(backend.process_id, file=sys.stderr, flush=True))
"""
    pipe = subprocess.PIPE
    node = await trio.lowlevel.open_process([sys.executable, "-c", program], stderr=pipe, stdout=subprocess.DEVNULL)
    assert node.stderr is not None
    with trio.fail_after(30):
        watch = os.pidfd_open(int(await node.stderr.receive_some()))
        node.kill()
        await trio.lowlevel.wait_readable(watch)
        await node.wait()
    os.close(watch)
    await node.stderr.aclose()


def _started(asked: Any) -> Any:
    """Let a request get its turn before those that come after it."""

    async def run(*, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(asked)
            await trio.testing.wait_all_tasks_blocked()
            task_status.started()

    return run
