"""`teale-sim grid`: every kind of NAT against every other, what was predicted and what came of it."""

import csv
import io
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import msgspec
from rich.text import Text

from simulator.cli.exits import Exit, SimError
from simulator.cli.options import json_option, out_option
from simulator.cli.output import Output
from simulator.cli.progress import counted
from teale_proto.contract import MILLISECOND

if TYPE_CHECKING:  # the grid loads all of NAT traversal, which no other command needs
    from simulator.nat_grid import Cell, Grid, Stack

_STYLES: Final = {
    "direct": "green",
    "punched": "cyan",
    "predicted": "blue",
    "birthday": "magenta",
    "relayed": "yellow",
}
"""The colours of outcomes; each cell says its outcome in a word too."""


@click.command()
@click.option(
    "--kinds",
    metavar="KIND,KIND…",
    default="eight",
    show_default=True,
    help="Which NATs meet: names, `eight` for the usual ones, or `all`.",
)
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Everything follows from it.")
@click.option(
    "--latency",
    type=click.FloatRange(min=0, max=10_000),
    default=20.0,
    show_default=True,
    metavar="MS",
    help="Between a site and the middle of the internet, one way.",
)
@click.option(
    "--loss",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.0,
    show_default=True,
    metavar="SHARE",
    help="The chance that a site's line loses a packet.",
)
@click.option("--birthday", is_flag=True, help="Let both sides guess ports with hundreds of sockets.")
@json_option
@out_option("grid.csv and grid.json")
def grid(*, kinds: str, seed: int, latency: float, loss: float, birthday: bool, as_json: bool, out: Path | None) -> int:
    """Let two nodes meet behind every pair of NATs, and compare with what the planner predicted.

    Rows open the path. A cell says over what the two talk in the end, and after how many milliseconds both have the
    path; `!` marks what was predicted otherwise. Ends with 1 when a path that is open carries nothing, or when a
    prediction was wrong that was not left to luck (without --loss, all but birthday).
    """
    from simulator.nat_grid import Conditions, Grid, run_cell

    stacks = _stacks(kinds)
    if out is not None:
        _check_folder(out)
    conditions = Conditions(seed=seed, latency=round(latency * MILLISECOND), loss=loss, birthday=birthday)
    cells = []
    with counted("pairs of NATs", len(stacks) ** 2) as advance:
        for ours in stacks.items():
            for theirs in stacks.items():
                cells.append(run_cell(ours, theirs, conditions))
                advance()
    found = Grid(tuple(stacks), conditions, tuple(cells))
    console = Output(as_json=as_json)
    if out is not None:
        _write(out, found)
    if as_json:
        console.document(found)
    else:
        _show(found, console)
    if out is not None:
        console.note(f"results: {out}")
    return Exit.VIOLATED if any(_is_wrong(cell, found) for cell in cells) else Exit.OK


def _stacks(kinds: str) -> dict[str, "Stack"]:
    from simulator.nat_grid import EIGHT, KINDS

    ready = {"eight": EIGHT, "all": KINDS}.get(kinds.strip().lower())
    if ready is not None:
        return dict(ready)
    known = {name.lower(): name for name in KINDS}
    names = [name.strip().lower() for name in kinds.split(",") if name.strip()]
    strange = [name for name in names if name not in known]
    if strange or not names:
        raise click.BadParameter(
            f"no kind {(strange or [''])[0]!r}; there are: {', '.join(KINDS)}, or eight, or all", param_hint="--kinds"
        )
    return {known[name]: KINDS[known[name]] for name in names}


def _is_wrong(cell: "Cell", grid: "Grid") -> bool:
    is_relayed = cell.time_to_open is None
    # Guessing ports and a line that loses packets are matters of luck; all else is not.
    is_luck = cell.predicted.value == "birthday" or grid.conditions.loss > 0
    is_surprise = cell.outcome is not cell.predicted and not is_luck
    return is_surprise or not (is_relayed or cell.carries)


def _show(grid: "Grid", console: Output) -> None:
    rows: list[list[str | Text]] = [
        [ours, *(_shown(grid.cell(ours, theirs)) for theirs in grid.kinds)] for ours in grid.kinds
    ]
    console.table(("", *grid.kinds), rows)
    console.line()
    counts = Counter(cell.outcome.value for cell in grid.cells)
    ways = ", ".join(f"{counts[way]} {way}" for way in _STYLES if counts[way])
    other = [cell for cell in grid.cells if cell.outcome is not cell.predicted]
    verdict = "all as predicted" if not other else f"{len(other)} predicted otherwise (!)"
    console.line(
        f"{len(grid.cells)} pairs: {ways}; {verdict}. Numbers are milliseconds until both sides have the path."
    )
    for cell in other:
        pair = f"{cell.ours} and {cell.theirs}"
        console.line(f"{pair}: {cell.outcome.value}, predicted {cell.predicted.value} ({cell.reason})", style="yellow")
    for cell in grid.cells:
        if cell.time_to_open is not None and not cell.carries:
            console.line(f"{cell.ours} and {cell.theirs}: the path is open and carries nothing", style="red")


def _shown(cell: "Cell") -> Text:
    took = "" if cell.time_to_open is None else f" {cell.time_to_open // MILLISECOND}"
    mark = "" if cell.outcome is cell.predicted else " !"
    return Text(f"{cell.outcome.value}{took}{mark}", _STYLES.get(cell.outcome.value, ""))


def _check_folder(out: Path) -> None:
    if out.exists() and any(out.iterdir()) and not (out / "grid.json").is_file():
        raise SimError(f"{out}: holds something other than a grid; name another directory")


def _write(out: Path, grid: "Grid") -> None:
    from simulator.results.folder import replace_file

    out.mkdir(parents=True, exist_ok=True)
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(type(grid.cells[0]).__struct_fields__)
    for cell in grid.cells:
        writer.writerow(msgspec.to_builtins(cell).values())
    replace_file(out / "grid.csv", text.getvalue().encode())
    replace_file(out / "grid.json", msgspec.json.format(msgspec.json.encode(grid)) + b"\n")
