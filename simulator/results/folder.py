"""A directory of results on the disk: where each file is, and that it is there whole or not at all.

Everything is written into a hidden directory beside the one that was asked for, and that is renamed at the end. Only
results are ever replaced; a directory with anything else in it is left alone.
"""

import shutil
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile, mkdtemp
from typing import Final

import msgspec

from simulator.results.model import (
    FORMAT,
    FORMAT_VERSION,
    DamagedResults,
    MissingResults,
    NewerResults,
    PathRow,
    RequestRow,
    ResultsError,
    SeriesRow,
)
from teale_proto.contract import Value

SUMMARY: Final = "summary.json"
WORLD: Final = "world.json"
TRACE: Final = "trace.jsonl.gz"
CAPTURE: Final = "capture.pcapng"
REPORT: Final = "report.html"
PLOTS: Final = "plots"
TABLES: Final[dict[str, type[Value]]] = {"series": SeriesRow, "requests": RequestRow, "paths": PathRow}
"""The row type of each table, by the beginning of its file's name: `metrics-series.csv` and so on."""


class _Header(Value):
    """What every version of `summary.json` begins with."""

    format: str
    format_version: int


def table_path(folder: Path, table: str, suffix: str) -> Path:
    """Return where a table is."""
    return folder / f"metrics-{table}.{suffix}"


def check_format(folder: Path) -> None:
    """Raise MissingResults, DamagedResults or NewerResults unless this program can read a directory."""
    path = folder / SUMMARY
    if not folder.is_dir():
        raise MissingResults(f"{folder}: there is no such directory")
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise MissingResults(f"{folder}: not a directory of results: it has no {SUMMARY}") from error
    except OSError as error:
        raise DamagedResults(f"{path}: cannot be read: {error}") from error
    try:
        header = msgspec.json.decode(data, type=_Header)
    except (msgspec.DecodeError, RecursionError) as error:
        raise DamagedResults(f"{path}: not a summary of a run: {error}") from error
    if header.format != FORMAT:
        raise MissingResults(f"{folder}: not a directory of results: its {SUMMARY} is of something else")
    if header.format_version > FORMAT_VERSION:
        raise NewerResults(
            f"{folder}: written by a newer teale-sim (format {header.format_version}; this one reads up to "
            f"{FORMAT_VERSION})"
        )


class Draft:
    """A directory that is being written; `publish` puts it where it belongs, `discard` removes it."""

    def __init__(self, target: Path) -> None:
        self.target: Final = target
        _check_replaceable(target)
        try:
            if target.parent.exists() and not target.parent.is_dir():
                raise ResultsError(f"{target.parent}: is not a directory")
            target.parent.mkdir(parents=True, exist_ok=True)
            self.path: Final = Path(mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
            # mkdtemp makes it for one user alone; results are as public as any other file of his.
            self.path.chmod(0o755)
        except OSError as error:
            raise ResultsError(f"{target}: cannot be written: {error.strerror or error}") from error

    def publish(self) -> None:
        """Put the directory in place of former results; raises ResultsError where that cannot be done."""
        _check_replaceable(self.target)
        former = self.path.with_suffix(".former")
        try:
            if self.target.exists():
                self.target.rename(former)
            try:
                self.path.rename(self.target)
            except OSError:
                if former.exists():
                    former.rename(self.target)
                raise
        except OSError as error:
            raise ResultsError(f"{self.target}: cannot be written: {error.strerror or error}") from error
        shutil.rmtree(former, ignore_errors=True)

    def discard(self) -> None:
        """Remove what was written so far."""
        shutil.rmtree(self.path, ignore_errors=True)


def check_writable(folder: Path) -> None:
    """Raise OSError unless files can be made in a directory."""
    with NamedTemporaryFile(prefix=".", suffix=".partial", dir=folder):
        pass


def replace_file(path: Path, data: bytes) -> None:
    """Write a file whole or not at all; raises OSError."""
    draft = path.with_name(f".{path.name}.partial")
    try:
        draft.write_bytes(data)
        draft.replace(path)
    except BaseException:  # Ctrl-C too
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise


def _check_replaceable(target: Path) -> None:
    if not target.exists() and not target.is_symlink():
        return
    if target.is_symlink() or not target.is_dir():
        raise ResultsError(f"{target}: will not be replaced: it is not a directory")
    if not any(target.iterdir()):
        return
    try:
        check_format(target)
    except NewerResults:
        raise
    except ResultsError as error:
        raise ResultsError(f"{target}: will not be replaced: it holds something other than results") from error
