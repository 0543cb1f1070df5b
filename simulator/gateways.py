"""Gateways in a world: the box before a site, as a host that offers to open its ports."""

from collections.abc import Sequence
from typing import Final

from simulator.host import Host
from simulator.net import igd
from simulator.net.gateway import Gateway, Services
from simulator.net.site import Site
from simulator.world import World
from teale_proto.inputs import Address
from teale_proto.nat import pcp

INSIDE: Final = "10.0.0.1"
"""The address that is left free for the gateway where those of hosts are drawn."""


def add_gateway(
    world: World, site: Site, services: Services | None = None, *, addresses: Sequence[str] = (INSIDE,)
) -> Host:
    """Have the gateway of a site offer services at these inside addresses, from now on.

    Raises NetworkError for an address that is taken, and for a site without a gateway.
    """
    site.nat  # noqa: B018 - raises where there is none
    services = services or Services()
    # Behind what translates nothing, the group would be known outside too.
    groups = [igd.SSDP_GROUP] if services.upnp and site.translates(igd.SSDP_GROUP) else []
    name = f"{site.name} gateway"
    host = world.add_host(
        name,
        lambda rng, now: Gateway(addresses, site.gateways, services),  # noqa: ARG005 - it draws nothing
        site=site,
        addresses=[*addresses, *groups],
        ports=(igd.HTTP_PORT,) if services.upnp else (),
    )
    if services.pcp or services.nat_pmp or services.upnp:
        world.gateways[site] = Address(addresses[0], pcp.SERVER_PORT)
    world.start(name, at=world.engine.now)
    return host
