"""What is asked: how often, by whom, for which models, and how large.

Requests come as a Poisson process whose rate follows the hour of the day. They are drawn once, before the run,
into a list of `AskSpec`: the run itself throws no dice, so a list can be cut down to the requests that matter.
"""

from collections.abc import Sequence
from math import cos, pi
from typing import Annotated, Final

from msgspec import Meta

from simulator.rng import SplitMix64, exponential, lognormal, weighted
from simulator.spec.units import Chance, Positive, Seconds, Several, Sigma, Weight, Words
from teale_proto.contract import Value

DAY: Final = 86_400.0
MODELS_MAX: Final = 10_000
ASKS_MAX: Final = 1_000_000
"""Requests of one run."""


class Models(Value, forbid_unknown_fields=True):
    """The catalogue: model `n` (from 1) is asked for in proportion to 1 / n ** `exponent` (Zipf's law)."""

    count: Annotated[int, Meta(ge=1, le=MODELS_MAX)] = 1
    exponent: Weight = 1.0

    def weights(self) -> dict[str, float]:
        """Return the popularity of each model by its name, the most popular first."""
        return {f"model-{rank}": rank**-self.exponent for rank in range(1, self.count + 1)}


class AskSpec(Value, forbid_unknown_fields=True):
    """One request."""

    at: Seconds
    node: str
    model: str = "model-1"
    words: Words = 20
    streaming: bool = True
    timeout: Positive = 60.0
    tokens_max: Several | None = None
    """The longest answer that is wanted; None leaves that to who answers."""


class Requests(Value, forbid_unknown_fields=True):
    """How requests come, from all nodes alike."""

    per_node_hour: Positive = 4.0
    """The mean over a day."""
    since: Seconds = 20.0
    until: Seconds | None = None
    """None is the end of the run less what the longest request may take."""
    daily_swing: Chance = 0.0
    """How far the rate rises at the busiest hour, and falls at the quietest, as a share of the mean."""
    busiest_hour: Seconds = 20.0
    """In hours of UTC; the simulation begins at midnight."""
    words_median: Positive = 60.0
    words_sigma: Sigma = 1.0
    words_max: Words = 4000
    streaming: Chance = 0.75
    timeout: Positive = 60.0

    def __post_init__(self) -> None:
        if self.until is not None and self.until < self.since:
            raise ValueError("`until` is not before `since`")

    def count(self, nodes: int, ends: float) -> float:
        """Return how many requests are to be expected of so many nodes."""
        until = ends - self.timeout if self.until is None else self.until
        return nodes * self.per_node_hour / 3600.0 * max(0.0, until - self.since)

    def draw(self, rng: SplitMix64, nodes: Sequence[str], models: Models, ends: float) -> tuple[AskSpec, ...]:
        """Return the requests of a run that `ends` after so many seconds, in the order of time."""
        until = ends - self.timeout if self.until is None else self.until
        peak = len(nodes) * self.per_node_hour / 3600.0 * (1 + self.daily_swing)
        weights = models.weights()
        asks = []
        at = self.since
        while peak > 0:
            # Thinning (Lewis and Shedler 1979): candidates at the highest rate, each kept as the hour's rate says.
            at += exponential(rng, 1 / peak)
            if at >= until:
                break
            if rng.random() * (1 + self.daily_swing) < self.factor(at):
                asks.append(self._one(rng, at, rng.choice(nodes), weights))
        return tuple(asks)

    def factor(self, at: float) -> float:
        """Return the rate at a second of the run, relative to the mean of a day."""
        return 1 + self.daily_swing * cos(2 * pi * (at - 3600 * self.busiest_hour) / DAY)

    def _one(self, rng: SplitMix64, at: float, node: str, weights: dict[str, float]) -> AskSpec:
        words = min(self.words_max, max(1, round(lognormal(rng, self.words_median, self.words_sigma))))
        model = weighted(rng, weights)
        return AskSpec(round(at, 6), node, model, words, rng.random() < self.streaming, self.timeout)
