"""Processes that run worlds, one each: what they are given in order comes back in any order, and one that dies is told.

A ready-made pool gives up all its work when one process dies, and does not say over which of it. Here every process
has one job at a time, so that whoever dies, or does not come to an end, names its job.
"""

import signal
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing import connection, get_context
from multiprocessing.process import BaseProcess
from time import perf_counter
from typing import Final, TypeAlias

from simulator.fuzz.shrink import Shrunk, shrink
from simulator.fuzz.trial import Trial, run
from simulator.fuzz.worlds import draw
from simulator.spec.world_spec import Planted, WorldSpec
from teale_proto.contract import Value

JOB_SECONDS_MAX: Final = 300.0
"""After so much real time a job is taken for one that never ends; worlds take a second or two."""

POLL_SECONDS: Final = 0.2


class TrialJob(Value):
    """Run the world that a seed draws."""

    seed: int
    planted: Planted


class ShrinkJob(Value):
    """Make a world that breaks a rule smaller."""

    seed: int
    spec: WorldSpec
    trial: Trial


class Died(Value):
    """The process that had a job is no more, and why."""

    why: str


Job: TypeAlias = TrialJob | ShrinkJob
Result: TypeAlias = tuple[WorldSpec, Trial] | Shrunk | Died


def perform(job: Job) -> Result:
    """Do a job in this process."""
    if isinstance(job, ShrinkJob):
        return shrink(job.spec, job.seed, trial=job.trial)
    spec = draw(job.seed, planted=job.planted)
    return spec, run(spec, job.seed)


class _Worker:
    """One process and the pipe to it."""

    def __init__(self) -> None:
        context = get_context("spawn")
        self._pipe, there = context.Pipe()
        self.process: BaseProcess = context.Process(target=_serve, args=(there,), daemon=True)
        self.process.start()
        there.close()
        self.job: Job | None = None
        self._since = 0.0

    @property
    def pipe(self) -> "connection.Connection[Job, Result]":
        return self._pipe

    def give(self, job: Job) -> None:
        self.job = job
        self._since = perf_counter()
        with suppress(OSError):
            # Whoever died before this is noticed by its silence.
            self._pipe.send(job)

    def take(self) -> Result | None:
        """Return what came of the job, or None as long as it is being done."""
        try:
            if self._pipe.poll():
                result: Result = self._pipe.recv()
                return result
        except (EOFError, OSError):
            self.process.join()
            return Died(f"the process ended with {_status(self.process.exitcode)}")
        if perf_counter() - self._since > JOB_SECONDS_MAX:
            self.end()
            return Died(f"no end within {JOB_SECONDS_MAX:.0f} s")
        return None

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self._pipe.close()


class Workers:
    """So many processes, or none, which does everything in this one; a context manager that leaves none behind."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._workers: list[_Worker] = []
        self._jobs: deque[Job] = deque()

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.end()
        self._workers.clear()

    @property
    def wants_more(self) -> bool:
        """Whether one more job would be begun at once, or nearly."""
        return len(self._jobs) <= self._count

    @property
    def pids(self) -> list[int]:
        """The processes that there are now."""
        return [worker.process.pid for worker in self._workers if worker.process.pid is not None]

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being done."""
        return not self._jobs and all(worker.job is None for worker in self._workers)

    def put(self, job: Job) -> None:
        """Have a job done, after those that were put before it."""
        self._jobs.append(job)

    def forget_waiting(self) -> None:
        """Drop the jobs that nobody has begun."""
        self._jobs.clear()

    def results(self) -> Iterator[tuple[Job, Result]]:
        """Yield what has been done by now; it waits a little where there is nothing yet."""
        if not self._count:
            if self._jobs:
                first = self._jobs.popleft()
                yield first, perform(first)
            return
        self.hand_out()
        busy = [worker for worker in self._workers if worker.job is not None]
        if busy:
            connection.wait([worker.pipe for worker in busy], POLL_SECONDS)
        for worker in busy:
            result = worker.take()
            if result is None:
                continue
            job = worker.job
            assert job is not None
            worker.job = None
            if isinstance(result, Died):
                self._workers.remove(worker)
            yield job, result
        self.hand_out()

    def hand_out(self) -> None:
        """Have as many jobs begun as there may be processes."""
        idle = [worker for worker in self._workers if worker.job is None]
        while self._jobs:
            if not idle:
                if len(self._workers) >= self._count:
                    return
                idle.append(_Worker())
                self._workers.append(idle[-1])
            idle.pop().give(self._jobs.popleft())


def _serve(pipe: "connection.Connection[Result, Job]") -> None:
    """Do jobs until the other end of the pipe is gone."""
    # Ctrl-C goes to the whole group of processes; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(EOFError, OSError):
        while True:
            pipe.send(perform(pipe.recv()))


def _status(code: int | None) -> str:
    if code is not None and code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"
