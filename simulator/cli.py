"""`teale-sim`: run a scenario from a seed, and see what came of it.

Exit codes: 0 when every check passed, 1 when one found a violation or a core raised, 2 for a wrong call or a
scenario that cannot be found, loaded or built.
"""

import sys
from pathlib import Path
from typing import NoReturn

import click
import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from simulator import scenario as scenarios
from simulator.host import CoreError
from simulator.report import Report
from simulator.trace import Entry, line


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """A simulated internet for the cores of Teale: virtual time, one seed, nothing else."""


@main.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_scenarios(*, as_json: bool) -> None:
    """List the scenarios that can be run by name."""
    try:
        found = [scenarios.load(name) for name in scenarios.scenario_names()]
    except scenarios.ScenarioError as error:
        _fail(str(error), code=2)
    if as_json:
        click.echo(msgspec.json.encode([{"name": each.name, "summary": each.summary} for each in found]))
        return
    table = Table("scenario", "what it shows", box=None)
    for each in found:
        table.add_row(escape(each.name), escape(each.summary))
    Console().print(table)


@main.command()
@click.argument("scenario")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Everything follows from it.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option("--digest", "digest_only", is_flag=True, help="Print nothing but the digest of the trace.")
@click.option("--trace", "trace_file", type=click.Path(dir_okay=False, path_type=Path), help="Write every entry there.")
def run(scenario: str, *, seed: int, as_json: bool, digest_only: bool, trace_file: Path | None) -> None:
    """Run SCENARIO, a name of `teale-sim list` or the path of a file."""
    try:
        loaded = scenarios.load(scenario)
        if trace_file is None:
            report = scenarios.run(loaded, seed)
        else:
            with trace_file.open("wb") as file:

                def write(entry: Entry) -> None:
                    file.write(line(entry))

                report = scenarios.run(loaded, seed, subscribe=write)
    except scenarios.ScenarioError as error:
        _fail(str(error), code=2)
    except OSError as error:
        _fail(f"cannot write the trace: {error}", code=2)
    except CoreError as error:
        _fail(f"{error}\nrepeat with: teale-sim run {scenario} --seed {seed}", code=1)
    if digest_only:
        click.echo(report.digest)
    elif as_json:
        click.echo(report.json())
    else:
        _show(report)
    sys.exit(0 if report.passed else 1)


def _fail(text: str, *, code: int) -> NoReturn:
    click.echo(f"teale-sim: {text}", err=True)
    sys.exit(code)


def _show(report: Report) -> None:
    console = Console()
    requests = report.requests
    table = Table(title=escape(f"{report.scenario}, seed {report.seed}"), show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    rows = [
        ("requests", f"{requests.asked} asked, {requests.attempts} attempts, {requests.retried} retried"),
        ("outcomes", _counts(requests.outcomes)),
        ("served by path", _counts(requests.served_by_path)),
        ("first token", f"p50 {_ms(requests.first_token_p50_ms)}, p90 {_ms(requests.first_token_p90_ms)}"),
        ("hosts crashed", f"{report.hosts_crashed}; peers reported lost: {report.peers_lost}"),
        ("simulated", f"{report.simulated_seconds:.1f} s in {report.wall_seconds:.2f} s of wall time"),
        ("events", f"{report.events}; trace entries: {report.trace_entries}"),
        ("digest", report.digest),
    ]
    for name, value in rows:
        table.add_row(name, escape(value))
    for check in report.checks:
        verdict = "[green]passed[/]" if check.passed else f"[bold red]{check.violation_count} violations[/]"
        table.add_row(verdict, escape(check.rule))
    console.print(table)
    for check in report.checks:
        for violation in check.violations:
            console.print(escape(f"{violation.at / 1e6:.6f} s  {violation.host}  {violation.what}"), style="red")
    if not report.passed:
        console.print(f"repeat with: teale-sim run {report.scenario} --seed {report.seed}", highlight=False)


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "none"


def _ms(value: float | None) -> str:
    return "none" if value is None else f"{value:.1f} ms"


if __name__ == "__main__":
    main()
