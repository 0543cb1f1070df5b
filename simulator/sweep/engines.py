"""Where the runs of a sweep are done: here, on processes of this machine, or on a Dask cluster.

Runs come back in any order and are put in the order of the plan, so what comes out is the same whoever did them. A
worker that dies takes its run with it, and no other: that run becomes a row which says so.
"""

import multiprocessing
import re
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, Final

from msgspec.structs import replace

from simulator.fuzz.capsule import this_code
from simulator.sweep.plan import Job
from simulator.sweep.rows import Row, failed, run_job

CONNECT_SECONDS: Final = 10

_ADDRESS: Final = re.compile(r"(\w+://)?[^\s/]+:\d+")

Done = Callable[[Row], None]


class EngineError(Exception):
    """Runs cannot be done there; the text says why, and what to do."""


def run_here(jobs: Sequence[Job], *, workers: int, done: Done) -> list[Row]:
    """Do the runs on so many processes of this machine, and return their rows in order; one worker is this process.

    `done` hears of each row as it comes.
    """
    if workers == 1 or len(jobs) <= 1:
        return _in_order(_heard(map(run_job, jobs), done))
    rows = _in_pool(jobs, min(workers, len(jobs)), done)
    had = {row.number for row in rows}
    # Where a pool broke, nobody knows over which run: what is left is done one by one, each in a pool of its own.
    for job in jobs:
        if job.number not in had and not (alone := _in_pool([job], 1, done)):
            rows += _heard([failed(job, "the process of the run died")], done)
        elif job.number not in had:
            rows += alone
    return _in_order(rows)


def run_on_dask(jobs: Sequence[Job], *, scheduler: str, done: Done) -> list[Row]:
    """Do the runs on the cluster of a Dask scheduler, and return their rows in order.

    Raises EngineError where Dask is not installed, and where the scheduler or all workers are missing.
    """
    try:
        import distributed
    except ImportError as error:
        raise EngineError(
            f"Dask is not installed ({error}); it comes with the extra `dask`: pip install 'teale[dask]'"
        ) from error
    if not _ADDRESS.fullmatch(scheduler):
        # Dask would say so too, after half a minute and a traceback.
        raise EngineError(f"{scheduler!r} is not the address of a scheduler, such as tcp://10.0.0.1:8786")
    try:
        # Dask declares no types.
        cluster: Any = distributed
        client = cluster.Client(scheduler, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise EngineError(f"no Dask scheduler answers at {scheduler}: {error}") from error
    with client:
        if not client.scheduler_info()["workers"]:
            raise EngineError(f"the Dask scheduler at {scheduler} has no workers")
        code = this_code().source
        futures = [client.submit(run_job, replace(job, code=code), pure=False) for job in jobs]
        by_key = {future.key: job for future, job in zip(futures, jobs, strict=True)}
        try:
            ended = (_outcome(by_key[each.key], each) for each in cluster.as_completed(futures, loop=client.loop))
            return _in_order(_heard(ended, done))
        except BaseException:
            client.cancel(futures)
            raise


def _outcome(job: Job, future: Any) -> Row:
    error = future.exception()
    if error is not None:
        return failed(job, f"the worker failed: {type(error).__name__}: {error}")
    row: Row = future.result()
    return row


def _in_pool(jobs: Sequence[Job], workers: int, done: Done) -> list[Row]:
    """Return the rows as they come; some are missing where the pool breaks."""
    before = {child.pid for child in multiprocessing.active_children()}
    rows: list[Row] = []
    # Spawned, since a fork copies locks and threads of whoever calls, and is not there on every system.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_ignore_interrupts) as pool:
        try:
            with _interrupts_held():
                futures = [pool.submit(run_job, job) for job in jobs]
            for future in as_completed(futures):
                if not isinstance(future.exception(), BrokenProcessPool):
                    rows.append(future.result())
                    done(rows[-1])
        except BrokenProcessPool:
            return rows
        except BaseException:
            # Ctrl-C, as a rule. Leaving the pool waits for what is under way, so that is ended.
            for child in multiprocessing.active_children():
                if child.pid not in before:
                    child.terminate()
            raise
    return rows


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Have processes that are started within hold back Ctrl-C from their first moment on, since they inherit that.

    Ctrl-C reaches every process of a terminal; who planned the sweep ends it for all. One that is pressed within is
    held back here too, and comes at the end.
    """
    if not hasattr(signal, "pthread_sigmask"):  # not on every system
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _ignore_interrupts() -> None:
    # Where a process inherits no such thing.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _heard(rows: Iterable[Row], done: Done) -> Iterator[Row]:
    for row in rows:
        done(row)
        yield row


def _in_order(rows: Iterable[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: row.number)
