"""Randomness as a parameter: the four methods the cores use.

`random.SystemRandom` serves a real node, a seeded generator serves the simulator and the tests. Ephemeral
keys are drawn from it, so a real node must be given the operating system's entropy.
"""

from collections.abc import Sequence
from typing import Protocol, TypeVar

T = TypeVar("T")


class Rng(Protocol):
    """The part of `random.Random` that the cores rely on."""

    def random(self) -> float:
        """Return a float in [0, 1)."""

    def randrange(self, stop: int, /) -> int:
        """Return an integer in [0, stop)."""

    def randbytes(self, n: int, /) -> bytes:
        """Return `n` random bytes."""

    def sample(self, population: Sequence[T], k: int) -> list[T]:
        """Return `k` distinct elements of `population`, in random order."""
