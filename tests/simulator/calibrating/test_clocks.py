"""The processor time of other processes."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from simulator.calibrating.clocks import CLOCK, TICKS, ProcessClock, Wait

WORKS = """
import sys, threading, time
def work():
    until = time.thread_time() + 0.1
    while time.thread_time() < until:
        pass
threads = [threading.Thread(target=work) for _ in range(2)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print("done", flush=True)
sys.stdin.read()
"""


@contextmanager
def working() -> Iterator[subprocess.Popen[str]]:
    """A process that has worked for 0.2 s in two threads, which have ended, and now waits."""
    with subprocess.Popen([sys.executable, "-c", WORKS], stdin=-1, stdout=-1, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "done\n"
        yield process
        process.kill()


def test_threads_that_have_ended_are_counted_and_waiting_costs_nothing() -> None:
    with working() as process:
        clock = ProcessClock(process.pid)
        assert clock.precision is CLOCK
        used = clock.read_us()
        assert 200_000 <= used < 5_000_000
        assert clock.read_us() - used < 20_000


def test_without_the_clock_the_ticks_of_proc_say_the_same_but_less_exactly() -> None:
    with working() as process:
        clock = ProcessClock(process.pid)
        exact = clock.read_us()
        clock.precision = TICKS
        assert clock.read_us() == pytest.approx(exact, abs=3 * TICKS.step_us)


def test_a_process_that_is_gone_has_no_clock() -> None:
    with working() as process:
        clock = ProcessClock(process.pid)
    for precision in (CLOCK, TICKS):
        clock.precision = precision
        with pytest.raises(OSError, match=r".*"):
            clock.read_us()


def spin(seconds: float) -> None:
    """Use the processor for so long."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def test_what_the_asker_does_until_the_answer_begins_is_no_waiting() -> None:
    began = time.perf_counter()
    wait = Wait()
    spin(0.05)
    first = wait.seconds()
    assert first <= time.perf_counter() - began - 0.05
    # Later on, others go on while it reads, so that nothing is left out.
    spin(0.05)
    assert wait.seconds() - first >= 0.05
