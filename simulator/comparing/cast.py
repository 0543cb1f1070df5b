"""Who is who in a described world: which population a host is of, where it lives, and which relay it uses.

Both worlds give hosts and sites the names of the description, so that is all that is needed to read either's entries.
"""

from collections.abc import Iterable
from itertools import combinations
from typing import Final

from simulator.net.regions import WORLD
from simulator.spec.draws import site_name
from simulator.spec.world_spec import WorldSpec

BETWEEN: Final = " \N{MULTIPLICATION SIGN} "
"""What stands between the two populations of a cell."""


class Cast:
    """The hosts of a description, by what one may want to know of them."""

    def __init__(self, spec: WorldSpec) -> None:
        self.spec: Final = spec
        self.relays: Final = frozenset(spec.relay_names)
        self._places: dict[str, int] = {}
        self._relay_of: dict[str, str] = {}
        self._groups: dict[str, list[str]] = {}
        for place, population in enumerate(spec.populations):
            for number in population.numbers:
                member = population.member(number)
                self._places[member] = place
                if spec.relays:
                    self._relay_of[member] = spec.relay_names[population.relay]
                for group in (population.name, site_name(population, number)):
                    self._groups.setdefault(group, []).append(member)

    @property
    def members(self) -> Iterable[str]:
        """All nodes, population by population."""
        return self._places.keys()

    def population_of(self, host: str) -> str:
        """Return the population of a node; raises KeyError for whoever is none."""
        return self.spec.populations[self._places[host]].name

    def relay_of(self, host: str) -> str:
        """Return the relay that a node uses; "" for whoever uses none."""
        return self._relay_of.get(host, "")

    def cell(self, one: str, other: str) -> str:
        """Return the name of the cell that two nodes are in: their populations, in the order of the description."""
        first, second = sorted((self._places[one], self._places[other]))
        return cell_name(self.spec.populations[first].name, self.spec.populations[second].name)

    def whom(self, name: str) -> frozenset[str]:
        """Return the hosts that a name stands for, be it of a host, a site, a population or a region.

        Regions stand for everybody: who lives where is left to chance.
        """
        if name in self._groups:
            return frozenset(self._groups[name])
        return frozenset(self._places) if name in WORLD.names else frozenset((name,))

    def label(self, name: str) -> str:
        """Return what to call a host or site when it is no matter which of its population it is."""
        if name in self._places:
            return self.population_of(name)
        members = self._groups.get(name)
        return self.population_of(members[0]) if members else name

    def pairs(self) -> Iterable[tuple[str, str]]:
        """Yield all pairs of nodes that use the same relay."""
        by_relay: dict[str, list[str]] = {}
        for member in self._places:
            by_relay.setdefault(self.relay_of(member), []).append(member)
        for members in by_relay.values():
            yield from combinations(members, 2)


def cell_name(first: str, second: str) -> str:
    """Return the name of the cell of two populations."""
    return f"{first}{BETWEEN}{second}"
