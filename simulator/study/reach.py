"""Which pairs of nodes can talk directly: shares of NATs in a population, and what connects to what.

Nodes are put into six classes by what decides about UDP paths; the matrix is that of docs/explanation/relay-scaling.md.
A pair that needs no more than both sides sending at about the same time counts as punched, one with a hard and an
easy side as a birthday pair. What is certain here succeeds nearly always elsewhere; `Paths.succeeds` lowers it.
"""

from collections.abc import Mapping
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final

from simulator.spec.access import MIXTURES, Mixture
from simulator.spec.units import Chance
from teale_proto.contract import Value

if TYPE_CHECKING:
    import numpy as np


class Reach(IntEnum):
    """How a node can be reached over UDP, by the mapping and the filtering of what it is behind (RFC 4787)."""

    PUBLIC = 0
    """No NAT and no firewall, or a port that was mapped on request."""
    OPEN = 1
    """Endpoint-independent mapping and filtering."""
    ADDRESS = 2
    """Endpoint-independent mapping, address-dependent filtering."""
    PORT = 3
    """Endpoint-independent mapping (or none), address- and port-dependent filtering."""
    HARD = 4
    """A mapping that depends on the destination."""
    BLOCKED = 5
    """No UDP at all."""


CLASSES: Final = len(Reach)


class How(IntEnum):
    """What it takes to connect two nodes."""

    DIRECT = 0
    PUNCH = 1
    BIRTHDAY = 2
    RELAY = 3


_MATRIX: Final = """
    D D D D D R
    D D D D D R
    D D P P P R
    D D P P B R
    D D P B R R
    R R R R R R
"""
"""Rows and columns in the order of `Reach`; it is symmetric."""

HOW: Final = tuple(
    tuple(How("DPBR".index(letter)) for letter in row.split()) for row in _MATRIX.split("\n") if row.strip()
)

_CLASS_OF: Final = {
    "public": Reach.PUBLIC,
    "eim-eif": Reach.OPEN,
    "eim-adf": Reach.ADDRESS,
    "firewall": Reach.PORT,
    "eim-apdf": Reach.PORT,
    "eim-apdf-random": Reach.PORT,
}
"""Everything else maps by destination, and is hard."""


class Paths(Value, forbid_unknown_fields=True):
    """Which direct paths nodes try."""

    direct: bool = True
    """False is all through the relay, as nodes do that have no direct paths yet."""
    birthday: bool = False
    port_mapping: bool = False
    """Whether nodes ask their gateway for a port."""
    succeeds: Chance = 1.0
    """The chance that an attempt which can succeed does."""


def shares(mixtures: Mapping[str, float], paths: Paths) -> tuple[float, ...]:
    """Return the share of each class of `Reach` in a population, from the shares of its ready-made mixtures."""
    total = sum(mixtures.values())
    found = [0.0] * CLASSES
    for name, weight in mixtures.items():
        for reach, share in enumerate(_shares_of(MIXTURES[name], paths)):
            found[reach] += share * weight / total
    return tuple(found)


def connects(paths: Paths) -> "np.ndarray[Any, np.dtype[np.float64]]":
    """Return the chance that a node of one class (row) and one of another (column) get a direct path."""
    import numpy as np

    chances = np.zeros((CLASSES, CLASSES))
    if paths.direct:
        for row in Reach:
            for column in Reach:
                how = HOW[row][column]
                tried = how in (How.DIRECT, How.PUNCH) or (how is How.BIRTHDAY and paths.birthday)
                chances[row, column] = paths.succeeds if tried else 0.0
    return chances


def relayed_share(shares_of: tuple[float, ...], paths: Paths) -> float:
    """Return the share of pairs, drawn at random, that need the relay."""
    import numpy as np

    weights = np.array(shares_of)
    return float(1 - weights @ connects(paths) @ weights)


def relayed_share_of_best(shares_of: tuple[float, ...], paths: Paths, candidates: int) -> float:
    """Return the share of requests relayed by nodes that can choose among so many, and take one they reach directly."""
    import numpy as np

    weights = np.array(shares_of)
    return float(weights @ (1 - connects(paths) @ weights) ** candidates)


def _shares_of(mixture: Mixture, paths: Paths) -> list[float]:
    total = sum(mixture.nats.values())
    has_udp = (1 - mixture.udp_blocked) * (1 - mixture.only_tcp_443)
    mapped = mixture.port_mapping * (1 - mixture.carrier_grade) if paths.port_mapping else 0.0
    found = [0.0] * CLASSES
    for kind, weight in mixture.nats.items():
        share = weight / total * has_udp
        reach = _CLASS_OF.get(kind, Reach.HARD)
        # A gateway behind a carrier's NAT opens a port that leads nowhere.
        moved = 0.0 if reach is Reach.PUBLIC else share * mapped
        found[reach] += share - moved
        found[Reach.PUBLIC] += moved
    found[Reach.BLOCKED] += 1 - has_udp
    return found
