"""The claim that the relay matters less as the network grows: where it holds, and how far.

For a pair drawn at random the share relayed has no number of nodes in it. It falls where a node has a choice, because
the chance that none of k holders can be reached directly falls with k, down to the nodes that can reach nobody; and
where more users have another one on their own LAN.
"""

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from simulator.study.parameters import Parameters
from simulator.study.reach import Paths, connects, relayed_share, shares
from teale_proto.seeking import DISCOVERED_MAX

if TYPE_CHECKING:
    Array = np.ndarray[Any, np.dtype[np.float64]]

LISTED_MAX: Final = DISCOVERED_MAX
"""Of how many that hold a model a node is told, at most."""

ONLINE: Final = 5.5e9
HOUSEHOLD: Final = 2.5
"""Assumptions: people online, and people of one household."""


class Published(NamedTuple):
    """A measurement by others, and the figure of ours that is nearest to it."""

    what: str
    source: str
    theirs: str
    paths: Paths
    mixtures: dict[str, float]


CALIBRATION: Final = (
    Published("hole punching succeeds", "DCUtR, arXiv 2510.27500", "70 % ± 7.1 %", Paths(), {}),
    Published("the same, homes alone", "DCUtR, arXiv 2510.27500", "70 % ± 7.1 %", Paths(), {"home": 1.0}),
    Published(
        "direct in the end", "Tailscale: well north of 90 %; iroh: about 90 %", "> 90 %", Paths(birthday=True), {}
    ),
    Published(
        "direct in the end, with port mapping",
        "Tailscale: well north of 90 %; iroh: about 90 %",
        "> 90 %",
        Paths(birthday=True, port_mapping=True),
        {},
    ),
    Published("phones with each other", "none found", "", Paths(birthday=True), {"cellular": 1.0}),
)


def choice(parameters: Parameters, paths: Paths, nodes: "Array") -> "Array":
    """Return the share of requests relayed, by number of nodes, when each takes a holder that it reaches directly.

    The holders of a model that is asked for are a Poisson number, of whom the relay names LISTED_MAX at most; requests
    for models that nobody holds do not count.
    """
    weights = np.array(shares(parameters.mixtures, paths))
    reachable = connects(paths) @ weights
    popularity = np.arange(1, parameters.models + 1, dtype=float) ** -parameters.zipf
    popularity /= popularity.sum()
    mean = np.multiply.outer(nodes, parameters.holders * popularity)
    exactly = np.exp(-mean)
    found = remaining = -np.expm1(-mean)
    none_direct = np.zeros_like(mean)
    for holders in range(1, LISTED_MAX):
        exactly = exactly * mean / holders
        none_direct += exactly * (weights @ (1 - reachable) ** holders)
        remaining = remaining - exactly
    none_direct += np.maximum(0.0, remaining) * (weights @ (1 - reachable) ** LISTED_MAX)
    result: Array = (none_direct * popularity).sum(axis=-1) / (found * popularity).sum(axis=-1)
    return result


def on_the_same_lan(users: float) -> float:
    """Return the share of users with another one in their household, were users drawn from all people at random."""
    return float(1 - (1 - min(1.0, users / ONLINE)) ** (HOUSEHOLD - 1))


def calibration_rows(parameters: Parameters) -> list[tuple[str, str, str, str]]:
    """Return what was measured, its source, its figure, and ours."""
    rows = []
    for each in CALIBRATION:
        mixtures = each.mixtures or parameters.mixtures
        ours = 1 - relayed_share(shares(mixtures, each.paths), each.paths)
        rows.append((each.what, each.source, each.theirs, f"{100 * ours:.1f} %"))
    return rows
