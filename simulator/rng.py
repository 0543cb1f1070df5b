"""Random streams that do not disturb each other.

Each stream derives from (seed, name, purpose) alone, so that one more node, or one more use of chance in one
node, leaves every other stream as it was. The generator is splitmix64 (Steele, Lea and Flood, "Fast splittable
pseudorandom number generators", OOPSLA 2014): one integer of state, where `random.Random` keeps 2.5 kB.
"""

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from math import exp, log1p
from statistics import NormalDist
from typing import Final, TypeVar

T = TypeVar("T")

_MASK: Final = 2**64 - 1
_GOLDEN_GAMMA: Final = 0x9E3779B97F4A7C15
_STANDARD: Final = NormalDist()


class SplitMix64:
    """One stream; it satisfies `teale_proto.rng.Rng`. Not for keys outside a simulation."""

    __slots__ = ("_state",)

    def __init__(self, state: int) -> None:
        self._state = state & _MASK

    def next64(self) -> int:
        """Return 64 random bits."""
        self._state = z = (self._state + _GOLDEN_GAMMA) & _MASK
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        return z ^ (z >> 31)

    def random(self) -> float:
        """Return a float in [0, 1), a multiple of 2**-53."""
        return (self.next64() >> 11) * 2.0**-53

    def randrange(self, stop: int, /) -> int:
        """Return an integer in [0, stop), each as likely; raises ValueError unless `stop` is positive."""
        if stop <= 0:
            raise ValueError(f"no integer lies in [0, {stop})")
        bits = stop.bit_length()
        words = -(-bits // 64)
        while True:
            # Rejection keeps every value exactly as likely; on average it takes fewer than two draws.
            value = 0
            for _ in range(words):
                value = value << 64 | self.next64()
            value >>= 64 * words - bits
            if value < stop:
                return value

    def randbytes(self, n: int, /) -> bytes:
        """Return `n` random bytes."""
        words = -(-n // 8)
        return b"".join(self.next64().to_bytes(8, "little") for _ in range(words))[:n]

    def sample(self, population: Sequence[T], k: int) -> list[T]:
        """Return `k` distinct elements of `population`, in random order; raises ValueError if it has fewer."""
        if not 0 <= k <= len(population):
            raise ValueError(f"{k} elements of {len(population)}")
        pool = list(population)
        for chosen in range(k):
            other = chosen + self.randrange(len(pool) - chosen)
            pool[chosen], pool[other] = pool[other], pool[chosen]
        return pool[:k]

    def choice(self, population: Sequence[T]) -> T:
        """Return one element of `population`."""
        return population[self.randrange(len(population))]

    def between(self, low: int, high: int) -> int:
        """Return an integer in [low, high]."""
        return low + self.randrange(high - low + 1)


def stream(seed: int, name: str, purpose: str) -> SplitMix64:
    """Return the stream of `name` (a node, as a rule) for `purpose`, the same in every process."""
    digest = blake2b(digest_size=8, person=b"teale-sim-rng")
    for part in (str(seed), name, purpose):
        # The length in front keeps ("ab", "c") and ("a", "bc") apart.
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(4, "big") + encoded)
    return SplitMix64(int.from_bytes(digest.digest(), "big"))


def weighted(rng: SplitMix64, weights: Mapping[T, float]) -> T:
    """Return one key, each as likely as its weight says; raises ValueError where no weight is positive.

    Keys are gone through in the order of the mapping, which a description keeps as it was written.
    """
    total = sum(weights.values())
    if total <= 0:
        raise ValueError(f"none of {', '.join(map(str, weights)) or 'nothing'} can be drawn")
    point = rng.random() * total
    for key, weight in weights.items():
        point -= weight
        if point < 0:
            return key
    # Rounding may leave a rest of the last bit.
    return [key for key, weight in weights.items() if weight > 0][-1]


def normal(rng: SplitMix64) -> float:
    """Return a standard normal deviate."""
    # Odd multiples of 2**-53, so that neither 0 nor 1 comes up, whose deviates are infinite.
    return _STANDARD.inv_cdf((rng.next64() >> 11 | 1) * 2.0**-53)


def lognormal(rng: SplitMix64, median: float, sigma: float) -> float:
    """Return a draw whose logarithm has the mean log(`median`) and the standard deviation `sigma`."""
    return median * exp(sigma * normal(rng))


def exponential(rng: SplitMix64, mean: float) -> float:
    """Return a draw of the exponential distribution."""
    return -mean * log1p(-rng.random())
