"""The time that drivers feed to cores: trio's clock, in whole microseconds.

It is monotonic and its zero means nothing; `unix_time_at_zero` says what the calendar showed then. Reading
trio's clock rather than the system's lets trio's own virtual clock drive a whole program in a test.
"""

import math
import time
from typing import Final

import trio

from teale_proto.contract import NEVER, SECOND, Instant

CLOCK_TRIES: Final = 8


def now() -> Instant:
    """Return the present instant; to be called inside a trio run."""
    # Rounding, not truncation: `trio_time` and back must give the same instant, or a wake-up comes a microsecond early.
    return round(trio.current_time() * SECOND)


def trio_time(at: Instant) -> float:
    """Return an instant in the seconds of trio's clock, for deadlines of cancel scopes; NEVER is infinity."""
    return math.inf if at >= NEVER else at / SECOND


def unix_time_at_zero() -> Instant:
    """Return the Unix time, in microseconds, at instant zero; a calendar that is set later does not change it.

    It is right to a microsecond or two, so that instants of several programs of one machine can be compared.
    """
    tries = []
    for _ in range(CLOCK_TRIES):
        before, wall, after = trio.current_time(), time.time_ns(), trio.current_time()
        tries.append((after - before, round(wall / 1000 - (before + after) / 2 * SECOND)))
    # Two clocks cannot be read at once, and a process that is interrupted between them is wrong by milliseconds.
    _, zero = min(tries)
    return zero
