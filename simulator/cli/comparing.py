"""`teale-sim compare`: one scenario in the simulator and with real programs, and how far the two agree."""

import shlex
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

import click

from simulator.cli import running
from simulator.cli.exits import Exit, SimError
from simulator.cli.options import (
    costs_option,
    json_option,
    knob_words,
    knobs_options,
    out_option,
    seed_option,
    workers_option,
)
from simulator.cli.output import Output
from simulator.cli.progress import busy, counted
from simulator.host import CoreError
from simulator.scenario import Scenario, ScenarioError
from teale_proto.contract import MILLISECOND

if TYPE_CHECKING:  # only this command needs it
    from simulator.comparing.comparison import Comparison
    from simulator.comparing.measured import Measured

LAB: Final = (sys.executable, "-m", "simulator.cli", "lab", "run")
"""The command that runs one world in the lab; a process of its own, since it enters namespaces."""


def _known_measures(context: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    from simulator.comparing.comparison import PATHS
    from simulator.comparing.measured import Measure

    known = (PATHS, *(measure.slug for measure in Measure))
    strange = [each for each in given if each not in known]
    if strange:
        raise click.BadParameter(f"no {strange[0]!r}; there are: {', '.join(known)}", context, parameter)
    return given


@click.command()
@click.argument("scenario")
@click.option("--simulated", type=click.IntRange(min=1), default=20, show_default=True, help="Seeds to simulate.")
@click.option("--lab", type=click.IntRange(min=0), default=3, show_default=True, help="Runs of the lab.")
@click.option(
    "--lab-dir",
    "lab_dirs",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    multiple=True,
    help="Take these results, made with --trace, in place of runs of the lab; again for more.",
)
@seed_option
@knobs_options
@costs_option
@workers_option
@click.option(
    "--grain",
    type=click.FloatRange(min=0, max=10_000),
    default=1.0,
    show_default=True,
    metavar="MS",
    help="How exact a lab is; simulated intervals of times are widened by that.",
)
@click.option(
    "--only",
    callback=_known_measures,
    multiple=True,
    metavar="MEASURE",
    help="Judge nothing but this, as in --only paths or --only first-token; again for more.",
)
@json_option
@out_option("the comparison as a page, as text and as JSON, and the lab's results,")
def compare(
    scenario: str,
    *,
    simulated: int,
    lab: int,
    lab_dirs: tuple[Path, ...],
    seed: int,
    settings: tuple[tuple[str, Any], ...],
    fidelity: str | None,
    costs: Path | None,
    workers: int,
    grain: float,
    only: tuple[str, ...],
    as_json: bool,
    out: Path | None,
) -> int:
    """Hold SCENARIO in the simulator against real programs in the lab.

    Both worlds run the same description with seeds from --seed on, and are measured by the same code: paths cell by
    cell, set-up, first tokens, recovery after faults, what goes through the relay. A figure is as predicted when the
    lab's median lies between the 10th and the 90th percentile of what was simulated. Ends with 0 when all are, and with
    1 when any is not.
    """
    if not lab and not lab_dirs:
        raise click.UsageError("there is nothing to compare with: give --lab 1 or more, or --lab-dir DIR.")
    loaded = running.chosen(scenario, settings, fidelity)
    if loaded.spec is None:
        raise ScenarioError(f"the scenario {loaded.name!r} is a program; only descriptions can be compared")
    as_simulated = running.with_costs(loaded, costs)
    command = _repeating(scenario, simulated, lab, lab_dirs, seed, settings, fidelity, costs, grain, only)
    output = Output(as_json=as_json)
    from simulator.results.model import ResultsError

    try:
        if out is not None:
            from simulator.comparing.files import prepare

            prepare(out)
        found = _measured_in_lab(loaded, as_simulated, range(seed, seed + lab), lab_dirs, out, output)
        ours = _simulated(as_simulated, range(seed, seed + simulated), workers)
        comparison = _compared(loaded, ours, found, round(grain * MILLISECOND), only)
        _tell(comparison, command, output, out)
    except ResultsError as error:
        raise SimError(str(error)) from error
    return Exit.OK if comparison.agrees else Exit.VIOLATED


def _compared(
    loaded: Scenario, ours: "list[Measured]", lab: "list[Measured]", grain: int, only: tuple[str, ...]
) -> "Comparison":
    from simulator.comparing.comparison import Setting, compared

    seeds, theirs = (tuple(run.seed for run in runs) for runs in (ours, lab))
    return compared(Setting(loaded.name, seeds, theirs, grain=grain), ours, lab, only=only)


def _tell(comparison: "Comparison", command: str, output: Output, out: Path | None) -> None:
    from simulator.comparing import files
    from simulator.comparing.wording import text

    if out is not None:
        files.write(out, comparison, command)
    if output.as_json:
        output.document(files.document(comparison, command))
    else:
        output.line(text(comparison).rstrip())
    if out is not None:
        output.note(f"comparison: {out / files.PAGE}")


# The two worlds.


def _simulated(loaded: Scenario, seeds: range, workers: int) -> "list[Measured]":
    from simulator.comparing.simulating import simulate

    assert loaded.spec is not None, "only descriptions are compared"
    with counted("simulated", len(seeds)) as advance:
        try:
            return simulate(loaded.spec, seeds, workers=workers, done=advance)
        except CoreError as error:
            raise SimError(str(error), Exit.VIOLATED) from error


def _measured_in_lab(
    loaded: Scenario,
    as_simulated: Scenario,
    seeds: range,
    folders: tuple[Path, ...],
    out: Path | None,
    output: Output,
) -> "list[Measured]":
    """Return what the lab came to: from these results where there are any, and else from runs that are made now."""
    from simulator.comparing.measuring import measured_from

    assert loaded.spec is not None, "only descriptions are compared"
    assert as_simulated.spec is not None, "only descriptions are compared"
    if folders:
        return [measured_from(folder, as_simulated.spec) for folder in folders]
    from simulator.comparing import files

    with TemporaryDirectory(prefix="teale-compare-") as scratch:
        keep = Path(scratch) if out is None else out
        found = []
        for seed in seeds:
            files.forget_lab(keep, seed)
            folder = files.lab_folder(keep, seed)
            output.note(f"lab, seed {seed}: {loaded.spec.lasts:g} s and what it takes to start and to end")
            _run_lab(loaded, seed, folder, Path(scratch))
            found.append(measured_from(folder, as_simulated.spec))
        return found


def _run_lab(loaded: Scenario, seed: int, folder: Path, scratch: Path) -> None:
    """Have a process run the lab once; raises SimError where no results come of it."""
    from simulator.spec.writing import toml_of

    assert loaded.spec is not None, "only descriptions are compared"
    scenario = scratch / "scenario.toml"
    scenario.write_text(toml_of(loaded.spec), encoding="utf-8")
    words = [*LAB, str(scenario), "--seed", str(seed), "--trace", "--out", str(folder)]
    with busy(f"the lab, seed {seed}"):
        # Ctrl-C reaches it too, and it takes down what it has built: it is waited for.
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)  # noqa: S603 - our own
        try:
            _, said = process.communicate()
        except KeyboardInterrupt:
            process.wait()
            raise
    # Rules that were broken are part of the results.
    if process.returncode not in (Exit.OK, Exit.VIOLATED) or not folder.is_dir():
        why = said.decode("utf-8", "replace").strip() or f"it ended with {process.returncode}"
        raise SimError(f"the lab's run with seed {seed} came to nothing: {why}")


def _repeating(
    scenario: str,
    simulated: int,
    lab: int,
    lab_dirs: tuple[Path, ...],
    seed: int,
    settings: tuple[tuple[str, Any], ...],
    fidelity: str | None,
    costs: Path | None,
    grain: float,
    only: tuple[str, ...],
) -> str:
    """Return the command that does a comparison again."""
    words = ["teale-sim", "compare", scenario, "--simulated", str(simulated)]
    words += [word for folder in lab_dirs for word in ("--lab-dir", str(folder))] or ["--lab", str(lab)]
    words += ["--seed", str(seed), "--grain", f"{grain:g}"]
    words += knob_words(settings, fidelity, costs)
    for each in only:
        words += ["--only", each]
    return shlex.join(words)
