"""Finding an unknown port by chance: the birthday attempt, its odds, and an order in which to guess.

The hard side opens many sockets, each of which its NAT gives a random outside port; the easy side tries random
ports until it hits one of them. Nobody guesses a port twice, so the odds are those of drawing without putting back.
"""

from math import ceil, exp, lgamma, log, sqrt
from typing import Final

from teale_proto.errors import LocalError
from teale_proto.rng import Rng

PORT_MIN: Final = 1024
PORT_MAX: Final = 65535
PORTS: Final = PORT_MAX - PORT_MIN + 1
"""The ports that most NATs draw from."""


def chance(*, sockets: int, probes: int, ports: int = PORTS) -> float:
    """Return the chance that one of `probes` distinct ports out of `ports` belongs to one of `sockets`.

    Raises LocalError where there are fewer ports than sockets or probes.
    """
    if not 0 <= sockets <= ports or not 0 <= probes <= ports:
        raise LocalError("nobody opens or guesses more ports than there are")
    if sockets + probes > ports:
        return 1.0
    # All guesses miss in C(ports - sockets, probes) of C(ports, probes) cases.
    return 1 - exp(_log_choose(ports - sockets, probes) - _log_choose(ports, probes))


def probes_for(wanted: float, *, sockets: int, ports: int = PORTS) -> int:
    """Return how many probes it takes to succeed with the chance `wanted`, which lies in [0, 1)."""
    low, high = 0, ports - sockets + 1
    while low < high:
        middle = (low + high) // 2
        if chance(sockets=sockets, probes=middle, ports=ports) < wanted:
            low = middle + 1
        else:
            high = middle
    return low


def probes_if_both_are_hard(wanted: float, *, ports: int = PORTS) -> int:
    """Return how many probes each of two hard sides needs: both ports of a pair have to be hit at once."""
    return ceil(ports * sqrt(-log(1 - wanted)))


class Guesses:
    """Every port of a range once, in random order; it remembers only what has been drawn (a sparse Fisher-Yates)."""

    __slots__ = ("_displaced", "_left", "_low", "_rng")

    def __init__(self, rng: Rng, *, low: int = PORT_MIN, high: int = PORT_MAX) -> None:
        self._rng = rng
        self._low = low
        self._left = high - low + 1
        self._displaced: dict[int, int] = {}

    def next(self) -> int | None:
        """Return the next port, or None when all have been drawn."""
        if not self._left:
            return None
        at = self._rng.randrange(self._left)
        self._left -= 1
        drawn = self._displaced.get(at, at)
        last = self._displaced.pop(self._left, self._left)
        if at != self._left:
            self._displaced[at] = last
        return self._low + drawn


def _log_choose(n: int, k: int) -> float:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)
