"""What a node's system tells it about the network that it is in: its UDP sockets, the STUN servers, the gateway.

That is all that a system knows. What the NATs before it do, and when they change, a node finds out by itself.
"""

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from simulator.net.machine import HostPort, Machine
from simulator.net.site import Site
from teale_proto.inputs import Address, NetworkChanged

NODE_PORT: Final = 7475
"""The UDP port of nodes."""

GatewayOf: TypeAlias = Callable[[Site], Address | None]
"""Where the gateway of a site is asked for port mappings, if it is."""


def surroundings_of(
    machine: Machine, internet: Site, stun: Sequence[Address], gateway_of: GatewayOf
) -> NetworkChanged | None:
    """Return what a node is told: no sockets where it is not online, and nothing where nobody answers STUN."""
    if not stun:
        return None
    port = _uplink(machine, internet)
    if port is None:
        return NetworkChanged(())
    ours = [next((each for each in port.addresses if (":" in each) is version_6), None) for version_6 in (False, True)]
    sockets = tuple(Address(host, NODE_PORT) for host in ours if host is not None)
    return NetworkChanged(sockets, tuple(stun), gateway_of(port.site))


def _uplink(machine: Machine, internet: Site) -> HostPort | None:
    """Return the attachment that leads to the internet, as a default route does."""
    return next((port for port in machine.ports if _root(port.site) is internet), None)


def _root(site: Site) -> Site:
    while site.parent is not None:
        site = site.parent
    return site
