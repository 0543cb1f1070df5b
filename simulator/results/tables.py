"""Tables of rows as files, CSV or Parquet; the columns follow from the fields of the row's type.

Integers stay integers and what is missing stays missing, so that reading gives back what was written.
"""

import csv
import importlib
import importlib.util
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from pathlib import Path
from types import NoneType
from typing import Any, Final, TypeVar, get_args, get_type_hints

import msgspec

from simulator.results.model import DamagedResults
from teale_proto.contract import Value

Row = TypeVar("Row", bound=Value)


WITHOUT_PYARROW: Final = "Parquet needs pyarrow, which comes with the extra `parquet`: pip install 'teale[parquet]'"


class Metrics(Enum):
    """How tables are stored."""

    CSV = "csv"
    PARQUET = "parquet"


def can_write(metrics: Metrics) -> bool:
    """Return whether what a form needs is installed."""
    return metrics is Metrics.CSV or importlib.util.find_spec("pyarrow") is not None


def write(path: Path, kind: type[Row], rows: Sequence[Row], metrics: Metrics) -> None:
    """Write a table to `path`; raises OSError where that cannot be done."""
    _WRITERS[metrics](path, kind, rows)


def read(path: Path, kind: type[Row], metrics: Metrics) -> tuple[Row, ...]:
    """Return the rows of a table; raises DamagedResults for one that is missing or not of this kind."""
    try:
        return tuple(_READERS[metrics](path, kind))
    except DamagedResults:
        raise
    except FileNotFoundError as error:
        raise DamagedResults(f"{path}: the file is missing") from error
    except (OSError, ValueError, csv.Error) as error:
        # What pyarrow and msgspec raise are ValueErrors too.
        raise DamagedResults(f"{path}: not a table of {metrics.value}: {error}") from error


def _write_csv(path: Path, kind: type[Value], rows: Iterable[Value]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(kind.__struct_fields__)
        # None becomes an empty field; the only column types besides numbers and texts are truth values.
        writer.writerows([_plain(value) for value in msgspec.structs.astuple(row)] for row in rows)


def _plain(value: object) -> object:
    return str(value).lower() if isinstance(value, bool) else value


def _read_csv(path: Path, kind: type[Row]) -> Iterable[Row]:
    if not path.read_bytes().endswith(b"\n"):
        raise DamagedResults(f"{path}: is cut off: its last line has no end")
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.reader(file, strict=True)
        _check_columns(path, kind, next(reader, []))
        readers = [_from_text(hint) for hint in get_type_hints(kind).values()]
        for fields in reader:
            try:
                yield kind(*(read(text) for read, text in zip(readers, fields, strict=True)))
            except ValueError as error:
                raise DamagedResults(f"{path}:{reader.line_num}: not a row of this table: {error}") from error


def _from_text(hint: Any) -> Callable[[str], Any]:
    if NoneType in get_args(hint):
        return lambda text: int(text) if text else None
    readers: dict[Any, Callable[[str], Any]] = {int: int, str: str, bool: _truth}
    return readers[hint]


def _truth(text: str) -> bool:
    if text not in {"true", "false"}:
        raise ValueError(f"{text!r} is neither true nor false")
    return text == "true"


def _write_parquet(path: Path, kind: type[Value], rows: Sequence[Value]) -> None:
    arrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    hints = get_type_hints(kind)
    types = {int: arrow.int64(), str: arrow.string(), bool: arrow.bool_()}
    fields = [
        arrow.field(name, types.get(hint, arrow.int64()), nullable=NoneType in get_args(hint))
        for name, hint in hints.items()
    ]
    columns = [[getattr(row, name) for row in rows] for name in hints]
    schema = arrow.schema(fields)
    arrays = [arrow.array(column, field.type) for column, field in zip(columns, fields, strict=True)]
    parquet.write_table(arrow.Table.from_arrays(arrays, schema=schema), path, compression="zstd")


def _read_parquet(path: Path, kind: type[Row]) -> Iterable[Row]:
    if not can_write(Metrics.PARQUET):
        raise DamagedResults(f"{path}: {WITHOUT_PYARROW}")
    parquet = importlib.import_module("pyarrow.parquet")
    # A file that is opened first: pyarrow keeps its own open when it cannot read it.
    with path.open("rb") as file:
        table = parquet.read_table(file)
        _check_columns(path, kind, table.column_names)
        return [msgspec.convert(row, kind) for row in table.to_pylist()]


def _check_columns(path: Path, kind: type[Value], found: Sequence[str]) -> None:
    expected = kind.__struct_fields__
    if tuple(found) != expected:
        raise DamagedResults(f"{path}: expected the columns {', '.join(expected)}; found {', '.join(found) or 'none'}")


_WRITERS: Final[dict[Metrics, Callable[[Path, type[Any], Sequence[Any]], None]]] = {
    Metrics.CSV: _write_csv,
    Metrics.PARQUET: _write_parquet,
}
_READERS: Final[dict[Metrics, Callable[[Path, type[Any]], Iterable[Any]]]] = {
    Metrics.CSV: _read_csv,
    Metrics.PARQUET: _read_parquet,
}
