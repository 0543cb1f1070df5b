"""A sweep on the disk: `rows.csv` with one line a run, `cells.csv` with one a cell, and `sweep.json` with everything.

The tables hold nothing that depends on where the runs were done: the same sweep gives the same bytes.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from simulator.results.folder import check_writable, replace_file
from simulator.results.model import MadeBy
from simulator.results.tables import WITHOUT_PYARROW, Metrics, can_write
from simulator.sweep.rows import Row
from simulator.sweep.summary import Cell
from simulator.sweep.values import Axis, shown
from teale_proto.contract import Value

FORMAT: Final = "teale-sim sweep"
FORMAT_VERSION: Final = 1

DOCUMENT: Final = "sweep.json"
ROWS: Final = "rows.csv"
CELLS: Final = "cells.csv"
ROWS_PARQUET: Final = "rows.parquet"


class FilesError(Exception):
    """A sweep cannot be written there; the text says why."""


class Sweep(Value):
    """What `sweep.json` holds."""

    format: str
    format_version: int
    command: str
    """What repeats the sweep."""
    made_by: MadeBy
    scenario: str
    seeds: tuple[int, ...]
    settings: dict[str, Any]
    """What was set in every cell."""
    axes: tuple[Axis, ...]
    cells: tuple[Cell, ...]
    rows: tuple[Row, ...]


@contextmanager
def reserved(folder: Path, *, parquet: bool) -> Iterator[None]:
    """Make a folder for a sweep, which is gone again if nothing has been written by the end.

    Raises FilesError where a sweep cannot be written: before its runs, rather than after hours.
    """
    if parquet and not can_write(Metrics.PARQUET):
        raise FilesError(WITHOUT_PYARROW)
    if folder.exists() and not folder.is_dir():
        raise FilesError(f"{folder}: is not a directory")
    if folder.exists() and any(folder.iterdir()) and not (folder / DOCUMENT).is_file():
        raise FilesError(f"{folder}: holds something other than a sweep; name another directory")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        check_writable(folder)
    except OSError as error:
        raise FilesError(f"{folder}: cannot be written: {error.strerror}") from error
    try:
        yield
    finally:
        with suppress(OSError):
            # Only an empty one can be removed.
            folder.rmdir()


def write(folder: Path, sweep: Sweep, *, parquet: bool) -> None:
    """Write a sweep, in place of a former one; raises OSError."""
    replace_file(folder / ROWS, rows_csv(sweep))
    replace_file(folder / CELLS, cells_csv(sweep))
    (folder / ROWS_PARQUET).unlink(missing_ok=True)
    if parquet:
        replace_file(folder / ROWS_PARQUET, _parquet(*_table(sweep)))
    replace_file(folder / DOCUMENT, msgspec.json.format(msgspec.json.encode(sweep)) + b"\n")


def rows_csv(sweep: Sweep) -> bytes:
    """Return one line a run: what was set, how it ended, and the figures."""
    return _csv(*_table(sweep))


def cells_csv(sweep: Sweep) -> bytes:
    """Return one line for each figure of each cell: how many runs had it, its mean, and its 95 % interval."""
    paths = [axis.path for axis in sweep.axes]
    lines = [
        [*(shown(cell.settings[path]) for path in paths), name, each.count, each.mean, each.low, each.high]
        for cell in sweep.cells
        for name, each in cell.metrics.items()
    ]
    return _csv([*paths, "figure", "count", "mean", "low", "high"], lines)


def _table(sweep: Sweep) -> tuple[list[str], list[list[Any]]]:
    paths = [axis.path for axis in sweep.axes]
    names = list(dict.fromkeys(name for row in sweep.rows for name in row.metrics))
    headings = ["run", *paths, "seed", "passed", "digest", *names, "error"]
    lines = [
        [
            row.number,
            *(row.settings[path] for path in paths),
            row.seed,
            row.passed,
            row.digest,
            *(row.metrics.get(name) for name in names),
            row.error,
        ]
        for row in sweep.rows
    ]
    return headings, lines


def _csv(headings: Sequence[str], lines: Sequence[Sequence[Any]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(headings)
    # Floats are written so that reading gives the same float; what is missing is empty.
    writer.writerows(["" if each is None else shown(each) for each in line] for line in lines)
    return text.getvalue().encode()


def _parquet(headings: Sequence[str], lines: Sequence[Sequence[Any]]) -> bytes:
    import pyarrow
    from pyarrow import parquet

    columns = {heading: _column([line[place] for line in lines]) for place, heading in enumerate(headings)}
    sink = io.BytesIO()
    parquet.write_table(pyarrow.table(columns), sink)
    return sink.getvalue()


def _column(values: list[Any]) -> list[Any]:
    """Return values that one type holds: numbers, truth values or text; anything else becomes text."""
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float}:
        return [None if value is None else float(value) for value in values] if float in kinds else values
    return (
        values
        if len(kinds) <= 1 and kinds <= {bool, str}
        else [None if each is None else shown(each) for each in values]
    )
