"""Effects in, inputs out, whatever the backends do."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
import trio

from teale_io.inference.base import Backend, Changed, Emit, GenerationError, Usage
from teale_io.inference.builtin import TINY_MODEL, builtin_backend
from teale_io.inference.manager import BackendManager
from teale_proto.effects import CancelGeneration, StartGeneration
from teale_proto.errors import LocalError
from teale_proto.inputs import (
    Failure,
    GenerationChunk,
    GenerationFailed,
    GenerationFinished,
    LoadedModelsChanged,
    NodeInput,
    Task,
)


class Scripted:
    """A backend that does what a test says."""

    def __init__(self, *models: str, answer: Callable[[Emit], Awaitable[Usage]] | None = None) -> None:
        self.models: tuple[str, ...] = ()
        self.problem = "" if models else "no models"
        self._models = models
        self._answer = answer
        self._break = trio.Event()

    def fall_over(self) -> None:
        self._break.set()
        self._break = trio.Event()

    async def generate(self, task: Task, model: str, body: bytes, *, streaming: bool, emit: Emit) -> Usage:
        assert self._answer is not None
        return await self._answer(emit)

    async def run(self, changed: Changed, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        self.models = self._models
        changed()
        await self._break.wait()
        raise RuntimeError("a prompt")


class Fed:
    """What a manager told its core."""

    def __init__(self) -> None:
        self.events: list[NodeInput] = []
        self._lot = trio.lowlevel.ParkingLot()

    def __call__(self, event: NodeInput) -> None:
        self.events.append(event)
        self._lot.unpark_all()

    async def until(self, *expected: NodeInput) -> None:
        await self.until_true(lambda: all(event in self.events for event in expected))

    async def until_true(self, condition: Callable[[], bool]) -> None:
        with trio.fail_after(30):
            while not condition():
                await self._lot.park()


@asynccontextmanager
async def managed(backends: Sequence[Backend]) -> AsyncIterator[tuple[BackendManager, Fed]]:
    fed = Fed()
    manager = BackendManager(backends, fed)
    async with trio.open_nursery() as nursery:
        await nursery.start(manager.run)
        await trio.testing.wait_all_tasks_blocked()
        yield manager, fed
        nursery.cancel_scope.cancel()


def start(job: int, model: str = "m") -> StartGeneration:
    return StartGeneration(job, Task.CHAT, model, b"{}", True)


async def two_chunks(emit: Emit) -> Usage:
    emit(b"1")
    await trio.lowlevel.checkpoint()
    emit(b"2")
    return Usage(3, 2)


async def test_a_job_is_fed_as_chunks_and_an_end() -> None:
    async with managed([Scripted("m", answer=two_chunks)]) as (manager, fed):
        manager.start(start(7))
        assert fed.events == [LoadedModelsChanged(("m",))]
        await fed.until(GenerationFinished(7, 3, 2))
    assert fed.events[1:] == [GenerationChunk(7, b"1"), GenerationChunk(7, b"2"), GenerationFinished(7, 3, 2)]


async def test_the_first_backend_of_a_model_answers_and_the_union_is_announced() -> None:
    async def other(emit: Emit) -> Usage:
        return Usage(0, 0)

    backends = [Scripted("a", "m", answer=two_chunks), Scripted("m", "z", answer=other), Scripted()]
    async with managed(backends) as (manager, fed):
        assert fed.events[-1] == LoadedModelsChanged(("a", "m", "z"))
        assert manager.models == ("a", "m", "z")
        assert manager.problems == ("no models",)
        manager.start(start(1))
        manager.start(start(2, "z"))
        await fed.until(GenerationFinished(1, 3, 2), GenerationFinished(2, 0, 0))


async def test_an_unknown_model_fails_later_than_the_call() -> None:
    async with managed([]) as (manager, fed):
        manager.start(start(1))
        assert fed.events == []
        await fed.until(
            GenerationFailed(1, Failure.MODEL_NOT_LOADED, "The model 'm' is not loaded here."),
        )


@pytest.mark.parametrize(
    ("error", "failure", "message"),
    [
        (GenerationError(Failure.TIMEOUT, "too slow"), Failure.TIMEOUT, "too slow"),
        (ValueError("the secret prompt"), Failure.INTERNAL_ERROR, "The backend failed on this request."),
        (ExceptionGroup("", [ValueError("the secret prompt")]), Failure.INTERNAL_ERROR, "The backend failed"),
    ],
)
async def test_an_error_ends_its_job_and_tells_no_secret(
    error: Exception, failure: Failure, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async def fail(emit: Emit) -> Usage:
        emit(b"1")
        raise error

    async with managed([Scripted("m", answer=fail)]) as (manager, fed):
        manager.start(start(1))
        await fed.until(GenerationChunk(1, b"1"))
        await trio.testing.wait_all_tasks_blocked()
    [failed] = [event for event in fed.events if isinstance(event, GenerationFailed)]
    assert failed.failure is failure
    assert failed.message.startswith(message)
    assert "secret prompt" not in str(capsys.readouterr())


async def test_nothing_more_is_fed_after_a_cancel() -> None:
    async def stubborn(emit: Emit) -> Usage:
        emit(b"1")
        try:
            await trio.sleep_forever()
        finally:
            emit(b"too late")
        raise AssertionError

    async with managed([Scripted("m", answer=stubborn)]) as (manager, fed):
        manager.start(start(1))
        await fed.until(GenerationChunk(1, b"1"))
        manager.cancel(CancelGeneration(1))
        manager.cancel(CancelGeneration(1))
        manager.cancel(CancelGeneration(99))
        # The number is free at once, and the end of its former job does not touch the new one.
        manager.start(start(1))
        await trio.testing.wait_all_tasks_blocked()
        assert fed.events[1:] == [GenerationChunk(1, b"1"), GenerationChunk(1, b"1")]


async def test_a_job_that_is_cancelled_before_it_began_never_begins() -> None:
    async with managed([Scripted("m", answer=two_chunks)]) as (manager, fed):
        manager.start(start(1))
        manager.cancel(CancelGeneration(1))
        await trio.testing.wait_all_tasks_blocked()
        assert fed.events == [LoadedModelsChanged(("m",))]


async def test_the_core_may_use_a_job_number_again_as_soon_as_it_hears_of_the_end() -> None:
    async with managed([Scripted("m", answer=two_chunks)]) as (manager, fed):
        manager.start(start(1))
        await fed.until(GenerationFinished(1, 3, 2))
        manager.start(start(1))


async def test_commands_that_are_illegal_now_are_refused() -> None:
    manager = BackendManager([], print)
    with pytest.raises(LocalError, match="not running"):
        manager.start(start(1))
    async with managed([Scripted("m", answer=lambda emit: trio.sleep_forever())]) as (manager, _):
        manager.start(start(1))
        with pytest.raises(LocalError, match="running already"):
            manager.start(start(1))


async def test_a_backend_that_falls_over_takes_only_its_models_and_jobs_with_it_and_comes_back(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def never(emit: Emit) -> Usage:
        emit(b"1")
        await trio.sleep_forever()
        raise AssertionError

    broken = Scripted("b", answer=never)
    async with managed([broken, Scripted("m", answer=two_chunks)]) as (manager, fed):
        manager.start(start(1, "b"))
        await fed.until(GenerationChunk(1, b"1"))
        broken.fall_over()
        message = "The backend failed and is being restarted."
        await fed.until(LoadedModelsChanged(("m",)), GenerationFailed(1, Failure.INTERNAL_ERROR, message))
        assert list(manager.problems) == [message]
        manager.start(start(2))
        await fed.until(GenerationFinished(2, 3, 2))
        await fed.until_true(lambda: fed.events[-1] == LoadedModelsChanged(("b", "m")))
        assert not manager.problems
        manager.start(start(1, "b"))
        await fed.until_true(lambda: fed.events.count(GenerationChunk(1, b"1")) == 2)
    assert "a prompt" not in str(capsys.readouterr())


async def test_the_built_in_model_answers_through_a_manager() -> None:
    async with managed([builtin_backend()]) as (manager, fed):
        await fed.until(LoadedModelsChanged((TINY_MODEL,)))
        body = b'{"messages": [{"role": "user", "content": "hello"}], "temperature": 0, "max_tokens": 2}'
        manager.start(StartGeneration(1, Task.CHAT, TINY_MODEL, body, False))
        await fed.until_true(lambda: isinstance(fed.events[-1], GenerationFinished | GenerationFailed))
    _, chunk, finished = fed.events
    assert isinstance(chunk, GenerationChunk)
    assert isinstance(finished, GenerationFinished)
    assert finished.tokens_out == 2
