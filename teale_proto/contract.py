"""The contract that every core keeps: values in, values out, and the time comes from outside.

A core is driven by feeding it inputs with the current instant; it answers with effects, in the order in
which they must be carried out. The driver keeps one wake-up per core, at `deadline`.
"""

from collections.abc import Sequence
from typing import Final, Protocol, TypeAlias, TypeVar, dataclass_transform

import msgspec

Instant: TypeAlias = int
"""Microseconds on the driver's monotonic clock."""

Duration: TypeAlias = int
"""Microseconds."""

MICROSECOND: Final[Duration] = 1
MILLISECOND: Final[Duration] = 1_000
SECOND: Final[Duration] = 1_000_000
NEVER: Final[Instant] = 2**62

I_contra = TypeVar("I_contra", contravariant=True)
E_co = TypeVar("E_co", covariant=True)
E_contra = TypeVar("E_contra", contravariant=True)


# Says to type checkers what msgspec does: subclasses inherit `frozen` without repeating it.
@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class Value(msgspec.Struct, frozen=True, gc=False):
    """Base of every input, effect and message: an immutable, acyclic value."""


class Core(Protocol[I_contra, E_co]):
    """A deterministic state machine that performs no I/O and reads no clock.

    `handle` raises `LocalError`, before anything changed, for a command that is illegal now; nothing that
    a peer sends makes it raise.
    """

    @property
    def deadline(self) -> Instant:
        """When to feed WAKE, or NEVER. Waking early is harmless."""

    def handle(self, event: I_contra, now: Instant) -> Sequence[E_co]:
        """Take one input at `now`; return what must now be done, in order."""


class Sink(Protocol[E_contra]):
    """Where a child machine appends what must be done; a list of effects, or of more than effects, is one."""

    def append(self, effect: E_contra, /) -> None:
        """Add one effect after those before it."""
