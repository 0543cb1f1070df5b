"""A journal as a file: opened once to see whose it is, and read again whenever its steps are wanted.

A journal can be a gigabyte, so only one record at a time is in memory.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from simulator.journals.replaying import Replayed, replayed
from simulator.trace import Entry
from teale_proto.journal import MAGIC, Ended, Fed, Header, JournalError, NodeMade, is_journal, read_header, records


class Journal(NamedTuple):
    """One life of one program."""

    path: Path
    header: Header

    @property
    def host(self) -> str:
        """What whoever recorded it calls the program."""
        return self.header.host

    @property
    def kind(self) -> str:
        """Whether it is a "node" or a "relay"."""
        return "node" if isinstance(self.header.made, NodeMade) else "relay"

    def steps(self) -> Iterator[Fed | Ended]:
        """Yield everything after the header; raises JournalError where that is damaged, and OSError."""
        with self.path.open("rb") as file:
            for record in records(file.read):
                if not isinstance(record, Header):
                    yield record

    def replayed(self, tell: Callable[[Entry], object] | None = None) -> Replayed:
        """Return what comes of feeding it to a new core; entries go to `tell`, or are kept where there is none.

        Raises JournalError for what is damaged or cannot be replayed at all, and OSError.
        """
        try:
            return replayed(self.header, self.steps(), tell)
        except JournalError as error:
            raise JournalError(f"{self.path}: {error}") from error


def read(path: Path) -> Journal:
    """Return the journal in a file; raises JournalError for a file that is none, and OSError."""
    with path.open("rb") as file:
        try:
            return Journal(path, read_header(file.read))
        except JournalError as error:
            raise JournalError(f"{path}: {error}") from error


def holds_journal(path: Path) -> bool:
    """Return whether a file begins as a journal does; raises OSError."""
    with path.open("rb") as file:
        return is_journal(file.read(len(MAGIC)))
