"""A host's own clocks, which run too fast or too slow and show the wrong time.

A clock is a line: at the true instant `since` it read `reads`, and from there it gains or loses `rate_ppm` microseconds
a second. What a core sees is rounded down to a microsecond, so its time never runs backwards; a deadline of its own is
the first true instant at which it sees that time or a later one, exactly.
"""

from typing import Final

from teale_proto.contract import NEVER, Duration, Instant, Value

_MILLION: Final = 1_000_000


class Clock(Value):
    """How a host's clocks differ from the true time."""

    rate_ppm: int = 0
    """How much too fast it runs, in parts per million: a quartz is right within 100, a bad one within 500."""
    reads: Instant = 0
    """What the monotonic clock shows at `since`; it has nothing to do with the time of day."""
    since: Instant = 0
    unix_offset: Duration = 0
    """How far ahead the clock on the wall is at the beginning of time."""

    def __post_init__(self) -> None:
        if self.rate_ppm <= -_MILLION:
            raise ValueError("a clock runs forwards")
        if self.reads < 0:
            raise ValueError("a clock does not start before nothing")

    def local(self, at: Instant) -> Instant:
        """Return what the host's monotonic clock shows at a true instant."""
        return self.reads + (at - self.since) * (_MILLION + self.rate_ppm) // _MILLION

    def true(self, deadline: Instant) -> Instant:
        """Return the first true instant at which the monotonic clock shows `deadline` or more."""
        if deadline >= NEVER:
            return NEVER
        return self.since + -((self.reads - deadline) * _MILLION // (_MILLION + self.rate_ppm))

    def drifting(self, rate_ppm: int, at: Instant) -> "Clock":
        """Return a clock that shows the same now, at the true instant `at`, and goes on at another rate."""
        return Clock(rate_ppm, self.local(at), at, self.unix_offset)

    def unix_time_at_zero(self, epoch: Instant) -> Instant:
        """Return the Unix time that the host believes in when its monotonic clock shows nothing.

        The true time is `epoch` at the true instant 0.
        """
        return epoch + self.unix_offset - self.local(0)


TRUE_CLOCK: Final = Clock()
