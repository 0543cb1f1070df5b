"""Reads entries back from the trace that a directory of results keeps.

Only the kinds that are asked for are decoded; a trace is long, and most of it is of no interest here.
"""

import gzip
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

import msgspec

from simulator.results import folder as folders
from simulator.results.model import DamagedResults, MissingResults
from simulator.trace import Entry
from teale_proto.contract import Instant, Value


class _Line(Value):
    at: Instant
    host: str
    kind: str
    value: msgspec.Raw


_LINES: Final = msgspec.json.Decoder(_Line)


def entries(folder: Path, kinds: Collection[type[Value]]) -> Iterator[Entry]:
    """Yield the entries of these kinds, in their order.

    Raises MissingResults where the directory keeps no trace, and DamagedResults for one that cannot be read.
    """
    path = folder / folders.TRACE
    decoders = {kind.__name__: msgspec.json.Decoder(kind) for kind in kinds}
    number = 0
    try:
        with gzip.open(path) as file:
            for text in file:
                number += 1
                line = _LINES.decode(text)
                decoder = decoders.get(line.kind)
                if decoder is not None:
                    yield Entry(line.at, line.host, decoder.decode(line.value))
    except FileNotFoundError as error:
        raise MissingResults(f"{folder}: keeps no trace; make it anew with --trace") from error
    except (OSError, EOFError, zlib.error, msgspec.DecodeError) as error:
        raise DamagedResults(f"{path}: cannot be read behind line {number}: {error}") from error
