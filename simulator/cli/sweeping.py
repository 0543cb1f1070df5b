"""`teale-sim sweep`: many runs of one scenario, on a grid of settings and with several seeds."""

from pathlib import Path
from typing import Any

import click

from simulator.cli.options import (
    costs_option,
    json_option,
    knobs_options,
    out_option,
    seed_option,
    vary_option,
    workers_option,
)
from simulator.cli.output import Output
from simulator.sweep.values import Axis


@click.command()
@click.argument("scenario")
@vary_option
@click.option("--seeds", type=click.IntRange(min=1), default=1, show_default=True, help="Runs of each combination.")
@seed_option
@knobs_options
@costs_option
@json_option
@out_option("rows.csv, cells.csv and sweep.json")
@click.option("--parquet", is_flag=True, help="Write rows.parquet too.")
@click.option(
    "--show", "figures", multiple=True, metavar="FIGURE", help="Show this figure in the table; again for more."
)
@workers_option
@click.option(
    "--engine", type=click.Choice(["local", "dask"]), default="local", show_default=True, help="Where to run."
)
@click.option("--scheduler", metavar="ADDRESS", help="The Dask scheduler, as in tcp://10.0.0.1:8786.")
def sweep(
    scenario: str,
    *,
    axes: tuple[Axis, ...],
    seeds: int,
    seed: int,
    settings: tuple[tuple[str, Any], ...],
    fidelity: str | None,
    costs: Path | None,
    as_json: bool,
    out: Path | None,
    parquet: bool,
    figures: tuple[str, ...],
    workers: int,
    engine: str,
    scheduler: str | None,
) -> int:
    """Run SCENARIO with every combination of the values of --vary, and with --seeds seeds each.

    Gives one row a run, and the mean of every figure with its 95 % confidence interval for each combination. The
    rows do not depend on the number of workers, nor on the engine. A run that fails becomes a row with its error, and
    the exit code 1.
    """
    _check_options(out, parquet=parquet, engine=engine, scheduler=scheduler)
    # Only here, for it loads much that other commands do without.
    from simulator.cli import sweep_results as results

    asked = results.Asked(scenario, axes, seeds, seed, settings, fidelity, costs)
    return results.sweep(
        asked, Output(as_json=as_json), out, parquet=parquet, figures=figures, workers=workers, scheduler=scheduler
    )


def _check_options(out: Path | None, *, parquet: bool, engine: str, scheduler: str | None) -> None:
    if parquet and out is None:
        raise click.UsageError("--parquet says what to write into --out DIR, which is missing.")
    if (engine == "dask") != (scheduler is not None):
        raise click.UsageError("--engine dask and --scheduler ADDRESS belong together.")
