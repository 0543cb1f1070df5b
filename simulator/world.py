"""A world: one engine, one network, its hosts, and everybody who watches them.

A scenario fills a world; the world knows how nodes and relays are made from the seed, how to ask and how to break
things (`simulator.happenings`), and sums up at the end.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from simulator.backend import CostModel
from simulator.checkers import Checker, ConnectionsEndOnce, ContractKept, EveryAskEndsOnce, TimeNeverRunsBackwards
from simulator.clock import TRUE_CLOCK, Clock
from simulator.engine import Engine
from simulator.fidelity import Fidelity
from simulator.happenings import Happenings
from simulator.host import CoreFactory, Host, Surroundings
from simulator.net.connection import Connection, ConnectionFactory
from simulator.net.link import CABLE, Link
from simulator.net.machine import Machine
from simulator.net.messages import MessageConnection
from simulator.net.nat import NatKind
from simulator.net.network import Network, NetworkError
from simulator.net.regions import WORLD, Regions
from simulator.net.site import Site
from simulator.net.sockets import SOCKETS_MAX, UdpSockets
from simulator.net.weather import DATA_CENTRE
from simulator.reached import reached
from simulator.report import Report, Statistics, judged
from simulator.rng import SplitMix64, stream
from simulator.stun_relay import RelayWithStun
from simulator.surroundings import NODE_PORT, surroundings_of
from simulator.trace import Trace
from simulator.turns import Pace
from teale_proto.contract import SECOND, Instant, Value
from teale_proto.inputs import Address, LoadedModelsChanged, NetworkChanged, NodeId, RequestId, Started
from teale_proto.nat.stun_server import StunServer
from teale_proto.node import Node, NodeConfig
from teale_proto.relay.server import RelayServer, RelayServerConfig
from teale_proto.secure.suite import Keys

EPOCH: Final = 1_767_225_600 * SECOND
"""The Unix time at which every simulation begins: 2026-01-01T00:00:00Z."""

LAN_PORT: Final = 11_436
RELAY_PORT: Final = 8_080
STUN_PORTS: Final = (3_478, 3_479)

Place = tuple[str, str, Link]
"""Where a host is attached: a segment or site, an address on it, and the link."""


class World(Happenings):
    """Everything that exists in one run. With `journal`, hosts keep what their cores were fed and answered.

    `connections` makes the connections of the network, instead of what the fidelity asks for, and `trace` is another
    record than one of everything. What is `watched` keeps the rules that hold in every world and counts what the
    report tells of; without that a world of a hundred thousand nodes is a quarter faster.
    """

    def __init__(
        self,
        seed: int,
        *,
        journal: bool = False,
        cut_chance: float = 0.25,
        regions: Regions = WORLD,
        fidelity: Fidelity = Fidelity.WIRE,
        connections: ConnectionFactory | None = None,
        trace: Trace | None = None,
        watched: bool = True,
    ) -> None:
        engine = Engine()
        if connections is None:
            connections = Connection if fidelity is Fidelity.WIRE else MessageConnection
        network = Network(engine, seed=seed, cut_chance=cut_chance, regions=regions, connections=connections)
        super().__init__(engine, network, Trace() if trace is None else trace)
        self.seed: Final = seed
        self.fidelity: Final = fidelity
        self.node_ids: Final[dict[str, NodeId]] = {}
        """The node id of each host that is a node, by the host's name."""
        self.stun: Final[list[Address]] = []
        """Where nodes are told that STUN is answered, the preferred first."""
        self.gateways: Final[dict[Site, Address]] = {}
        """Where the gateways of sites are asked for port mappings; of those that are."""
        self._journal = journal
        self.checkers: Final[list[Checker]] = []
        """Who watches; `check` adds to them."""
        self._statistics = Statistics()
        if not watched:
            return
        self.trace.subscribe(self._statistics.observe, Statistics.KINDS)
        for checker in (EveryAskEndsOnce(), TimeNeverRunsBackwards(), ConnectionsEndOnce(), ContractKept()):
            self.check(checker)

    def rng(self, purpose: str) -> SplitMix64:
        """Return the scenario's own random stream for `purpose`."""
        return stream(self.seed, "scenario", purpose)

    def check(self, checker: Checker) -> None:
        """Have a rule watched from now on."""
        self.checkers.append(checker)
        self.trace.subscribe(checker.observe, checker.kinds)
        if type(checker).observe_traffic is not Checker.observe_traffic:
            self.network.taps.append(checker.observe_traffic)

    # What there is.

    def add_site(
        self,
        name: str,
        kinds: Sequence[NatKind] = (),
        link: Link = CABLE,
        *,
        region: str = "",
        outside: Sequence[str] = (),
        behind: Site | None = None,
        discovery: bool = False,
        ipv6: bool = False,
        only_tcp_443: bool = False,
    ) -> Site:
        """Add a place with one line, which its hosts share, behind a stack of NATs and firewalls, the outermost first.

        Without kinds it is public. `outside` are the addresses of the outermost NAT, drawn where none are given; with
        `behind`, the stack stands in that site, such as a carrier's network, and not on the internet. With `discovery`
        the hosts find each other, and with `ipv6` they have an IPv6 address too, which no NAT translates. With
        `only_tcp_443`, nothing else leaves. Raises NetworkError for what is taken or cannot be.
        """
        parent = behind or self.network.internet
        stack: list[Site] = []
        for level, kind in enumerate(kinds or [None]):
            innermost = level == max(len(kinds), 1) - 1
            addresses: Sequence[str] = ()
            if kind is not None and kind.translates:
                addresses = (level == 0 and outside) or (self.addresses.outside(parent),)
            site = self.network.add_site(
                name if innermost else f"{name} (gateway {level + 1} of {len(kinds)})",
                kind,
                link if innermost else CABLE,
                outside=addresses,
                behind=parent,
                region="" if level else region,
                discovery=discovery and innermost,
                only_tcp_443=only_tcp_443 and innermost,
            )
            stack.append(site)
            parent = site
        if ipv6:
            stack[-1].prefix_6 = self.addresses.prefix_6()
        if len(stack) > 1:
            self._stacks[name] = tuple(stack)
        return stack[-1]

    def add_host(
        self,
        name: str,
        core: CoreFactory,
        places: Iterable[Place] = (),
        *,
        site: Site | None = None,
        addresses: Sequence[str] = (),
        cable: Link = CABLE,
        birth: Iterable[Value] = (),
        cost: CostModel | None = None,
        models: tuple[str, ...] = (),
        ports: tuple[int, ...] = (),
        clock: Clock = TRUE_CLOCK,
        pace: Pace | None = None,
        sockets: UdpSockets | None = None,
        surroundings: Surroundings | None = None,
    ) -> Host:
        """Add a host that is not running yet, in a site or at places; see `Host` for the other arguments.

        In a site it hangs on a `cable` of its own, and its addresses are drawn where none are given.
        """
        if name in self.hosts:
            raise NetworkError(f"there is a host {name!r} already")
        host = Host(
            name,
            self.engine,
            self.network,
            self.trace,
            core,
            seed=self.seed,
            birth=birth,
            cost=cost,
            models=models,
            ports=ports,
            journal=self._journal,
            clock=clock,
            pace=pace,
            sockets=sockets,
            surroundings=surroundings,
        )
        for segment, address, link in places:
            self.network.attach(host.machine, segment, address, link)
        if site is not None:
            self.network.attach(host.machine, site, addresses or self.addresses.of_host(site), cable)
        self.hosts[name] = host
        return host

    def add_node(
        self,
        name: str,
        config: NodeConfig,
        places: Iterable[Place] = (),
        *,
        site: Site | None = None,
        addresses: Sequence[str] = (),
        cable: Link = CABLE,
        models: tuple[str, ...] = (),
        cost: CostModel | None = None,
        clock: Clock = TRUE_CLOCK,
        pace: Pace | None = None,
        direct: bool = True,
        sockets_max: int = SOCKETS_MAX,
    ) -> Host:
        """Add a node; its keys follow from the seed and its name and survive its crashes.

        With `direct` it has UDP, and is told about its network where a STUN server is in the world; its system lets it
        have up to `sockets_max` sockets.
        """
        has_udp = direct and config.wan_enabled and config.wan_direct
        maker = _NodeMaker(config, self.identity(name), self.fidelity)
        lan_port = LAN_PORT if config.lan_enabled else None
        host = self.add_host(
            name,
            maker,
            places,
            site=site,
            addresses=addresses,
            cable=cable,
            birth=(Started(lan_port), LoadedModelsChanged(models)),
            cost=cost,
            models=models,
            ports=() if lan_port is None else (lan_port,),
            clock=clock,
            pace=pace,
            sockets=UdpSockets((NODE_PORT,), opened_max=sockets_max) if has_udp else None,
            surroundings=self._surroundings_of if has_udp else None,
        )
        maker.host = host
        self.node_ids[name] = host.machine.node = maker.identity.node_id
        return host

    def add_relay(
        self,
        name: str,
        address: str,
        link: Link,
        config: RelayServerConfig,
        *,
        region: str = "",
        port: int = RELAY_PORT,
        pace: Pace | None = None,
        answers_stun: bool = False,
    ) -> Host:
        """Add a relay on the internet, reachable as `ws://name:port/ws`; it may answer STUN at its address, too."""
        endpoint = Address(address, STUN_PORTS[0])
        if answers_stun:
            self.stun.append(endpoint)

        def core(rng: SplitMix64, _: Instant) -> RelayServer | RelayWithStun:
            relay = RelayServer(config, rng, unix_time_at_zero=EPOCH, suite=self.fidelity.suite)
            return RelayWithStun(relay, StunServer(endpoint)) if answers_stun else relay

        host = self.add_host(name, core, ports=(port,), pace=pace)
        self.network.attach(host.machine, self.network.internet, address, link, region=region)
        self.network.add_name(name, address)
        return host

    def add_stun(
        self,
        name: str,
        addresses: Sequence[str] = (),
        link: Link = DATA_CENTRE,
        *,
        region: str = "",
        ports: tuple[int, int] = STUN_PORTS,
    ) -> Host:
        """Add a STUN server on the internet: with two addresses and ports, as RFC 5780 has it, or with one address.

        Two addresses are drawn where none are given; the endpoints are those of the host's core. Nodes prefer servers
        in the order in which they were added.
        """
        hosts = addresses or (self.addresses.public(), self.addresses.public())
        if len(hosts) > 2:
            raise NetworkError(f"{name!r}: a STUN server has one address or two")
        endpoints = [Address(host, port) for host, port in zip(hosts, ports, strict=False)]
        host = self.add_host(name, lambda _, now: StunServer(*endpoints))  # noqa: ARG005 - it keeps no time
        self.network.attach(host.machine, self.network.internet, tuple(hosts), link, region=region)
        self.stun.append(endpoints[0])
        return host

    def _surroundings_of(self, machine: Machine) -> NetworkChanged | None:
        return surroundings_of(machine, self.network.internet, self.stun, self.gateways.get)

    def identity(self, name: str, count: int = 1) -> Keys:
        """Return the keys of a node: those that it begins with, or the `count`-th."""
        purpose = "identity" if count == 1 else f"identity {count}"
        return self.fidelity.identity(stream(self.seed, name, purpose).randbytes(32))

    # What happens, beside `Happenings`.

    def restart(self, name: str, *, at: Instant, keep_identity: bool = True) -> None:
        """Switch a host on again, later; one that is alive by then is left alone.

        Unless it keeps its identity, its disk is gone: a node comes back with new keys, and as another node.
        """
        self.engine.call_at(at, self._restart, self._host(name), keep_identity)

    def _restart(self, host: Host, keep_identity: bool) -> None:
        if host.alive:
            return
        maker = host.make_core
        if not keep_identity and isinstance(maker, _NodeMaker):
            maker.identities += 1
            maker.identity = self.identity(host.name, maker.identities)
            self.node_ids[host.name] = host.machine.node = maker.identity.node_id
        host.start()

    # How it ends.

    def report(self, scenario: str, wall_seconds: float) -> Report:
        """End the run: have every checker judge it, and sum up."""
        for checker in self.checkers:
            checker.finish(self.engine.now)
        checks = judged(self.checkers)
        paths = reached(self.hosts.values())
        return Report(
            scenario=scenario,
            seed=self.seed,
            passed=all(check.passed for check in checks),
            digest=self.trace.digest,
            requests=self._statistics.requests(),
            hosts_crashed=self._statistics.hosts_crashed,
            peers_lost=self._statistics.peers_lost,
            checks=checks,
            simulated_seconds=self.engine.now / SECOND,
            events=self.engine.events,
            trace_entries=self.trace.count,
            wall_seconds=round(wall_seconds, 3),
            peers_direct=paths.direct,
            peers_relayed=paths.relayed,
        )


def request_ids(prefix: str, count: int) -> list[RequestId]:
    """Return `count` request ids that sort as they are numbered."""
    width = len(str(count - 1))
    return [f"{prefix}-{number:0{width}}" for number in range(count)]


class _NodeMaker:
    """Makes the core of each life of a node."""

    __slots__ = ("_config", "_fidelity", "host", "identities", "identity")

    def __init__(self, config: NodeConfig, identity: Keys, fidelity: Fidelity) -> None:
        self._config = config
        self._fidelity = fidelity
        self.identity = identity
        self.identities = 1
        """How many identities it has had."""
        self.host: Host | None = None

    def __call__(self, rng: SplitMix64, _: Instant) -> Node:
        clock = TRUE_CLOCK if self.host is None else self.host.clock
        unix_time_at_zero = clock.unix_time_at_zero(EPOCH)
        suite = self._fidelity.suite
        return Node(self._config, self.identity, rng, unix_time_at_zero=unix_time_at_zero, suite=suite)
