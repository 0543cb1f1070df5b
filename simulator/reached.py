"""How the nodes of a world reach each other at an instant: the paths that really carry, and not those that might."""

from collections import Counter
from collections.abc import Iterable
from typing import Final, NamedTuple

from simulator.host import Host
from teale_proto.effects import Path
from teale_proto.node import Node

_APART: Final = (Path.DIRECT, Path.RELAY)


class Reached(NamedTuple):
    """Peers that nodes reach over each path; every pair of nodes is counted from both sides."""

    direct: int
    relayed: int

    @property
    def share_direct(self) -> float:
        """The share that is direct, of those who are not neighbours on a LAN; 0 where there are none."""
        return self.direct / max(1, self.direct + self.relayed)


def reached(hosts: Iterable[Host]) -> Reached:
    """Count what nodes that have UDP sockets say of their peers now."""
    found: Counter[Path] = Counter()
    for host in hosts:
        core = host.core
        if host.machine.sockets is not None and isinstance(core, Node):
            found.update(peer.path for peer in core.peers())
    return Reached(*(found[path] for path in _APART))
