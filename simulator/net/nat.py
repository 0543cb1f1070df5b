"""A NAT, or a firewall that translates nothing, as a small machine: a packet and the time in, a packet or nothing out.

It is made of RFC 4787's independent properties and knows no engine. What it remembers is sessions: an inside
endpoint's mapping together with whom that may hear, as far as the filtering tells remotes apart. A mapping lives
as long as one of its sessions; a session lives until it has been idle for its lifetime, and at exactly that instant
it is gone. Sessions are what the table's size counts, as in Linux's connection tracking. Beside them stand port
forwardings, which whoever speaks for the box (`simulator.net.gateway`) has opened explicitly: for everybody
outside, whatever the filtering, and until they are closed or their lifetime is over.

Not modelled, because nothing here sends it: ICMP, fragments and application gateways (REQ-10 and REQ-12 to 14).
"""

from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Annotated, Final, TypeAlias
from zlib import crc32

from msgspec import Meta

from simulator.rng import SplitMix64
from teale_proto.contract import SECOND, Duration, Instant, Value
from teale_proto.inputs import Address
from teale_proto.nat.kinds import Filtering, Hairpinning, Mapping
from teale_proto.timers import Timers

WELL_KNOWN_MAX: Final = 1023

PortNumber = Annotated[int, Meta(ge=1, le=65535)]
Positive = Annotated[int, Meta(gt=0)]


class Packet(Value):
    """One UDP datagram between two addresses."""

    source: Address
    destination: Address
    data: bytes
    hops: int = 64
    """How many routers it may pass."""


class Allocation(Enum):
    """How a new mapping gets its outside port (RFC 4787, section 4.2.1)."""

    PRESERVING = "preserving"
    """The inside port, where that is free."""
    SEQUENTIAL = "sequential"
    """One `step` further than the last one."""
    RANDOM = "random"


class Collision(Enum):
    """What a preserving NAT does when the port is taken."""

    NEXT_FREE = "next free"
    OVERLOAD = "overload"
    """Mappings share the port, and who sent is looked up by whom it was sent to: what REQ-3 forbids."""


class Pooling(Enum):
    """How a new mapping gets one of several outside addresses (RFC 4787, section 4.1)."""

    PAIRED = "paired"
    """All mappings of one inside address share an outside address."""
    ARBITRARY = "arbitrary"


class Full(Enum):
    """What becomes of a new session when the table, or the range of ports, is full."""

    DROP_NEW = "drop new"
    EVICT_OLDEST = "evict oldest"
    """The one that has been idle for longest goes."""


class NatKind(Value):
    """What a NAT does. The defaults are those of a home router that keeps RFC 4787, except for its filtering."""

    mapping: Mapping = Mapping.ENDPOINT_INDEPENDENT
    filtering: Filtering = Filtering.ADDRESS_AND_PORT_DEPENDENT
    allocation: Allocation = Allocation.PRESERVING
    collision: Collision = Collision.NEXT_FREE
    step: Positive = 1
    keeps_parity: bool = False
    """Whether an even inside port gets an even outside port, and an odd one an odd one (REQ-4)."""
    port_min: PortNumber = WELL_KNOWN_MAX + 1
    port_max: PortNumber = 65535
    pooling: Pooling = Pooling.PAIRED
    lifetime: Positive = 300 * SECOND
    lifetime_of_one_packet: Positive | None = None
    """The lifetime of a session that has seen a single packet, where that differs."""
    inbound_refreshes: bool = True
    """Whether what comes in keeps a session alive; what goes out always does (REQ-6)."""
    hairpinning: Hairpinning = Hairpinning.EXTERNAL_SOURCE
    sessions_max: Positive = 65536
    when_full: Full = Full.DROP_NEW
    forwardings_max: Positive = 1024
    translates: bool = True
    """Whether it is a NAT; otherwise it is a firewall, which filters and leaves addresses as they are."""
    udp_blocked: bool = False

    def __post_init__(self) -> None:
        if self.port_min > self.port_max:
            raise ValueError(f"no port lies in {self.port_min}-{self.port_max}")
        if self.keeps_parity and self.port_min == self.port_max:
            raise ValueError("one port has one parity")
        if self.lifetime_of_one_packet is not None and self.lifetime_of_one_packet > self.lifetime:
            raise ValueError("a session that has seen one packet does not live longer than others")
        if not self.translates and self.mapping is not Mapping.ENDPOINT_INDEPENDENT:
            raise ValueError("what translates nothing maps endpoint-independently")
        if self.collision is Collision.OVERLOAD and self.allocation is not Allocation.PRESERVING:
            raise ValueError("only a NAT that preserves ports overloads them")


FIREWALL: Final = NatKind(translates=False)
"""What stands before hosts with global addresses, above all IPv6 ones: answers come in, strangers do not."""


class Forwarding(Value):
    """That everybody outside may send to `inside` by way of `outside`, until it expires."""

    inside: Address
    outside: Address
    expires_at: Instant


_Key: TypeAlias = Address | str | None
"""As much of a remote endpoint as a mapping or a filter tells apart."""


class _Mapped:
    """One mapping, with the number of its sessions."""

    __slots__ = ("inside", "key", "outside", "sessions")

    def __init__(self, inside: Address, key: _Key, outside: Address) -> None:
        self.inside = inside
        self.key = key
        self.outside = outside
        self.sessions: dict[_Key, _Session] = {}


class _Session:
    """That a mapping may hear whoever has `key`, until `expires_at`."""

    __slots__ = ("expires_at", "key", "mapped", "packets")

    def __init__(self, mapped: _Mapped, key: _Key) -> None:
        self.mapped = mapped
        self.key = key
        self.packets = 0
        self.expires_at: Instant = 0


class Nat:
    """One box between an inside and an outside; `outside` are its addresses there, none for a firewall."""

    def __init__(self, kind: NatKind, outside: Sequence[str], rng: SplitMix64) -> None:
        if kind.translates != bool(outside):
            raise ValueError("a NAT has outside addresses, and a firewall has none")
        self.kind: Final = kind
        self.outside = tuple(outside)
        self._rng = rng
        self._mappings: dict[tuple[Address, _Key], _Mapped] = {}
        self._by_outside: dict[Address, list[_Mapped]] = {}
        # The least recently used session is the first.
        self._sessions: dict[_Session, None] = {}
        self._forwardings: dict[Address, Forwarding] = {}
        self._forwarded: dict[Address, Forwarding] = {}
        """The same, by their outside endpoints."""
        self._timers: Timers[_Session | Address] = Timers()
        """Of a session, or of the forwarding of an inside endpoint."""
        self.restarts = 0
        """How often it has lost its forwardings."""
        self._ports_taken: dict[str, int] = {}
        self._last_port: dict[str, int] = {}

    def faces(self, host: str) -> bool:
        """Return whether `host` is one of its outside addresses; what goes there from the inside is a `hairpin`."""
        return host in self.outside

    def carries(self, host: str) -> bool:
        """Return whether it handles addresses like `host`: a NAT has one IP version, a firewall all of them."""
        return not self.outside or (":" in host) == (":" in self.outside[0])

    def outbound(self, packet: Packet, now: Instant) -> Packet | None:
        """Return what leaves on the outside for a packet from the inside, or None when it is dropped."""
        session = None if self.kind.udp_blocked else self._opened(packet, now)
        return None if session is None else Packet(session.mapped.outside, packet.destination, packet.data, packet.hops)

    def inbound(self, packet: Packet, now: Instant) -> Packet | None:
        """Return what arrives on the inside for a packet from the outside, or None when it is dropped."""
        if self.kind.udp_blocked:
            return None
        self._expire(now)
        key = _seen_by(self.kind.filtering, packet.source)
        for mapped in reversed(self._by_outside.get(packet.destination, ())):
            session = mapped.sessions.get(key)
            if session is not None:
                session.packets += 1
                if self.kind.inbound_refreshes:
                    self._refresh(session, now)
                return Packet(packet.source, mapped.inside, packet.data, packet.hops)
        forwarding = self._forwarded.get(packet.destination)
        return Packet(packet.source, forwarding.inside, packet.data, packet.hops) if forwarding else None

    def hairpin(self, packet: Packet, now: Instant) -> Packet | None:
        """Return what arrives on the inside for a packet from the inside to an address that this NAT faces."""
        if self.kind.hairpinning is Hairpinning.NONE:
            return None
        looped = self.outbound(packet, now)
        arriving = self.inbound(looped, now) if looped else None
        if arriving is None or self.kind.hairpinning is Hairpinning.EXTERNAL_SOURCE:
            return arriving
        return Packet(packet.source, arriving.destination, arriving.data, arriving.hops)

    def sessions(self, now: Instant) -> int:
        """Return how many sessions are alive."""
        self._expire(now)
        return len(self._sessions)

    # Port forwardings.

    def paired(self, host: str) -> str:
        """Return the outside address of an inside host's forwardings, and with paired pooling of all mappings."""
        return self.outside[crc32(host.encode()) % len(self.outside)] if self.outside else host

    def open_port(
        self, inside: Address, outside_port: int, lifetime: Duration, now: Instant, *, exact: bool = False
    ) -> Address | None:
        """Forward a port to an inside endpoint from now on; return the outside endpoint, or None where there is none.

        An endpoint has one forwarding, and opening it again prolongs it. Where the port is taken, or `outside_port` is
        0, another is chosen, unless it has to be `exact`ly that one. An endpoint that is mapped already keeps its port,
        also for what it sends, where its mapping does not depend on the destination (RFC 6887, section 11.3).
        """
        assert lifetime > 0, "what lives no time is closed"
        self._expire(now)
        forwarding = self._forwardings.get(inside)
        if forwarding is not None:
            outside: Address | None = forwarding.outside
            if exact and forwarding.outside.port != outside_port:
                return None
        elif len(self._forwardings) >= self.kind.forwardings_max:
            return None
        else:
            outside = self._outside_of(inside, outside_port, exact=exact)
        if outside is None:
            return None
        if forwarding is None:
            self._forget_mappings_elsewhere(inside, outside)
            if outside not in self._by_outside:
                self._count_port(outside, 1)
        self._forwardings[inside] = self._forwarded[outside] = Forwarding(inside, outside, now + lifetime)
        self._timers.set(inside, now + lifetime)
        return outside

    def close_port(self, inside: Address, now: Instant) -> bool:
        """End the forwarding of an inside endpoint, and return whether there was one; sessions stay."""
        self._expire(now)
        if inside not in self._forwardings:
            return False
        self._close(inside)
        return True

    def forwarding(self, inside: Address, now: Instant) -> Forwarding | None:
        """Return the forwarding of an inside endpoint, if it has one."""
        self._expire(now)
        return self._forwardings.get(inside)

    def forwarded(self, outside_port: int, now: Instant) -> Forwarding | None:
        """Return the forwarding of an outside port, if there is one; of several outside addresses, the first."""
        self._expire(now)
        hosts = self.outside
        endpoints = (Address(host, outside_port) for host in hosts)
        return next((self._forwarded[endpoint] for endpoint in endpoints if endpoint in self._forwarded), None)

    def forwardings(self, now: Instant) -> Sequence[Forwarding]:
        """Return all forwardings, in the order in which they were opened."""
        self._expire(now)
        return tuple(self._forwardings.values())

    def flush(self) -> None:
        """Forget all sessions, as on a change of line; ports go on being allocated from where they were."""
        for session in list(self._sessions):
            self._forget(session)

    def rebind(self, outside: Sequence[str]) -> None:
        """Forget all sessions and forwardings, and go on with other outside addresses."""
        if self.kind.translates != bool(outside):
            raise ValueError("a NAT has outside addresses, and a firewall has none")
        self.flush()
        self._close_all()
        self._ports_taken.clear()
        self._last_port.clear()
        self.outside = tuple(outside)

    def reboot(self) -> None:
        """Forget everything, also where the allocation of ports had come to."""
        self.flush()
        self._close_all()
        self._last_port.clear()

    def _outside_of(self, inside: Address, outside_port: int, *, exact: bool) -> Address | None:
        """Return the outside endpoint that a new forwarding gets."""
        if not self.kind.translates:
            return inside if not exact or outside_port == inside.port else None
        mapped = None if exact else self._mappings.get((inside, None))
        if mapped is not None and self._is_free(mapped.outside, inside):
            return mapped.outside
        host = self.paired(inside.host)
        wanted = Address(host, outside_port)
        if outside_port and self._is_free(wanted, inside):
            return wanted
        return None if exact else self._allocate(inside, host)

    def _is_free(self, outside: Address, inside: Address) -> bool:
        """Return whether nobody else has an outside endpoint."""
        sharing = self._by_outside.get(outside, ())
        return outside not in self._forwarded and all(mapped.inside == inside for mapped in sharing)

    def _forget_mappings_elsewhere(self, inside: Address, outside: Address) -> None:
        """Leave an inside endpoint no port but the one that is forwarded to it."""
        elsewhere = [
            session
            for session in self._sessions
            if session.mapped.inside == inside and session.mapped.outside != outside
        ]
        for session in elsewhere:
            self._forget(session)

    def _close(self, inside: Address) -> None:
        forwarding = self._forwardings.pop(inside)
        del self._forwarded[forwarding.outside]
        self._timers.cancel(inside)
        if forwarding.outside not in self._by_outside:
            self._count_port(forwarding.outside, -1)

    def _close_all(self) -> None:
        for inside in list(self._forwardings):
            self._close(inside)
        self.restarts += 1

    # Sessions.

    def _opened(self, packet: Packet, now: Instant) -> _Session | None:
        """Return the session that a packet from the inside belongs to, made and refreshed as need be."""
        self._expire(now)
        where = (packet.source, _seen_by(self.kind.mapping, packet.destination))
        key = _seen_by(self.kind.filtering, packet.destination)
        mapped = self._mappings.get(where)
        session = mapped.sessions.get(key) if mapped else None
        if session is None:
            if len(self._sessions) >= self.kind.sessions_max and not self._make_room():
                return None
            # Making room may have taken the mapping's only session, and the mapping with it.
            mapped = self._mappings.get(where) or self._map(*where)
            if mapped is None:
                return None
            session = mapped.sessions[key] = _Session(mapped, key)
        session.packets += 1
        self._refresh(session, now)
        return session

    def _refresh(self, session: _Session, now: Instant) -> None:
        lifetime = self._lifetime(session)
        if session.expires_at == 0:
            self._timers.set(session, now + lifetime)
        # The timer is moved only when it fires: most packets come long before.
        session.expires_at = now + lifetime
        self._sessions.pop(session, None)
        self._sessions[session] = None

    def _lifetime(self, session: _Session) -> Duration:
        if session.packets == 1 and self.kind.lifetime_of_one_packet is not None:
            return self.kind.lifetime_of_one_packet
        return self.kind.lifetime

    def _expire(self, now: Instant) -> None:
        while (due := self._timers.pop_due(now)) is not None:
            if isinstance(due, Address):
                self._close(due)
            elif due.expires_at <= now:
                self._forget(due)
            else:
                self._timers.set(due, due.expires_at)

    def _make_room(self) -> bool:
        if self.kind.when_full is Full.DROP_NEW or not self._sessions:
            return False
        self._forget(next(iter(self._sessions)))
        return True

    def _forget(self, session: _Session) -> None:
        mapped = session.mapped
        self._timers.cancel(session)
        del self._sessions[session]
        del mapped.sessions[session.key]
        if mapped.sessions:
            return
        del self._mappings[mapped.inside, mapped.key]
        sharing = self._by_outside[mapped.outside]
        sharing.remove(mapped)
        if not sharing:
            del self._by_outside[mapped.outside]
            if mapped.outside not in self._forwarded:
                self._count_port(mapped.outside, -1)

    # Mappings.

    def _map(self, inside: Address, key: _Key) -> _Mapped | None:
        forwarding = self._forwardings.get(inside)
        outside = forwarding.outside if forwarding else self._allocate(inside, self._outside_host(inside))
        while outside is None and self._make_room():
            outside = self._allocate(inside, self._outside_host(inside))
        if outside is None:
            return None
        mapped = self._mappings[inside, key] = _Mapped(inside, key, outside)
        sharing = self._by_outside.setdefault(outside, [])
        if not sharing and forwarding is None:
            self._count_port(outside, 1)
        sharing.append(mapped)
        return mapped

    def _count_port(self, outside: Address, change: int) -> None:
        """Keep count of how much of the range is taken, so that a full one need not be searched."""
        if self.kind.translates and self.kind.port_min <= outside.port <= self.kind.port_max:
            self._ports_taken[outside.host] = self._ports_taken.get(outside.host, 0) + change

    def _allocate(self, inside: Address, host: str) -> Address | None:
        """Return a free outside endpoint at one of the outside addresses, or None when there is none."""
        if not self.kind.translates:
            return inside
        preserving = self.kind.allocation is Allocation.PRESERVING
        preserved = Address(host, inside.port)
        overloads = self.kind.collision is Collision.OVERLOAD and preserved not in self._forwarded
        if preserving and (overloads or not self._is_taken(preserved)):
            return preserved
        low, high = self.kind.port_min, self.kind.port_max
        if preserving and inside.port <= WELL_KNOWN_MAX:
            # A collision does not lead from the well-known ports to the others (REQ-3a).
            low, high = 1, WELL_KNOWN_MAX
        elif self._ports_taken.get(host, 0) > high - low:
            return None
        for port in self._candidates(host, inside.port, low, high):
            outside = Address(host, port)
            wrong_parity = self.kind.keeps_parity and (port ^ inside.port) & 1
            if not wrong_parity and not self._is_taken(outside):
                self._last_port[host] = port
                return outside
        return None

    def _is_taken(self, outside: Address) -> bool:
        return outside in self._by_outside or outside in self._forwarded

    def _outside_host(self, inside: Address) -> str:
        if self.kind.pooling is Pooling.PAIRED or not self.outside:
            return self.paired(inside.host)
        return self._rng.choice(self.outside)

    def _candidates(self, host: str, inside_port: int, low: int, high: int) -> Iterator[int]:
        """Yield every port of a range, in the order in which it is tried."""
        size = high - low + 1
        match self.kind.allocation:
            case Allocation.PRESERVING:
                first = inside_port + 1
            case Allocation.SEQUENTIAL:
                last = self._last_port.get(host)
                first = self._rng.between(low, high) if last is None else last + self.kind.step
            case Allocation.RANDOM:
                first = self._rng.between(low, high)
                for _ in range(16):
                    # While there is room, a new draw keeps all free ports equally likely.
                    yield first
                    first = self._rng.between(low, high)
        for further in range(size):
            yield low + (first - low + further) % size


def _seen_by(dependence: Mapping | Filtering, remote: Address) -> _Key:
    if dependence == Mapping.ENDPOINT_INDEPENDENT:
        return None
    return remote.host if dependence == Mapping.ADDRESS_DEPENDENT else remote
