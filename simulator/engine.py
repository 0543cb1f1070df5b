"""Virtual time: callbacks at integer microseconds, in one reproducible order.

The queue is a calendar: events wait unsorted in the day they belong to, which is sorted as a whole when it comes.
What is still put into the current day waits in a heap beside it, and of the two the earlier is next. So an event
costs the same whether ten thousand wait or a million, and less than to go through one heap of all.

Nodes and packets are callbacks, because a process per node costs two to nine times as much; SimPy processes
are for the scripts of scenarios, where reading from top to bottom is worth more than speed. They run on the
same queue.
"""

from collections.abc import Callable, Generator
from heapq import heappop, heappush
from typing import Any, Final, TypeAlias, TypeVarTuple

import simpy
from simpy.events import URGENT

from teale_proto.contract import Duration, Instant

Ts = TypeVarTuple("Ts")

_DAY_BITS: Final = 14
"""A day of the calendar is 2**14 microseconds: shorter than most of what is waited for."""

_URGENT: Final = -(2**62)
"""Added to the sequence number of what SimPy calls urgent: it runs before all else of its instant."""

Entry: TypeAlias = tuple[Instant, int, Callable[..., object], tuple[Any, ...]]


class Engine:
    """A queue of callbacks; those of one instant run in the order in which they were asked for."""

    __slots__ = ("_days", "_due", "_late", "_scripts", "_sequence", "_today", "_upcoming", "events", "now")

    def __init__(self) -> None:
        self.now: Instant = 0
        """The current instant; to be read."""
        self.events = 0
        """How many events have been processed."""
        self._sequence = 0
        self._today = 0
        self._due: list[Entry] = []
        """What was planned for today, the next at the end."""
        self._late: list[Entry] = []
        """What was put into today when it had begun already, as a heap."""
        self._days: dict[int, list[Entry]] = {}
        self._upcoming: list[int] = []
        self._scripts = _Scripts(self)

    def call_at(self, at: Instant, call: Callable[[*Ts], object], *args: *Ts) -> None:
        """Call `call` at `at`, after everything that is already due then.

        Raises ValueError for an instant in the past and TypeError for one that is no integer.
        """
        if type(at) is not int:
            raise TypeError(f"an instant is an int, not {at!r}")
        self._sequence += 1
        self._put((at, self._sequence, call, args))

    def run_until(self, at: Instant) -> None:
        """Process everything that is due up to and including `at`; afterwards it is `at`.

        Raises ValueError for an instant in the past, and whatever a callback raises.
        """
        if at < self.now:
            raise ValueError(f"it is {self.now} already, and was to become {at}")
        late = self._late
        while True:
            due = self._due
            while True:
                # Two entries differ in their order at the latest, so that calls are never compared.
                if late and (not due or late[0] < due[-1]):
                    if late[0][0] > at:
                        break
                    self.now, _, call, args = heappop(late)
                elif due and due[-1][0] <= at:
                    self.now, _, call, args = due.pop()
                else:
                    break
                self.events += 1
                call(*args)
            if due or late or not self._upcoming or self._upcoming[0] > at >> _DAY_BITS:
                break
            self._today = heappop(self._upcoming)
            self._due = self._days.pop(self._today)
            self._due.sort(reverse=True)
        self.now = at

    def process(self, generator: Generator[simpy.Event, Any, Any]) -> simpy.Process:
        """Run a script: a generator that yields what it waits for, most often `timeout(…)`."""
        return self._scripts.process(generator)

    def timeout(self, delay: Duration) -> simpy.Event:
        """Return an event for a script to wait for, `delay` microseconds from now."""
        if type(delay) is not int:
            raise TypeError(f"a duration is an int, not {delay!r}")
        return self._scripts.timeout(delay)

    def schedule(self, event: simpy.Event, delay: Duration, *, urgent: bool) -> None:
        """Let a SimPy event happen `delay` microseconds from now."""
        self._sequence += 1
        order = self._sequence + _URGENT if urgent else self._sequence
        self._put((self.now + delay, order, _happen, (event,)))

    def _put(self, entry: Entry) -> None:
        at = entry[0]
        if at < self.now:
            raise ValueError(f"it is {self.now} already, and something was to happen at {at}")
        day = at >> _DAY_BITS
        if day <= self._today:
            heappush(self._late, entry)
            return
        events = self._days.get(day)
        if events is None:
            self._days[day] = [entry]
            heappush(self._upcoming, day)
        else:
            events.append(entry)


class _Scripts(simpy.Environment):
    """SimPy's processes and events on the engine's queue and clock."""

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self._engine = engine

    @property
    def now(self) -> Instant:
        return self._engine.now

    def schedule(self, event: simpy.Event, priority: int = 1, delay: float = 0) -> None:
        self._engine.schedule(event, int(delay), urgent=priority == URGENT)


def _happen(event: simpy.Event) -> None:
    """Process one SimPy event, as `simpy.Environment.step` does."""
    callbacks, event.callbacks = event.callbacks, None  # type: ignore[assignment]  # SimPy marks it so
    for callback in callbacks:
        callback(event)
    if not event._ok and not event.defused:  # noqa: SLF001 - SimPy offers no other way to ask
        assert isinstance(event.value, BaseException), "what failed holds its error"
        raise event.value
