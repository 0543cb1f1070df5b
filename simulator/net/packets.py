"""Datagrams on their way from one host to another, across sites and through their gateways.

A packet climbs from its sender to the first site where its destination is known, turns there and descends, and every
gateway on the way acts on it at the instant at which it passes. So stacked NATs, hairpins and crossing packets need no
rules of their own.

Each link on the way loses, damages, copies, delays and reorders as its weather is, and gives packets a place in the
queues that they share with streams. What chance does to a packet is drawn from its sender's own stream, so that one
more host disturbs no other; only bursts are a link's own. A partition stops a datagram at the end of its way. Not
modelled: fragments, and the ICMP messages that would tell a sender of any of this.
"""

from collections.abc import Callable
from typing import Final, TypeAlias, TypeVar

from simulator.net.link import Port
from simulator.net.machine import HostPort
from simulator.net.medium import Medium, Ports
from simulator.net.nat import Packet
from simulator.net.site import Site
from simulator.rng import SplitMix64
from teale_proto.contract import Instant
from teale_proto.inputs import Address

T = TypeVar("T")
DatagramTap: TypeAlias = Callable[[Instant, Address, Address, bytes], None]
"""When a datagram was sent, from where as its sender sees it, to where, and what it says."""

HOPS_ACROSS: Final = 8
"""Routers between any two that are online; those of sites are not counted."""

Arrive: TypeAlias = Callable[[T, Packet, HostPort], None]


class Datagrams:
    """All datagrams of one world, and counts of what became of them."""

    __slots__ = (
        "_medium",
        "blocked",
        "corrupted",
        "delivered",
        "dropped",
        "expired",
        "lost",
        "overflowed",
        "sent",
        "taps",
        "too_large",
        "unreachable",
    )

    def __init__(self, medium: Medium) -> None:
        self._medium = medium
        self.taps: Final[list[DatagramTap]] = []
        """Called with everything that any host sends."""
        self.sent = 0
        self.delivered = 0
        """Datagrams that a host got, copies included."""
        self.lost = 0
        """Those that chance took."""
        self.overflowed = 0
        """Those that found a buffer full."""
        self.too_large = 0
        """Those that were larger than a link's MTU."""
        self.dropped = 0
        """Those that a gateway did not let pass."""
        self.expired = 0
        """Those that had passed as many routers as they might."""
        self.blocked = 0
        """Those that a partition stopped."""
        self.unreachable = 0
        """Those for an address that nobody has, or whose host does not listen."""
        self.corrupted = 0
        """How often one was damaged; it is delivered all the same."""

    def send(self, port: HostPort, packet: Packet) -> None:
        """Take a packet from a host; nothing is delivered from inside this call."""
        self.sent += 1
        for tap in self.taps:
            tap(self._medium.engine.now, packet.source, packet.destination, packet.data)
        self._carry(port, packet, port, self._turn, port.site, upwards=True)

    # From site to site.

    def _turn(self, site: Site, packet: Packet, origin: HostPort) -> None:
        """Send a packet that came up from the inside on: down again where its destination is known, or up."""
        host = packet.destination.host
        target = site.known.get(host)
        if target is not None:
            self._descend(site, target, packet, origin)
            return
        if site.parent is None:
            self.unreachable += 1
            return
        leaving: Packet | None = packet
        if site.kind is not None:
            gateway = site.gateway(host)
            if gateway is None:
                self.unreachable += 1
                return
            if gateway.faces(host):
                self._enter(site, gateway.hairpin(packet, self._medium.engine.now), origin)
                return
            leaving = gateway.outbound(packet, self._medium.engine.now)
        if leaving is None or site.only_tcp_443:
            self.dropped += 1
        else:
            self._carry(site.line, leaving, origin, self._turn, site.parent, upwards=True)

    def _descend(self, site: Site, target: HostPort | Site, packet: Packet, origin: HostPort) -> None:
        """Send a packet down from where its destination is known."""
        if site.parent is None:
            # A LAN that leads nowhere has no routers.
            if packet.hops <= HOPS_ACROSS and not site.discovery:
                self.expired += 1
                return
            port = target if isinstance(target, HostPort) else target.line
            between = self._medium.regions.between(origin.top.region, port.region)
            if between:
                engine = self._medium.engine
                engine.call_at(engine.now + between, self._lower, target, packet, origin)
                return
        self._lower(target, packet, origin)

    def _lower(self, target: HostPort | Site, packet: Packet, origin: HostPort) -> None:
        if isinstance(target, HostPort):
            self._carry(target, packet, origin, self._deliver, target, upwards=False)
        else:
            self._carry(target.line, packet, origin, self._arrive, target, upwards=False)

    def _arrive(self, site: Site, packet: Packet, origin: HostPort) -> None:
        """Take a packet that came down to a site."""
        if site.kind is None and not site.only_tcp_443:
            self._enter(site, packet, origin)
            return
        gateway = None if site.only_tcp_443 else site.gateway(packet.destination.host)
        entering = None if gateway is None else gateway.inbound(packet, self._medium.engine.now)
        self._enter(site, entering, origin)

    def _enter(self, site: Site, packet: Packet | None, origin: HostPort) -> None:
        target = packet and site.known.get(packet.destination.host)
        if packet is None or not target:
            self.dropped += 1
        else:
            self._lower(target, packet, origin)

    def _deliver(self, port: HostPort, packet: Packet, origin: HostPort) -> None:
        medium, machine = self._medium, port.machine
        if medium.blocks and medium.stops(*_ways(origin, port)):
            self.blocked += 1
        elif not machine.running or not port.powered or machine.owner is None:
            self.unreachable += 1
        else:
            self.delivered += 1
            machine.owner.datagram(packet.destination, packet.source, packet.data)

    # Over one link.

    def _carry(self, port: Port, packet: Packet, origin: HostPort, arrive: Arrive[T], at: T, *, upwards: bool) -> None:
        """Take a packet over the link of `port`; at its other end, call `arrive`."""
        link = port.link
        size_bytes = _size(packet)
        if size_bytes > link.mtu_bytes:
            self.too_large += 1
            return
        if port.is_plain:
            if upwards and not link.latency and link.uplink_bytes_per_second is None:
                arrive(at, packet, origin)
            else:
                self._pass(port, packet, size_bytes, origin, arrive, at, upwards=upwards)
            return
        medium = self._medium
        rng = origin.machine.chance(medium.seed)
        burst = port.burst_loss(medium.engine.now, medium.seed, upwards=upwards)
        if _happens(rng, link.loss) or _happens(rng, burst):
            self.lost += 1
            return
        for _ in range(2 if _happens(rng, link.duplication) else 1):
            arriving = packet
            if _happens(rng, link.corruption) and packet.data:
                self.corrupted += 1
                arriving = _damaged(packet, rng)
            self._pass(port, arriving, size_bytes, origin, arrive, at, upwards=upwards)

    def _pass(
        self, port: Port, packet: Packet, size_bytes: int, origin: HostPort, arrive: Arrive[T], at: T, *, upwards: bool
    ) -> None:
        """Wait in the queue of a link and cover its distance: upwards in this order, downwards the other way round."""
        link, engine = port.link, self._medium.engine
        if upwards:
            departs = engine.now
            if link.uplink_bytes_per_second is not None:
                queued = self._queued(port, size_bytes, link.uplink_bytes_per_second, upwards=True)
                if queued is None:
                    return
                departs = queued
            engine.call_at(self._reaches(port, departs, origin, upwards=True), arrive, at, packet, origin)
            return
        reaches = self._reaches(port, engine.now, origin, upwards=False)
        if link.downlink_bytes_per_second is None:
            engine.call_at(reaches, arrive, at, packet, origin)
        else:
            engine.call_at(reaches, self._drain, port, packet, size_bytes, origin, arrive, at)

    def _drain(self, port: Port, packet: Packet, size_bytes: int, origin: HostPort, arrive: Arrive[T], at: T) -> None:
        rate = port.link.downlink_bytes_per_second
        queued = None if rate is None else self._queued(port, size_bytes, rate, upwards=False)
        if rate is None:
            # The link was exchanged for one without a limit while the packet was under way.
            arrive(at, packet, origin)
        elif queued is not None:
            self._medium.engine.call_at(queued, arrive, at, packet, origin)

    def _queued(self, port: Port, size_bytes: int, rate: int, *, upwards: bool) -> Instant | None:
        way, now = port.up if upwards else port.down, self._medium.engine.now
        if not way.has_room(now, size_bytes, rate, port.link.buffer_bytes):
            self.overflowed += 1
            return None
        return way.passes_at(now, size_bytes, rate)

    def _reaches(self, port: Port, departs: Instant, origin: HostPort, *, upwards: bool) -> Instant:
        """Return when a packet gets to the other end of a link, in the order of packets unless it is held back."""
        link = port.link
        reaches = departs + link.latency
        if port.is_plain:
            return reaches
        rng = origin.machine.chance(self._medium.seed)
        if link.jitter:
            reaches += rng.randrange(link.jitter + 1)
        way = port.up if upwards else port.down
        reaches = max(reaches, way.reached)
        if _happens(rng, link.reordering):
            return reaches + rng.randrange(link.reordered_by + 1)
        way.reached = reaches
        return reaches


def _size(packet: Packet) -> int:
    """Return the size of a packet with the headers of UDP and IP (RFC 768, RFC 791, RFC 8200)."""
    return len(packet.data) + (48 if ":" in packet.destination.host else 28)


def _damaged(packet: Packet, rng: SplitMix64) -> Packet:
    """Return a packet with one bit turned over that no checksum noticed."""
    bit = rng.randrange(8 * len(packet.data))
    data = bytearray(packet.data)
    data[bit // 8] ^= 1 << bit % 8
    return Packet(packet.source, packet.destination, bytes(data), packet.hops)


def _happens(rng: SplitMix64, chance: float) -> bool:
    return chance > 0 and rng.random() < chance


def _ways(source: HostPort, target: HostPort) -> tuple[Ports, Ports]:
    """Return the way up and the way down between two hosts, without the ports above where a packet turns."""
    ups, downs = (source, *source.above), (target, *target.above)
    return tuple(port for port in ups if port not in downs), tuple(port for port in downs if port not in ups)
