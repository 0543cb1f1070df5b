"""The simulator: events a second of its engine, and how fast a whole scenario runs.

The engine's limit is a loop over a heap that does nothing else; its peer is SimPy, timeouts with callbacks. Each
keeps so many timers pending: an event that fires sets its successor a random time ahead, as heartbeats do.
"""

from collections.abc import Callable
from heapq import heapify, heapreplace
from pathlib import Path
from random import Random
from time import perf_counter
from typing import Any, Final

import simpy

from bench._harness import Run, run_as_script
from simulator import scenario
from simulator.engine import Engine
from teale_proto.contract import SECOND

SPAN: Final = 30 * SECOND
"""Timers are set up to this far ahead."""

DELAYS: Final = [Random(7).randrange(1, SPAN) for _ in range(1 << 16)]
"""Drawn beforehand, so that no loop is measured by its random numbers."""

Count = int


def measure(run: Run) -> None:
    """Measure everything."""
    events, rounds = 50_000 if run.quick else 400_000, run.rounds
    loops: dict[str, Callable[[Count, Count], float]] = {
        "bare heapq": bare_heap,
        "SimPy timeouts with callbacks": simpy_timeouts,
        "our engine": our_engine,
    }
    for pending in (10_000, 100_000):
        rates: dict[str, list[float]] = {name: [] for name in loops}
        for _ in range(rounds):
            for name, loop in loops.items():
                rates[name].append(loop(pending, events))
        figures = {name: run.add(f"{name}, {pending:,} timers", "events/s", found) for name, found in rates.items()}
        ours = figures["our engine"]
        condition = f"{pending:,} timers pending"
        run.at_least("engine", ours, figures["SimPy timeouts with callbacks"], 3, f"SimPy with callbacks, {condition}")
        run.compare("engine", ours, figures["bare heapq"], f"its limit, a bare heapq; {condition}")
    first_light(run, rounds)


def bare_heap(pending: Count, events: Count) -> float:
    """Return events a second of a heap of tuples and nothing else."""
    queue = [(DELAYS[number & 0xFFFF], number) for number in range(pending)]
    heapify(queue)
    began = perf_counter()
    for number in range(pending, pending + events):
        heapreplace(queue, (queue[0][0] + DELAYS[number & 0xFFFF], number))
    return events / (perf_counter() - began)


def simpy_timeouts(pending: Count, events: Count) -> float:
    """Return events a second of SimPy, timeouts with callbacks."""
    env = simpy.Environment(initial_time=0)
    fired = 0

    def fire(_: Any) -> None:
        nonlocal fired
        fired += 1
        timeout(DELAYS[fired & 0xFFFF])

    def timeout(delay: int) -> None:
        event = env.timeout(delay)
        assert event.callbacks is not None
        event.callbacks.append(fire)

    for number in range(pending):
        timeout(DELAYS[number & 0xFFFF])
    began = perf_counter()
    while fired < events:
        env.step()
    return events / (perf_counter() - began)


def our_engine(pending: Count, events: Count) -> float:
    """Return events a second of our engine, driven as worlds drive it."""
    engine = Engine()
    call_at = engine.call_at
    fired = 0

    def fire() -> None:
        nonlocal fired
        fired += 1
        call_at(engine.now + DELAYS[fired & 0xFFFF], fire)

    for number in range(pending):
        call_at(DELAYS[number & 0xFFFF], fire)
    # So far that about as many events fire: timers are half a SPAN ahead on average.
    steps, until, done = 8, 0, 0
    began = perf_counter()
    while done < events:
        until += max(1, events * SPAN // (2 * pending) // steps)
        engine.run_until(until)
        done = fired
    return done / (perf_counter() - began)


def first_light(run: Run, rounds: int) -> None:
    """Measure a whole scenario, checkers and all: bytes, encryption, links."""
    loaded = scenario.load("first_light")
    seconds, entries = [], []
    for seed in range(max(1, rounds - 2)):
        report = scenario.run(loaded, seed)
        assert report.passed
        seconds.append(report.simulated_seconds / report.wall_seconds)
        entries.append(report.events / report.wall_seconds)
    speed = run.add("first_light, 20 nodes: simulated seconds a second", "s/s", seconds)
    run.add("first_light: nodes times simulated seconds, a second", "node·s/s", [20 * each for each in seconds])
    run.add("first_light: engine events a second", "events/s", entries)
    run.claim(
        "first_light runs faster than the time it simulates",
        target="> 1 s/s",
        measured=f"{speed.median:.1f} s/s",
        met=speed.median > 1,
        condition="20 nodes and a relay, real bytes and encryption",
    )


if __name__ == "__main__":
    run_as_script(Path(__file__).stem, measure, __doc__)
