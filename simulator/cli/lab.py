"""`teale-sim lab`: the world of a scenario with real programs on this machine's kernel, and no traffic beyond it."""

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from simulator.cli import running
from simulator.cli.exits import Exit, SimError
from simulator.cli.options import json_option, knob_words, out_option, seed_option, set_option
from simulator.cli.output import Output
from simulator.cli.progress import busy
from simulator.scenario import Scenario, ScenarioError

if TYPE_CHECKING:  # what a lab needs takes longer to load than most commands take
    from simulator.lab.plan import Plan
    from simulator.lab.results import Judged
    from simulator.report import Report

BEGUN_ANEW: Final = "TEALE_LAB_BEGUN_ANEW"
"""In the environment of a lab that has made itself root of a user namespace."""


@click.group()
def lab() -> None:
    """Run the worlds of scenarios with real programs, in network namespaces of this machine.

    Needs Linux with nftables and /dev/net/tun, and root or user namespaces. Nothing leaves the namespaces.
    """


@lab.command()
@json_option
def check(*, as_json: bool) -> int:
    """Say whether a lab can run here, and what is missing."""
    from simulator.lab import privileges

    missing = privileges.missing()
    in_namespace = bool(missing) and privileges.can_become_root()
    ready = not missing or in_namespace
    out = Output(as_json=as_json)
    if as_json:
        out.document({"ready": ready, "in_user_namespace": in_namespace, "missing": [] if ready else missing})
    elif ready:
        out.line("a lab can run here" + (", as root of a user namespace of its own" if in_namespace else ""))
    else:
        for each in missing:
            out.line(f"missing: {each}", "red")
    return Exit.OK if ready else Exit.USAGE


@lab.command()
@click.argument("scenario")
@seed_option
@set_option
@json_option
@out_option("the results: summary, metrics, plots, a page and lab.json")
@click.option(
    "--models",
    type=click.Choice(["builtin", "described"]),
    help="What answers: the model that comes with the package, or servers that take the time that the scenario says.  "
    "[default: described, where the scenario says anything about it]",
)
@click.option("--trace", is_flag=True, help="Keep every entry of the trace in DIR, compressed.")
@click.option("--keep-journals", is_flag=True, help="Keep the journals of all programs in DIR; they hold secret keys.")
@click.option("--ignore-unsupported", is_flag=True, help="Leave out what a lab cannot do, with a warning.")
def run(
    scenario: str,
    *,
    seed: int,
    settings: tuple[tuple[str, Any], ...],
    models: str | None,
    as_json: bool,
    out: Path | None,
    trace: bool,
    keep_journals: bool,
    ignore_unsupported: bool,
) -> int:
    """Run SCENARIO, a name of `teale-sim list` or the path of a file, with real programs, and judge it.

    What is drawn from the seed is what `teale-sim run` draws: who is where, behind what, who asks what and what breaks.
    It takes as long as the scenario lasts.
    """
    if out is None and (trace or keep_journals):
        raise click.UsageError("--trace and --keep-journals say what to keep in --out DIR, which is missing.")
    loaded = running.chosen(scenario, settings, None)
    plan = _planned(loaded, seed, models, ignore_unsupported=ignore_unsupported)
    come_by_means(plan)
    output = Output(as_json=as_json)
    for note in plan.notes:
        output.note(f"note: {note}")
    command = _repeating(scenario, seed, settings, models, ignore_unsupported=ignore_unsupported)
    report = _ran(loaded, plan, command, output, out, trace=trace, keep_journals=keep_journals)
    if as_json:
        click.echo(report.json())
    else:
        running.show(report, command)
    if out is not None:
        output.note(f"results: {out}")
    return Exit.OK if report.passed else Exit.VIOLATED


def _ran(
    loaded: Scenario,
    plan: "Plan",
    command: str,
    output: Output,
    out: Path | None,
    *,
    trace: bool,
    keep_journals: bool,
) -> "Report":
    """Run a plan and write its results; raises SimError where that cannot be done, and leaves nothing behind then."""
    from simulator.lab import run as labs
    from simulator.lab.errors import LabError
    from simulator.lab.results import Judged
    from simulator.lab.scratch import scratch
    from simulator.results.folder import Draft
    from simulator.results.model import ResultsError

    try:
        if out is not None:
            # To know it before the run and not after it.
            Draft(out).discard()
        with scratch() as folder:
            ran = labs.run(plan, folder, output.note)
            judged = Judged(ran)
            with busy("taking all cores through their journals"):
                if out is None:
                    return judged.play()
                return _recorded(loaded, judged, command, out, folder, trace=trace, keep_journals=keep_journals)
    except labs.Interrupted as error:
        raise SimError(f"stopped by {error}; everything was taken down", Exit.INTERRUPTED) from error
    except (LabError, ResultsError) as error:
        raise SimError(str(error)) from error


def _recorded(
    loaded: Scenario, judged: "Judged", command: str, out: Path, folder: Path, *, trace: bool, keep_journals: bool
) -> "Report":
    from simulator.cli.source import source_of
    from simulator.lab import results
    from simulator.results.recorder import Recorder

    with Recorder(judged.world, out, trace=trace) as recorder:
        report = judged.play()
        files = results.files_of(judged.info(), folder, logs=not report.passed)
        recorder.finish(report, command=command, source=source_of(loaded), more=files)
    if keep_journals:
        results.keep_journals(folder, out / results.JOURNALS)
    return report


def _planned(loaded: Scenario, seed: int, models: str | None, *, ignore_unsupported: bool) -> "Plan":
    """Return the plan of a scenario; raises SimError with everything that a lab cannot do."""
    from simulator.lab.plan import Served, Unsupported, plan_of

    if loaded.spec is None:
        raise ScenarioError(
            f"the scenario {loaded.name!r} is a program; a lab runs descriptions (TOML, or a WorldSpec)"
        )
    try:
        served = None if models is None else Served(models)
        return plan_of(loaded.spec, seed, ignore_unsupported=ignore_unsupported, served=served)
    except Unsupported as error:
        reasons = "".join(f"\n- {reason}" for reason in error.reasons)
        advice = "" if ignore_unsupported else "\nleave out what can be left out with --ignore-unsupported"
        raise SimError(f"a lab cannot run {loaded.name!r}:{reasons}{advice}") from error


def come_by_means(*plans: "Plan") -> None:
    """Go on only with what a lab of each plan needs: as we are, or begun anew as root of namespaces of our own."""
    from simulator.lab import privileges, programs

    lacking = privileges.missing()
    more = list(dict.fromkeys(each for plan in plans for each in programs.missing(plan)))
    if not lacking and not more:
        return
    # Once: where being root of a namespace does not help, nothing does.
    if not more and BEGUN_ANEW not in os.environ and privileges.can_become_root():
        os.environ[BEGUN_ANEW] = "1"
        privileges.become_root([sys.executable, "-m", "simulator.cli", *sys.argv[1:]])
    raise SimError("a lab cannot run here:" + "".join(f"\n- {each}" for each in (*lacking, *more)))


def _repeating(
    scenario: str,
    seed: int,
    settings: tuple[tuple[str, Any], ...],
    models: str | None,
    *,
    ignore_unsupported: bool,
) -> str:
    """Return the command that does a run again."""
    words = ["teale-sim", "lab", "run", scenario, "--seed", str(seed)]
    words += knob_words(settings)
    if models is not None:
        words += ["--models", models]
    if ignore_unsupported:
        words.append("--ignore-unsupported")
    return shlex.join(words)
