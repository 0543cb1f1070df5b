"""`teale-sim lab fuzz`: random worlds with real programs until a rule is broken, and the same worlds simulated."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from simulator.cli import progress
from simulator.cli.exits import Exit
from simulator.cli.lab import come_by_means
from simulator.cli.options import json_option, seed_option
from simulator.cli.output import Output

if TYPE_CHECKING:  # what a lab needs takes longer to load than most commands take
    from simulator.lab.fuzz.values import LabFinding, LabReport

LOOKED_AT: Final = 100
"""Worlds that are looked at beforehand for what they need: the first ones are like the others."""


@click.command()
@click.option("--seeds", type=click.IntRange(min=1), default=20, show_default=True, help="Worlds to run.")
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), help="Begin no world after so long.")
@seed_option
@click.option("--at-once", type=click.IntRange(min=1), default=2, show_default=True, help="Worlds that run together.")
@click.option("--findings", type=click.IntRange(min=1), default=10, show_default=True, help="Stop after so many.")
@click.option(
    "--models",
    type=click.Choice(["builtin", "described"]),
    help="What answers, in every world.  [default: the one or the other, as each is drawn]",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    default=Path("findings"),
    show_default=True,
    help="Keep findings in DIR, which is made for the first.",
)
@json_option
def fuzz(
    *,
    seeds: int,
    minutes: float | None,
    seed: int,
    at_once: int,
    findings: int,
    models: str | None,
    out: Path,
    as_json: bool,
) -> int:
    """Draw a small world and a plan of faults from each seed, and run it with real programs.

    The first world is drawn from --seed; each takes about half a minute. Every journal is replayed, and every rule
    checked. A world that breaks one is kept, and run in the simulator at once. A lab is not deterministic: what the
    kernel's clock and the machine decide may come out otherwise when it is run again.
    """
    from simulator.lab.fuzz import campaign as campaigns
    from simulator.lab.fuzz.worlds import draw
    from simulator.lab.plan import Served, plan_of

    served = None if models is None else Served(models)
    come_by_means(*(plan_of(draw(each, served), each) for each in range(seed, seed + min(seeds, LOOKED_AT))))
    with progress.campaign() as tell:
        report = campaigns.campaign(
            seed, seeds, minutes, at_once=at_once, findings_max=findings, served=served, folder=out, on_progress=tell
        )
    if as_json:
        click.echo(report.json())
    else:
        show(report)
    if not report.passed:
        return Exit.VIOLATED
    return Exit.INTERRUPTED if report.stopped == "interrupted" else Exit.OK


def show(report: "LabReport") -> None:
    """Print what came of a campaign, for people."""
    console = Output()
    for finding in report.findings:
        _show(finding, console)
    found = "no rule was broken" if report.passed else f"{len(report.findings)} broke a rule"
    console.line(
        f"{report.done} of {report.seeds} worlds from seed {report.first_seed} on ({report.stopped}): {found}; "
        f"{report.lab_seconds:.0f} s of worlds in {report.wall_seconds:.0f} s, {report.at_once} at once, "
        f"with {report.cpu_seconds:.0f} s of processor time"
    )
    console.line(
        f"{report.journals} journals with {report.steps} inputs were replayed; requests: {_listed(report.outcomes)}; "
        f"at worst an act was {report.latest_act_us / 1e6:.2f} s late, and a program up after "
        f"{report.slowest_start_us / 1e6:.1f} s"
    )


def _show(finding: "LabFinding", console: Output) -> None:
    console.line(f"seed {finding.seed}, {finding.size}", style="bold")
    for broken in finding.violations:
        console.line(broken.rule, style="bold red")
        console.violation(broken.at, broken.host, broken.what)
    simulated = finding.simulated
    if simulated is None:
        console.line("  the same world keeps every rule in the simulator")
    else:
        also = "this rule too" if finding.fails_simulated else "another rule"
        console.line(f"  the simulator breaks {also} in it: {simulated.rule}")
        console.violation(simulated.at, simulated.host, simulated.what)
    if finding.folder is not None:
        console.line(f"  kept in {finding.folder}; to run it again, which may come to something else:")
        console.line(f"  {finding.command}")
        console.line(f"  {finding.simulate}")


def _listed(outcomes: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in outcomes.items()) or "none"
