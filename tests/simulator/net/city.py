"""A world of hosts that write down what they hear and do as they are told, to try the network on."""

from simulator.net.connection import Connection, ConnectionFactory
from simulator.net.link import CABLE, Link
from simulator.net.regions import NOWHERE, Regions
from simulator.net.site import Site
from simulator.world import World
from teale_proto.contract import SECOND, Instant, Value
from teale_proto.effects import Connect, SendData, SendDatagram, SendPing
from teale_proto.inputs import Address, ConnectionAccepted, ConnectionOpened, DatagramReceived
from tests.simulator.toys import Diary, Order, obey

LINE = Link(latency=10_000)
"""10 ms to the middle of the network."""


class City:
    """A world, and the diary of each of its hosts."""

    def __init__(
        self, seed: int = 1, *, regions: Regions = NOWHERE, connections: ConnectionFactory = Connection
    ) -> None:
        self.world = World(seed, cut_chance=0.0, regions=regions, connections=connections)
        self.network = self.world.network
        self.diaries: dict[str, Diary] = {}

    def home(self, name: str, site: Site, *, ports: tuple[int, ...] = (), cable: Link = CABLE) -> Diary:
        """Add a host to a site that lives from now on."""
        diary = self.diaries[name] = Diary(obey)
        self.world.add_host(name, lambda _, now: diary, site=site, ports=ports, cable=cable).start()
        return diary

    def server(self, name: str, address: str, *, link: Link = LINE, region: str = "") -> Diary:
        """Add a host on the internet that listens at ports 80 and 443."""
        diary = self.diaries[name] = Diary(obey)
        host = self.world.add_host(name, lambda _, now: diary, ports=(80, 443))
        self.network.attach(host.machine, self.network.internet, address, link, region=region)
        host.start()
        return diary

    def order(self, name: str, *effects: Value) -> None:
        """Have a host do something now."""
        self.world.hosts[name].feed(Order(effects))

    def say(self, name: str, data: bytes = b"x", *, connection: int = 1) -> None:
        """Have a host send on a stream."""
        self.order(name, SendData(connection, data))

    def ping(self, name: str, *, connection: int = 1) -> None:
        """Have a host ping on a WebSocket."""
        self.order(name, SendPing(connection))

    def cast(self, name: str, to: Address, data: bytes = b"x", *, port: int = 5000) -> None:
        """Have a host send a datagram from its first address."""
        local = Address(self.world.hosts[name].addresses[0], port)
        self.order(name, SendDatagram(local, to, data))

    def dial(self, name: str, to: Address, *, within: Instant = SECOND, connection: int = 1) -> bool:
        """Have a host connect, let time pass, and return whether it succeeded."""
        known = len(self.diaries[name].of(ConnectionOpened))
        self.order(name, Connect(connection, to))
        self.run(within)
        return len(self.diaries[name].of(ConnectionOpened)) > known

    def run(self, duration: Instant) -> None:
        """Let time pass."""
        self.world.run_until(self.now + duration)

    @property
    def now(self) -> Instant:
        """The time."""
        return self.world.engine.now

    def accepted(self, name: str) -> list[Address]:
        """Who has connected to a host, as it sees them."""
        return [event.remote for _, event in self.diaries[name].heard if isinstance(event, ConnectionAccepted)]

    def casts(self, name: str) -> list[tuple[Instant, Address, bytes]]:
        """What datagrams a host got, and when."""
        heard = self.diaries[name].heard
        return [(at, event.remote, event.data) for at, event in heard if isinstance(event, DatagramReceived)]


def clear(*diaries: Diary) -> None:
    """Turn over a new leaf."""
    for diary in diaries:
        diary.heard.clear()
