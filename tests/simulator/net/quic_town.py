"""Two hosts behind NATs of their own that have punched by hand, and a stream between them."""

from collections.abc import Sequence

from simulator.events import CoreMisused
from simulator.host import Host
from simulator.net.link import Link
from simulator.net.nat import NatKind
from simulator.net.site import Site
from simulator.net.sockets import UdpSockets
from simulator.trace import Entry
from simulator.world import World
from teale_proto.contract import SECOND, Duration, Instant, Value
from teale_proto.effects import Connect, DirectTarget, SendData, SendDatagram
from teale_proto.inputs import Address, ConnectionAccepted, ConnectionClosed, ConnectionOpened, NodeId
from tests.simulator.toys import Diary, Order, obey

PORT = 7475
LINE = Link(latency=10_000)
"""10 ms to the middle of the internet: 40 ms there and back."""

ALICE, BOB = "alice", "bob"


class QuicTown:
    """Alice, who dials, and Bob; each behind a stack of NATs."""

    def __init__(
        self,
        alice: Sequence[NatKind] = (NatKind(),),
        bob: Sequence[NatKind] = (NatKind(),),
        *,
        line: Link = LINE,
        seed: int = 1,
        cut_chance: float = 0.0,
    ) -> None:
        self.world = World(seed, cut_chance=cut_chance)
        self.misused: list[Entry] = []
        self.world.trace.subscribe(self.misused.append, (CoreMisused,))
        self.diaries: dict[str, Diary] = {}
        self.homes: dict[str, Site] = {}
        for name, kinds in ((ALICE, alice), (BOB, bob)):
            self.homes[name] = self.world.add_site(f"{name}'s", kinds, line)
            self.add(name, self.homes[name])

    def add(self, name: str, site: Site, *, opened_max: int = 300) -> Host:
        """Add a host with one UDP socket; every life of it writes into the same diary."""
        diary = self.diaries[name] = Diary(obey)
        sockets = UdpSockets((PORT,), opened_max=opened_max)
        host = self.world.add_host(name, lambda _, now: diary, site=site, sockets=sockets)
        host.machine.node = name
        host.start()
        return host

    def order(self, name: str, *effects: Value) -> None:
        """Have a host do something now."""
        self.world.hosts[name].feed(Order(effects))

    def run(self, duration: Duration) -> None:
        """Let time pass."""
        self.world.run_until(self.now + duration)

    @property
    def now(self) -> Instant:
        """The time."""
        return self.world.engine.now

    def local(self, name: str, port: int = PORT) -> Address:
        """A socket as its host knows it."""
        return Address(self.world.hosts[name].addresses[0], port)

    def outside(self, name: str) -> Address:
        """The same as the other side sees it, where the NAT preserves ports."""
        site = self.homes[name]
        return Address(site.outside[0] if site.outside else self.local(name).host, PORT)

    def punch(self) -> None:
        """Have both send to each other, so that both NATs let the other's packets in."""
        self.order(ALICE, SendDatagram(self.local(ALICE), self.outside(BOB), b"\x08"))
        self.order(BOB, SendDatagram(self.local(BOB), self.outside(ALICE), b"\x08"))
        self.run(SECOND)

    def dial(self, *, node: str = BOB, connection: int = 1, within: Duration = SECOND) -> bool:
        """Have Alice connect to Bob, and return whether that succeeded in time."""
        before = len(self.diaries[ALICE].of(ConnectionOpened))
        target = DirectTarget(NodeId(node), self.local(ALICE), self.outside(BOB))
        self.order(ALICE, Connect(connection, target))
        self.run(within)
        return len(self.diaries[ALICE].of(ConnectionOpened)) > before

    def meet(self) -> None:
        """Punch and connect: Alice's connection is 1, Bob's 2."""
        for _ in range(3):
            self.punch()
        assert self.dial(within=5 * SECOND)

    def say(self, name: str, data: bytes) -> None:
        """Send on the first connection."""
        self.order(name, SendData(1 if name == ALICE else 2, data))

    def data(self, name: str) -> bytes:
        """What a host received."""
        return self.diaries[name].data

    def accepted(self) -> list[ConnectionAccepted]:
        """What Bob accepted."""
        return [event for _, event in self.diaries[BOB].heard if isinstance(event, ConnectionAccepted)]

    def closed(self, name: str) -> list[str]:
        """How the connections of a host ended."""
        return [event.reason for _, event in self.diaries[name].heard if isinstance(event, ConnectionClosed)]
