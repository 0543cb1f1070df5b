"""The nodes that could answer, indexed so that choosing one of a thousand does not look at a thousand.

For every model, the nodes that can serve it are kept by rank, and within a rank by score, so the winner is found
by bisection. The choice is the one that `routing.decide` would make; a test holds the two against each other.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator

from teale_proto.effects import Path
from teale_proto.inputs import NodeId
from teale_proto.rng import Rng
from teale_proto.routing import (
    GOOD_ENOUGH_HERE,
    NEAR_EQUAL,
    UNKNOWN_SPEED,
    Rank,
    Standing,
    ineligible,
    rank,
    readiness,
    score,
)

Entry = tuple[float, NodeId]


class _Equals:
    """Nodes of one rank: those that have told their speed by score, the others by readiness, both ascending."""

    __slots__ = ("told", "untold")

    def __init__(self) -> None:
        self.told: list[Entry] = []
        self.untold: list[Entry] = []

    def best(self, assumed: float) -> float:
        """Return the highest score."""
        told = self.told[-1][0] if self.told else 0.0
        return max(told, self.untold[-1][0] * assumed) if self.untold else told

    def draw(self, threshold: float, assumed: float, rng: Rng) -> NodeId:
        """Return one of the nodes that score at least `threshold`, all with the same chance."""
        first_told = bisect_left(self.told, threshold, key=lambda entry: entry[0])
        first_untold = bisect_left(self.untold, threshold, key=lambda entry: entry[0] * assumed)
        near_told = len(self.told) - first_told
        drawn = rng.randrange(near_told + len(self.untold) - first_untold)
        if drawn < near_told:
            return self.told[first_told + drawn][1]
        return self.untold[first_untold + drawn - near_told][1]


class Pool:
    """Standings by node, and the index over them."""

    __slots__ = ("_by_model", "_in_flight", "_speeds", "_standings")

    def __init__(self) -> None:
        self._standings: dict[NodeId, Standing] = {}
        self._in_flight: dict[NodeId, int] = {}
        self._by_model: dict[str, dict[Rank, _Equals]] = {}
        self._speeds: list[float] = []

    def __iter__(self) -> Iterator[Standing]:
        return iter(self._standings.values())

    def __len__(self) -> int:
        return len(self._standings)

    def put(self, standing: Standing, in_flight: int) -> None:
        """Add a node, or take what is new about it; `in_flight` counts our requests that it is answering."""
        self.remove(standing.node)
        self._standings[standing.node] = standing
        self._in_flight[standing.node] = in_flight
        if standing.tokens_per_second:
            insort(self._speeds, standing.tokens_per_second)
        for model, key, entries, entry in self._places(standing, in_flight):
            ranks = self._by_model.setdefault(model, {})
            insort(getattr(ranks.setdefault(key, _Equals()), entries), entry)

    def remove(self, node: NodeId) -> None:
        """Forget a node; it need not be known."""
        standing = self._standings.pop(node, None)
        if standing is None:
            return
        in_flight = self._in_flight.pop(node)
        if standing.tokens_per_second:
            del self._speeds[bisect_left(self._speeds, standing.tokens_per_second)]
        for model, key, entries, entry in self._places(standing, in_flight):
            ranks = self._by_model[model]
            equals = ranks[key]
            where = getattr(equals, entries)
            del where[bisect_left(where, entry)]
            if not equals.told and not equals.untold:
                del ranks[key]
                if not ranks:
                    del self._by_model[model]

    def count(self, node: NodeId, in_flight: int) -> None:
        """Take the new number of our requests that a node is answering."""
        standing = self._standings.get(node)
        if standing is not None and self._in_flight[node] != in_flight:
            self.put(standing, in_flight)

    def choose(self, model: str, own: Standing, own_in_flight: int, rng: Rng) -> Standing | None:
        """Return the node that should answer a request for `model`: one of the pool, our own, or None."""
        ranks = self._by_model.get(model, {})
        own_rank = None if ineligible(own, model) else rank(own, model, own_in_flight)
        best_rank = min(ranks, default=None)
        if best_rank is None or (own_rank is not None and own_rank < best_rank):
            return None if own_rank is None else own
        equals = ranks[best_rank]
        assumed = max(self._speeds[-1] if self._speeds else 0.0, own.tokens_per_second or 0.0) or UNKNOWN_SPEED
        best = equals.best(assumed)
        if own_rank == best_rank:
            own_score = score(own, model, assumed)
            # Either it is good enough, or it is too slow to be among the near-equal.
            if own_score >= GOOD_ENOUGH_HERE * max(best, own_score):
                return own
        return self._standings[equals.draw(NEAR_EQUAL * best, assumed, rng)]

    def _places(self, standing: Standing, in_flight: int) -> Iterator[tuple[str, Rank, str, Entry]]:
        """Yield where a node stands in the index: model, rank, list, entry."""
        assert standing.path is not Path.LOCAL
        for model in dict.fromkeys((*standing.loaded_models, *standing.swappable_models)):
            if ineligible(standing, model):
                continue
            key = rank(standing, model, in_flight)
            if standing.tokens_per_second:
                yield model, key, "told", (score(standing, model, UNKNOWN_SPEED), standing.node)
            else:
                yield model, key, "untold", (readiness(standing, model), standing.node)
