"""Hosts that exchange datagrams across one virtual internet, from behind any NATs.

The internet is a tree of realms: at its root is the public internet, and every other realm is what lies behind
one gateway (a NAT, a firewall, or one of each where there are two IP versions), attached to its parent by an
uplink. A packet climbs from its sender to the first realm where its destination is known, turns there and
descends, and every gateway on the way acts on it at the instant at which it passes. So stacked NATs, hairpins
and crossing packets need no rules of their own.

Hosts drive their cores by `handle` and `deadline` alone.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeAlias

from simulator.engine import Engine
from simulator.net.nat import Nat, NatKind, Packet
from simulator.rng import SplitMix64, stream
from simulator.trace import Trace
from teale_proto.contract import MILLISECOND, NEVER, Core, Duration, Instant, Value
from teale_proto.inputs import WAKE
from teale_proto.nat.datagrams import DatagramReceived, SendDatagram

AnyCore: TypeAlias = Core[Any, Value]

ROOT: Final = "internet"


class Uplink(Value):
    """What a packet meets between a host or gateway and the realm that it is attached to, in each direction."""

    latency: Duration = 10 * MILLISECOND
    jitter: Duration = 0
    """The most that a packet may take longer, drawn evenly; it delays what is behind it rather than be overtaken."""
    loss: float = 0.0
    """The chance that a packet is lost."""
    duplication: float = 0.0
    """The chance that a packet arrives twice; the copy takes its own time."""
    reordering: float = 0.0
    """The chance that a packet is held for up to `reordered_by`, and others overtake it."""
    reordered_by: Duration = 20 * MILLISECOND

    def __post_init__(self) -> None:
        for name in ("loss", "duplication", "reordering"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a chance in [0, 1], not {getattr(self, name)}")
        if min(self.latency, self.jitter, self.reordered_by) < 0:
            raise ValueError("latency, jitter and reordered_by are not negative")


HOME: Final = Uplink(latency=0)
"""A host's cable to its own gateway: the distance is in the gateway's uplink."""


class _Lane:
    """One direction of an uplink."""

    __slots__ = ("_engine", "_reached", "_rng", "_uplink")

    def __init__(self, engine: Engine, uplink: Uplink, rng: SplitMix64) -> None:
        self._engine = engine
        self._uplink = uplink
        self._rng = rng
        self._reached: Instant = 0

    def carry(self, arrive: Callable[[Packet], object], packet: Packet) -> bool:
        """Call `arrive` later, never from inside this call; return False when the packet is lost."""
        if self._happens(self._uplink.loss):
            return False
        for _ in range(2 if self._happens(self._uplink.duplication) else 1):
            self._engine.call_at(self._arrival(), arrive, packet)
        return True

    def _arrival(self) -> Instant:
        uplink = self._uplink
        at = self._engine.now + uplink.latency
        if uplink.jitter:
            at += self._rng.randrange(uplink.jitter + 1)
        at = max(at, self._reached)
        if self._happens(uplink.reordering):
            return at + self._rng.randrange(uplink.reordered_by + 1)
        self._reached = at
        return at

    def _happens(self, chance: float) -> bool:
        return chance > 0 and self._rng.random() < chance


class DatagramHost:
    """One machine with addresses in one realm and one core, which gets every datagram sent to them.

    There are no bound ports: a core ignores what is not for its sockets. What it reports is kept in `reports`,
    with the instant.
    """

    def __init__(
        self, name: str, addresses: Sequence[str], internet: "Internet", realm: "Realm", uplink: Uplink, core: AnyCore
    ) -> None:
        self.name: Final = name
        self.addresses: Final = tuple(addresses)
        self.realm: Final = realm
        self.core: Final = core
        self.reports: list[tuple[Instant, Value]] = []
        self._internet = internet
        self._armed_at: Instant = NEVER
        self._up = internet.lane(name, uplink, "up")
        self.down: Final = internet.lane(name, uplink, "down")
        self._arm()

    def feed(self, event: Value) -> None:
        """Give the core one input now and carry out what it answers."""
        engine = self._internet.engine
        self._internet.record(self.name, event)
        for effect in self.core.handle(event, engine.now):
            self._internet.record(self.name, effect)
            if isinstance(effect, SendDatagram):
                self._send(effect)
            else:
                assert type(effect).__name__.startswith("Report"), f"nothing here performs {effect}"
                self.reports.append((engine.now, effect))
        self._arm()

    def arrive(self, packet: Packet) -> None:
        """Take a packet off the wire."""
        self.feed(DatagramReceived(packet.destination, packet.source, packet.data))

    def _send(self, effect: SendDatagram) -> None:
        assert effect.local.host in self.addresses, f"{self.name} does not have {effect.local.host}"
        packet = Packet(effect.local, effect.remote, effect.data)
        if not self._up.carry(self.realm.turn, packet):
            self._internet.lost += 1

    def _arm(self) -> None:
        deadline = self.core.deadline
        if deadline < self._armed_at:
            engine = self._internet.engine
            self._armed_at = max(deadline, engine.now)
            engine.call_at(self._armed_at, self._wake)

    def _wake(self) -> None:
        now = self._internet.engine.now
        # An alarm that was overtaken by an earlier one finds another instant armed, and does nothing.
        if now != self._armed_at:
            return
        self._armed_at = NEVER
        if self.core.deadline <= now:
            self.feed(WAKE)
            assert self.core.deadline > now, f"{self.name} asks to be woken again at once"
        self._arm()


class Realm:
    """What lies behind one gateway; the root lies behind none."""

    def __init__(self, name: str, internet: "Internet", parent: "Realm | None", uplink: Uplink, *gateways: Nat) -> None:
        self.name: Final = name
        self.gateways: Final = gateways
        self._internet = internet
        self._parent = parent
        self._known: dict[str, DatagramHost | Realm] = {}
        self._up = internet.lane(name, uplink, "up")
        self.down: Final = internet.lane(name, uplink, "down")
        for gateway in gateways:
            self._announce_outside(gateway)

    @property
    def nat(self) -> Nat:
        """The first gateway."""
        return self.gateways[0]

    def know(self, host: str, target: "DatagramHost | Realm") -> None:
        """Route `host` to `target`; what a firewall does not translate is known outside it too."""
        if host in self._known:
            raise ValueError(f"{host} is taken in {self.name}")
        self._known[host] = target
        gateway = self._gateway(host)
        if self._parent is not None and gateway is not None and not gateway.kind.translates:
            self._parent.know(host, self)

    def rebind(self, outside: Sequence[str]) -> None:
        """Give the first gateway, a NAT, other outside addresses; its sessions are gone."""
        assert self._parent is not None, "the internet has no gateway"
        for host in self.nat.outside:
            self._parent.forget(host)
        self.nat.rebind(outside)
        self._announce_outside(self.nat)

    def forget(self, host: str) -> None:
        """Route `host` nowhere any more."""
        del self._known[host]

    def turn(self, packet: Packet) -> None:
        """Send a packet that came up from the inside on: down again where its destination is known, or up."""
        target = self._known.get(packet.destination.host)
        if target is not None:
            self._descend(target, packet)
            return
        gateway = self._gateway(packet.destination.host)
        if self._parent is None or gateway is None:
            self._internet.unreachable += 1
            return
        now = self._internet.engine.now
        if gateway.faces(packet.destination.host):
            self._enter(gateway.hairpin(packet, now))
            return
        leaving = gateway.outbound(packet, now)
        if leaving is None:
            self._internet.dropped += 1
        elif not self._up.carry(self._parent.turn, leaving):
            self._internet.lost += 1

    def arrive(self, packet: Packet) -> None:
        """Take a packet that came down from the parent."""
        gateway = self._gateway(packet.destination.host)
        assert gateway is not None, "only what a gateway carries is known outside it"
        self._enter(gateway.inbound(packet, self._internet.engine.now))

    def _enter(self, packet: Packet | None) -> None:
        target = packet and self._known.get(packet.destination.host)
        if packet is None or not target:
            self._internet.dropped += 1
        else:
            self._descend(target, packet)

    def _descend(self, target: "DatagramHost | Realm", packet: Packet) -> None:
        if not target.down.carry(target.arrive, packet):
            self._internet.lost += 1

    def _gateway(self, host: str) -> Nat | None:
        return next((gateway for gateway in self.gateways if gateway.carries(host)), None)

    def _announce_outside(self, gateway: Nat) -> None:
        assert self._parent is not None, "the internet has no gateway"
        for host in gateway.outside:
            self._parent.know(host, self)


class Internet:
    """The root realm, everything below it, and counts of what became of packets.

    All chance derives from `seed` and the names, so one more host disturbs no other. With a trace, everything
    that goes into a core or comes out of one is recorded.
    """

    def __init__(self, engine: Engine, *, seed: int, trace: Trace | None = None) -> None:
        self.engine: Final = engine
        self.lost = 0
        """Packets lost on an uplink, by chance."""
        self.dropped = 0
        """Packets that a gateway did not let pass."""
        self.unreachable = 0
        """Packets for an address that nobody has."""
        self._seed = seed
        self._trace = trace
        self._names: set[str] = {ROOT}
        self.root: Final = Realm(ROOT, self, None, HOME)

    def add_realm(
        self,
        name: str,
        kind: NatKind,
        outside: Iterable[str] = (),
        *,
        behind: Realm | None = None,
        uplink: Uplink = HOME,
    ) -> Realm:
        """Add what lies behind a NAT with these outside addresses, or behind a firewall without any.

        Where a NAT has outside addresses of IPv4, IPv6 passes beside it through a firewall, as at home.
        Raises ValueError for a name or an address that is taken.
        """
        self._take(name)
        gateways = [Nat(kind, tuple(outside), stream(self._seed, name, "nat"))]
        if kind.translates:
            beside = NatKind(translates=False, udp_blocked=kind.udp_blocked)
            gateways.append(Nat(beside, (), stream(self._seed, name, "firewall")))
        return Realm(name, self, behind or self.root, uplink, *gateways)

    def add_host(
        self, name: str, addresses: Sequence[str], core: AnyCore, *, realm: Realm | None = None, uplink: Uplink = HOME
    ) -> DatagramHost:
        """Add a machine to a realm, or to the public internet; raises ValueError for what is taken."""
        self._take(name)
        realm = realm or self.root
        host = DatagramHost(name, addresses, self, realm, uplink, core)
        for address in addresses:
            realm.know(address, host)
        return host

    def entropy(self, name: str) -> SplitMix64:
        """Return the stream that the core of host `name` is to be made with."""
        return stream(self._seed, name, "core")

    def lane(self, name: str, uplink: Uplink, direction: str) -> _Lane:
        """Return one direction of an uplink."""
        return _Lane(self.engine, uplink, stream(self._seed, name, direction))

    def record(self, name: str, value: Value) -> None:
        """Put something that happened to a host into the trace, if there is one."""
        if self._trace is not None:
            self._trace.record(self.engine.now, name, value)

    def _take(self, name: str) -> None:
        if name in self._names:
            raise ValueError(f"the name {name} is taken")
        self._names.add(name)
