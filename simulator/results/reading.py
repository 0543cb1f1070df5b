"""Loads a directory of results back."""

from pathlib import Path
from typing import TypeVar

import msgspec

from simulator.results import folder as folders
from simulator.results import tables
from simulator.results.model import DamagedResults, PathRow, RequestRow, Results, SeriesRow, Summary, WorldInfo
from simulator.results.tables import Metrics

V = TypeVar("V")


def read(folder: Path) -> Results:
    """Return what a directory holds.

    Raises MissingResults for one that is not there or holds something else, DamagedResults for one with a file that is
    missing or broken, and NewerResults for one that a later version wrote.
    """
    folders.check_format(folder)
    summary = _decoded(folder / folders.SUMMARY, Summary)
    world = _decoded(folder / folders.WORLD, WorldInfo)
    try:
        metrics = Metrics(summary.metrics)
    except ValueError as error:
        raise DamagedResults(f"{folder / folders.SUMMARY}: `metrics` is {summary.metrics!r}") from error

    def path(table: str) -> Path:
        return folders.table_path(folder, table, metrics.value)

    return Results(
        summary,
        world,
        tables.read(path("series"), SeriesRow, metrics),
        tables.read(path("requests"), RequestRow, metrics),
        tables.read(path("paths"), PathRow, metrics),
    )


def _decoded(path: Path, kind: type[V]) -> V:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError as error:
        raise DamagedResults(f"{path}: the file is missing") from error
    except (OSError, msgspec.DecodeError, RecursionError) as error:
        raise DamagedResults(f"{path}: cannot be read: {error}") from error
