"""Exponential backoff with jitter, as a value that the caller advances."""

from teale_proto.contract import SECOND, Duration
from teale_proto.rng import Rng


class Backoff:
    """Delays between `first` and `last`: each step is twice the one before, each delay from the upper half of its step.

    The jitter keeps a thousand nodes whose relay restarted from returning in the same instant, so the first
    delay has it too: it lies between `first` and twice that.
    """

    __slots__ = ("_failures", "_first", "_last", "_rng")

    def __init__(self, rng: Rng, *, first: Duration = SECOND, last: Duration = 60 * SECOND) -> None:
        self._rng = rng
        self._first = first
        self._last = last
        self._failures = 0

    def next_delay(self) -> Duration:
        """Return how long to wait before the next attempt, and count one failure."""
        self._failures += 1
        # The exponent is bounded so that a month of failures does not build a month of bits.
        upper = min(self._last, self._first << min(self._failures, 40))
        lower = max(self._first, upper // 2)
        return lower + int(self._rng.random() * (upper - lower))

    def reset(self) -> None:
        """Start again from `first`, after a success."""
        self._failures = 0
