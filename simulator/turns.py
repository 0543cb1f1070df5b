"""A host that takes its time: its inputs wait in line, each for as long as those before it keep the host busy.

A turn has two parts. What is spent before the core has the input (the program is woken, bytes are read, a handshake is
computed) delays what the core hears; what is spent afterwards (messages are encrypted, handed to the kernel) delays
what others hear of it. The trace has an input and its effects at the instant between the two, as the journal of a real
program has them.
"""

from collections import deque
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

from simulator.engine import Engine
from teale_proto.contract import Duration, Instant, Value


class Over(Enum):
    """What an input came over, as far as it matters for how long it takes."""

    TLS = "TLS"
    QUIC = "QUIC"
    OTHER = "other"


class Turn(NamedTuple):
    """An input that is about to be served, as far as it matters for how long that takes."""

    event: Value
    idle: Duration
    """How long the host has had nothing to do before; 0 where the input has waited in line."""
    over: Over = Over.OTHER


class Busy(NamedTuple):
    """How long one input keeps a host busy."""

    before: Duration
    """Until the core has it."""
    after: Duration = 0
    """From then on until what the core wants done has been done."""


Pace: TypeAlias = Callable[[Turn], Busy]
"""How long inputs keep a host busy; it is asked in their order."""

Waiting: TypeAlias = tuple[Any, Value]
"""What an input came by, which is the host's affair, and the input."""


class Driver(Protocol):
    """The host, as its line knows it."""

    def serve(self, by: Any, event: Value) -> None:
        """Give the core an input whose turn has come; what it answers goes to `Line.take`."""

    def perform(self, effects: Iterable[Value]) -> None:
        """Perform what the core answered."""


class Line:
    """What waits for one host, and what the host has not quite done."""

    __slots__ = ("_after", "_busy_until", "_done_at", "_driver", "_engine", "_held", "_life", "_waiting", "pace")

    def __init__(self, engine: Engine, driver: Driver) -> None:
        self._engine: Final = engine
        self._driver: Final = driver
        self._waiting: deque[Waiting] = deque()
        self._busy_until: Instant = 0
        self._after: Duration = 0
        self._held: Iterable[Value] = ()
        self._done_at: Instant = 0
        self._life = 0
        self.pace: Pace | None = None
        """None is no time at all, once what waits already has been served."""

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits and nothing is left to be done."""
        return not self._waiting and not self._held

    def wait(self, by: Any, event: Value, over: Over) -> None:
        """Have an input served when its turn has come."""
        now = self._engine.now
        busy = Busy(0)
        if self.pace is not None:
            busy = self.pace(Turn(event, max(0, now - self._busy_until), over))
        begins = max(self._busy_until, now) + busy.before
        self._busy_until = begins + busy.after
        self._waiting.append((by, event))
        self._engine.call_at(begins, self._next, self._life, busy.after)

    def take(self, effects: Iterable[Value]) -> None:
        """Have done what the core answered when the turn is over, which may be now."""
        self._finish()
        if not self._after:
            self._driver.perform(effects)
        elif effects:
            self._held = effects
            self._done_at = self._engine.now + self._after
            self._engine.call_at(self._done_at, self._over, self._life)

    def _finish(self) -> None:
        """Have done what is held: before anything else is begun."""
        held, self._held = self._held, ()
        self._driver.perform(held)

    def drop(self) -> None:
        """Forget everything, with the life of the host that it was for."""
        self._life += 1
        self._waiting.clear()
        self._held = ()
        self._busy_until = self._after = 0

    def _next(self, life: int, after: Duration) -> None:
        if life != self._life:
            return
        # A turn may begin at the instant at which the one before is over.
        self._finish()
        by, event = self._waiting.popleft()
        self._after = after
        self._driver.serve(by, event)
        self._after = 0

    def _over(self, life: int) -> None:
        if life == self._life and self._engine.now >= self._done_at:
            self._finish()
