"""The simulated side: many seeds of one scenario, on as many processes as there are processors."""

import itertools
import multiprocessing
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed

import msgspec

from simulator import scenario
from simulator.comparing.measured import Measured
from simulator.comparing.measuring import Measuring
from simulator.spec.build import scenario_of
from simulator.spec.world_spec import WorldSpec

Done = Callable[[], None]


def simulate(
    specs: Sequence[WorldSpec], seeds: Sequence[int], *, workers: int = 1, done: Done = lambda: None
) -> list[Measured]:
    """Run a scenario with each of these seeds, and return what they came to in their order.

    `specs` are one description with several profiles, which the seeds take in turn. `done` is called after each. Raises
    CoreError where a core raises.
    """
    if workers == 1 or len(seeds) <= 1:
        return [_told(simulated(spec, seed), done) for spec, seed in zip(itertools.cycle(specs), seeds, strict=False)]
    # As JSON, which every process makes the same of.
    planned = zip(itertools.cycle(map(msgspec.json.encode, specs)), seeds, strict=False)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(seeds)), mp_context=context, initializer=_ignore_interrupts) as pool:
        try:
            futures = {pool.submit(_in_process, encoded, seed): seed for encoded, seed in planned}
            found = {futures[each]: _told(each.result(), done) for each in as_completed(futures)}
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [found[seed] for seed in seeds]


def simulated(spec: WorldSpec, seed: int) -> Measured:
    """Run a scenario with one seed, and measure it."""
    measuring = Measuring(spec)
    made = scenario_of(spec)
    world = scenario.world_of(made, seed)
    world.trace.subscribe(measuring.observe, measuring.kinds)
    report = scenario.run(made, seed, world=world)
    return measuring.measured(seed, (check.rule for check in report.checks if not check.passed))


def _in_process(encoded: bytes, seed: int) -> Measured:
    return simulated(msgspec.json.decode(encoded, type=WorldSpec), seed)


def _told(measured: Measured, done: Done) -> Measured:
    done()
    return measured


def _ignore_interrupts() -> None:
    # Ctrl-C reaches every process of a terminal; who planned the runs ends them for all.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
