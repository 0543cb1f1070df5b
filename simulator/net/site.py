"""A site: what shares one line and stands behind one gateway, such as a home, an office, or a carrier's customers.

Sites form trees. At the root of one is the internet, or a LAN that leads nowhere; every other site hangs on its
parent by a line, behind a NAT, behind a firewall, or behind nothing. A site is a network segment for streams and a
realm of addresses for datagrams alike, and its line and its gateways are the same for both.

What no NAT translates keeps its address outside, so it is known all the way up to where something does. Where a NAT
has IPv4 addresses, IPv6 passes beside it through a firewall, as at home.
"""

from collections.abc import Iterator, Sequence
from typing import TypeAlias

from simulator.net.link import CABLE, Link, Port
from simulator.net.machine import HostPort
from simulator.net.nat import Nat, NatKind
from simulator.rng import stream
from teale_proto.inputs import ServiceRecord

Service: TypeAlias = tuple[HostPort, ServiceRecord]


class NetworkError(ValueError):
    """A scenario asked for something that the network cannot be."""


class Site:
    """Hosts and sites around one gateway, or the root of a tree of them."""

    __slots__ = (
        "_gateways",
        "_seed",
        "chain",
        "discovery",
        "hosts",
        "kind",
        "known",
        "line",
        "name",
        "only_tcp_443",
        "outside",
        "parent",
        "prefix_6",
        "services",
        "translations",
    )

    def __init__(
        self,
        name: str,
        *,
        seed: int,
        parent: "Site | None" = None,
        link: Link = CABLE,
        kind: NatKind | None = None,
        outside: Sequence[str] = (),
        region: str = "",
        discovery: bool = False,
        only_tcp_443: bool = False,
    ) -> None:
        """Stand behind a NAT with outside addresses, behind a firewall without any, or, without a kind, in the open.

        Raises NetworkError for what contradicts itself.
        """
        if (kind is not None and kind.translates) != bool(outside):
            raise NetworkError(f"{name!r}: a NAT has outside addresses, and what translates nothing has none")
        if parent is None and (kind is not None or region):
            raise NetworkError(f"{name!r} is a root: it has no gateway and is in no region")
        self.name = name
        self.parent = parent
        self.kind = kind
        self.outside = tuple(outside)
        self.discovery = discovery
        self.only_tcp_443 = only_tcp_443
        above = () if parent is None else parent.chain
        self.line = Port(name, link, above=above, region=region)
        self.chain: tuple[Port, ...] = () if parent is None else (self.line, *above)
        """The ports between here and the root."""
        self.known: dict[str, HostPort | Site] = {}
        """Where each address that can be reached from here without leaving is to be found."""
        self.services: dict[HostPort, ServiceRecord] | None = None
        """What is advertised here, by whom."""
        self.hosts = 0
        """How many addresses have been drawn for hosts and sites in it."""
        self.prefix_6 = ""
        """What the IPv6 addresses of its hosts begin with; "" where there are none."""
        self.translations = 0
        """How many streams its NAT has translated."""
        self._seed = seed
        self._gateways: tuple[Nat, ...] | None = None
        for host in self.outside:
            self._announce(host)

    @property
    def link(self) -> Link:
        """Its line to what is around it."""
        return self.line.link

    @property
    def region(self) -> str:
        """Where it is; "" is nowhere in particular."""
        return self.line.top.region

    @property
    def gateways(self) -> tuple[Nat, ...]:
        """What datagrams pass: a NAT and the firewall beside it, or a firewall; made when first needed."""
        if self._gateways is None:
            self._gateways = tuple(self._make_gateways())
        return self._gateways

    @property
    def nat(self) -> Nat:
        """The first gateway; raises NetworkError where there is none."""
        if not self.gateways:
            raise NetworkError(f"{self.name!r} has no gateway")
        return self.gateways[0]

    def gateway(self, host: str) -> Nat | None:
        """Return the gateway for addresses like `host`."""
        return next((gateway for gateway in self.gateways if gateway.carries(host)), None)

    def translates(self, host: str) -> bool:
        """Return whether what is sent to addresses like `host` leaves from an outside address."""
        return bool(self.outside) and (":" in host) == (":" in self.outside[0])

    def ports(self) -> Iterator[HostPort]:
        """Yield the ports of the hosts right here, in the order in which they were attached."""
        seen = None
        for target in self.known.values():
            # A host's addresses stand side by side.
            if isinstance(target, HostPort) and target is not seen:
                seen = target
                yield target

    def all_ports(self) -> Iterator[HostPort]:
        """Yield the ports of the hosts here and in all sites below."""
        yield from self.ports()
        below = {target.name: target for target in self.known.values() if isinstance(target, Site)}
        for site in below.values():
            yield from site.all_ports()

    def know(self, host: str, target: "HostPort | Site") -> None:
        """Route an address to `target`, here and wherever it is seen as it is; raises NetworkError when it is taken."""
        holder = self.known.get(host)
        if holder is not None:
            raise NetworkError(f"the address {host} is taken by {holder.name}")
        self.known[host] = target
        if self.parent is not None and not self.translates(host):
            self.parent.know(host, self)

    def forget(self, host: str) -> None:
        """Route an address nowhere any more."""
        del self.known[host]
        if self.parent is not None and not self.translates(host):
            self.parent.forget(host)

    def reboot(self) -> None:
        """Have the gateways forget everything that they know of datagrams."""
        for gateway in self._gateways or ():
            gateway.reboot()

    def rebind(self, outside: Sequence[str]) -> None:
        """Give the NAT other outside addresses; what it knew is gone."""
        if self.parent is None or not self.outside or not outside:
            raise NetworkError(f"{self.name!r} has no NAT that could get the addresses {', '.join(outside)}")
        for host in self.outside:
            self.parent.forget(host)
        self.outside = tuple(outside)
        if self._gateways is not None:
            self._gateways[0].rebind(outside)
        for host in self.outside:
            self._announce(host)

    def _announce(self, host: str) -> None:
        assert self.parent is not None, "only what hangs on something has an outside"
        self.parent.know(host, self)

    def _make_gateways(self) -> Iterator[Nat]:
        if self.kind is None:
            return
        yield Nat(self.kind, self.outside, stream(self._seed, self.name, "nat"))
        if self.kind.translates:
            beside = NatKind(translates=False, udp_blocked=self.kind.udp_blocked)
            yield Nat(beside, (), stream(self._seed, self.name, "firewall"))
