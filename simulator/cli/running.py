"""`teale-sim run`: one world, from its seed to its end."""

import shlex
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.text import Text

from simulator import scenario as scenarios
from simulator.cli.exits import Exit, SimError
from simulator.cli.options import costs_option, json_option, knob_words, knobs_options, out_option, seed_option
from simulator.cli.output import Output
from simulator.cli.progress import busy, virtual_time
from simulator.host import CoreError
from simulator.report import Report
from simulator.scenario import Scenario, ScenarioError
from simulator.world import World


@click.command()
@click.argument("scenario")
@seed_option
@knobs_options
@click.option(
    "--nat",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Put the first population behind the NATs of this profile, which `teale doctor --save` keeps.",
)
@costs_option
@json_option
@click.option("--digest", "digest_only", is_flag=True, help="Print nothing but the digest of the trace.")
@out_option("the results: summary, metrics, plots and a page")
@click.option("--trace", is_flag=True, help="Keep every entry of the trace in DIR, compressed.")
@click.option("--capture", is_flag=True, help="Keep what was sent in DIR, as pcap-ng for Wireshark.")
@click.option("--metrics", type=click.Choice(["csv", "parquet"]), help="The form of the tables in DIR.  [default: csv]")
def run(
    scenario: str,
    *,
    seed: int,
    settings: tuple[tuple[str, Any], ...],
    fidelity: str | None,
    nat: Path | None,
    costs: Path | None,
    as_json: bool,
    digest_only: bool,
    out: Path | None,
    trace: bool,
    capture: bool,
    metrics: str | None,
) -> int:
    """Run SCENARIO, a name of `teale-sim list` or the path of a file, and judge it.

    Prints what was asked and served, and whether every rule held. The same scenario and seed give the same digest on
    any machine.
    """
    if out is None and (trace or capture or metrics):
        raise click.UsageError("--trace, --capture and --metrics say what to keep in --out DIR, which is missing.")
    loaded = chosen(scenario, settings, fidelity)
    if nat is not None:
        settings = (*settings, _behind(nat, loaded))
        loaded = chosen(scenario, settings, fidelity)
    loaded = with_costs(loaded, costs)
    command = repeating(scenario, seed, settings, fidelity, costs)
    try:
        report = recorded(loaded, seed, command, out, trace=trace, capture=capture, metrics=metrics or "csv")
    except CoreError as error:
        raise SimError(f"{error}\nrepeat with: {command}", Exit.VIOLATED) from error
    if digest_only:
        click.echo(report.digest)
    elif as_json:
        click.echo(report.json())
    else:
        show(report, command)
    if out is not None:
        Output(as_json=as_json or digest_only).note(f"results: {out}")
    return Exit.OK if report.passed else Exit.VIOLATED


def chosen(scenario: str, settings: tuple[tuple[str, Any], ...], fidelity: str | None) -> Scenario:
    """Return a scenario with knobs turned; raises ScenarioError."""
    more = {} if fidelity is None else {"fidelity": fidelity}
    return scenarios.with_settings(scenarios.load(scenario), {**dict(settings), **more})


def with_costs(loaded: Scenario, file: Path | None) -> Scenario:
    """Return a scenario on machines as slow as a profile says, or as it is without one; raises ScenarioError."""
    if file is None:
        return loaded
    from simulator.spec.costs_file import read_costs
    from simulator.spec.reading import SpecError

    try:
        return scenarios.with_settings(loaded, {"costs": msgspec.to_builtins(read_costs(file))})
    except SpecError as error:
        raise ScenarioError(str(error)) from error


def _behind(file: Path, loaded: Scenario) -> tuple[str, Any]:
    """Return the setting that puts the first population behind the NATs of a profile; its lines stay."""
    from simulator.spec.profile import read_profile
    from simulator.spec.reading import SpecError

    if loaded.spec is None or not loaded.spec.populations:
        raise ScenarioError(f"--nat: the scenario {loaded.name!r} has no population to put behind a NAT")
    try:
        profile = read_profile(file)
    except SpecError as error:
        raise ScenarioError(str(error)) from error
    return "populations[0].access", profile.access(loaded.spec.populations[0].mixture)


def repeating(
    scenario: str,
    seed: int,
    settings: tuple[tuple[str, Any], ...],
    fidelity: str | None,
    costs: Path | None = None,
) -> str:
    """Return the command that does a run again."""
    words = ["teale-sim", "run", scenario, "--seed", str(seed)]
    return shlex.join([*words, *knob_words(settings, fidelity, costs)])


def show(report: Report, command: str) -> None:
    """Print a report for people; `command` is what repeats the run."""
    requests = report.requests
    rows: list[tuple[str | Text, str]] = [
        ("requests", f"{requests.asked} asked, {requests.attempts} attempts, {requests.retried} retried"),
        ("outcomes", _counts(requests.outcomes)),
        ("served by path", _counts(requests.served_by_path)),
        ("first piece", f"p50 {_ms(requests.first_token_p50_ms)}, p90 {_ms(requests.first_token_p90_ms)}"),
        ("hosts crashed", f"{report.hosts_crashed}; peers reported lost: {report.peers_lost}"),
        *_paths(report),
        ("simulated", f"{report.simulated_seconds:.1f} s in {report.wall_seconds:.2f} s of wall time"),
        ("events", f"{report.events}; trace entries: {report.trace_entries}"),
        ("digest", report.digest),
    ]
    for check in report.checks:
        count = f"{check.violation_count} violations"
        rows.append((Text("passed", "green") if check.passed else Text(count, "bold red"), check.rule))
    out = Output()
    out.fields(f"{report.scenario}, seed {report.seed}", rows)
    for check in report.checks:
        for violation in check.violations:
            out.violation(violation.at, violation.host, violation.what, "red")
    if not report.passed:
        out.line(f"repeat with: {command}")


def recorded(
    loaded: Scenario,
    seed: int,
    command: str,
    out: Path | None,
    *,
    trace: bool = False,
    capture: bool = False,
    metrics: str = "csv",
) -> Report:
    """Run a scenario with a bar, and write its results into `out` where that is given.

    Raises SimError where they cannot be written; and then, as after Ctrl-C, there are none.
    """
    world = scenarios.world_of(loaded, seed)
    if out is None:
        return _shown(loaded, seed, world)
    from simulator.cli.source import source_of
    from simulator.results.calibrating import calibrated
    from simulator.results.model import ResultsError
    from simulator.results.recorder import Recorder
    from simulator.results.tables import Metrics

    try:
        with ExitStack() as stack:
            recorder = stack.enter_context(Recorder(world, out, trace=trace, capture=capture, metrics=Metrics(metrics)))
            report = _shown(loaded, seed, world)
            with busy("drawing and writing the results"):
                source, calibration = source_of(loaded), calibrated(world)
                recorder.finish(report, command=command, source=source, calibration=calibration)
    except ResultsError as error:
        raise SimError(str(error)) from error
    return report


def _shown(loaded: Scenario, seed: int, world: World) -> Report:
    with virtual_time(loaded.name, loaded.lasts) as progress:
        return scenarios.run(loaded, seed, world=world, progress=progress)


def _paths(report: Report) -> list[tuple[str | Text, str]]:
    """Return what there is to say of direct paths, beside what was published."""
    if report.share_direct is None:
        return []
    from simulator.results.published import PUBLISHED

    shares = f"{report.share_direct:.1%} direct, of {report.peers_direct + report.peers_relayed} beyond the LAN"
    figures = (PUBLISHED[name] for name in ("punching", "direct"))
    beside = "; ".join(f"{each.figure} {each.low:g} to {each.high:g} {each.unit}" for each in figures)
    return [("peers at the end", shares), ("published", beside)]


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "none"


def _ms(value: float | None) -> str:
    return "none" if value is None else f"{value:.1f} ms"
