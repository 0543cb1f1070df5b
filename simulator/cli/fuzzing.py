"""`teale-sim fuzz` and `teale-sim replay`: random worlds until a rule is broken, and that event again."""

import shlex
from pathlib import Path

import click

from simulator.cli import progress
from simulator.cli.exits import Exit, SimError
from simulator.cli.journals import replay_journal
from simulator.cli.options import json_option, out_option, seed_option, workers_option
from simulator.cli.output import Output
from simulator.cli.running import recorded

# The values of `simulator.spec.world_spec.Planted`; a test holds them against it.
PLANTED = ("none", "forgets heartbeats", "delivers twice")


@click.command()
@click.option("--seeds", type=click.IntRange(min=1), default=100, show_default=True, help="Worlds to run.")
@click.option(
    "--minutes", type=click.FloatRange(min=0, min_open=True), help="Begin no world after so long; shrinking is extra."
)
@seed_option
@workers_option
@click.option("--findings", type=click.IntRange(min=1), default=10, show_default=True, help="Stop after so many.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    default=Path("capsules"),
    show_default=True,
    help="Write capsules into DIR, which is made for the first.",
)
@json_option
@click.option("--planted", type=click.Choice(PLANTED), default="none", hidden=True)
def fuzz(
    *, seeds: int, minutes: float | None, seed: int, workers: int, findings: int, out: Path, as_json: bool, planted: str
) -> int:
    """Draw a world and a plan of faults from each seed, and look for one that breaks a rule.

    The first world is drawn from --seed. The first finding of each rule is shrunk to the smallest world and plan that
    still break it. Each finding becomes a capsule, one file that `teale-sim replay` runs again.
    """
    from simulator.fuzz import CampaignReport, CapsuleError, Finding, campaign
    from simulator.spec.world_spec import Planted

    def shown(finding: Finding) -> None:
        broken, console = finding.broken, Output()
        console.line(f"seed {finding.seed}: {broken.rule}", style="bold red")
        console.violation(broken.at, broken.host, broken.what)
        shrunk = "" if finding.shrunk is None else f", shrunk in {finding.runs} runs to {finding.shrunk}"
        console.line(f"  {finding.found}{shrunk}")
        if finding.capsule is not None:
            console.line(f"  {shlex.join(['teale-sim', 'replay', finding.capsule])}")

    try:
        with progress.campaign() as tell:
            report: CampaignReport = campaign(
                seed,
                seeds,
                minutes,
                workers,
                planted=Planted(planted),
                findings_max=findings,
                folder=out,
                on_progress=tell,
            )
    except CapsuleError as error:
        raise SimError(str(error)) from error
    if as_json:
        click.echo(report.json())
    else:
        for finding in report.findings:
            shown(finding)
        found = "no rule was broken" if report.passed else f"{len(report.findings)} broke a rule"
        Output().line(
            f"{report.done} of {report.seeds} worlds from seed {report.first_seed} on ({report.stopped}): {found}; "
            f"{report.simulated_seconds:.0f} s simulated in {report.wall_seconds:.1f} s on {report.workers} workers"
        )
    if not report.passed:
        return Exit.VIOLATED
    return Exit.INTERRUPTED if report.stopped == "interrupted" else Exit.OK


@click.command()
@click.argument("capsule", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path))
@json_option
@click.option("--tail", is_flag=True, help="Print the last entries of the trace.")
@out_option("the results of the whole run")
def replay(capsule: Path, *, as_json: bool, tail: bool, out: Path | None) -> int:
    """Run the world of a capsule again, up to the event that broke a rule, or a program again from its journal.

    A capsule ends with 1 when a rule is broken again, and with 0 when none is any more. The same code comes to the same
    event; when it does not, that is told, and the exit code is 1 too.

    A journal, which `teale-node` and `teale-relay` write with --journal, ends with 0 when the core does again all that
    it did, and with 1 when it does not.
    """
    from simulator.fuzz import CapsuleError
    from simulator.fuzz import replay as replayed
    from simulator.journals.reading import holds_journal

    if holds_journal(capsule):
        if out is not None:
            raise click.UsageError("--out is for capsules: a journal is of one program, and no whole run")
        return replay_journal(capsule, as_json=as_json, tail=tail)
    try:
        report = replayed(capsule)
        if out is not None:
            _record(capsule, out)
    except CapsuleError as error:
        raise SimError(str(error)) from error
    if as_json:
        click.echo(report.json())
    else:
        console = Output()
        if tail:
            for entry in report.tail:
                console.line(entry)
        broken = report.found
        if broken is not None:
            console.line(broken.rule, style="bold red")
            console.violation(broken.at, broken.host, broken.what)
        console.line(f"seed {report.seed}, {report.size}: {report.explanation}")
        console.line(f"digest {report.found_digest}, in the capsule {report.expected_digest}")
    if out is not None:
        Output(as_json=as_json).note(f"results: {out}")
    is_well = report.found is None and not report.same_code
    return Exit.OK if is_well else Exit.VIOLATED


def _record(capsule: Path, out: Path) -> None:
    """Run the world of a capsule to its end, and write its results."""
    from simulator.fuzz.capsule import load
    from simulator.spec.build import scenario_of

    loaded = load(capsule)
    recorded(scenario_of(loaded.spec), loaded.seed, shlex.join(["teale-sim", "replay", str(capsule)]), out, trace=True)
