"""A NAT, or a firewall that translates nothing, as a small machine: a packet and the time in, a packet or nothing out.

It is made of RFC 4787's independent properties and knows no engine. What it remembers is sessions: an inside
endpoint's mapping together with whom that may hear, as far as the filtering tells remotes apart. A mapping lives
as long as one of its sessions; a session lives until it has been idle for its lifetime, and at exactly that instant
it is gone. Sessions are what the table's size counts, as in Linux's connection tracking.

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
        self._timers: Timers[_Session] = Timers()
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
        return None if session is None else Packet(session.mapped.outside, packet.destination, packet.data)

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
                return Packet(packet.source, mapped.inside, packet.data)
        return None

    def hairpin(self, packet: Packet, now: Instant) -> Packet | None:
        """Return what arrives on the inside for a packet from the inside to an address that this NAT faces."""
        if self.kind.hairpinning is Hairpinning.NONE:
            return None
        looped = self.outbound(packet, now)
        arriving = self.inbound(looped, now) if looped else None
        if arriving is None or self.kind.hairpinning is Hairpinning.EXTERNAL_SOURCE:
            return arriving
        return Packet(packet.source, arriving.destination, arriving.data)

    def sessions(self, now: Instant) -> int:
        """Return how many sessions are alive."""
        self._expire(now)
        return len(self._sessions)

    def flush(self) -> None:
        """Forget all sessions, as on a change of line; ports go on being allocated from where they were."""
        for session in list(self._sessions):
            self._forget(session)

    def rebind(self, outside: Sequence[str]) -> None:
        """Forget all sessions and go on with other outside addresses."""
        if self.kind.translates != bool(outside):
            raise ValueError("a NAT has outside addresses, and a firewall has none")
        self.flush()
        self._ports_taken.clear()
        self._last_port.clear()
        self.outside = tuple(outside)

    def reboot(self) -> None:
        """Forget everything, also where the allocation of ports had come to."""
        self.flush()
        self._last_port.clear()

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
        while (session := self._timers.pop_due(now)) is not None:
            if session.expires_at <= now:
                self._forget(session)
            else:
                self._timers.set(session, session.expires_at)

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
            self._count_port(mapped.outside, -1)

    # Mappings.

    def _map(self, inside: Address, key: _Key) -> _Mapped | None:
        outside = self._allocate(inside)
        while outside is None and self._make_room():
            outside = self._allocate(inside)
        if outside is None:
            return None
        mapped = self._mappings[inside, key] = _Mapped(inside, key, outside)
        sharing = self._by_outside.setdefault(outside, [])
        if not sharing:
            self._count_port(outside, 1)
        sharing.append(mapped)
        return mapped

    def _count_port(self, outside: Address, change: int) -> None:
        """Keep count of how much of the range is taken, so that a full one need not be searched."""
        if self.kind.translates and self.kind.port_min <= outside.port <= self.kind.port_max:
            self._ports_taken[outside.host] = self._ports_taken.get(outside.host, 0) + change

    def _allocate(self, inside: Address) -> Address | None:
        """Return a free outside endpoint, or None when there is none."""
        if not self.kind.translates:
            return inside
        host = self._outside_host(inside)
        preserving = self.kind.allocation is Allocation.PRESERVING
        preserved = Address(host, inside.port)
        if preserving and (self.kind.collision is Collision.OVERLOAD or preserved not in self._by_outside):
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
            if outside not in self._by_outside and not wrong_parity:
                self._last_port[host] = port
                return outside
        return None

    def _outside_host(self, inside: Address) -> str:
        if self.kind.pooling is Pooling.PAIRED:
            return self.outside[crc32(inside.host.encode()) % len(self.outside)]
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
