"""`teale-sim compare`: one scenario in the simulator and with real programs, and how far the two agree."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from simulator.cli import apart, running
from simulator.cli.exits import Exit, SimError
from simulator.cli.options import (
    json_option,
    knob_words,
    knobs_options,
    out_option,
    seed_option,
    several_costs_option,
    workers_option,
)
from simulator.cli.output import Output
from simulator.cli.progress import counted
from simulator.host import CoreError
from simulator.scenario import Scenario, ScenarioError
from simulator.spec.world_spec import WorldSpec
from teale_proto.contract import MILLISECOND

if TYPE_CHECKING:  # only this command needs it
    from simulator.comparing.comparison import Comparison
    from simulator.comparing.measured import Measured


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
@several_costs_option
@click.option(
    "--calibrate",
    "calibrates",
    is_flag=True,
    help="Calibrate before each run of the lab and after the last, and take these profiles: the speed of a machine "
    "changes from one hour to another.",
)
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
    costs: tuple[Path, ...],
    calibrates: bool,
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
    if calibrates and (costs or lab_dirs):
        raise click.UsageError("--calibrate makes profiles for runs that it makes: leave out --costs and --lab-dir.")
    loaded = running.chosen(scenario, settings, fidelity)
    if loaded.spec is None:
        raise ScenarioError(f"the scenario {loaded.name!r} is a program; only descriptions can be compared")
    paced = _paced(loaded, costs)
    command = _repeating(scenario, simulated, lab, lab_dirs, seed, settings, fidelity, costs, calibrates, grain, only)
    output = Output(as_json=as_json)
    from simulator.comparing import files
    from simulator.comparing.measuring import measured_from
    from simulator.results.model import ResultsError

    try:
        with TemporaryDirectory(prefix="teale-compare-") as scratch:
            keep = Path(scratch) if out is None else out
            files.prepare(keep)
            if not lab_dirs:
                lab_dirs = _run_lab(loaded.spec, range(seed, seed + lab), keep, calibrates, output)
            if calibrates:
                paced = _paced(loaded, [files.profile_file(keep, number) for number in range(lab + 1)])
            found = [measured_from(folder, paced[0]) for folder in lab_dirs]
        ours = _simulated(paced, range(seed, seed + simulated), workers)
        comparison = _compared(loaded, ours, found, round(grain * MILLISECOND), only)
        _tell(comparison, command, output, out)
    except ResultsError as error:
        raise SimError(str(error)) from error
    return Exit.OK if comparison.agrees else Exit.VIOLATED


def _paced(loaded: Scenario, costs: Sequence[Path]) -> list[WorldSpec]:
    """Return the description on machines as slow as each of these profiles says, or as it is without one."""
    found = [running.with_costs(loaded, file).spec for file in costs or (None,)]
    return [spec for spec in found if spec is not None]


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


def _simulated(specs: Sequence[WorldSpec], seeds: range, workers: int) -> "list[Measured]":
    from simulator.comparing.simulating import simulate

    with counted("simulated", len(seeds)) as advance:
        try:
            return simulate(specs, seeds, workers=workers, done=advance)
        except CoreError as error:
            raise SimError(str(error), Exit.VIOLATED) from error


def _run_lab(spec: WorldSpec, seeds: range, keep: Path, calibrates: bool, output: Output) -> tuple[Path, ...]:
    """Run the lab with each of these seeds, and return where the results are; profiles are written beside them."""
    from simulator.comparing import files

    folders = tuple(files.lab_folder(keep, seed) for seed in seeds)
    for number, (seed, folder) in enumerate(zip(seeds, folders, strict=True)):
        if calibrates:
            _calibrate(keep, number, output)
        files.forget_lab(keep, seed)
        output.note(f"lab, seed {seed}: {spec.lasts:g} s and what it takes to start and to end")
        apart.run_lab(spec, seed, folder)
    if calibrates:
        _calibrate(keep, len(seeds), output)
    return folders


def _calibrate(keep: Path, number: int, output: Output) -> None:
    from simulator.comparing import files

    output.note("calibrating: two minutes")
    apart.calibrate(files.profile_file(keep, number))


def _repeating(
    scenario: str,
    simulated: int,
    lab: int,
    lab_dirs: tuple[Path, ...],
    seed: int,
    settings: tuple[tuple[str, Any], ...],
    fidelity: str | None,
    costs: tuple[Path, ...],
    calibrates: bool,
    grain: float,
    only: tuple[str, ...],
) -> str:
    """Return the command that does a comparison again."""
    words = ["teale-sim", "compare", scenario, "--simulated", str(simulated)]
    words += [word for folder in lab_dirs for word in ("--lab-dir", str(folder))] or ["--lab", str(lab)]
    words += ["--seed", str(seed), "--grain", f"{grain:g}"]
    words += knob_words(settings, fidelity, *costs) + ["--calibrate"] * calibrates
    for each in only:
        words += ["--only", each]
    return shlex.join(words)
