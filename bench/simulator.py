"""The simulator: what its engine adds to a heap, how fast worlds run, and what a node of theirs takes.

The engine's limit is a loop over a heap that does nothing else; its peer is SimPy, timeouts with callbacks. Each
keeps so many timers pending: an event that fires sets its successor a random time ahead, as heartbeats do. Worlds run
on the shipping cores; their nodes do what nodes do when nobody asks them for anything.
"""

import gc
import tracemalloc
from collections.abc import Callable
from heapq import heapify, heapreplace
from pathlib import Path
from random import Random
from time import perf_counter
from typing import Any, Final

import simpy

from bench._harness import Run, run_as_script
from simulator import scenario
from simulator.bulk import add_clients, add_homes
from simulator.engine import Engine
from simulator.fidelity import Fidelity
from simulator.garbage import seldom_collected
from simulator.nat_grid import Conditions, run_grid
from simulator.trace import Entry, Trace
from simulator.world import World
from teale_proto.contract import SECOND, Duration
from teale_proto.inputs import DataReceived
from teale_proto.wire.cluster import CLUSTER_CODEC, Heartbeat

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
        run.at_most(
            "engine overhead", figures["bare heapq"], ours, 1.5, f"time, over that of a bare heapq; {condition}"
        )
    first_light(run, rounds)
    wire_fidelity(run)
    nat_grid(run)
    a_hundred_thousand(run)
    codec(run)
    memory(run)


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


def wire_fidelity(run: Run) -> None:
    """Measure a hundred nodes with real bytes and encryption that exchange heartbeats."""
    lasts = (30 if run.quick else 120) * SECOND
    for fill, where in ((add_homes, "two to a LAN"), (add_clients, "in pairs through a relay")):
        speeds = []
        for seed in range(max(1, run.rounds - 2)):
            world = World(seed)
            fill(world, 100)
            speeds.append(lasts / SECOND / _seconds(world, lasts))
        speed = run.add(f"100 nodes at wire fidelity, {where}", "s/s", speeds)
        run.claim(
            "100 nodes at wire fidelity: simulated seconds a second",
            target="≥ 100",
            measured=f"{speed.median:.0f}",
            ratio=f"{speed.median / 100:.2f}",
            met=speed.median >= 100,
            condition=f"heartbeats of 15 s, {where}; real bytes and encryption, all checkers",
        )
    world = World(0)
    add_clients(world, 100, sessions=8)
    run.add("100 nodes at wire fidelity, 8 sessions a node", "s/s", [lasts / SECOND / _seconds(world, lasts)])


def nat_grid(run: Run) -> None:
    """Measure 64 pairs of NATs: each host finds out what it is behind, and each pair tries to meet."""
    seconds = []
    for seed in range(run.rounds):
        began = perf_counter()
        grid = run_grid(conditions=Conditions(seed=seed))
        seconds.append(perf_counter() - began)
        assert len(grid.cells) == 64
    figure = run.add("grid of 8 by 8 NATs", "s", seconds)
    run.below("grid of 8 by 8 NATs", figure, 10, "discovery, plan and attempt in each of 64 worlds, one process")


def a_hundred_thousand(run: Run) -> None:
    """Measure 60 simulated seconds of a hundred thousand nodes."""
    nodes, lasts = 5_000 if run.quick else 100_000, 60 * SECOND
    limit = 60 * nodes / 100_000
    for fill, where in ((add_homes, "two to a LAN"), (add_clients, "in pairs through one relay")):
        with seldom_collected():
            began = perf_counter()
            world = _bulk(fill, nodes)
            built = perf_counter() - began
            seconds = _seconds(world, lasts)
        run.add(f"{nodes:,} nodes, {where}: to build", "s", [built])
        figure = run.add(f"{nodes:,} nodes, {where}: 60 simulated seconds", "s", [seconds])
        run.add(f"{nodes:,} nodes, {where}: engine events a second", "events/s", [world.engine.events / seconds])
        run.below(
            f"{nodes:,} nodes, 60 simulated seconds", figure, limit, f"message fidelity, heartbeats of 15 s, {where}"
        )
        del world
        gc.collect()


def codec(run: Run) -> None:
    """Measure what passing objects instead of bytes would save: to decode them, for their size must be known anyway."""
    nodes, heard = 1_000, 0

    def count(_: Entry) -> None:
        nonlocal heard
        heard += 1

    world = _bulk(add_homes, nodes)
    world.trace.subscribe(count, (DataReceived,))
    a_message = _seconds(world, 60 * SECOND) / heard
    beat = CLUSTER_CODEC.encode(Heartbeat(device_id="0" * 64, timestamp=1.0, loaded_models=("model",)))
    times, runs = 20_000, []
    for _ in range(run.rounds):
        began = perf_counter()
        for _ in range(times):
            CLUSTER_CODEC.decode(beat)
        runs.append((perf_counter() - began) / times / a_message * 100)
    share = run.add("to decode a heartbeat, of what a message costs", "%", runs)
    run.below("what passing objects instead of bytes would save", share, 15, "share of a message's cost; two on a LAN")


def memory(run: Run) -> None:
    """Measure what a node takes beside its core, by how much more a larger world takes."""
    small, large = (200, 600) if run.quick else (500, 1500)
    for fill, where in ((add_homes, "two to a LAN"), (add_clients, "in pairs through one relay")):
        core_of_small, rest_of_small = _traced(fill, small)
        core_of_large, rest_of_large = _traced(fill, large)
        more = (large - small) * 1000
        core = run.add(f"a node's own core, {where}", "kB", [(core_of_large - core_of_small) / more])
        rest = run.add(f"a node beside its core, {where}", "kB", [(rest_of_large - rest_of_small) / more])
        run.below(
            "memory a node beyond its core", rest, 3, f"message fidelity, {where}; the core has {core.median:.1f} kB"
        )


Fill = Callable[[World, int], object]


def _bulk(fill: Fill, nodes: int) -> World:
    world = World(1, fidelity=Fidelity.MESSAGE, trace=Trace(tail=0), watched=False)
    fill(world, nodes)
    return world


def _seconds(world: World, lasts: Duration) -> float:
    began = perf_counter()
    world.run_until(lasts)
    return perf_counter() - began


def _traced(fill: Fill, nodes: int) -> tuple[int, int]:
    """Return how many bytes all cores of a world hold after 60 simulated seconds, and how many the rest of it."""
    gc.collect()
    tracemalloc.start()
    try:
        world = _bulk(fill, nodes)
        world.run_until(60 * SECOND)
        gc.collect()
        everything = tracemalloc.get_traced_memory()[0]
        for host in world.hosts.values():
            host._core = None  # noqa: SLF001 - a driver without its core is what is to be weighed
        gc.collect()
        rest = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    return everything - rest, rest


if __name__ == "__main__":
    run_as_script(Path(__file__).stem, measure, __doc__)
