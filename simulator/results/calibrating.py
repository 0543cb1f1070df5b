"""Figures of a world's access networks, to be held against published ones.

What NATs allow follows from what stands before each node and from the planner that nodes use: every pair counts, not
only those that had something to say. What became of it is counted at the end: the share of the peers that nodes really
reach directly, however they got there.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Final

from simulator.net.site import Site
from simulator.net.weather import LTE, UMTS
from simulator.reached import reached
from simulator.results.model import Calibration
from simulator.results.published import beside
from simulator.world import World
from teale_proto.contract import Value
from teale_proto.nat.kinds import Behaviour, Filtering, Mapping
from teale_proto.nat.strategy import PlanKind, Side, plan

NODES_MIN: Final = 20
"""Fewer nodes behind NATs say nothing about access networks."""

PEERS_MIN: Final = 100
"""Fewer peers that were reached, each pair counted twice, say nothing about paths."""

_MEETS: Final = (PlanKind.DIRECT, PlanKind.PUNCH)


class _Front(Value):
    """What stands before a node, as peers see it."""

    mapping: Mapping
    filtering: Filtering
    translates: bool
    udp_blocked: bool
    boxes: int
    is_cellular: bool

    @property
    def side(self) -> Side:
        """What the planner is told of it."""
        if self.udp_blocked:
            return Side(Behaviour(udp_blocked=True))
        return Side(
            Behaviour(udp_blocked=False, translated=self.translates, mapping=self.mapping, filtering=self.filtering)
        )


def calibrated(world: World) -> tuple[Calibration, ...]:
    """Return what there is to compare; nothing for a world with few nodes behind NATs, and few peers."""
    return (*_of_networks(world), *_of_paths(world))


def _of_paths(world: World) -> tuple[Calibration, ...]:
    paths = reached(world.hosts.values())
    if paths.direct + paths.relayed < PEERS_MIN:
        return ()
    return (beside("direct", 100 * paths.share_direct),)


def _of_networks(world: World) -> tuple[Calibration, ...]:
    fronts = Counter(front for front in _fronts(world) if front.translates)
    nodes = fronts.total()
    if nodes < NODES_MIN:
        return ()
    speaking = {front: count for front, count in fronts.items() if not front.udp_blocked}
    easy = sum(count for front, count in fronts.items() if front.mapping is Mapping.ENDPOINT_INDEPENDENT)
    found = [beside("punching", 100 * _share_that_meets(speaking)), beside("nats_allow", 100 * easy / nodes)]
    for name, is_cellular in (("cgn_fixed", False), ("cgn_cellular", True)):
        these = {front: count for front, count in fronts.items() if front.is_cellular is is_cellular}
        if sum(these.values()) >= NODES_MIN:
            carrier = sum(count for front, count in these.items() if front.boxes > 1)
            found.append(beside(name, 100 * carrier / sum(these.values())))
    return tuple(found)


def _share_that_meets(fronts: dict[_Front, int]) -> float:
    """Return the share of pairs that get a direct path by punching, without birthday attempts."""
    met = pairs = 0
    for one, ones in fronts.items():
        for other, others in fronts.items():
            # In both directions, and nobody with itself.
            count = ones * (others - (one is other))
            pairs += count
            met += count * (plan(one.side, other.side).kind in _MEETS)
    return met / pairs if pairs else 0.0


def _fronts(world: World) -> Iterator[_Front]:
    for name in world.node_ids:
        site: Site | None = world.hosts[name].site
        is_cellular = site is not None and site.link in (LTE, UMTS)
        kinds = []
        while site is not None:
            if site.kind is not None:
                kinds.append(site.kind)
            site = site.parent
        # Of stacked boxes, the greater of each property is what is seen from outside.
        yield _Front(
            max((kind.mapping for kind in kinds), default=Mapping.ENDPOINT_INDEPENDENT),
            max((kind.filtering for kind in kinds), default=Filtering.ENDPOINT_INDEPENDENT),
            any(kind.translates for kind in kinds),
            any(kind.udp_blocked for kind in kinds),
            sum(kind.translates for kind in kinds),
            is_cellular,
        )
