"""What `teale-sim sweep` does with what was asked: the runs, the files, the table."""

import shlex
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final, NamedTuple

import click

from simulator import scenario as scenarios
from simulator.cli.exits import Exit, SimError
from simulator.cli.options import knob_words
from simulator.cli.output import Output
from simulator.cli.progress import counted
from simulator.cli.running import chosen, with_costs
from simulator.results.provenance import made_by
from simulator.sweep.engines import EngineError, run_here, run_on_dask
from simulator.sweep.files import FORMAT, FORMAT_VERSION, FilesError, Sweep, reserved, write
from simulator.sweep.plan import Job, plan
from simulator.sweep.rows import Row, figure_names
from simulator.sweep.summary import Cell, Estimate, summarize
from simulator.sweep.values import Axis, shown, typed_all

FIGURES: Final = ("served_share", "served_relay", "first_token_p50_ms", "relay_bytes_out")
"""What the table shows unless told otherwise."""

ERRORS_SHOWN_MAX: Final = 5


class Asked(NamedTuple):
    """Which runs."""

    scenario: str
    axes: tuple[Axis, ...]
    seeds: int
    first_seed: int
    settings: tuple[tuple[str, Any], ...]
    fidelity: str | None
    costs: Path | None = None
    """A profile of the machines."""


def sweep(
    asked: Asked,
    console: Output,
    out: Path | None,
    *,
    parquet: bool,
    figures: Sequence[str],
    workers: int,
    scheduler: str | None,
) -> Exit:
    """Do the runs, write and show what came of them; raises SimError and ScenarioError before any, where it can."""
    known = figure_names()
    strange = [figure for figure in figures if figure not in known]
    if strange:
        raise click.UsageError(f"There is no figure {strange[0]!r}; there are: {', '.join(known)}.")
    scenario = with_costs(chosen(asked.scenario, asked.settings, asked.fidelity), asked.costs)
    file = scenarios.find(asked.scenario)
    jobs = plan(scenario, file, axes=asked.axes, first_seed=asked.first_seed, seeds=asked.seeds)
    try:
        with nullcontext() if out is None else reserved(out, parquet=parquet):
            rows = _rows(jobs, asked.scenario, workers, scheduler)
            result = _sweep(asked, rows)
            if out is not None:
                write(out, result, parquet=parquet)
    except (EngineError, FilesError) as error:
        raise SimError(str(error)) from error
    _show(result, figures or FIGURES, console)
    if out is not None:
        console.note(f"results: {out}")
    return Exit.OK if all(row.passed for row in rows) else Exit.VIOLATED


def _rows(jobs: Sequence[Job], name: str, workers: int, scheduler: str | None) -> list[Row]:
    with counted(name, len(jobs)) as advance:

        def done(_: Row) -> None:
            advance()

        if scheduler is not None:
            return run_on_dask(jobs, scheduler=scheduler, done=done)
        return run_here(jobs, workers=workers, done=done)


def _sweep(asked: Asked, rows: Sequence[Row]) -> Sweep:
    seeds = range(asked.first_seed, asked.first_seed + asked.seeds)
    return Sweep(
        format=FORMAT,
        format_version=FORMAT_VERSION,
        command=_command(asked),
        made_by=made_by(),
        scenario=asked.scenario,
        seeds=tuple(seeds),
        settings={**dict(asked.settings), **({} if asked.fidelity is None else {"fidelity": asked.fidelity})},
        axes=asked.axes,
        cells=tuple(summarize(rows)),
        rows=tuple(rows),
    )


def _command(asked: Asked) -> str:
    words = ["teale-sim", "sweep", asked.scenario, "--seed", str(asked.first_seed), "--seeds", str(asked.seeds)]
    words += knob_words(asked.settings, asked.fidelity, asked.costs)
    for axis in asked.axes:
        words += ["--vary", f"{axis.path}={typed_all(axis.values)}"]
    return shlex.join(words)


def _show(sweep: Sweep, figures: Sequence[str], out: Output) -> None:
    if out.as_json:
        out.document(sweep)
        return
    paths = [axis.path for axis in sweep.axes]
    rows = [
        (
            *(shown(cell.settings[path]) for path in paths),
            f"{cell.passed} of {cell.runs}",
            *(_estimate(cell, figure) for figure in figures),
        )
        for cell in sweep.cells
    ]
    out.table((*paths, "passed", *figures), rows, numbers=1 + len(figures))
    failures = [row for row in sweep.rows if row.error]
    for row in failures[:ERRORS_SHOWN_MAX]:
        where = "".join(f"{path}={shown(value)} " for path, value in row.settings.items())
        out.line(f"failed: {where}seed {row.seed}: {row.error}", style="red")
    if len(failures) > ERRORS_SHOWN_MAX:
        out.line(f"and {len(failures) - ERRORS_SHOWN_MAX} more failed", style="red")


def _estimate(cell: Cell, figure: str) -> str:
    found = cell.metrics.get(figure)
    return "none" if found is None else _interval(found)


def _interval(found: Estimate) -> str:
    if found.high is None:
        return _number(found.mean)
    return f"{_number(found.mean)} ± {_number(found.high - found.mean)}"


def _number(value: float) -> str:
    """Return a figure with as many digits as people compare."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
