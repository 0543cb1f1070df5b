"""What a node finds out about the network that it is in, and keeps true: its side of every plan.

Each of its sockets, at most one of each IP version, is asked about at two STUN servers at a time; where none of them
says anything, the next two are asked. One that answers is then asked for more, the other tells whether the mapping
varies. Where it does it is also sampled how ports are chosen, and the gateway is asked to forward a port. Once all
that is known, `side` and `candidates` say what a peer has to know; before an attempt they are brought up to date,
since a mapping that nobody used may be gone.

Whoever is asked may answer, too: a server of whose two addresses both were asked cannot tell any more what a NAT
filters. So that is not known then.
"""

from collections.abc import Sequence
from itertools import count
from typing import Any, Final, TypeAlias

from msgspec.structs import replace

from teale_proto.contract import MILLISECOND, NEVER, SECOND, Duration, Instant, Sink
from teale_proto.effects import CloseSockets, MapPort, OpenSockets, SendDatagram, UnmapPort
from teale_proto.errors import LocalError
from teale_proto.inputs import (
    WAKE,
    Address,
    DatagramReceived,
    NetworkChanged,
    PortMapFailed,
    PortMapped,
    SocketsOpened,
)
from teale_proto.nat.allocation import AllocationSampling, ReportAllocation, SamplingStarted
from teale_proto.nat.behaviour import (
    BehaviourDiscovery,
    DiscoveryStarted,
    Finding,
    ReportBehaviour,
    Retransmission,
    Setting,
)
from teale_proto.nat.kinds import Behaviour
from teale_proto.nat.port_mapping import PortMapping
from teale_proto.nat.port_mapping_values import (
    MappingUnwanted,
    MappingWanted,
    Patience,
    Refusal,
    ReportPortLost,
    ReportPortMapped,
    ReportPortRefused,
    ReportPortUnavailable,
    routable,
)
from teale_proto.nat.port_mapping_values import Setting as MappingSetting
from teale_proto.nat.punch_messages import Candidate
from teale_proto.nat.reflexive import ReflexiveQuery
from teale_proto.nat.strategy import CandidateKind, Side
from teale_proto.nat.upnp_mapping import UpnpMapping
from teale_proto.rng import Rng

SAMPLING: Final = 0
"""The number of our only request for sockets."""
SAMPLED_SOCKETS: Final = 4
"""Each asks one server once, as what shows how ports are chosen is the order of new mappings."""
ASKED_AT_ONCE: Final = 2
SERVERS_MAX: Final = 4
"""Servers of one IP version that are asked before UDP counts as blocked."""

IPV4, IPV6 = 4, 6

FRESH_FOR: Final[Duration] = 10 * SECOND
"""No mapping that was ever seen to be in use is forgotten sooner."""

ASKING: Final = Retransmission(first=250 * MILLISECOND, requests=4, patience=4)
"""Four requests in 1.75 s, given up after 2.75 s: somebody waits for what a filter holds back, too."""

GATEWAY_PATIENCE: Final = Patience(pcp_requests=2, nat_pmp_requests=5)
"""17 s until a gateway counts as one that speaks neither: by then UPnP may be what it waits for."""

Effect: TypeAlias = SendDatagram | OpenSockets | CloseSockets | MapPort | UnmapPort
UNKNOWN: Final = Behaviour(udp_blocked=False)
NO_IPV4: Final = Behaviour(udp_blocked=True)


class Surroundings:
    """What is known of one network at a time."""

    __slots__ = (
        "_asked",
        "_behaviours",
        "_birthday_allowed",
        "_discoveries",
        "_fresh_at",
        "_named",
        "_network",
        "_port_mapping",
        "_queries",
        "_query",
        "_requests",
        "_rng",
        "_sampled",
        "_sampling",
        "_servers",
        "_untried",
        "_upnp",
        "outside",
        "side",
    )

    def __init__(self, rng: Rng, *, birthday_allowed: bool) -> None:
        self._rng = rng
        self._birthday_allowed = birthday_allowed
        self.outside: str | None = None
        """From which address the relay sees us come."""
        self._port_mapping: PortMapping | None = None
        self._upnp: UpnpMapping | None = None
        self._requests = count(1)
        self._forget(NetworkChanged(()))

    def _forget(self, network: NetworkChanged) -> None:
        self._network = network
        self._queries: dict[Address, ReflexiveQuery] = {}
        """Where nobody has answered yet."""
        self._discoveries: dict[Address, BehaviourDiscovery] = {}
        self._untried: dict[Address, list[Address]] = {}
        self._asked: dict[Address, list[Address]] = {}
        self._servers: dict[Address, tuple[Address, ...]] = {}
        """The servers that answer, the one that is preferred first."""
        self._behaviours: dict[Address, Behaviour] = {}
        self._sampling: AllocationSampling | None = None
        self._sampled: tuple[int, ...] | None = None
        """The ports of the sockets for sampling; () while they are awaited."""
        self._named: Address | None = None
        """Where the gateway says that it forwards a port to us, by PCP or NAT-PMP."""
        self._query: ReflexiveQuery | None = None
        self._fresh_at: Instant = 0
        self.side: Side | None = None
        """Our side of a plan; None until it is known."""

    @property
    def deadline(self) -> Instant:
        """When something is to be asked again or given up."""
        deadlines: list[Instant] = [core.deadline for core in self._cores()]
        return min(*deadlines, NEVER if self._upnp is None else self._upnp.deadline, NEVER)

    @property
    def sockets(self) -> tuple[Address, ...]:
        """Our sockets, the one that peers are told of first."""
        return self._network.sockets

    @property
    def server(self) -> Address | None:
        """A server that answers our first socket."""
        return next(iter(self._servers.get(self.sockets[0], ())), None) if self.sockets else None

    @property
    def mapped_port(self) -> Address | None:
        """Where the gateway forwards a port to us from; an address that the internet sees us at, or nothing."""
        named = self._named or (self._upnp and self._upnp.external)
        if not named or not routable(named.host):
            return None
        mapped = [each.mapped.host for each in self._behaviours.values() if each.mapped is not None]
        seen = [
            host for host in (*mapped, self.outside or "") if routable(host) and (":" in host) == (":" in named.host)
        ]
        return named if named.host in seen or not seen else None

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """Where a peer may find us, the best first."""
        found = [Candidate(CandidateKind.HOST, socket) for socket in self.sockets]
        if (port := self.mapped_port) is not None:
            found.append(Candidate(CandidateKind.MAPPED, port))
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
            self._untried[socket], self._asked[socket] = alike[:SERVERS_MAX], []
        for socket in network.sockets:
            self._discover(socket, now, out)
        self._ask_gateway(now, out)
        self._settle()

    def leave(self, now: Instant, out: Sink[Effect]) -> None:
        """Give back what the gateway has given; for the end, and before another network."""
        if self._port_mapping is not None:
            self._take(self._port_mapping.handle(MappingUnwanted(), now), now, out)
            self._port_mapping = None
        if self._upnp is not None:
            self._upnp.release(out)
            self._upnp = None

    def refresh(self, now: Instant, out: Sink[Effect]) -> bool:
        """Ask again where we are seen; return whether that is under way, rather than known well enough."""
        if self._query is None and self.side is not None and now - self._fresh_at >= FRESH_FOR:
            servers = self._servers.get(self.sockets[0], ())
            if servers and not self.side.behaviour.udp_blocked:
                self._query = ReflexiveQuery(self.sockets[0], servers, self._rng)
                self._query.fired(now, out)
        return self._query is not None

    def received(self, event: DatagramReceived, now: Instant, out: Sink[Effect]) -> None:
        """Take a datagram; what is not for us changes nothing."""
        for core in tuple(self._cores()):
            if isinstance(core, ReflexiveQuery):
                if core.received(event, now):
                    self._queried(core, now, out)
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

    def port_answered(self, event: PortMapped | PortMapFailed, now: Instant, out: Sink[Effect]) -> None:
        """Take what came of asking the gateway by UPnP."""
        if self._upnp is not None:
            self._upnp.answered(event, now, out)
            self._settle()

    def fired(self, now: Instant, out: Sink[Effect]) -> None:
        """Do what is due."""
        if self._upnp is not None and self._upnp.deadline <= now:
            self._upnp.fired(now, out)
            self._settle()
        for core in tuple(self._cores()):
            if core.deadline > now:
                continue
            if isinstance(core, ReflexiveQuery):
                core.fired(now, out)
                if core.deadline == NEVER:
                    self._queried(core, now, out)
            else:
                self._take(core.handle(WAKE, now), now, out)

    # Finding out.

    def _cores(self) -> tuple[Any, ...]:
        cores = (*self._queries.values(), *self._discoveries.values(), self._sampling, self._port_mapping, self._query)
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
                case ReportPortMapped() | ReportPortLost():
                    self._port_moved(effect, out)
                case ReportPortUnavailable() | ReportPortRefused(reason=Refusal.UNSUPPORTED):
                    if self._upnp is not None:
                        self._upnp.want(now, out)

    def _discover(self, socket: Address, now: Instant, out: Sink[Effect]) -> None:
        """Ask the next servers about a socket; where there are none left, what is known must do."""
        servers, self._untried[socket] = self._untried[socket][:ASKED_AT_ONCE], self._untried[socket][ASKED_AT_ONCE:]
        if not servers:
            return
        self._asked[socket] += servers
        query = self._queries[socket] = ReflexiveQuery(socket, servers, self._rng, is_thorough=True)
        query.fired(now, out)

    def _queried(self, query: ReflexiveQuery, now: Instant, out: Sink[Effect]) -> None:
        """Go on with what the servers have said, or not said, to one question."""
        if query is self._query:
            self._query = None
            self._refreshed(query, now)
            return
        socket = query.local
        del self._queries[socket]
        if query.answering:
            self._servers[socket] = query.answering
            self._explore(socket, query, now, out)
        elif self._untried[socket]:
            # It may be the servers that are gone.
            self._discover(socket, now, out)
        else:
            self._take([ReportBehaviour(socket, Behaviour(udp_blocked=not query.found))], now, out)

    def _explore(self, socket: Address, query: ReflexiveQuery, now: Instant, out: Sink[Effect]) -> None:
        """Find out more from a server that has answered: from one that can tell most of all."""
        findings = {server: self._alone(server, query.found[server], socket) for server in query.answering}
        server = next((each for each, finding in findings.items() if finding.other is not None), query.answering[0])
        self._servers[socket] = (server, *(each for each in query.answering if each != server))
        others = (*query.answering, *self._untried[socket])
        second = next((other for other in others if other.host != server.host), None)
        core = BehaviourDiscovery(Setting(socket, server, second), self._rng, retransmission=ASKING)
        self._discoveries[socket] = core
        self._take(core.handle(DiscoveryStarted(findings[server]), now), now, out)

    def _alone(self, server: Address, finding: Finding, socket: Address) -> Finding:
        """Return what a server said, but for its other address where that was asked too, and so passes any filter."""
        other = finding.other
        others = [each for each in self._asked[socket] if each != server]
        known = other is not None and any(
            each.host == other.host or (each.host, each.port) == (server.host, other.port) for each in others
        )
        return replace(finding, other=None) if known else finding

    def _discovered(self, report: ReportBehaviour, now: Instant, out: Sink[Effect]) -> None:
        socket = report.local
        self._discoveries.pop(socket, None)
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
            setting = MappingSetting(first, gateway.host, first.port)
            self._port_mapping = PortMapping(setting, self._rng, patience=GATEWAY_PATIENCE)
        except LocalError:
            return
        if _version(first) == IPV4:
            self._upnp = UpnpMapping(gateway.host, first, self._requests, self._rng)
        self._take(self._port_mapping.handle(MappingWanted(), now), now, out)

    def _port_moved(self, report: ReportPortMapped | ReportPortLost, out: Sink[Effect]) -> None:
        self._named = report.external if isinstance(report, ReportPortMapped) else None
        if self._named is not None and self._upnp is not None:
            # One port is enough, and this gateway is to be asked so from now on.
            self._upnp.release(out)
        self._settle()

    def _refreshed(self, query: ReflexiveQuery, now: Instant) -> None:
        self._fresh_at = now
        if query.answering:
            first, (server, *_) = self.sockets[0], query.answering
            if self.server not in query.answering:
                self._servers[first] = (server, *(each for each in self._servers[first] if each != server))
            self._behaviours[first] = replace(self._behaviours.get(first, UNKNOWN), mapped=query.found[server].mapped)
            self._settle()

    def _settle(self, sampled: ReportAllocation | None = None) -> None:
        """Make our side of what is known, once all of it is that was asked for."""
        if not self.sockets or self._queries or self._discoveries or self._sampled is not None:
            return
        allocation = sampled.allocation if sampled else self.side.allocation if self.side else None
        ipv4, ipv6 = (
            next((self._behaviours.get(each, UNKNOWN) for each in self.sockets if _version(each) == version), None)
            for version in (IPV4, IPV6)
        )
        self.side = Side(
            ipv4 or NO_IPV4,
            allocation,
            port_mapped=self.mapped_port is not None,
            ipv6=ipv6,
            outside=self.outside,
            birthday_allowed=self._birthday_allowed,
        )


def _version(address: Address) -> int:
    return IPV6 if ":" in address.host else IPV4
