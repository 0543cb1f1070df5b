"""What happened to the cores of `teale_proto.nat` in small worlds, for the laws to be tried on.

Lines lose one packet in five, so that questions are asked again and some are given up.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any, TypeAlias

from simulator.net.gateway import Gateway, Services
from simulator.net.nat import Nat, NatKind, Packet
from simulator.rng import stream
from teale_proto.contract import MILLISECOND, SECOND, Core, Duration, Instant, Value
from teale_proto.effects import SendDatagram
from teale_proto.inputs import WAKE, Address, DatagramReceived
from teale_proto.nat.behaviour import BehaviourDiscovery, DiscoveryStarted, Setting
from teale_proto.nat.kinds import Filtering, Mapping
from teale_proto.nat.lifetime import LifetimeSearch, LifetimeWanted
from teale_proto.nat.lifetime import Setting as LifetimeSetting
from teale_proto.nat.port_mapping import PortMapping
from teale_proto.nat.port_mapping_values import MappingUnwanted, MappingWanted
from teale_proto.nat.port_mapping_values import Setting as PortSetting
from teale_proto.nat.stun_server import StunServer
from tests.proto.world import Entry

AnyCore: TypeAlias = Core[Any, Value]

SEED = 5
LOSS = 0.2
DELAY = 30 * MILLISECOND
HARD = NatKind(mapping=Mapping.ADDRESS_AND_PORT_DEPENDENT, filtering=Filtering.ADDRESS_DEPENDENT)
OUTSIDE = "203.0.113.1"
SOCKET = Address("10.0.1.2", 40000)
PRIMARY, ALTERNATE = Address("192.0.2.1", 3478), Address("198.51.100.1", 3479)
OWN = "10.0.1.1"


class Line:
    """A client and a server, a NAT between them or not, and a journal of each."""

    def __init__(self, client: AnyCore, server: AnyCore, nat: Nat | None = None, *, loss: float = LOSS) -> None:
        self.cores = {"client": client, "server": server}
        self.journals: dict[str, list[Entry]] = {"client": [], "server": []}
        self.now: Instant = 0
        self._nat = nat
        self._loss = loss
        self._rng = stream(SEED, "line", "loss")
        self._flying: list[tuple[Instant, str, DatagramReceived]] = []

    def feed(self, name: str, event: Value) -> None:
        effects = self.cores[name].handle(event, self.now)
        self.journals[name].append((self.now, event, effects))
        for effect in effects:
            if isinstance(effect, SendDatagram) and self._rng.random() >= self._loss:
                self._carry(name, effect)

    def run(self, duration: Duration) -> None:
        """Let everything happen that is due, in the order of time."""
        end = self.now + duration
        while True:
            core = self.cores["client"]
            landing = self._flying[0][0] if self._flying else end + 1
            at = min(core.deadline, landing)
            if at > end:
                break
            self.now = max(self.now, at)
            if landing == at:
                _, name, event = self._flying.pop(0)
                self.feed(name, event)
            else:
                self.feed("client", WAKE)
        self.now = end

    def _carry(self, name: str, sent: SendDatagram) -> None:
        source, target = sent.local, sent.remote
        if self._nat is not None:
            packet = Packet(source, target, sent.data)
            passed = (self._nat.outbound if name == "client" else self._nat.inbound)(packet, self.now)
            if passed is None:
                return
            source, target = passed.source, passed.destination
        to = "server" if name == "client" else "client"
        self._flying.append((self.now + DELAY, to, DatagramReceived(target, source, sent.data)))


def make_discovery() -> BehaviourDiscovery:
    """Return the core that found out three times."""
    return BehaviourDiscovery(Setting(SOCKET, PRIMARY), stream(SEED, "discovery", "core"))


def make_lifetime_search() -> LifetimeSearch:
    """Return the core that found out twice how long a mapping lives."""
    setting = LifetimeSetting(SOCKET, Address(SOCKET.host, SOCKET.port + 1), PRIMARY)
    return LifetimeSearch(setting, stream(SEED, "lifetime", "core"))


def make_stun_server() -> StunServer:
    """Return the core that it asked."""
    return StunServer(PRIMARY, ALTERNATE)


def make_port_mapping() -> PortMapping:
    """Return the core that kept a port open."""
    return PortMapping(PortSetting(SOCKET, OWN, SOCKET.port), stream(SEED, "port mapping", "core"))


@cache
def discovery() -> dict[str, Sequence[Entry]]:
    """Return the journals of a host behind a hard NAT and of the STUN server that it asked three times."""
    line = Line(make_discovery(), make_stun_server(), Nat(HARD, [OUTSIDE], stream(SEED, "nat", "nat")))
    for _ in range(3):
        line.feed("client", DiscoveryStarted())
        line.run(200 * SECOND)
    return dict(line.journals)


@cache
def lifetime() -> Sequence[Entry]:
    """Return the journal of a host that found out twice how long a NAT remembers."""
    nat = Nat(HARD, [OUTSIDE], stream(SEED, "nat", "nat"))
    line = Line(make_lifetime_search(), StunServer(PRIMARY), nat)
    for _ in range(2):
        line.feed("client", LifetimeWanted())
        line.run(3600 * SECOND)
    return line.journals["client"]


@cache
def port_mapping(services: Services) -> Sequence[Entry]:
    """Return the journal of a client whose gateway restarted, moved, and was asked twice over."""
    nat = Nat(NatKind(), [OUTSIDE], stream(SEED, "nat", "nat"))
    line = Line(make_port_mapping(), Gateway([OWN], [nat], services))
    for _ in range(2):
        line.feed("client", MappingWanted())
        line.run(3 * 3600 * SECOND)
        nat.reboot()
        line.run(1800 * SECOND)
        nat.rebind(["203.0.113.2"])
        line.run(1800 * SECOND)
        line.feed("client", MappingUnwanted())
        line.run(60 * SECOND)
    return line.journals["client"]
