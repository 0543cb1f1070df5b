"""What a node finds out about the network that it is in, and keeps true: its side of every plan.

Each of its sockets, at most one of each IP version, is asked about at a STUN server; where one says nothing, the
next is asked. Where the mapping varies it is also sampled how ports are chosen, and the gateway is asked to forward
a port. Once all that is known, `side` and `candidates` say what a peer has to know; before an attempt they are
brought up to date, since a mapping that nobody used may be gone.
"""

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

from msgspec.structs import replace

from teale_proto.contract import MILLISECOND, NEVER, SECOND, Duration, Instant, Sink
from teale_proto.effects import CloseSockets, OpenSockets, SendDatagram
from teale_proto.errors import LocalError
from teale_proto.inputs import WAKE, Address, DatagramReceived, NetworkChanged, SocketsOpened
from teale_proto.nat.allocation import AllocationSampling, ReportAllocation, SamplingStarted
from teale_proto.nat.behaviour import (
    BehaviourDiscovery,
    DiscoveryStarted,
    ReportBehaviour,
    Retransmission,
    Setting,
)
from teale_proto.nat.kinds import Behaviour
from teale_proto.nat.port_mapping import PortMapping
from teale_proto.nat.port_mapping_values import (
    MappingUnwanted,
    MappingWanted,
    ReportPortLost,
    ReportPortMapped,
)
from teale_proto.nat.port_mapping_values import Setting as MappingSetting
from teale_proto.nat.punch_messages import Candidate
from teale_proto.nat.reflexive import ReflexiveQuery
from teale_proto.nat.strategy import CandidateKind, Side
from teale_proto.rng import Rng

SAMPLING: Final = 0
"""The number of our only request for sockets."""
SAMPLED_SOCKETS: Final = 4
"""Each asks one server once, as what shows how ports are chosen is the order of new mappings."""
SERVERS_MAX: Final = 3
"""Servers of one IP version that are asked, one after another, before UDP counts as blocked."""

IPV4, IPV6 = 4, 6

FRESH_FOR: Final[Duration] = 10 * SECOND
"""No mapping that was ever seen to be in use is forgotten sooner."""

ASKING: Final = Retransmission(first=250 * MILLISECOND, requests=4, patience=4)
"""Four requests in 1.75 s, given up after 2.75 s: somebody waits for what a filter holds back, too."""

Effect: TypeAlias = SendDatagram | OpenSockets | CloseSockets
UNKNOWN: Final = Behaviour(udp_blocked=False)
NO_IPV4: Final = Behaviour(udp_blocked=True)


class Surroundings:
    """What is known of one network at a time."""

    __slots__ = (
        "_behaviours",
        "_birthday_allowed",
        "_discoveries",
        "_fresh_at",
        "_mapped_port",
        "_network",
        "_port_mapping",
        "_query",
        "_rng",
        "_sampled",
        "_sampling",
        "_servers",
        "_untried",
        "outside",
        "side",
    )

    def __init__(self, rng: Rng, *, birthday_allowed: bool) -> None:
        self._rng = rng
        self._birthday_allowed = birthday_allowed
        self.outside: str | None = None
        """From which address the relay sees us come."""
        self._port_mapping: PortMapping | None = None
        self._forget(NetworkChanged(()))

    def _forget(self, network: NetworkChanged) -> None:
        self._network = network
        self._discoveries: dict[Address, BehaviourDiscovery] = {}
        self._untried: dict[Address, list[Address]] = {}
        self._servers: dict[Address, Address] = {}
        self._behaviours: dict[Address, Behaviour] = {}
        self._sampling: AllocationSampling | None = None
        self._sampled: tuple[int, ...] | None = None
        """The ports of the sockets for sampling; () while they are awaited."""
        self._mapped_port: Address | None = None
        self._query: ReflexiveQuery | None = None
        self._fresh_at: Instant = 0
        self.side: Side | None = None
        """Our side of a plan; None until it is known."""

    @property
    def deadline(self) -> Instant:
        """When something is to be asked again or given up."""
        return min((core.deadline for core in self._cores()), default=NEVER)

    @property
    def sockets(self) -> tuple[Address, ...]:
        """Our sockets, the one that peers are told of first."""
        return self._network.sockets

    @property
    def server(self) -> Address | None:
        """A server that answers our first socket."""
        return self._servers.get(self.sockets[0]) if self.sockets else None

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """Where a peer may find us, the best first."""
        found = [Candidate(CandidateKind.HOST, socket) for socket in self.sockets]
        if self._mapped_port is not None:
            found.append(Candidate(CandidateKind.MAPPED, self._mapped_port))
        for socket in self.sockets:
            mapped = self._behaviours.get(socket, UNKNOWN).mapped
            if mapped is not None:
                found.append(Candidate(CandidateKind.REFLEXIVE, mapped))
        return tuple(found)

    # What happens.

    def network_changed(self, network: NetworkChanged, now: Instant, out: Sink[Effect]) -> None:
        """Begin anew in another network, or in none."""
        self.leave(now, out)
        self._forget(network)
        for socket in network.sockets:
            alike = [server for server in network.stun if _version(server) == _version(socket)]
            self._untried[socket] = alike[:SERVERS_MAX]
        for socket in network.sockets:
            self._discover(socket, now, out)
        self._ask_gateway(now, out)
        self._settle()

    def leave(self, now: Instant, out: Sink[Effect]) -> None:
        """Give back what the gateway has given; for the end, and before another network."""
        if self._port_mapping is not None:
            self._take(self._port_mapping.handle(MappingUnwanted(), now), now, out)
            self._port_mapping = None

    def refresh(self, now: Instant, out: Sink[Effect]) -> bool:
        """Ask again where we are seen; return whether that is under way, rather than known well enough."""
        if self._query is None and self.side is not None and now - self._fresh_at >= FRESH_FOR:
            server = self.server
            if server is not None and not self.side.behaviour.udp_blocked:
                self._query = ReflexiveQuery(self.sockets[0], server, self._rng)
                self._query.fired(now, out)
        return self._query is not None

    def received(self, event: DatagramReceived, now: Instant, out: Sink[Effect]) -> None:
        """Take a datagram; what is not for us changes nothing."""
        for core in tuple(self._cores()):
            if isinstance(core, ReflexiveQuery):
                if core.received(event):
                    self._answered(core, now)
            else:
                self._take(core.handle(event, now), now, out)

    def sockets_opened(self, event: SocketsOpened, now: Instant, out: Sink[Effect]) -> None:
        """Take the sockets for sampling, or do without."""
        if self._sampled != () or not self.sockets:
            return
        self._sampled = event.ports
        server, host = self.server, self.sockets[0].host
        if server is None or len(event.ports) < SAMPLED_SOCKETS:
            self._sampled_all(None, out)
            return
        self._sampling = AllocationSampling([Address(host, port) for port in event.ports], [server], self._rng)
        self._take(self._sampling.handle(SamplingStarted(), now), now, out)

    def fired(self, now: Instant, out: Sink[Effect]) -> None:
        """Do what is due."""
        for core in tuple(self._cores()):
            if core.deadline > now:
                continue
            if isinstance(core, ReflexiveQuery):
                core.fired(now, out)
                if core.deadline == NEVER:
                    self._answered(core, now)
            else:
                self._take(core.handle(WAKE, now), now, out)

    # Finding out.

    def _cores(self) -> tuple[Any, ...]:
        cores = (*self._discoveries.values(), self._sampling, self._port_mapping, self._query)
        return tuple(core for core in cores if core is not None)

    def _take(self, effects: Sequence[Any], now: Instant, out: Sink[Effect]) -> None:
        for effect in effects:
            match effect:
                case SendDatagram():
                    out.append(effect)
                case ReportBehaviour():
                    self._discovered(effect, now, out)
                case ReportAllocation():
                    self._sampled_all(effect, out)
                case ReportPortMapped(external=external, routable=True):
                    self._mapped_port = external
                    self._settle()
                case ReportPortLost() | ReportPortMapped():
                    self._mapped_port = None
                    self._settle()

    def _discover(self, socket: Address, now: Instant, out: Sink[Effect]) -> None:
        """Ask the next server about a socket; where there is none left, what is known must do."""
        servers = self._untried[socket]
        if not servers:
            return
        server = servers.pop(0)
        second = next((other for other in servers if other.host != server.host), None)
        self._servers[socket] = server
        core = BehaviourDiscovery(Setting(socket, server, second), self._rng, retransmission=ASKING)
        self._discoveries[socket] = core
        self._take(core.handle(DiscoveryStarted(), now), now, out)

    def _discovered(self, report: ReportBehaviour, now: Instant, out: Sink[Effect]) -> None:
        socket = report.local
        del self._discoveries[socket]
        if report.behaviour.udp_blocked and self._untried[socket]:
            # It may be the server that is gone.
            self._discover(socket, now, out)
            return
        self._behaviours[socket] = report.behaviour
        self._fresh_at = now
        if report.behaviour.mapping_varies and socket == self.sockets[0]:
            self._sampled = ()
            out.append(OpenSockets(SAMPLING, socket.host, SAMPLED_SOCKETS))
        self._settle()

    def _sampled_all(self, report: ReportAllocation | None, out: Sink[Effect]) -> None:
        if self._sampled:
            out.append(CloseSockets(self.sockets[0].host, self._sampled))
        self._sampling, self._sampled = None, None
        self._settle(report)

    def _ask_gateway(self, now: Instant, out: Sink[Effect]) -> None:
        gateway, first = self._network.gateway, self.sockets[0] if self.sockets else None
        if gateway is None or first is None or _version(gateway) != _version(first):
            return
        try:
            self._port_mapping = PortMapping(MappingSetting(first, gateway.host, first.port), self._rng)
        except LocalError:
            return
        self._take(self._port_mapping.handle(MappingWanted(), now), now, out)

    def _answered(self, query: ReflexiveQuery, now: Instant) -> None:
        self._query = None
        self._fresh_at = now
        if query.mapped is not None:
            first = self.sockets[0]
            self._behaviours[first] = replace(self._behaviours.get(first, UNKNOWN), mapped=query.mapped)
            self._settle()

    def _settle(self, sampled: ReportAllocation | None = None) -> None:
        """Make our side of what is known, once all of it is that was asked for."""
        if not self.sockets or self._discoveries or self._sampled is not None:
            return
        allocation = sampled.allocation if sampled else self.side.allocation if self.side else None
        ipv4, ipv6 = (
            next((self._behaviours.get(each, UNKNOWN) for each in self.sockets if _version(each) == version), None)
            for version in (IPV4, IPV6)
        )
        self.side = Side(
            ipv4 or NO_IPV4,
            allocation,
            port_mapped=self._mapped_port is not None,
            ipv6=ipv6,
            outside=self.outside,
            birthday_allowed=self._birthday_allowed,
        )


def _version(address: Address) -> int:
    return IPV6 if ":" in address.host else IPV4
