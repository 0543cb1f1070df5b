"""The time that drivers feed to cores: trio's clock, in whole microseconds.

It is monotonic and its zero means nothing; `unix_time_at_zero` says what the calendar showed then. Reading
trio's clock rather than the system's lets trio's own virtual clock drive a whole program in a test.
"""

import math
import time

import trio

from teale_proto.contract import NEVER, SECOND, Instant


def now() -> Instant:
    """Return the present instant; to be called inside a trio run."""
    # Rounding, not truncation: `trio_time` and back must give the same instant, or a wake-up comes a microsecond early.
    return round(trio.current_time() * SECOND)


def trio_time(at: Instant) -> float:
    """Return an instant in the seconds of trio's clock, for deadlines of cancel scopes; NEVER is infinity."""
    return math.inf if at >= NEVER else at / SECOND


def unix_time_at_zero() -> Instant:
    """Return the Unix time, in microseconds, at instant zero; a calendar that is set later does not change it."""
    return round(time.time() * SECOND) - now()
