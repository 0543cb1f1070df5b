"""One random world with real programs, in a process of its own: `python -m simulator.lab.fuzz.trial FOLDER SEED`.

FOLDER holds the world, `world.toml`. The process prints what came of it, a `LabTrial`, as one JSON document. Of a world
that breaks no rule nothing more is kept; of one that does, everything, and it is run in the simulator at once.
"""

import resource
import shutil
import sys
import traceback
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import Final

import msgspec
from msgspec.structs import replace

from simulator.fuzz import trial as simulated
from simulator.fuzz.capsule import TAIL
from simulator.fuzz.values import Broken, Size
from simulator.lab import results
from simulator.lab.errors import LabError
from simulator.lab.fuzz.values import LabTrial, Usage
from simulator.lab.plan import plan_of
from simulator.lab.results import Judged
from simulator.lab.run import Interrupted, Ran, run
from simulator.lab.scratch import scratch
from simulator.report import Report
from simulator.results.recorder import Recorder, Source
from simulator.spec.reading import read_toml
from simulator.spec.world_spec import WorldSpec
from simulator.trace import Entry, lines
from teale_proto.contract import Instant

WORLD: Final = "world.toml"
TAIL_FILE: Final = "tail.txt"
"""The last entries of the trace up to the first violation, for people to read."""
RESULTS: Final = "results"
"""The results folder of the run, with `lab.json` and the programs' logs in it."""
INTERRUPTED: Final = 130
"""The exit code after a signal that asked to end."""

LAB_HOLDS: Final = "the lab itself does not fail"


def perform(folder: Path, seed: int) -> LabTrial:
    """Run the world in a folder and judge it; where it breaks a rule, keep everything about it there.

    Raises Interrupted for a signal that asks to end, when all is taken down.
    """
    began, spec = perf_counter(), read_toml(folder / WORLD)
    told: list[str] = []
    with scratch() as files:
        ran: Ran | None = None
        try:
            plan = plan_of(spec, seed)
            ran = run(plan, files, told.append)
            judged = Judged(ran)
            report = judged.play()
            trial = _trial(report, judged, Size.of(plan.spec))
        except Exception as error:
            # Whatever it is, it is a finding.
            trial = _failed(error, seed, spec)
        if trial.violations:
            (folder / "told.txt").write_text("\n".join(told) + "\n", encoding="utf-8")
            _keep(folder, files, ran, trial.violations[0].at)
    if trial.violations:
        trial = replace(trial, simulated=simulated.run(spec, seed).broken)
    usage = replace(trial.usage, wall_seconds=round(perf_counter() - began, 3), cpu_seconds=_cpu_seconds())
    return replace(trial, usage=usage)


def _trial(report: Report, judged: Judged, size: Size) -> LabTrial:
    """Return what a run that was judged came to."""
    info = judged.info()
    lives = [life for program in info.programs for life in program.lives]
    return LabTrial(
        report.seed,
        size,
        violations=broken_in(report),
        outcomes=report.requests.outcomes,
        journals=len(lives),
        steps=report.events,
        usage=Usage(
            latest_act_us=info.latest_act_us, slowest_start_us=max((life.startup or 0 for life in lives), default=0)
        ),
    )


def broken_in(report: Report) -> tuple[Broken, ...]:
    """Return the first violation of each rule that a report says was broken, in the order of time."""
    found = [
        Broken(check.rule, violation.at, violation.host, violation.what)
        for check in report.checks
        for violation in check.violations[:1]
    ]
    return tuple(sorted(found, key=lambda broken: broken.at))


def _failed(error: Exception, seed: int, spec: WorldSpec) -> LabTrial:
    known = isinstance(error, LabError)
    what = str(error) if known else "".join(traceback.format_exception(error))
    return LabTrial(seed, Size.of(spec), (Broken(f"{LAB_HOLDS} ({type(error).__name__})", 0, "", what),))


def _keep(folder: Path, files: Path, ran: Ran | None, at: Instant) -> None:
    """Keep the journals and logs of a run, its results, and the end of its trace up to an instant."""
    folder.chmod(0o700)
    with suppress(FileNotFoundError):
        results.keep_journals(files, folder / results.JOURNALS)
    for log in sorted(files.glob("*/err.log")):
        (folder / results.LOGS).mkdir(exist_ok=True)
        shutil.copyfile(log, folder / results.LOGS / f"{log.parent.name}.log")
    if ran is None:
        return
    judged, tail = Judged(ran), deque[Entry](maxlen=TAIL)
    judged.world.trace.subscribe(lambda entry: tail.append(entry) if entry.at <= at else None)
    try:
        with Recorder(judged.world, folder / RESULTS, trace=True) as recorder:
            report = judged.play()
            command = f"teale-sim lab run {WORLD} --seed {ran.plan.seed}"
            source = Source("scenario.toml", (folder / WORLD).read_bytes())
            recorder.finish(
                report, command=command, source=source, more=results.files_of(judged.info(), files, logs=False)
            )
    except Exception:
        # What broke the judgement is known by now, and the journals are kept.
        traceback.print_exc()
    (folder / TAIL_FILE).write_text(lines(tail) + "\n", encoding="utf-8")


def _cpu_seconds() -> float:
    """Return the processor time of this process and of all that it has started and waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return round(sum(each.ru_utime + each.ru_stime for each in used), 3)


def main(words: Sequence[str]) -> int:
    """Do what the command line says."""
    folder, seed = words
    try:
        trial = perform(Path(folder), int(seed))
    except Interrupted:
        return INTERRUPTED
    sys.stdout.buffer.write(msgspec.json.encode(trial))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
