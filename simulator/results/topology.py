"""Who is in a world and where, as the results keep it."""

from typing import Final

from simulator.net.nat import NatKind
from simulator.net.site import Site
from simulator.results.model import HostInfo, Place
from simulator.world import World
from teale_proto.nat.kinds import Filtering, Mapping

_SHORT: Final = {
    Mapping.ENDPOINT_INDEPENDENT: "EIM",
    Mapping.ADDRESS_DEPENDENT: "ADM",
    Mapping.ADDRESS_AND_PORT_DEPENDENT: "APDM",
}
_SHORT_FILTERING: Final = {
    Filtering.ENDPOINT_INDEPENDENT: "EIF",
    Filtering.ADDRESS_DEPENDENT: "ADF",
    Filtering.ADDRESS_AND_PORT_DEPENDENT: "APDF",
}


def hosts_of(world: World, relays: frozenset[str]) -> tuple[HostInfo, ...]:
    """Return every host of a world, in the order in which they were added; `relays` are those that served others."""
    return tuple(
        HostInfo(name, _role(world, name, relays), tuple(_places(world, name)), _behind(world, name))
        for name in world.hosts
    )


def addresses_of(world: World) -> list[tuple[str, str]]:
    """Return every address with the name of its host."""
    return [(place.address, name) for name in world.hosts for place in _places(world, name)]


def _places(world: World, name: str) -> list[Place]:
    ports = world.hosts[name].machine.ports
    return [Place(port.site.name, address) for port in ports for address in port.addresses]


def _role(world: World, name: str, relays: frozenset[str]) -> str:
    if name in world.node_ids:
        return "node"
    return "relay" if name in relays else "server"


def _behind(world: World, name: str) -> str:
    """Return what is between a host and the internet, the nearest first, in the terms of RFC 4787."""
    ports = world.hosts[name].machine.ports
    boxes = []
    # Of several attachments, the one that leads furthest.
    site: Site | None = max((port.site for port in ports), key=lambda each: len(each.chain), default=None)
    while site is not None:
        if site.kind is not None:
            boxes.append(box(site.kind))
        site = site.parent
    return " behind ".join(boxes)


def box(kind: NatKind) -> str:
    """Return what a NAT or firewall is, in the terms of RFC 4787."""
    name = f"{_SHORT[kind.mapping]}+{_SHORT_FILTERING[kind.filtering]}" if kind.translates else "firewall"
    return f"{name} without UDP" if kind.udp_blocked else name
