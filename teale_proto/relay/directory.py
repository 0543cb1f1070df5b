"""Who is registered at a relay, and who of them fits a question.

Nodes that are available are indexed by the models that they have loaded, so that asking for a rare model
does not mean looking at everybody.
"""

from collections.abc import Iterator
from typing import Final

from teale_proto.inputs import NodeId
from teale_proto.relay.connection import Registration
from teale_proto.rng import Rng
from teale_proto.wire.relay import Capabilities, DiscoverFilter, Register

_ANYTHING: Final = DiscoverFilter()


class Directory:
    """The registered nodes, at most one registration each."""

    __slots__ = ("_available", "_by_model", "_nodes")

    def __init__(self) -> None:
        self._nodes: dict[NodeId, Registration] = {}
        self._available = _Pool()
        self._by_model: dict[str, _Pool] = {}

    def __len__(self) -> int:
        return len(self._nodes)

    def __iter__(self) -> Iterator[Registration]:
        return iter(self._nodes.values())

    def get(self, node: NodeId) -> Registration | None:
        """Return the node's registration, or None."""
        return self._nodes.get(node)

    def add(self, registration: Registration) -> None:
        """Enter a node that is not registered."""
        assert registration.node not in self._nodes
        self._nodes[registration.node] = registration
        self._enlist(registration)

    def update(self, registration: Registration, register: Register) -> None:
        """Let an entered registration say something new of its node."""
        self._delist(registration)
        registration.register = register
        self._enlist(registration)

    def remove(self, registration: Registration) -> None:
        """Forget a node that was entered."""
        del self._nodes[registration.node]
        self._delist(registration)

    def sample(self, asker: NodeId, wanted: DiscoverFilter | None, peers_max: int, rng: Rng) -> list[Registration]:
        """Return available nodes that fit and are not `asker`, in random order: all, or `peers_max` of them."""
        wanted = wanted or _ANYTHING
        limit = peers_max if wanted.max_peers is None else min(wanted.max_peers, peers_max)
        pool = self._available if wanted.model_id is None else self._by_model.get(wanted.model_id)
        found: list[Registration] = []
        if pool is None or limit == 0:
            return found
        for node in pool.shuffled(rng):
            registration = self._nodes[node]
            if node != asker and _fits(registration.register.capabilities, wanted):
                found.append(registration)
                if len(found) == limit:
                    break
        return found

    def _enlist(self, registration: Registration) -> None:
        capabilities = registration.register.capabilities
        if not capabilities.is_available:
            return
        self._available.add(registration.node)
        for model in capabilities.loaded_models:
            self._by_model.setdefault(model, _Pool()).add(registration.node)

    def _delist(self, registration: Registration) -> None:
        self._available.discard(registration.node)
        for model in registration.register.capabilities.loaded_models:
            pool = self._by_model.get(model)
            if pool is not None:
                pool.discard(registration.node)
                if len(pool) == 0:
                    del self._by_model[model]


def _fits(capabilities: Capabilities, wanted: DiscoverFilter) -> bool:
    hardware = capabilities.hardware
    return (wanted.min_ram_gb is None or hardware.total_ram_gb >= wanted.min_ram_gb) and (
        # Tiers count downwards: 1 is the best.
        wanted.min_tier is None or hardware.tier <= wanted.min_tier
    )


class _Pool:
    """A set of nodes from which a few can be drawn at random without touching the others."""

    __slots__ = ("_members", "_places")

    def __init__(self) -> None:
        self._members: list[NodeId] = []
        self._places: dict[NodeId, int] = {}

    def __len__(self) -> int:
        return len(self._members)

    def add(self, node: NodeId) -> None:
        if node not in self._places:
            self._places[node] = len(self._members)
            self._members.append(node)

    def discard(self, node: NodeId) -> None:
        place = self._places.pop(node, None)
        if place is None:
            return
        last = self._members.pop()
        if last != node:
            self._members[place] = last
            self._places[last] = place

    def shuffled(self, rng: Rng) -> Iterator[NodeId]:
        """Yield every member once, in random order, doing the work of a shuffle only as far as it is read."""
        moved: dict[int, int] = {}
        size = len(self._members)
        for place in range(size):
            drawn = place + rng.randrange(size - place)
            yield self._members[moved.get(drawn, drawn)]
            moved[drawn] = moved.get(place, place)
