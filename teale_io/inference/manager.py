"""Several backends behind one node: effects of its core in, inputs for its core out.

Each job runs in a task of its own. Whatever a backend does, a job ends in exactly one GenerationFinished or
GenerationFailed, or, once cancelled, in silence.
"""

import traceback
from collections.abc import Callable, Sequence

import structlog
import trio

from teale_io.inference.base import Backend, GenerationError
from teale_proto.effects import CancelGeneration, StartGeneration
from teale_proto.errors import LocalError
from teale_proto.inputs import (
    Failure,
    GenerationChunk,
    GenerationFailed,
    GenerationFinished,
    JobId,
    LoadedModelsChanged,
    NodeInput,
)

log = structlog.get_logger()


class BackendManager:
    """Runs `backends` and answers StartGeneration through `feed`; of two that serve a model, the first does."""

    def __init__(self, backends: Sequence[Backend], feed: Callable[[NodeInput], None]) -> None:
        self._backends = list(backends)
        self._feed = feed
        self._jobs: dict[JobId, trio.CancelScope] = {}
        self._announced: tuple[str, ...] = ()
        self._nursery: trio.Nursery | None = None

    @property
    def models(self) -> tuple[str, ...]:
        """All that can be served now, each once, in the order of the backends."""
        return tuple(dict.fromkeys(model for backend in self._backends for model in backend.models))

    @property
    def problems(self) -> tuple[str, ...]:
        """Why backends serve nothing, in words."""
        return tuple(backend.problem for backend in self._backends if backend.problem)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run all backends until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                for backend in list(self._backends):
                    nursery.start_soon(self._keep, backend)
                task_status.started()
                await trio.sleep_forever()
            finally:
                self._nursery = None

    def start(self, effect: StartGeneration) -> None:
        """Begin a job; all that comes of it is fed later, never from inside this call.

        Raises LocalError when the manager is not running or the job's number is taken.
        """
        if self._nursery is None:
            raise LocalError("the backends are not running")
        if effect.job in self._jobs:
            raise LocalError(f"job {effect.job} is running already")
        scope = self._jobs[effect.job] = trio.CancelScope()
        self._nursery.start_soon(self._answer, effect, scope)

    def cancel(self, effect: CancelGeneration) -> None:
        """End a job in silence; unknown and ended jobs are ignored."""
        scope = self._jobs.pop(effect.job, None)
        if scope is not None:
            scope.cancel()

    async def _answer(self, effect: StartGeneration, scope: trio.CancelScope) -> None:
        def feed(event: NodeInput) -> None:
            # A job number may be in use again by the time that a cancelled backend notices.
            if self._jobs.get(effect.job) is scope:
                self._feed(event)

        with scope:
            outcome = await self._outcome(effect, lambda chunk: feed(GenerationChunk(effect.job, chunk)))
            if self._jobs.get(effect.job) is scope:
                # The number is free before the core hears of the end: it may use it again at once.
                del self._jobs[effect.job]
                self._feed(outcome)

    async def _outcome(
        self, effect: StartGeneration, emit: Callable[[bytes], None]
    ) -> GenerationFinished | GenerationFailed:
        job = effect.job
        backend = next((backend for backend in self._backends if effect.model in backend.models), None)
        if backend is None:
            message = f"The model '{effect.model}' is not loaded here."
            return GenerationFailed(job, Failure.MODEL_NOT_LOADED, message)
        try:
            usage = await backend.generate(
                effect.task, effect.model, effect.body, streaming=effect.streaming, emit=emit
            )
        except GenerationError as error:
            return GenerationFailed(job, error.failure, error.message)
        except Exception as error:
            _log_exception("backend_error", error)
            return GenerationFailed(job, Failure.INTERNAL_ERROR, "The backend failed on this request.")
        return GenerationFinished(job, usage.tokens_in, usage.tokens_out)

    async def _keep(self, backend: Backend) -> None:
        try:
            await backend.run(self._announce, task_status=trio.TASK_STATUS_IGNORED)
        except Exception as error:
            _log_exception("backend_stopped", error)
            self._backends.remove(backend)
        self._announce()

    def _announce(self) -> None:
        models = self.models
        if models != self._announced:
            self._announced = models
            self._feed(LoadedModelsChanged(models))


def _log_exception(event: str, error: Exception) -> None:
    """Log where an exception came from, and not its message, which may quote a prompt."""
    steps = traceback.extract_tb(error.__traceback__)
    where = [f"{step.filename}:{step.lineno}" for step in steps[-3:]]
    log.error(event, error=type(error).__name__, where=where)
