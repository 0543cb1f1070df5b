"""Several backends behind one node: effects of its core in, inputs for its core out.

Each job runs in a task of its own. Whatever a backend does, a job ends in exactly one GenerationFinished or
GenerationFailed, or, once cancelled, in silence. A backend that falls over serves nothing and fails its jobs until
it has been started again, which is soon at first and ever later when it does not last.
"""

from collections.abc import Callable, Sequence
from typing import Final

import structlog
import trio

from teale_io.inference.base import Backend, GenerationError
from teale_io.restarting import keep_running, log_fault
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

_FELL_OVER: Final = "The backend failed and is being restarted."


class BackendManager:
    """Runs `backends` and answers StartGeneration through `feed`; of two that serve a model, the first does."""

    def __init__(self, backends: Sequence[Backend], feed: Callable[[NodeInput], None]) -> None:
        self._backends = list(backends)
        self._feed = feed
        self._jobs: dict[JobId, _Job] = {}
        self._fallen: set[Backend] = set()
        self._announced: tuple[str, ...] = ()
        self._nursery: trio.Nursery | None = None

    @property
    def models(self) -> tuple[str, ...]:
        """All that can be served now, each once, in the order of the backends."""
        return tuple(dict.fromkeys(model for backend in self._standing for model in backend.models))

    @property
    def problems(self) -> tuple[str, ...]:
        """Why backends serve nothing, in words."""
        fallen = (_FELL_OVER if backend in self._fallen else backend.problem for backend in self._backends)
        return tuple(problem for problem in fallen if problem)

    @property
    def _standing(self) -> list[Backend]:
        return [backend for backend in self._backends if backend not in self._fallen]

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run all backends until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                for backend in self._backends:
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
        job = self._jobs[effect.job] = _Job()
        self._nursery.start_soon(self._answer, effect, job)

    def cancel(self, effect: CancelGeneration) -> None:
        """End a job in silence; unknown and ended jobs are ignored."""
        job = self._jobs.pop(effect.job, None)
        if job is not None:
            job.scope.cancel()

    async def _answer(self, effect: StartGeneration, job: "_Job") -> None:
        def feed(event: NodeInput) -> None:
            # A job number may be in use again by the time that a cancelled backend notices.
            if self._jobs.get(effect.job) is job:
                self._feed(event)

        with job.scope:
            began_at = trio.current_time()
            outcome = await self._outcome(effect, job, lambda chunk: feed(GenerationChunk(effect.job, chunk)))
            _log_outcome(effect, outcome, trio.current_time() - began_at)
            self._end(effect.job, job, outcome)

    def _end(self, number: JobId, job: "_Job", outcome: GenerationFinished | GenerationFailed) -> None:
        if self._jobs.get(number) is job:
            # The number is free before the core hears of the end: it may use it again at once.
            del self._jobs[number]
            self._feed(outcome)

    async def _outcome(
        self, effect: StartGeneration, under_way: "_Job", emit: Callable[[bytes], None]
    ) -> GenerationFinished | GenerationFailed:
        job = effect.job
        backend = next((backend for backend in self._standing if effect.model in backend.models), None)
        if backend is None:
            message = f"The model '{effect.model}' is not loaded here."
            return GenerationFailed(job, Failure.MODEL_NOT_LOADED, message)
        under_way.backend = backend
        try:
            usage = await backend.generate(
                effect.task, effect.model, effect.body, streaming=effect.streaming, emit=emit
            )
        except GenerationError as error:
            return GenerationFailed(job, error.failure, error.message)
        except Exception as error:
            log_fault("the backend failed on a request", error)
            return GenerationFailed(job, Failure.INTERNAL_ERROR, "The backend failed on this request.")
        return GenerationFinished(job, usage.tokens_in, usage.tokens_out)

    async def _keep(self, backend: Backend) -> None:
        async def run() -> None:
            self._fallen.discard(backend)
            self._announce()
            try:
                await backend.run(self._announce, task_status=trio.TASK_STATUS_IGNORED)
            finally:
                self._fallen.add(backend)

        def fell() -> None:
            for number, job in list(self._jobs.items()):
                if job.backend is backend:
                    self._end(number, job, GenerationFailed(number, Failure.INTERNAL_ERROR, _FELL_OVER))
                    job.scope.cancel()
            self._announce()

        await keep_running("a backend", run, fell=fell)

    def _announce(self) -> None:
        models = self.models
        if models != self._announced:
            self._announced = models
            self._feed(LoadedModelsChanged(models))


def _log_outcome(effect: StartGeneration, outcome: GenerationFinished | GenerationFailed, took_seconds: float) -> None:
    common = {"model": effect.model, "task": effect.task.value, "took_seconds": round(took_seconds, 3)}
    if isinstance(outcome, GenerationFinished):
        log.debug("model answered", **common, tokens_in=outcome.tokens_in, tokens_out=outcome.tokens_out)
    else:
        # The message is for whoever asked, and may quote from the question.
        log.info("model did not answer", **common, failure=outcome.failure.value)


class _Job:
    """One job under way, and who is at it."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.backend: Backend | None = None
