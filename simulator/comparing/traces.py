"""Reads entries back from the trace that a directory of results keeps: those of the kinds that are asked for."""

from collections.abc import Collection, Iterator
from pathlib import Path

from simulator.results.traces import lines_of
from simulator.trace import Entry
from teale_proto.contract import Value


def entries(folder: Path, kinds: Collection[type[Value]]) -> Iterator[Entry]:
    """Yield the entries of these kinds, in their order.

    Raises MissingResults where the directory keeps no trace, and DamagedResults for one that cannot be read.
    """
    for line in lines_of(folder, {kind.__name__: kind for kind in kinds}):
        if line.value is not None:
            yield Entry(line.at, line.host, line.value)
