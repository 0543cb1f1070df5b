"""What everything that travels in one world shares: the time, the seed, the distances, partitions and listeners."""

from collections.abc import Callable
from typing import Any, Final, TypeAlias

from simulator.engine import Engine
from simulator.net.link import Port
from simulator.net.regions import NOWHERE, Regions
from teale_proto.contract import Value

Ports: TypeAlias = tuple[Port, ...]


class Block(Value):
    """That nothing gets from some hosts, sites or regions to others; the way back is another matter."""

    sources: frozenset[str]
    targets: frozenset[str]

    def stops(self, ups: Ports, downs: Ports) -> bool:
        """Return whether a packet with this way is caught; what stays within a site does not leave the site."""
        return _named(ups, self.sources) and _named(downs, self.targets)


class Medium:
    """One for all lanes and datagrams of a world."""

    __slots__ = ("blocks", "changes", "cut_chance", "engine", "regions", "seed", "taps")

    def __init__(self, engine: Engine, *, seed: int, regions: Regions = NOWHERE, cut_chance: float = 0.25) -> None:
        self.engine: Final = engine
        self.seed: Final = seed
        self.regions: Final = regions
        self.cut_chance: Final = cut_chance
        """The chance that a packet of a stream carries less than it could."""
        self.taps: Final[list[Callable[[Any], None]]] = []
        """Called with everything that any host hands to the network for a connection (`connection.Traffic`)."""
        self.blocks: list[Block] = []
        self.changes = 0
        """How often any link has been exchanged for another one."""

    def stops(self, ups: Ports, downs: Ports) -> bool:
        """Return whether a partition is in the way."""
        return any(block.stops(ups, downs) for block in self.blocks)


def _named(ports: Ports, names: frozenset[str]) -> bool:
    return any(port.name in names or (port.region and port.region in names) for port in ports)
