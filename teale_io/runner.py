"""Drives one core: feeds it inputs with the time, performs its effects in order, wakes it at its deadline.

Everything is synchronous but the sleep. A performer queues bytes or starts a task and returns, so an input is
fully handled, with all that follows from it, before `feed` returns. An input that arises while effects are
being performed waits for its turn: a core never sees half of its own reaction.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Generic, TypeAlias, TypeVar

import trio

from teale_io.clock import now, trio_time
from teale_proto.contract import NEVER, Core, Instant
from teale_proto.errors import LocalError
from teale_proto.inputs import WAKE, Woken

I = TypeVar("I")  # noqa: E741  (the letter that `Core` uses)
E = TypeVar("E")

Performers: TypeAlias = Mapping[type[Any], Callable[[Any], object]]
"""What carries out each type of effect: a function that never blocks."""


class Runner(Generic[I, E]):
    """Owns one core.

    Use: make it, make the drivers with `feed`, hand their performers to `perform_with`, start `run` as a task.
    `effects` are all the types that the core can return (`get_args` of its union).
    """

    __slots__ = (
        "_armed",
        "_broken",
        "_core",
        "_effects",
        "_failure",
        "_fed_at",
        "_feeding",
        "_last",
        "_pending",
        "_performers",
        "_sleep",
    )

    def __init__(self, core: Core[I | Woken, E], effects: Iterable[type[E]]) -> None:
        self._core: Final = core
        self._effects: Final = frozenset(effects)
        self._performers: dict[type[Any], Callable[[Any], object]] = {}
        self._pending: deque[I | Woken] = deque()
        self._feeding = False
        self._last: Instant = 0
        self._fed_at: Instant = 0
        """When the core was last fed from outside, rather than with what came of its own effects."""
        self._armed: Instant = NEVER
        self._sleep: trio.CancelScope | None = None
        self._failure: Exception | None = None
        self._broken = trio.Event()

    def perform_with(self, performers: Performers) -> None:
        """Say how effects are carried out; raises LocalError unless every type of effect has its performer."""
        missing = sorted(effect.__name__ for effect in self._effects - performers.keys())
        if missing:
            raise LocalError(f"nothing performs {', '.join(missing)}")
        self._performers = dict(performers)

    def feed(self, event: I | Woken) -> None:
        """Have the core take one input now, and perform what follows; callable from any task of the trio run.

        Raises LocalError when the core refuses the input. Any other error is a bug: `run` raises it, and the
        core, whose state nobody knows any more, gets no further input.
        """
        if self._failure is not None:
            return
        if self._feeding:
            self._pending.append(event)
            return
        try:
            self._fed_at = self._advance()
            effects = self._core.handle(event, self._fed_at)
        except LocalError:
            raise
        except Exception as error:
            self._break(error)
        else:
            self._perform(effects)

    async def run(self) -> None:
        """Wake the core whenever it asks for it, until cancelled; raises the error that broke it."""
        while True:
            with trio.CancelScope() as self._sleep:
                self._armed = NEVER
                self._arm()
                await self._broken.wait()
            self._sleep = None
            if self._failure is not None:
                raise self._failure
            if self._core.deadline <= now():
                self.feed(WAKE)
                # Held against when it was woken: doing what it asked for may have taken until after the next deadline.
                if self._core.deadline <= self._fed_at and not self._broken.is_set():
                    self._break(RuntimeError(f"{type(self._core).__name__} asks to be woken again at the same instant"))

    def _advance(self) -> Instant:
        # A clock that steps back must not break the core's first law.
        self._last = max(self._last, now())
        return self._last

    def _perform(self, effects: Iterable[E]) -> None:
        """Perform effects, and all that follows from what they feed back."""
        self._feeding = True
        try:
            while True:
                for effect in effects:
                    self._performers[type(effect)](effect)
                if not self._pending:
                    break
                effects = self._core.handle(self._pending.popleft(), self._advance())
        except Exception as error:  # even a LocalError: whoever fed that input has long returned
            self._break(error)
        finally:
            self._feeding = False
        self._arm()

    def _break(self, error: Exception) -> None:
        self._failure = error
        self._pending.clear()
        self._broken.set()

    def _arm(self) -> None:
        # A wake-up that has become too early is left alone: it comes, finds nothing due, and is armed anew.
        if self._sleep is not None and self._core.deadline < self._armed:
            self._armed = self._core.deadline
            self._sleep.deadline = trio_time(self._armed)
