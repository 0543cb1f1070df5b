"""Virtual time: callbacks at integer microseconds, in one reproducible order.

Nodes and packets are callbacks, because a process per node costs two to nine times as much; SimPy processes
are for the scripts of scenarios, where reading from top to bottom is worth more than speed. Everything else
knows only `now`, `call_at` and `run_until`, so that the queue below can be replaced.
"""

from collections.abc import Callable, Generator
from functools import partial
from typing import Any, ParamSpec

import simpy

from teale_proto.contract import Duration, Instant

P = ParamSpec("P")


class Engine:
    """A queue of callbacks; those of one instant run in the order in which they were asked for."""

    __slots__ = ("_env", "events")

    def __init__(self) -> None:
        self._env = simpy.Environment(initial_time=0)
        self.events = 0
        """How many events have been processed."""

    @property
    def now(self) -> Instant:
        """The current instant, starting from 0."""
        return int(self._env.now)

    def call_at(self, at: Instant, call: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Call `call` at `at`, after everything that is already due then.

        Raises ValueError for an instant in the past and TypeError for one that is no integer.
        """
        if type(at) is not int:
            raise TypeError(f"an instant is an int, not {at!r}")
        event = self._env.timeout(at - self.now, partial(call, *args, **kwargs))
        assert event.callbacks is not None, "an event that has not happened has its callbacks"
        event.callbacks.append(_fire)

    def run_until(self, at: Instant) -> None:
        """Process everything that is due up to and including `at`; afterwards it is `at`.

        Raises ValueError for an instant in the past, and whatever a callback raises.
        """
        env = self._env
        if at < env.now:
            raise ValueError(f"it is {env.now} already, and was to become {at}")
        while env.peek() <= at:
            self.events += 1
            env.step()
        if env.now < at:
            # SimPy's clock moves only by events, and this one does nothing.
            env.timeout(at - env.now)
            env.step()

    def process(self, generator: Generator[simpy.Event, Any, Any]) -> simpy.Process:
        """Run a script: a generator that yields what it waits for, most often `timeout(…)`."""
        return self._env.process(generator)

    def timeout(self, delay: Duration) -> simpy.Event:
        """Return an event for a script to wait for, `delay` microseconds from now."""
        if type(delay) is not int:
            raise TypeError(f"a duration is an int, not {delay!r}")
        return self._env.timeout(delay)


def _fire(event: simpy.Event) -> None:
    call: Callable[[], object] = event.value  # type: ignore[assignment]  # SimPy types values as optional
    call()
