"""All sites, names and hosts of one world, and how one host finds and reaches another.

A host reaches the addresses in its own sites and in those around them. Outgoing streams cross every NAT and firewall
on their way; incoming ones cross none, for nobody has asked for them: their first packet vanishes, and they time out.
In a site with discovery, a service that one host advertises is found by all others, as by multicast DNS.

Of NATs and streams only this is modelled: that a connection is seen with the outermost address, from a port of its own,
and that it dies with the translation. Idle connections are not forgotten (RFC 5382 wants two hours of patience), their
number has no limit, and hairpins and port forwardings are for datagrams alone.
"""

from collections.abc import Callable, Sequence
from sys import intern
from typing import Final, TypeVarTuple
from urllib.parse import urlsplit

from simulator.engine import Engine
from simulator.net.connection import Connection, ConnectionFactory, End, EndOfConnection, Kind, Route
from simulator.net.lane import one_way
from simulator.net.link import CABLE, Link, Port
from simulator.net.machine import HostPort, Machine
from simulator.net.medium import Block, Medium
from simulator.net.nat import NatKind, Packet
from simulator.net.packets import Datagrams
from simulator.net.quic import Quic
from simulator.net.regions import NOWHERE, Regions
from simulator.net.site import NetworkError, Site
from teale_proto.contract import SECOND, Duration
from teale_proto.effects import DirectTarget, WebSocketUrl
from teale_proto.inputs import Address, ConnectionId, ServiceRecord

__all__ = ["INTERNET", "RECORD_TTL", "Network", "NetworkError"]

Ts = TypeVarTuple("Ts")

INTERNET: Final = "internet"

RECORD_TTL: Final[Duration] = 120 * SECOND
"""How long a host that died without a word is still listed: the TTL of host records (RFC 6762, section 10)."""

_SCHEMES: Final = {"ws": (Kind.WEBSOCKET, 80), "wss": (Kind.SECURE_WEBSOCKET, 443)}

_HTTPS: Final = 443


class Network:
    """All sites, names and connections of one world.

    `cut_chance` is the chance that a packet of a stream carries less than it could; `connections` makes them.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        seed: int,
        cut_chance: float = 0.25,
        regions: Regions = NOWHERE,
        connections: ConnectionFactory = Connection,
    ) -> None:
        self.medium: Final = Medium(engine, seed=seed, regions=regions, cut_chance=cut_chance)
        self.datagrams: Final = Datagrams(self.medium)
        self.quic: Final = Quic(self.medium, self.datagrams)
        self.sites: Final[dict[str, Site]] = {}
        self.taps: Final = self.medium.taps
        """Called with everything that any host hands to the network for a connection, as `Traffic`."""
        self._engine = engine
        self._connections = connections
        self._names: dict[str, str] = {}
        self._serial = 0

    # What there is.

    @property
    def internet(self) -> Site:
        """The public internet; made when it is first asked for."""
        return self.sites.get(INTERNET) or self.add_segment(INTERNET, discovery=False)

    def add_segment(self, name: str, *, discovery: bool) -> Site:
        """Add a site that is a root, such as a LAN that leads nowhere; raises NetworkError for a name that is taken."""
        return self._add(Site(name, seed=self.medium.seed, discovery=discovery))

    def add_site(
        self,
        name: str,
        kind: NatKind | None = None,
        link: Link = CABLE,
        *,
        outside: Sequence[str] = (),
        behind: Site | None = None,
        region: str = "",
        discovery: bool = False,
        only_tcp_443: bool = False,
    ) -> Site:
        """Add a site behind another one, or on the internet; raises NetworkError for what is taken or cannot be.

        The region of a site is that of the outermost site around it, so only that one may name one.
        """
        parent = behind or self.internet
        if name in self.sites:
            raise NetworkError(f"there is a segment {name!r} already")
        if region and parent.parent is not None:
            raise NetworkError(f"{name!r} is where {parent.name!r} is, and not in {region!r}")
        self._check_region(region)
        site = Site(
            name,
            seed=self.medium.seed,
            parent=parent,
            link=link,
            kind=kind,
            outside=outside,
            region=region,
            discovery=discovery,
            only_tcp_443=only_tcp_443,
        )
        return self._add(site)

    def attach(
        self, machine: Machine, site: Site | str, addresses: str | Sequence[str], link: Link, *, region: str = ""
    ) -> None:
        """Attach a host to a site under its addresses; raises NetworkError when that cannot be."""
        if isinstance(site, str):
            if site not in self.sites:
                raise NetworkError(f"there is no segment {site!r}, only {', '.join(self.sites) or 'none at all'}")
            site = self.sites[site]
        if any(port.site is site for port in machine.ports):
            raise NetworkError(f"{machine.name} is attached to {site.name!r} already")
        self._check_region(region)
        port = HostPort(machine, site, (addresses,) if isinstance(addresses, str) else addresses, link, region)
        for address in port.addresses:
            site.know(address, port)
        machine.ports += (port,)

    def add_name(self, name: str, address: str) -> None:
        """Let a host name stand for an address, everywhere."""
        self._names[name] = address

    def listen(self, machine: Machine, port: int) -> None:
        """Accept connections to `port` at every address of the host, until it stops or dies."""
        machine.listening += (port,)

    # The lives of hosts.

    def start(self, machine: Machine) -> None:
        """Switch a host on; it learns of the services around it."""
        machine.running = True
        for port in machine.ports:
            port.powered = True
            self._look_around(port)

    def stop(self, machine: Machine) -> None:
        """Switch a host off properly: connections are closed and its service is withdrawn."""
        for end in machine.ends:
            end.close("the host stopped")
        machine.stop()
        machine.listening = ()
        machine.running = False
        for port in machine.ports:
            self._withdraw(port)

    def crash(self, machine: Machine, *, silently: bool) -> None:
        """Kill a host: silently, as when power fails, or so that its connections are reset."""
        machine.listening = ()
        machine.die(silently=silently)
        for port in machine.ports:
            self._let_expire(port)

    # Between hosts.

    def connect(
        self, machine: Machine, connection: ConnectionId, target: Address | WebSocketUrl | DirectTarget
    ) -> EndOfConnection:
        """Start to open a connection; what becomes of it is told to the host's owner."""
        if isinstance(target, DirectTarget):
            return self.quic.endpoint(machine).connect(connection, target)
        try:
            kind, host, port = _destination(target)
        except ValueError as error:
            return self._unreachable(machine, connection, str(error))
        address = Address(self._names.get(host, host), port)
        routes = (self._route(own, address) for own in machine.ports)
        route = next((route for route in routes if route is not None), None)
        if route is None:
            return self._unreachable(machine, connection, "no route to host")
        made = self._make(kind, route, target=address, host="" if kind is Kind.STREAM else host)
        made.client.id = connection
        return made.open()

    def send_datagram(
        self, port: HostPort, local: Address, remote: Address, data: bytes, *, hop_limit: int | None = None
    ) -> None:
        """Send a datagram from one of the addresses of a host's port; `hop_limit` is that of `SendDatagram`."""
        packet = Packet(local, remote, data) if hop_limit is None else Packet(local, remote, data, hop_limit)
        self.datagrams.send(port, packet)

    def receive_quic(self, machine: Machine, local: Address, remote: Address, data: bytes) -> None:
        """Take a datagram that came to a host and can only be QUIC's."""
        self.quic.endpoint(machine).received(local, remote, data)

    def advertise(self, machine: Machine, record: ServiceRecord) -> None:
        """Publish a host's service, or the change of it, in every site with discovery."""
        for port in machine.ports:
            site = port.site
            if not site.discovery:
                continue
            if site.services is None:
                site.services = {}
            site.services[port] = record
            for other in site.ports():
                if other is not port:
                    self._announce(port, record, other, trips=1)

    # What happens to the network.

    def block(self, block: Block) -> None:
        """Let nothing through that a block stops; the same block can be lifted by `unblock`."""
        self.medium.blocks.append(block)

    def unblock(self, block: Block) -> None:
        """Lift a block."""
        self.medium.blocks.remove(block)

    def set_link(self, port: Port, link: Link) -> None:
        """Exchange the link of a host or site; what waits in its queues stays there."""
        port.link = link
        self.medium.changes += 1

    def reboot_nat(self, site: Site) -> None:
        """Have the gateways of a site forget whatever passed through them."""
        site.reboot()
        self._forget_streams(site)

    def rebind_nat(self, site: Site, outside: Sequence[str]) -> None:
        """Give the NAT of a site other outside addresses; raises NetworkError when it has none or they are taken."""
        site.rebind(outside)
        self._forget_streams(site)

    def move(self, machine: Machine, site: Site, addresses: Sequence[str], link: Link) -> None:
        """Detach a host from wherever it is and attach it to a site, without a word to anybody.

        Its connections are dead from then on, whether the host comes back or not, and neither side is told. What it
        advertised is announced where it is now and runs out where it was, as does what it knew of there.
        """
        for end in machine.ends:
            end.part()
        records = []
        for port in machine.ports:
            if port.site.services is not None and port in port.site.services:
                records.append(port.site.services[port])
            self._let_expire(port)
            if machine.running:
                for other in port.site.services or ():
                    if other is not port:
                        self._after(RECORD_TTL, self._lose_unless_near, machine, other)
            for address in port.addresses:
                port.site.forget(address)
        powered = all(port.powered for port in machine.ports)
        machine.detach()
        self.attach(machine, site, addresses, link)
        for port in machine.ports:
            port.powered = powered
            if machine.running:
                self._look_around(port)
        for record in records[:1] if machine.running else ():
            self.advertise(machine, record)

    # Routes.

    def _route(self, port: HostPort, address: Address) -> Route | None:
        """Return the way from a host's port to an address, or None when there is none."""
        site, host = port.site, address.host
        ups: list[Port] = [port]
        seen, translator = port.address_like(host), None
        while (target := site.known.get(host)) is None:
            if site.parent is None:
                return None
            if host in site.outside or (site.only_tcp_443 and address.port != _HTTPS):
                return _into_nothing(port)
            if site.translates(host):
                seen, translator = site.outside[0], site
            ups.append(site.line)
            site = site.parent
        downs: list[Port] = []
        across = site.parent is None
        while isinstance(target, Site):
            if target.kind is not None or target.only_tcp_443:
                return _into_nothing(port)
            downs.append(target.line)
            target = target.known[host]
        downs.append(target)
        between = self.medium.regions.between(ups[-1].region, downs[0].region) if across else 0
        remote = Address(seen, self._client_port(port.machine, translator))
        return Route(port, target, tuple(ups), tuple(downs), between, remote)

    def _client_port(self, machine: Machine, translator: Site | None) -> int:
        if translator is None:
            # The dynamic ports of RFC 6335, one per connection of a host until they come round again.
            return 49_152 + machine.connects % 16_384
        translator.translations += 1
        return 1_024 + (translator.translations - 1) % 64_512

    def _unreachable(self, machine: Machine, connection: ConnectionId, reason: str) -> End:
        # Nothing travels there; some port has to be the client's, though.
        port = machine.ports[0] if machine.ports else HostPort(machine, _NOWHERE, ("",), CABLE, "")
        made = self._make(Kind.STREAM, _into_nothing(port), target=Address("", 0), host="")
        made.client.id = connection
        self._engine.call_at(self._engine.now, made.client.fail, reason)
        return made.client

    def _make(self, kind: Kind, route: Route, *, target: Address, host: str) -> Connection:
        """Make every connection that there is."""
        self._serial += 1
        return self._connections(self.medium, kind, route, serial=self._serial, target=target, host=host)

    def _forget_streams(self, site: Site) -> None:
        if site.kind is None:
            return
        for port in site.all_ports():
            for end in port.machine.ends:
                if end.leads_through(site.line):
                    end.be_forgotten()

    # Discovery.

    def _look_around(self, port: HostPort) -> None:
        for other, record in (port.site.services or {}).items():
            if other is not port:
                # A question and its answer: twice the distance.
                self._announce(other, record, port, trips=2)

    def _announce(self, source: HostPort, record: ServiceRecord, target: HostPort, *, trips: int) -> None:
        addresses = tuple(Address(address, record.port) for address in source.addresses)
        self._after(trips * one_way(source, target), _find, target, _instance(source.machine), record, addresses)

    def _let_expire(self, port: HostPort) -> None:
        record = (port.site.services or {}).get(port)
        if record is not None:
            self._after(RECORD_TTL, self._expire, port, record)

    def _expire(self, port: HostPort, record: ServiceRecord) -> None:
        # The very same object: a host that came back has advertised a new one.
        if (port.site.services or {}).get(port) is record:
            self._withdraw(port)

    def _withdraw(self, port: HostPort) -> None:
        if port.site.services is None or port.site.services.pop(port, None) is None:
            return
        for other in port.site.ports():
            if other is not port:
                self._after(one_way(port, other), _lose, other, _instance(port.machine))

    def _lose_unless_near(self, machine: Machine, service: HostPort) -> None:
        if machine.owner is not None and machine.running and all(p.site is not service.site for p in machine.ports):
            machine.owner.lost(_instance(service.machine))

    def _after(self, delay: Duration, call: Callable[[*Ts], object], *args: *Ts) -> None:
        self._engine.call_at(self._engine.now + delay, call, *args)

    def _add(self, site: Site) -> Site:
        if site.name in self.sites:
            raise NetworkError(f"there is a segment {site.name!r} already")
        self.sites[site.name] = site
        return site

    def _check_region(self, region: str) -> None:
        if region:
            self.medium.regions.index(region)


_NOWHERE: Final = Site("nowhere", seed=0)
"""Where a host is that is attached to nothing."""


def _into_nothing(port: HostPort) -> Route:
    """Return the way of packets that nobody gets."""
    return Route(port, port, (port,), (port,), 0, Address("", 0), leads_there=False)


def _instance(machine: Machine) -> str:
    return f"{machine.name}._teale._tcp.local."


def _find(port: HostPort, name: str, record: ServiceRecord, addresses: tuple[Address, ...]) -> None:
    machine = port.machine
    if machine.running and port in machine.ports and machine.owner is not None:
        machine.owner.found(name, record, addresses)


def _lose(port: HostPort, name: str) -> None:
    machine = port.machine
    if machine.running and port in machine.ports and machine.owner is not None:
        machine.owner.lost(name)


def _destination(target: Address | WebSocketUrl) -> tuple[Kind, str, int]:
    if isinstance(target, Address):
        return Kind.STREAM, target.host, target.port
    parts = urlsplit(target.url)
    if parts.scheme not in _SCHEMES or parts.hostname is None:
        raise ValueError(f"not a WebSocket address: {target.url!r}")
    kind, port = _SCHEMES[parts.scheme]
    # A hundred thousand connections to one relay need its name once.
    return kind, intern(parts.hostname), parts.port or port
