"""Model processes that hang, and programs in their place that answer nonsense."""

import os
import signal
import sys

import pytest
import trio

from teale_io.inference.base import GenerationError
from teale_io.inference.llama import LlamaBackend
from teale_io.inference.llama_process import open_process
from teale_io.inference.requests import EmbeddingRequest
from teale_io.inference.worker_protocol import Cancel, Generate, LlamaParameters, Load, Loaded, Working
from teale_proto.inputs import Failure, Task
from tests.io.inference.support import ANSWER, chat, running
from tests.io.inference.test_llama import tiny_path


@pytest.mark.parametrize("streaming", [True, False])
async def test_a_process_that_hangs_fails_its_request_and_is_replaced(streaming: bool) -> None:
    # Slow enough a machine may be that loads nothing for 2 s, but none that says nothing for 2 s once it is at work.
    backend = LlamaBackend(LlamaParameters(tiny_path(), n_threads=1, n_threads_batch=1), silence=2)
    async with running(backend) as run:
        before = backend.process_id
        assert before is not None
        os.kill(before, signal.SIGSTOP)
        with pytest.raises(GenerationError, match="said nothing for 2 s and is being restarted") as failed:
            await run.ask(chat(), streaming=streaming)
        assert failed.value.failure is Failure.UNAVAILABLE
        assert (await run.ask(chat())).text == ANSWER
        assert backend.process_id != before


async def test_a_long_computation_says_that_it_goes_on() -> None:
    """Neither a long prompt nor an answer that is sent whole may look like a process that hangs."""
    long = EmbeddingRequest(("hello world",) * 2048, base64=False, dimensions=None)
    child = await open_process()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(child.write)
        child.send(Load(LlamaParameters(tiny_path(), n_threads=1, n_threads_batch=1), "tiny"))
        with trio.fail_after(60):
            assert isinstance(await child.receive(), Loaded)
            child.send(Generate(1, "long", Task.EMBEDDING, long, False))
            assert await child.receive() == Working(1)
            child.send(Cancel(1))
            while isinstance(await child.receive(), Working):
                pass
        await child.end()
        nursery.cancel_scope.cancel()


# A process that answers nonsense: a program in the place of the model.

HONEST = """
import sys, time, msgspec
from teale_io.inference.worker_protocol import Done, Generate, Load, Loaded, Piece, Working, decode_to_worker, encode
from teale_proto.wire.framing import frame
def hear():
    header = sys.stdin.buffer.read(4)
    return decode_to_worker(sys.stdin.buffer.read(int.from_bytes(header, "big"))) if header else sys.exit()
def say(*messages):
    write(b"".join(frame(encode(message)) for message in messages))
def write(data):
    sys.stdout.buffer.write(data)
    sys.stdout.flush()
"""


def impostor(program: str) -> tuple[str, ...]:
    return (sys.executable, "-c", HONEST + program)


@pytest.mark.parametrize(
    "answer",
    [
        'write(b"garbage that is no frame")',
        'write(frame(b"\\xc1\\xff"))',
        "write(frame(msgspec.msgpack.encode([1] * 9)))",
        "say(Piece(1, b'not JSON'))",
        'say(Piece(1, b\'{"half": "\\xe2\\x82"}\'))',
        "say(Piece(1, b'[' * 100_000))",
        "say(Done(1, -1, 0))",
        "write((2**32 - 1).to_bytes(4, 'big'))",
    ],
)
async def test_a_process_that_answers_nonsense_fails_its_request_and_is_replaced(answer: str) -> None:
    program = f"hear(); say(Loaded(5)); hear(); {answer}; time.sleep(1000)"
    backend = LlamaBackend(LlamaParameters("m"), command=impostor(program))
    async with running(backend) as run:
        before = backend.process_id
        with pytest.raises(GenerationError, match="nonsense") as failed:
            await run.ask(chat(), streaming=True)
        assert failed.value.failure is Failure.INTERNAL_ERROR
        with trio.fail_after(30):
            while backend.process_id in (None, before):
                await trio.lowlevel.checkpoint()


async def test_words_about_other_jobs_are_no_sign_of_life() -> None:
    program = "hear(); say(Loaded(5)); hear()\nwhile True: say(Working(7), Piece(9, b'{}')); time.sleep(0.01)"
    backend = LlamaBackend(LlamaParameters("m"), command=impostor(program), silence=0.3)
    async with running(backend) as run:
        with pytest.raises(GenerationError, match=r"said nothing for 0\.3 s"):
            await run.ask(chat(), streaming=True)


@pytest.mark.parametrize(
    ("program", "problem"),
    [
        ("hear(); say(Done(1, 0, 0)); time.sleep(1000)", "was ended because it answered nonsense"),
        ("hear(); write(b'noise noise'); time.sleep(1000)", "was ended because it answered nonsense"),
        ("hear(); time.sleep(1000)", "was ended because it was still loading after 0.5 s"),
        ("sys.exit(3)", r"died \(exit status 3\)"),
    ],
)
async def test_a_process_that_never_becomes_ready_is_a_problem_with_a_reason(program: str, problem: str) -> None:
    backend = LlamaBackend(LlamaParameters("m"), command=impostor(program), load_max=0.5)
    async with running(backend, loaded=False) as run:
        with pytest.raises(GenerationError, match=problem) as refused:
            await run.ask(chat(), model="m")
        assert refused.value.failure is Failure.MODEL_NOT_LOADED
