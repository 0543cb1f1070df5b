"""A campaign: one random world a seed, on all cores, until all were run, the time is up, or enough was found.

What it reports follows from the seeds alone, and not from how many processes there were or which was the fastest: the
report covers the seeds up to the first that has no result, in their order. The first finding of each rule is shrunk.
"""

from math import inf
from pathlib import Path
from time import perf_counter
from typing import Final

from msgspec.structs import replace

from simulator.fuzz.capsule import Capsule, check_folder, save, this_code
from simulator.fuzz.shrink import Shrunk
from simulator.fuzz.trial import Trial
from simulator.fuzz.values import Broken, CampaignReport, Finding, OnProgress, Progress, Size
from simulator.fuzz.workers import Died, Result, ShrinkJob, TrialJob, Workers
from simulator.fuzz.worlds import draw
from simulator.spec.world_spec import Planted, WorldSpec

FINDINGS_MAX: Final = 10
WORKERS_LIVE: Final = "no world kills its process or goes on for ever"

DONE: Final = "done"
TIME_IS_UP: Final = "time is up"
ENOUGH_FOUND: Final = "enough found"
INTERRUPTED: Final = "interrupted"


def campaign(
    first_seed: int,
    seeds: int,
    minutes: float | None = None,
    workers: int = 0,
    *,
    planted: Planted = Planted.NONE,
    findings_max: int = FINDINGS_MAX,
    folder: Path | None = None,
    on_progress: OnProgress | None = None,
) -> CampaignReport:
    """Run the worlds of `seeds` seeds from `first_seed` on and return what was found.

    `minutes` of real time limit the running of worlds, not the shrinking after it; None is no limit. `workers` are
    processes; 0 runs everything in this one. After `findings_max` findings no more worlds are run. Capsules are
    written into `folder`, where one is given. Ctrl-C ends the campaign with what has been found by then.
    Raises CapsuleError where capsules cannot be written (before anything is run, if that can be seen by then), and
    ValueError for numbers that make no sense.
    """
    if first_seed < 0 or seeds < 1 or workers < 0 or findings_max < 1 or (minutes is not None and minutes <= 0):
        raise ValueError("seeds and findings are counted from 1, the first seed and workers from 0, and time passes")
    if folder is not None:
        check_folder(folder)
    run = _Campaign(first_seed, seeds, minutes, workers, planted, findings_max, on_progress)
    with Workers(workers) as pool:
        run.work(pool)
    return run.report(folder)


class _Campaign:
    """What has been run so far, by seed."""

    def __init__(
        self,
        first_seed: int,
        seeds: int,
        minutes: float | None,
        workers: int,
        planted: Planted,
        findings_max: int,
        on_progress: OnProgress | None,
    ) -> None:
        self._first_seed = first_seed
        self._seeds = seeds
        self._workers = workers
        self._planted = planted
        self._findings_max = findings_max
        self._on_progress = on_progress
        self._began = perf_counter()
        self._until = inf if minutes is None else self._began + 60 * minutes
        self._stopped = DONE
        self._waiting: dict[int, tuple[WorldSpec, Trial]] = {}
        """Results of seeds after one that has none yet."""
        self._done = 0
        self._broken: dict[int, tuple[WorldSpec, Trial]] = {}
        self._shrunk: dict[int, Shrunk] = {}
        self._simulated = 0.0

    def work(self, pool: Workers) -> None:
        """Run worlds, then shrink what broke a rule first; Ctrl-C ends either."""
        try:
            self._run_worlds(pool)
            self._shrink(pool)
        except KeyboardInterrupt:
            self._stopped = INTERRUPTED

    def _run_worlds(self, pool: Workers) -> None:
        given = 0
        while self._done < self._seeds:
            while given < self._seeds and pool.wants_more:
                pool.put(TrialJob(self._first_seed + given, self._planted))
                given += 1
            for job, result in pool.results():
                self._take(job.seed, _judged(job.seed, self._planted, result))
                if len(self._broken) >= self._findings_max:
                    self._stopped = ENOUGH_FOUND if self._done < self._seeds else DONE
                    pool.forget_waiting()
                    return
            self._tell(shrinking=False)
            if perf_counter() > self._until and self._done < self._seeds:
                self._stopped = TIME_IS_UP
                pool.forget_waiting()
                return

    def _take(self, seed: int, result: tuple[WorldSpec, Trial]) -> None:
        """Note a result, and count on from the first seed as far as there is one for each."""
        self._waiting[seed] = result
        while (following := self._first_seed + self._done) in self._waiting:
            spec, trial = self._waiting.pop(following)
            self._done += 1
            self._simulated += trial.simulated_seconds
            if trial.broken is not None:
                self._broken[following] = (spec, trial)
                if len(self._broken) >= self._findings_max:
                    return

    def _shrink(self, pool: Workers) -> None:
        """Shrink the first finding of each rule."""
        first: dict[str, int] = {}
        for seed, (_, trial) in sorted(self._broken.items()):
            assert trial.broken is not None
            if trial.broken.rule != WORKERS_LIVE:
                first.setdefault(trial.broken.rule, seed)
        for seed in first.values():
            spec, trial = self._broken[seed]
            pool.put(ShrinkJob(seed, spec, trial))
        left = len(first)
        while left:
            for job, result in pool.results():
                if isinstance(job, ShrinkJob):
                    left -= 1
                    if isinstance(result, Shrunk):
                        self._shrunk[job.seed] = result
            self._tell(shrinking=True)

    def _tell(self, *, shrinking: bool) -> None:
        if self._on_progress is None:
            return
        elapsed = perf_counter() - self._began
        remaining = None
        if shrinking:
            remaining = 0.0
        elif self._done:
            remaining = min(elapsed / self._done * (self._seeds - self._done), self._until - perf_counter())
        found = len(self._broken)
        self._on_progress(Progress(self._done, self._seeds, found, shrinking, round(elapsed, 3), remaining))

    def report(self, folder: Path | None) -> CampaignReport:
        """Write the capsules, and sum up."""
        findings = tuple(self._finding(seed, folder) for seed in sorted(self._broken))
        return CampaignReport(
            first_seed=self._first_seed,
            seeds=self._seeds,
            done=self._done,
            passed=not findings,
            findings=findings,
            stopped=self._stopped,
            workers=self._workers,
            simulated_seconds=round(self._simulated, 3),
            wall_seconds=round(perf_counter() - self._began, 3),
        )

    def _finding(self, seed: int, folder: Path | None) -> Finding:
        spec, trial = self._broken[seed]
        size = Size.of(spec)
        shrunk = self._shrunk.get(seed)
        if shrunk is not None:
            spec, trial = shrunk.spec, shrunk.trial
        broken = trial.broken
        assert broken is not None
        path = None
        if folder is not None:
            path = str(save(_capsule(seed, spec, trial, broken, size), folder))
        if shrunk is None:
            return Finding(seed, broken, size, capsule=path)
        return Finding(seed, broken, size, Size.of(spec), shrunk.runs, path)


def _judged(seed: int, planted: Planted, result: Result) -> tuple[WorldSpec, Trial]:
    """Return a result as a trial; the death of a process is one that broke a rule."""
    if isinstance(result, Died):
        broken = Broken(WORKERS_LIVE, 0, "", result.why)
        return draw(seed, planted=planted), Trial(broken, "", 0, 0.0, at_end=False)
    assert not isinstance(result, Shrunk)
    return result


def _capsule(seed: int, spec: WorldSpec, trial: Trial, broken: Broken, found: Size) -> Capsule:
    spec = replace(spec, summary=f"{broken.rule}: {broken.what}"[:300])
    return Capsule(
        seed=seed,
        spec=spec,
        broken=broken,
        digest=trial.digest,
        entries=trial.entries,
        found=found,
        code=this_code(),
        tail=trial.tail,
    )
