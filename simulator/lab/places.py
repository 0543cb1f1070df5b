"""The machines of a lab: hosts, and sites with their routers, as namespaces with cables between them.

Every machine calls its interface to the inside `lan` and that to the outside `wan`. A site is a chain of routers, the
outermost first, whose `wan` is a TUN device that leads to the wide area. The innermost one's `lan` is a bridge with
the cables of the hosts, so that these share an Ethernet; a server has a TUN device of its own. Addresses are those
that the simulator draws. Who may ask whom for an Ethernet address is settled beforehand, so that a machine without
power is a silent one, and not one that is known to be gone.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Final

from simulator.lab import conntrack, partitions, port_mapping
from simulator.lab.namespaces import Namespace
from simulator.lab.partitions import Attached
from simulator.lab.port_mapping import PortMapper
from simulator.lab.readiness import wait_for_echo, wait_for_link
from simulator.lab.routers import INSIDE, OUTSIDE, parameters_of, rules_of
from simulator.lab.tun import Tun
from simulator.net.link import CABLE, Link
from simulator.net.site import Site
from simulator.rng import stream
from teale_proto.contract import Value
from teale_proto.nat.kinds import Hairpinning

GATEWAY: Final = "10.0.0.1"
"""What a router is called inside a home; the simulator leaves it free, and so it does the next."""
CARRIER: Final = "100.64.0.1"
NEIGHBOUR: Final = "169.254.0.1"
"""What a router is called where nothing is translated, and addresses of its own would be somebody's."""

_QUEUE: Final = 2000
"""Packets that wait in a TUN device for the forwarder, before the line's own queue."""
_HAIRPIN_TABLE: Final = 100


class Traffic(Value):
    """What has crossed a host's cable, both ways, headers included; what it said to its LAN counts too."""

    packets_sent: int = 0
    bytes_sent: int = 0
    packets_received: int = 0
    bytes_received: int = 0


class LabHost:
    """A machine that programs run on: a namespace of its own."""

    def __init__(
        self,
        name: str,
        addresses: Sequence[str],
        site: "LabSite | None" = None,
        *,
        region: str = "",
        line: Link = CABLE,
    ) -> None:
        self.name: Final = name
        self.addresses: tuple[str, ...] = tuple(addresses)
        self.site = site
        """Where it is; None for a server, which is on the internet itself."""
        self.is_cut = False
        self.line = line
        """A server's own line; that of any other is its site's."""
        self.number = -1
        """Of a server's line, in the wide area."""
        self.device: Tun | None = None
        """Where a server's line ends, until the wide area has it."""
        self.rules = partitions.rules_of(None, frozenset())
        """The rules of its own that partitions need."""
        self._region = region
        self.namespace: Final = Namespace()
        self.port = 0
        """The number of its port in its site; 0 where it is not plugged in."""
        self._before = Traffic()

    @property
    def prefix(self) -> tuple[str, ...]:
        """The words that run a command there, as a child of whoever runs it; its process id stays what it is."""
        return self.namespace.prefix

    @property
    def region(self) -> str:
        """Where it is on Earth; "" is nowhere in particular."""
        return self._region if self.site is None else self.site.region

    @property
    def attached(self) -> Attached:
        """Where it is, as partitions see it."""
        names = {self.name, self.region} if self.site is None else {self.name, self.region, self.site.name}
        return Attached(self.number if self.site is None else self.site.number, frozenset(names - {""}), self.name)

    @property
    def traffic(self) -> Traffic:
        """What has crossed its cable so far."""
        counters = self.namespace.devices().get(OUTSIDE if self.site is None else INSIDE, [0] * 16)
        before = self._before
        return Traffic(
            packets_sent=before.packets_sent + counters[9],
            bytes_sent=before.bytes_sent + counters[8],
            packets_received=before.packets_received + counters[1],
            bytes_received=before.bytes_received + counters[0],
        )

    def build(self) -> None:
        """Make what it has wherever it is."""
        self.namespace.sysctl({f"ipv6/conf/{which}/accept_ra": 0 for which in ("all", "default")})
        self.namespace.ip(["link set lo up"])

    def build_server(self) -> None:
        """Make its own way to the wide area."""
        self.build()
        self.device = Tun(self.namespace, OUTSIDE)
        self.namespace.sysctl({f"ipv6/conf/{OUTSIDE}/disable_ipv6": 1})
        addresses = (f"addr add {address}/32 dev {OUTSIDE}" for address in self.addresses)
        route = f"route add default dev {OUTSIDE} src {self.addresses[0]}"
        self.namespace.ip([f"link set {OUTSIDE} txqueuelen {_QUEUE} up", *addresses, route])

    def close(self) -> None:
        """Let go of everything."""
        if self.device is not None:
            self.device.close()
        self.namespace.close()

    def plug(self) -> None:
        """Lay a cable to the router of its site, and wait until it is answered there."""
        site = self.site
        assert site is not None, "a server has no cable"
        others = [other for other in site.hosts if other is not self and other.port]
        self.port = site.next_port()
        (address,) = self.addresses
        path = self.namespace.path
        to_host = (
            f"link add {self._port} type veth peer name {INSIDE} address {self._mac} netns {path}",
            f"link set {self._port} master {INSIDE} up",
            f"neigh replace {address} lladdr {self._mac} dev {INSIDE} nud permanent",
            *(() if site.is_private else (f"route add {address}/32 dev {INSIDE}",)),
        )
        site.innermost.ip(to_host)
        gateway = site.gateway
        to_site = (
            # With an address that the kernel chose, it would first ask around whether that is free.
            f"link set {INSIDE} addrgenmode none up",
            f"addr add {self._link_local}/64 dev {INSIDE} nodad",
            f"addr add {address}/{16 if site.is_private else 32} dev {INSIDE}",
            f"neigh replace {gateway} lladdr {_BRIDGE_MAC} dev {INSIDE} nud permanent",
            *(() if site.is_private else (f"route add {gateway}/32 dev {INSIDE}",)),
            f"route add default via {gateway} dev {INSIDE}",
        )
        self.namespace.ip((*to_site, *(line for other in others for line in other.as_neighbour())))
        for other in others:
            other.namespace.ip(self.as_neighbour())
        self.namespace.call(lambda: wait_for_echo(gateway))
        if self.is_cut:
            self.set_power(powered=False)

    def unplug(self) -> None:
        """Take the cable away, at both ends."""
        assert self.site is not None, "a server has no cable"
        self._before = self.traffic
        (address,) = self.addresses
        # With the cable goes whatever went by it, but not what the bridge knows.
        self.site.innermost.ip((f"link del {self._port}", f"neigh del {address} dev {INSIDE}"))
        if not self.site.is_private:
            self.site.innermost.ip((f"route del {address}/32 dev {INSIDE}",))
        self.port = 0

    def set_power(self, *, powered: bool) -> None:
        """Take the cable out of the switch, or put it back: it still has its link, and nobody is told."""
        assert self.site is not None, "a server has no cable"
        change = f"master {INSIDE}" if powered else "nomaster"
        self.site.innermost.ip((f"link set {self._port} {change}",))

    def as_neighbour(self) -> Iterator[str]:
        """Yield what others on its LAN have to be told of it."""
        for address in (*self.addresses, self._link_local):
            yield f"neigh replace {address} lladdr {self._mac} dev {INSIDE} nud permanent"

    @property
    def _port(self) -> str:
        return f"host{self.port}"

    @property
    def _mac(self) -> str:
        return f"02:00:00:00:{self.port >> 8:02x}:{self.port & 255:02x}"

    @property
    def _link_local(self) -> str:
        return f"fe80::{self.port:x}"


class LabSite:
    """What shares one line and stands behind one chain of routers."""

    def __init__(
        self,
        chain: Sequence[Site],
        *,
        line: Link,
        region: str,
        seed: int,
        only_tcp_443: bool,
        offers_port_mapping: bool,
    ) -> None:
        self.chain: Final = tuple(chain)
        """The site as the simulator knows it, gateway by gateway, the outermost first."""
        self.name: Final = chain[-1].name
        self.region: Final = region
        self.line = line
        self.number = -1
        """Of its line, in the wide area."""
        self.device: Tun | None = None
        """Where its line ends, until the wide area has it."""
        self.only_tcp_443: Final = only_tcp_443
        self.offers_port_mapping: Final = offers_port_mapping
        self.hosts: tuple[LabHost, ...] = ()
        self.is_private: Final = any(level.outside for level in chain)
        """Whether its hosts have addresses that are not the internet's."""
        self._ports = 0
        self._reboots = 0
        self._seed = seed
        self.routers: Final = tuple(Namespace() for _ in chain)
        self._mapper: PortMapper | None = None

    @property
    def outside(self) -> str | None:
        """The address of its outermost NAT; None where nothing translates."""
        return next((level.outside[0] for level in self.chain if level.outside), None)

    @property
    def gateway(self) -> str:
        """The address at which its hosts find their router, and port mapping where that is offered."""
        return GATEWAY if self.is_private else NEIGHBOUR

    @property
    def innermost(self) -> Namespace:
        """The router that the hosts are plugged into."""
        return self.routers[-1]

    @property
    def public(self) -> tuple[str, ...]:
        """The addresses under which it is known to the wide area."""
        return tuple(self._known_at(0))

    def next_port(self) -> int:
        """Return a number for one more host, which no other has had."""
        # 1 and 2 are those of routers.
        self._ports += 1
        return self._ports + 2

    def build(self) -> None:
        """Make the routers, from the outside to the inside, and the hosts that are there."""
        self.device = Tun(self.routers[0], OUTSIDE)
        for level in range(len(self.chain)):
            self._build_router(level)
        for router in self.routers[1:]:
            wait_for_link(router, OUTSIDE)
        if self.offers_port_mapping:
            self._mapper = PortMapper(self.innermost)
        for host in self.hosts:
            host.build()
            host.plug()
        self.learn()

    def learn(self) -> None:
        """Have the routers know the way to the hosts, beneath what does not translate."""
        for level, router in enumerate(self.routers[:-1]):
            router.ip(
                command
                for address in self._known_at(level + 1)
                for command in (
                    f"neigh replace {address} lladdr {_LOWER_MAC} dev {INSIDE} nud permanent",
                    f"route replace {address}/32 dev {INSIDE}",
                )
            )

    def reboot(self) -> None:
        """Have the routers forget everything."""
        self._reboots += 1
        if self._mapper is not None:
            self._mapper.close()
        for level, router in enumerate(self.routers):
            router.nft(self._rules(level))
            if self.chain[level].kind is not None:
                conntrack.flush(router)
        if self._mapper is not None:
            self._mapper = PortMapper(self.innermost)

    def rebind(self, level: int, outside: str) -> None:
        """Give a NAT another outside address."""
        (before,) = self.chain[level].outside
        self.chain[level].rebind((outside,))
        commands = [f"addr add {outside}/32 dev {OUTSIDE}", f"addr del {before}/32 dev {OUTSIDE}"]
        if _hairpins(self.chain[level]):
            commands += [_hairpin_rule("add", outside), _hairpin_rule("del", before)]
        self.routers[level].ip(commands)
        self.learn()

    def close(self) -> None:
        """Let go of everything."""
        with ExitStack() as stack:
            for router in self.routers:
                stack.callback(router.close)
            if self.device is not None:
                stack.callback(self.device.close)
            if self._mapper is not None:
                stack.callback(self._mapper.close)

    def _known_at(self, level: int) -> Iterator[str]:
        """Yield the addresses under which it is known just outside a router."""
        for inner in self.chain[level:]:
            if inner.outside:
                yield from inner.outside
                return
        for host in self.hosts:
            yield from host.addresses

    def _rules(self, level: int) -> str:
        site, is_innermost = self.chain[level], level == len(self.chain) - 1
        purpose = f"ports of life {self._reboots + 1}"
        rules = rules_of(
            site.kind,
            outside=site.outside[0] if site.outside else "",
            only_tcp_443=self.only_tcp_443 and is_innermost,
            rng=stream(self._seed, site.name, purpose),
        )
        return rules + (port_mapping.RULES if self.offers_port_mapping and is_innermost else "")

    def _build_router(self, level: int) -> None:
        site, router = self.chain[level], self.routers[level]
        router.sysctl(parameters_of(site.kind))
        router.ip((*self._outwards(level), *self._inwards(level)))
        if site.kind is not None or self.only_tcp_443:
            router.nft(self._rules(level))

    def _outwards(self, level: int) -> Iterator[str]:
        site = self.chain[level]
        yield "link set lo up"
        yield f"link set {OUTSIDE} txqueuelen {_QUEUE} up"
        yield from (f"addr add {address}/32 dev {OUTSIDE}" for address in site.outside)
        way_out = f"default dev {OUTSIDE}"
        if level:
            upper = self._inside_of(level - 1)
            yield f"neigh replace {upper} lladdr {_UPPER_MAC} dev {OUTSIDE} nud permanent"
            way_out = f"default via {upper} dev {OUTSIDE} onlink"
        yield f"route add {way_out}"
        if _hairpins(site):
            # What is sent to its own address has to leave before it may come in; so the local table comes second.
            yield f"route add {way_out} table {_HAIRPIN_TABLE}"
            yield "rule add pref 100 lookup local"
            yield "rule del pref 0"
            yield from (_hairpin_rule("add", address) for address in site.outside)

    def _inwards(self, level: int) -> Iterator[str]:
        address = self._inside_of(level)
        if level < len(self.chain) - 1:
            below = self.routers[level + 1].path
            cable = f"link add {INSIDE} address {_UPPER_MAC} type veth"
            yield f"{cable} peer name {OUTSIDE} address {_LOWER_MAC} netns {below}"
            yield f"link set {INSIDE} up"
            yield f"addr add {address}/32 dev {INSIDE}"
            for known in self._known_at(level + 1):
                yield f"neigh replace {known} lladdr {_LOWER_MAC} dev {INSIDE} nud permanent"
                yield f"route add {known}/32 dev {INSIDE}"
        else:
            # A bridge that listens for who wants which multicast would keep mDNS back until somebody has asked.
            bridge = f"link add {INSIDE} address {_BRIDGE_MAC} type bridge"
            yield f"{bridge} stp_state 0 forward_delay 0 mcast_snooping 0"
            yield f"link set {INSIDE} up"
            yield f"addr add {address}/{16 if self.is_private else 32} dev {INSIDE}"

    def _inside_of(self, level: int) -> str:
        """Return what the router of a level is called by those inside it."""
        if level == len(self.chain) - 1:
            return self.gateway
        return CARRIER if any(outer.outside for outer in self.chain[: level + 1]) else NEIGHBOUR


_UPPER_MAC: Final = "02:00:00:00:00:01"
_LOWER_MAC: Final = "02:00:00:00:00:02"
_BRIDGE_MAC: Final = _UPPER_MAC


def _hairpins(site: Site) -> bool:
    return bool(site.outside) and site.kind is not None and site.kind.hairpinning is not Hairpinning.NONE


def _hairpin_rule(act: str, address: str) -> str:
    return f"rule {act} pref 10 iif {INSIDE} to {address} lookup {_HAIRPIN_TABLE}"
