"""What a replayed journal came to, for people and programs."""

from collections import deque
from collections.abc import Mapping
from typing import Final

import msgspec

from simulator.journals.reading import Journal
from simulator.trace import Entry, lines
from teale_proto.contract import SECOND, Value

TAIL: Final = 60
"""Entries that are kept for people to read."""

_ENDINGS: Final = {
    "stopped": "until it ended properly",
    "full": "until the journal was as large as it may get",
    "cut off": "until it was killed, or could write no more",
}


class JournalReport(Value):
    """Whether a core that was taken through its journal again did the same."""

    path: str
    host: str
    kind: str
    """Whether it is of a "node" or a "relay"."""
    version: str
    """Of the program that wrote it."""
    steps: int
    refused: int
    """Inputs that the core refused, then as now."""
    seconds: float
    """From the first input to the last."""
    first_at: int | None
    """Unix time of the first input in microseconds."""
    ending: str
    """How the journal ends: "stopped", "full" or "cut off"."""
    inputs: Mapping[str, int]
    """How many of each kind there are."""
    effects: Mapping[str, int]
    equal: bool
    """The verdict: every step had the effects that were recorded."""
    differences: tuple[str, ...]
    """The first of them."""
    differing: int
    """How many there are."""
    tail: tuple[str, ...] = ()
    """The last entries of the trace, as text."""

    @property
    def explanation(self) -> str:
        """The verdict in words."""
        if self.equal:
            return "the core did again all that it did"
        why = "the code has changed since, or a core depends on something besides its journal"
        return f"{self.differing} differences: {why}"

    @property
    def course(self) -> str:
        """Whose journal it is, and how long it goes on."""
        return (
            f"{self.kind} {self.host}, version {self.version}: {self.steps} inputs in {self.seconds:.1f} s, "
            f"{_ENDINGS[self.ending]}"
        )

    def json(self) -> bytes:
        """Return the report as JSON."""
        return msgspec.json.format(msgspec.json.encode(self))


def report(journal: Journal) -> JournalReport:
    """Replay a journal; raises JournalError for one that is damaged or cannot be replayed at all, and OSError."""
    tail: deque[Entry] = deque(maxlen=TAIL)
    result = journal.replayed(tail.append)
    first, last = result.first_at, result.last_at
    return JournalReport(
        path=str(journal.path),
        host=journal.host,
        kind=journal.kind,
        version=journal.header.version,
        steps=result.steps,
        refused=result.refused,
        seconds=0.0 if first is None or last is None else (last - first) / SECOND,
        first_at=first,
        ending="cut off" if result.ending is None else result.ending.value,
        inputs=dict(sorted(result.inputs.items())),
        effects=dict(sorted(result.effects.items())),
        equal=result.is_equal,
        differences=tuple(result.differences),
        differing=result.differing,
        tail=tuple(lines([entry]) for entry in tail),
    )
