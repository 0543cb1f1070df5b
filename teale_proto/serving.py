"""The work that this node does for others and for itself: a bounded queue before a local backend.

Askers take turns, each in the order of its own requests, so that one which sends a hundred at once does not
keep the others waiting; and no other node fills more than half of the places that are left to it. A job ends
when the backend says so, when its time is used up, or when its asker goes away; whatever the backend says
after that is ignored.
"""

from collections import deque
from collections.abc import Iterator
from typing import Final

from teale_proto.contract import SECOND, Duration, Instant, Sink, Value
from teale_proto.effects import CancelGeneration, NodeEffect, StartGeneration
from teale_proto.inputs import LOCAL, Failure, JobId, NodeId, Task, Whom
from teale_proto.timers import Timers

QUEUE_MAX: Final = 256
QUEUE_BYTES_MAX: Final = 64 * 2**20
TIMEOUT_MAX: Final = 3600 * SECOND
SPEED_WEIGHT: Final = 0.3
"""How much the newest answer counts in the moving average of the speed."""


class JobDue(Value):
    """The time of this job is used up."""

    job: JobId


class Origin(Value):
    """Whom an answer goes to, and under which id of the asker's."""

    asker: NodeId
    handle: Whom
    wire_id: str


class Job:
    """One request that this node has taken on."""

    __slots__ = ("body", "chunks", "job", "model", "origin", "started_at", "streaming", "task")

    def __init__(self, job: JobId, origin: Origin, task: Task, model: str, body: bytes, streaming: bool) -> None:
        self.job = job
        self.origin = origin
        self.task = task
        self.model = model
        self.body = body
        self.streaming = streaming
        self.started_at: Instant | None = None
        self.chunks = 0


class Serving:
    """The queue, what is running, and how fast it has been going."""

    __slots__ = (
        "_by_origin",
        "_jobs",
        "_next_job",
        "_queue_max",
        "_queued_bytes",
        "_queues",
        "_running",
        "_running_max",
        "_timers",
        "tokens_per_second",
    )

    def __init__(self, timers: Timers[object], *, running_max: int, queue_max: int = QUEUE_MAX) -> None:
        self._timers = timers
        self._running_max = running_max
        self._queue_max = queue_max
        self._next_job: JobId = 1
        self._jobs: dict[JobId, Job] = {}
        self._by_origin: dict[tuple[Whom, str], JobId] = {}
        # One queue an asker; the first asker in the dict is the next to be served.
        self._queues: dict[NodeId, deque[Job]] = {}
        self._queued_bytes = 0
        self._running = 0
        self.tokens_per_second: float | None = None

    @property
    def queue_depth(self) -> int:
        """Jobs that wait."""
        return len(self._jobs) - self._running

    @property
    def running(self) -> int:
        """Jobs that the backend is working on."""
        return self._running

    def submit(
        self,
        origin: Origin,
        task: Task,
        model: str,
        body: bytes,
        *,
        streaming: bool,
        timeout: Duration,
        now: Instant,
        out: Sink[NodeEffect],
    ) -> Failure | None:
        """Take a job, and start it if there is room; return why not, or None when it was taken."""
        key = (origin.handle, origin.wire_id)
        assert key not in self._by_origin
        if self._is_full_for(origin) or self._queued_bytes + len(body) > QUEUE_BYTES_MAX:
            return Failure.QUEUE_FULL
        job = Job(self._next_job, origin, task, model, body, streaming)
        self._next_job += 1
        self._jobs[job.job] = job
        self._by_origin[key] = job.job
        self._queues.setdefault(origin.asker, deque()).append(job)
        self._queued_bytes += len(body)
        self._timers.set(JobDue(job.job), now + min(timeout, TIMEOUT_MAX))
        self._start_next(now, out)
        return None

    def _is_full_for(self, origin: Origin) -> bool:
        """Whether an asker may have no more jobs waiting; the machine's own requests may fill the whole queue."""
        places = self._queue_max - self.queue_depth
        own = len(self._queues.get(origin.asker, ()))
        return places <= 0 or (origin.handle != LOCAL and own >= max(1, (places + own) // 2))

    def is_under_way(self, handle: Whom, wire_id: str) -> bool:
        """Whether an asker's id belongs to a job that has not ended."""
        return (handle, wire_id) in self._by_origin

    def chunk(self, job: JobId) -> Origin | None:
        """Note a piece of an answer and return whom it goes to, or None when the job has ended."""
        found = self._jobs.get(job)
        if found is None or found.started_at is None:
            return None
        found.chunks += 1
        return found.origin

    def finished(self, job: JobId, tokens_out: int, now: Instant, out: Sink[NodeEffect]) -> Origin | None:
        """End a job well and start the next; return whom its completion goes to, or None when it has ended."""
        found = self._jobs.get(job)
        if found is None or found.started_at is None:
            return None
        elapsed = now - found.started_at
        if elapsed > 0 and tokens_out > 0:
            speed = tokens_out * SECOND / elapsed
            average = self.tokens_per_second
            self.tokens_per_second = speed if average is None else average + SPEED_WEIGHT * (speed - average)
        return self._end(found, now, out)

    def failed(self, job: JobId, now: Instant, out: Sink[NodeEffect]) -> Origin | None:
        """End a job badly and start the next; return whom the error goes to, or None when it has ended."""
        found = self._jobs.get(job)
        return None if found is None else self._end(found, now, out)

    def cancel(self, handle: Whom, wire_id: str, now: Instant, out: Sink[NodeEffect]) -> Origin | None:
        """End a job that is no longer wanted; return its origin, or None when there is none."""
        job = self._by_origin.get((handle, wire_id))
        return None if job is None else self.abandon(job, now, out)

    def asker_gone(self, handle: Whom, now: Instant, out: Sink[NodeEffect]) -> None:
        """End all jobs of an asker that is gone."""
        for job in [job.job for job in self._jobs.values() if job.origin.handle == handle]:
            self.abandon(job, now, out)

    def abandon(self, job: JobId, now: Instant, out: Sink[NodeEffect]) -> Origin | None:
        """End a job from our side, stopping the backend; return its origin, or None when it has ended."""
        found = self._jobs.get(job)
        if found is None:
            return None
        if found.started_at is not None:
            out.append(CancelGeneration(job))
        return self._end(found, now, out)

    def __iter__(self) -> Iterator[Job]:
        return iter(list(self._jobs.values()))

    def _end(self, job: Job, now: Instant, out: Sink[NodeEffect]) -> Origin:
        del self._jobs[job.job]
        del self._by_origin[job.origin.handle, job.origin.wire_id]
        self._timers.cancel(JobDue(job.job))
        if job.started_at is not None:
            self._running -= 1
        else:
            self._unqueue(job)
        self._start_next(now, out)
        return job.origin

    def _unqueue(self, job: Job) -> None:
        queue = self._queues[job.origin.asker]
        queue.remove(job)
        self._queued_bytes -= len(job.body)
        if not queue:
            del self._queues[job.origin.asker]

    def _start_next(self, now: Instant, out: Sink[NodeEffect]) -> None:
        while self._queues and self._running < self._running_max:
            asker, queue = next(iter(self._queues.items()))
            job = queue[0]
            self._unqueue(job)
            if asker in self._queues:
                # To the end of the turn order.
                self._queues[asker] = self._queues.pop(asker)
            job.started_at = now
            self._running += 1
            out.append(StartGeneration(job.job, job.task, job.model, job.body, job.streaming))
            job.body = b""
