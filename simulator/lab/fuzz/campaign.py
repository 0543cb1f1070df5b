"""A campaign: one random world a seed, with real programs, a few at once, each in a process of its own.

A lab mostly waits, so that several fit onto a machine; how many is a question of how late its programs may be. What is
found depends on the machine as well as on the seeds: a finding is kept with its journals, since it may not come again.
"""

import shlex
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from math import inf
from pathlib import Path
from time import perf_counter, sleep
from typing import Final

import msgspec

from simulator.fuzz.campaign import DONE, ENOUGH_FOUND, FINDINGS_MAX, INTERRUPTED, TIME_IS_UP, WORKERS_LIVE
from simulator.fuzz.values import Broken, OnProgress, Progress, Size
from simulator.lab.fuzz import trial as trials
from simulator.lab.fuzz.values import LabFinding, LabReport, LabTrial, Usage
from simulator.lab.fuzz.worlds import draw
from simulator.lab.plan import Served
from simulator.lab.scratch import scratch
from simulator.spec.world_spec import WorldSpec
from simulator.spec.writing import toml_of

AT_ONCE: Final = 2
"""Worlds that run at the same time, unless the caller says otherwise; two cores bear four (docs/howto/lab.md)."""

SECONDS_MORE: Final = 240.0
"""What a world may take beside its own time, before it is taken for one that never ends."""
ENDING_SECONDS: Final = 30.0
"""Within which a lab that was told to end has taken everything down."""
LOOK_SECONDS: Final = 0.1

WORDS: Final = (sys.executable, "-m", trials.__name__)
"""What runs one world; its folder and its seed are to follow."""

FINDING: Final = "finding.json"
LOG: Final = "trial.log"


class _Child:
    """A world that is being run, in a process of its own."""

    def __init__(self, seed: int, spec: WorldSpec, folder: Path) -> None:
        self.seed = seed
        self.spec = spec
        self.folder = folder
        self.until = perf_counter() + spec.lasts + SECONDS_MORE
        folder.mkdir(mode=0o700)
        (folder / trials.WORLD).write_text(toml_of(spec), encoding="utf-8")
        self._out = folder / "trial.json"
        # If this process is killed, the lab takes itself down.
        words = ["setpriv", "--pdeathsig", "TERM", *WORDS, str(folder), str(seed)]
        with self._out.open("wb") as out, (folder / LOG).open("wb") as err:
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                words, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
            )

    @property
    def is_over(self) -> bool:
        return self._process.poll() is not None

    def take(self) -> LabTrial:
        """Return what came of the world; it is over, or has taken too long."""
        if not self.is_over:
            self.end()
            return self._died(f"no end within {self.spec.lasts + SECONDS_MORE:.0f} s")
        try:
            trial = msgspec.json.decode(self._out.read_bytes(), type=LabTrial)
        except msgspec.DecodeError:
            log = (self.folder / LOG).read_text(errors="replace").strip()
            return self._died(f"the process ended with status {self._process.returncode}: {log[-2000:]}")
        self._out.unlink()
        return trial

    def tell_to_end(self) -> None:
        """Ask the lab to take everything down."""
        self._process.terminate()

    def end(self) -> None:
        """Have it do so, one way or the other."""
        self.tell_to_end()
        try:
            self._process.wait(ENDING_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _died(self, why: str) -> LabTrial:
        return LabTrial(self.seed, Size.of(self.spec), (Broken(WORKERS_LIVE, 0, "", why),))


class _Campaign:
    """What is to be run, and what has come of it."""

    def __init__(
        self,
        first_seed: int,
        seeds: int,
        minutes: float | None = None,
        *,
        at_once: int = AT_ONCE,
        findings_max: int = FINDINGS_MAX,
        served: Served | None = None,
        folder: Path | None = None,
        on_progress: OnProgress | None = None,
    ) -> None:
        if first_seed < 0 or seeds < 1 or at_once < 1 or findings_max < 1 or (minutes is not None and minutes <= 0):
            raise ValueError("worlds and findings are counted from 1, the first seed from 0, and time passes")
        self._first_seed = first_seed
        self._seeds = seeds
        self._at_once = at_once
        self._findings_max = findings_max
        self._served = served
        self._folder = folder
        self._on_progress = on_progress
        self._began = perf_counter()
        self._until = inf if minutes is None else self._began + 60 * minutes
        self._given = 0
        self._children: list[_Child] = []
        self._trials: list[LabTrial] = []
        self._findings: list[LabFinding] = []
        self._lab_seconds = 0.0
        self._stopped = DONE

    def work(self) -> LabReport:
        """Run the worlds; Ctrl-C ends it, when everything was taken down, with what has been found by then."""
        with scratch() as folder:
            try:
                while self._may_begin(folder) or self._children:
                    sleep(LOOK_SECONDS)
                    self._look()
            except KeyboardInterrupt:
                self._stopped = INTERRUPTED
            finally:
                for child in self._children:
                    child.tell_to_end()
                for child in self._children:
                    child.end()
        return self._report()

    def _may_begin(self, folder: Path) -> bool:
        """Begin what there is room for; return whether there is more to come."""
        if self._given < self._seeds and self._stopped == DONE:
            if perf_counter() > self._until:
                self._stopped = TIME_IS_UP
            elif len(self._findings) >= self._findings_max:
                self._stopped = ENOUGH_FOUND
        more = self._given < self._seeds and self._stopped == DONE
        if more and len(self._children) < self._at_once:
            seed = self._first_seed + self._given
            self._given += 1
            self._children.append(_Child(seed, draw(seed, self._served), folder / f"seed-{seed}"))
        return more

    def _look(self) -> None:
        """Take what has come of worlds that are over."""
        now = perf_counter()
        for child in [each for each in self._children if each.is_over or now > each.until]:
            self._children.remove(child)
            self._take(child, child.take())
            if self._on_progress is not None:
                self._on_progress(self._progress())

    def _take(self, child: _Child, trial: LabTrial) -> None:
        self._trials.append(trial)
        self._lab_seconds += child.spec.lasts
        if trial.violations:
            self._findings.append(self._finding(child, trial))
        shutil.rmtree(child.folder, ignore_errors=True)

    def _finding(self, child: _Child, trial: LabTrial) -> LabFinding:
        finding = LabFinding(trial.seed, trial.size, trial.violations, trial.simulated)
        if self._folder is None:
            return finding
        target = _free(self._folder / child.folder.name)
        world = str(target / trials.WORLD)
        seed = str(trial.seed)
        finding = msgspec.structs.replace(
            finding,
            folder=str(target),
            command=shlex.join(["teale-sim", "lab", "run", world, "--seed", seed]),
            simulate=shlex.join(["teale-sim", "run", world, "--seed", seed]),
        )
        shutil.copytree(child.folder, target)
        document = {"finding": finding, "trial": trial}
        (target / FINDING).write_bytes(msgspec.json.format(msgspec.json.encode(document)) + b"\n")
        return finding

    def _progress(self) -> Progress:
        done, elapsed = len(self._trials), perf_counter() - self._began
        remaining = min(elapsed / done * (self._seeds - done), self._until - perf_counter())
        return Progress(done, self._seeds, len(self._findings), False, round(elapsed, 3), max(0.0, remaining))

    def _report(self) -> LabReport:
        usages: list[Usage] = [trial.usage for trial in self._trials]
        return LabReport(
            first_seed=self._first_seed,
            seeds=self._seeds,
            done=len(self._trials),
            passed=not self._findings,
            findings=tuple(sorted(self._findings, key=lambda finding: finding.seed)),
            stopped=self._stopped,
            at_once=self._at_once,
            outcomes=dict(sorted(_summed(trial.outcomes for trial in self._trials).items())),
            journals=sum(trial.journals for trial in self._trials),
            steps=sum(trial.steps for trial in self._trials),
            lab_seconds=self._lab_seconds,
            cpu_seconds=round(sum(usage.cpu_seconds for usage in usages), 3),
            latest_act_us=max((usage.latest_act_us for usage in usages), default=0),
            slowest_start_us=max((usage.slowest_start_us for usage in usages), default=0),
            wall_seconds=round(perf_counter() - self._began, 3),
        )


def campaign(
    first_seed: int,
    seeds: int,
    minutes: float | None = None,
    *,
    at_once: int = AT_ONCE,
    findings_max: int = FINDINGS_MAX,
    served: Served | None = None,
    folder: Path | None = None,
    on_progress: OnProgress | None = None,
) -> LabReport:
    """Run the worlds of `seeds` seeds from `first_seed` on, `at_once` at a time, and return what was found.

    After `minutes` of real time, or `findings_max` findings, no more worlds are begun. Findings are kept below
    `folder`, where one is given, with journals that hold the (worthless) keys of their nodes. Ctrl-C ends the campaign
    with what has been found by then. A lab must be possible here (`simulator.lab.privileges`), and only the main thread
    may do this. Raises ValueError for numbers that make no sense, and OSError where findings cannot be kept.
    """
    run = _Campaign(
        first_seed,
        seeds,
        minutes,
        at_once=at_once,
        findings_max=findings_max,
        served=served,
        folder=folder,
        on_progress=on_progress,
    )
    return run.work()


def _free(path: Path) -> Path:
    """Return a path at which nothing is yet: a lab may come to something else for the same seed."""
    number = 1
    found = path
    while found.exists():
        number += 1
        found = path.with_name(f"{path.name}-{number}")
    return found


def _summed(counts: Iterable[dict[str, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return total
