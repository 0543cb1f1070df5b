"""What can be measured of a run, in either world, and what one run came to."""

from enum import Enum
from typing import Final, NamedTuple

from teale_proto.contract import Value


class Unit(Enum):
    """In what a measure is."""

    TIME = "time"
    """Microseconds."""
    COUNT = "count"
    PROCESSOR = "processor"
    """Nanoseconds of a processor."""


class Measure(Enum):
    """What is measured; the value is what people call it."""

    REGISTERED = "registered at the relay"
    MET = "conversation over the relay"
    DIRECT = "direct path, from the start"
    PUNCHED = "direct path, from the meeting"
    FIRST_TOKEN = "first token"  # noqa: S105 - of an answer
    WHOLE = "whole answer"
    INTERRUPTED = "end of an interrupted answer"
    SILENCE = "silence in an interrupted answer"
    ANSWERED = "next answer after a fault"
    PATH_BACK = "path back after a fault"
    RELAY_BACK = "relay back after a fault"
    MESSAGES_IN = "messages into the relay"
    MESSAGE_KINDS = "messages into the relay, by kind"
    MESSAGES_OUT = "messages out of the relay"
    BYTES_IN = "bytes into the relay"
    BYTES_OUT = "bytes out of the relay"
    RELAY_CPU = "processor time a message at the relay"
    OUTCOMES = "requests by their end"

    @property
    def slug(self) -> str:
        """What it is called where there are to be no spaces."""
        return self.name.lower().replace("_", "-")

    @property
    def unit(self) -> Unit:
        """In what it is."""
        if self is Measure.RELAY_CPU:
            return Unit.PROCESSOR
        return Unit.COUNT if self in _COUNTS else Unit.TIME

    @property
    def meaning(self) -> str:
        """What exactly it is, in a sentence."""
        return _MEANINGS[self]


_COUNTS: Final = frozenset(
    (
        Measure.MESSAGES_IN,
        Measure.MESSAGE_KINDS,
        Measure.MESSAGES_OUT,
        Measure.BYTES_IN,
        Measure.BYTES_OUT,
        Measure.OUTCOMES,
    )
)

_MEANINGS: Final = {
    Measure.REGISTERED: "From a node's start until its relay has taken it, for the nodes of each relay.",
    Measure.MET: "From the later start of two nodes until both say that they reach each other over the relay.",
    Measure.DIRECT: "From the later start of two nodes until both say that they reach each other directly.",
    Measure.PUNCHED: "From when two nodes reach each other over the relay until both have a direct path.",
    Measure.FIRST_TOKEN: "From asking to the first piece of an answer that has text in it, by path.",
    Measure.WHOLE: "From asking to the end of an answer, by path.",
    Measure.INTERRUPTED: "From a fault to the end of a request that was being answered over what broke, well or not.",
    Measure.SILENCE: "The longest pause between two pieces of an interrupted answer that came to its end.",
    Measure.ANSWERED: "From a fault until a request is answered that was asked after it, by those whom it disturbed.",
    Measure.PATH_BACK: "From a fault until a peer is reached again as it was before, by those who had noticed.",
    Measure.RELAY_BACK: "From a fault until a node that had lost its relay has it again.",
    Measure.MESSAGES_IN: "Messages that a relay took in.",
    Measure.MESSAGE_KINDS: "What they were; `binary` is what nodes say to each other through the relay.",
    Measure.MESSAGES_OUT: "Messages that a relay sent.",
    Measure.BYTES_IN: "Bytes of the messages that a relay took in.",
    Measure.BYTES_OUT: "Bytes of the messages that a relay sent.",
    Measure.RELAY_CPU: "What the profile of this machine says that a message costs, and what it did cost, start apart.",
    Measure.OUTCOMES: "How many requests ended how; what was answered twice, or told more after its end, is doubled.",
}


class Figure(NamedTuple):
    """One thing that is compared: a measure, of a cell, a relay, a fault or an outcome."""

    measure: Measure
    what: str


class Samples(Value):
    """The values of one figure in one run."""

    measure: Measure
    what: str
    values: tuple[int, ...]


class PathCount(Value):
    """How many pairs of nodes of a cell ended up talking over a path; `never` is that they did not meet."""

    cell: str
    path: str
    pairs: int


class Measured(Value):
    """What one run came to."""

    seed: int
    samples: tuple[Samples, ...]
    paths: tuple[PathCount, ...]
    broken: tuple[str, ...] = ()
    """The rules that a checker found broken."""

    def values(self, figure: Figure) -> tuple[int, ...]:
        """Return the values of one figure; none where it was not measured."""
        return next((each.values for each in self.samples if (each.measure, each.what) == tuple(figure)), ())
