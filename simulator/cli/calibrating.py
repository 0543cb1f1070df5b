"""`teale-sim calibrate`: what the real programs cost on this machine, as a profile for the simulator."""

from pathlib import Path

import click

from simulator.cli.exits import Exit, SimError
from simulator.cli.options import json_option
from simulator.cli.output import Output


@click.command()
@click.option(
    "--out",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the profile to FILE, as TOML.",
)
@click.option("--quick", is_flag=True, help="Half a minute instead of two; the figures are rough.")
@click.option(
    "--lab",
    "as_in_lab",
    is_flag=True,
    help="As in a lab, where programs write journals and share processors with many.",
)
@json_option
def calibrate(out: Path, *, quick: bool, as_in_lab: bool, as_json: bool) -> int:
    """Measure what relay, node and the built-in model cost on this machine.

    Runs real programs for up to two minutes, as root in a network of their own; do nothing else meanwhile.
    `teale-sim run --costs FILE` then simulates a world of such machines.
    """
    if not out.resolve().parent.is_dir():
        raise SimError(f"{out}: there is no folder {out.resolve().parent}")
    # Only here, for it loads much that other commands do without.
    from simulator.calibrating.checking import checks_of
    from simulator.calibrating.fitting import fitted
    from simulator.calibrating.measuring import QUICK, THOROUGH
    from simulator.calibrating.programs import CalibrationError
    from simulator.calibrating.reporting import document_of, machine_of, text_of
    from simulator.calibrating.session import measure_apart

    output = Output(as_json=as_json)
    plan = (QUICK if quick else THOROUGH)._replace(as_in_lab=as_in_lab)
    try:
        measured = measure_apart(plan, output.note)
    except CalibrationError as error:
        raise SimError(str(error)) from error
    profile = fitted(measured, machine=machine_of(measured))
    out.write_text(text_of(measured, profile), encoding="utf-8")
    if as_json:
        output.document(document_of(measured, profile, out))
        return Exit.OK
    figures = measured.samples.figures()
    output.table(
        ["figure", "median", "± IQR", "rounds"],
        [[name, f"{each.value:.4g}", f"{each.iqr:.2g}", str(each.rounds)] for name, each in sorted(figures.items())],
        numbers=3,
    )
    output.line()
    output.table(
        ["the parts of the profile put together", "predicted", "measured", "deviation"],
        [
            [check.what, f"{check.predicted:.4g}", str(check.measured), f"{check.deviation:+.0%}"]
            for check in checks_of(measured, profile)
        ],
        numbers=3,
    )
    output.line()
    for note in measured.notes:
        output.line(f"note: {note}")
    output.line(f"{profile.machine}")
    output.line(f"profile: {out}")
    return Exit.OK
