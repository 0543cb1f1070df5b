"""Reads the trace that a directory of results keeps, line by line: a trace is long, and nobody wants all of it.

Only values of the kinds that are asked for are decoded, into whatever type the reader knows them by.
"""

import gzip
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from simulator.results import folder as folders
from simulator.results.model import DamagedResults, MissingResults
from teale_proto.contract import Instant, Value


class Line(NamedTuple):
    """One line: when, where, and what; `value` is None for a kind that was not asked for."""

    at: Instant
    host: str
    kind: str
    value: Any


class _Entry(Value):
    at: Instant
    host: str
    kind: str
    value: msgspec.Raw


_ENTRIES: Final = msgspec.json.Decoder(_Entry)


def lines_of(folder: Path, kinds: Mapping[str, type[Value]]) -> Iterator[Line]:
    """Yield all lines of a directory's trace in their order, with the values of `kinds`, by their names, decoded.

    Raises MissingResults where the run was not made with a trace, and DamagedResults where it cannot be read.
    """
    path = folder / folders.TRACE
    decoders = {name: msgspec.json.Decoder(kind) for name, kind in kinds.items()}
    read = 0
    try:
        with gzip.open(path) as file:
            for text in file:
                entry = _ENTRIES.decode(text)
                decoder = decoders.get(entry.kind)
                yield Line(entry.at, entry.host, entry.kind, decoder and decoder.decode(entry.value))
                read += 1
    except FileNotFoundError as error:
        raise MissingResults(f"{folder}: has no {folders.TRACE}; make the run again with --trace") from error
    except (OSError, EOFError, zlib.error, msgspec.DecodeError, RecursionError) as error:
        raise DamagedResults(f"{path}: cannot be read, after {read} lines: {error}") from error
