"""A STUN server on the internet, and hosts behind stacks of NATs that ask it."""

from collections.abc import Sequence

from simulator.engine import Engine
from simulator.net.datagrams import DatagramHost, Internet, Realm, Uplink
from simulator.net.nat import NatKind
from simulator.trace import Trace
from teale_proto.contract import MILLISECOND, SECOND, Duration
from teale_proto.inputs import Address
from teale_proto.nat.behaviour import BehaviourDiscovery, DiscoveryStarted, ReportBehaviour, Setting
from teale_proto.nat.kinds import Behaviour
from teale_proto.nat.stun_server import StunServer

PRIMARY = Address("192.0.2.1", 3478)
ALTERNATE = Address("198.51.100.1", 3479)
PRIMARY_6 = Address("2001:db8:1::1", 3478)
ALTERNATE_6 = Address("2001:db8:2::1", 3479)
SECOND_SERVER = Address("198.51.100.9", 3478)
PORT = 40000
LINE = Uplink(latency=10 * MILLISECOND)


class NatWorld:
    """An internet with a STUN server of two addresses, and an ordinary one elsewhere."""

    def __init__(self, *, seed: int = 1, alternate: bool = True, line: Uplink = LINE) -> None:
        self.engine = Engine()
        self.trace = Trace()
        self.internet = Internet(self.engine, seed=seed, trace=self.trace)
        self.line = line
        server = StunServer(PRIMARY, ALTERNATE if alternate else None)
        hosts = sorted({endpoint.host for endpoint in server.endpoints})
        self.internet.add_host("stun", hosts, server, uplink=LINE)
        server = StunServer(PRIMARY_6, ALTERNATE_6)
        self.internet.add_host("stun6", [PRIMARY_6.host, ALTERNATE_6.host], server, uplink=LINE)
        self.internet.add_host("stun2", [SECOND_SERVER.host], StunServer(SECOND_SERVER), uplink=LINE)
        self._sites = 0

    def site(self, kinds: Sequence[NatKind], *, pool: int = 1) -> tuple[Realm | None, str]:
        """Add a stack of NATs, the outermost first; return the innermost realm and an address in it."""
        self._sites += 1
        realm, address = None, f"203.0.113.{self._sites}"
        for depth, kind in enumerate(kinds):
            outside = [f"203.0.{113 + more}.{self._sites}" for more in range(pool)] if depth == 0 else [address]
            uplink = self.line if depth == 0 else Uplink(latency=MILLISECOND)
            name = f"site {self._sites}.{depth}"
            realm = self.internet.add_realm(name, kind, outside if kind.translates else (), behind=realm, uplink=uplink)
            if kind.translates:
                address = f"10.{depth}.{self._sites}.2"
        return realm, address

    def discoverer(
        self, kinds: Sequence[NatKind], *, pool: int = 1, second: Address | None = None, ipv6: bool = False
    ) -> DatagramHost:
        """Add a host behind a new stack of NATs that will ask the server."""
        realm, address = self.site(kinds, pool=pool)
        name = f"host {self._sites}"
        if ipv6:
            address = f"2001:db8:f::{self._sites}"
        setting = Setting(Address(address, PORT), PRIMARY_6 if ipv6 else PRIMARY, second)
        core = BehaviourDiscovery(setting, self.internet.entropy(name))
        return self.internet.add_host(name, [address], core, realm=realm, uplink=LINE if realm is None else Uplink(0))

    def discover(self, host: DatagramHost, *, within: Duration = 200 * SECOND) -> Behaviour:
        """Let a host find out, and return what it reports."""
        known = len(host.reports)
        host.feed(DiscoveryStarted())
        ends_at = self.engine.now + within
        while self.engine.now < ends_at:
            self.engine.run_until(self.engine.now + SECOND)
            for _, report in host.reports[known:]:
                if isinstance(report, ReportBehaviour):
                    return report.behaviour
        raise AssertionError("the discovery never ended")


def classify(*kinds: NatKind, seed: int = 1, line: Uplink = LINE, pool: int = 1, ipv6: bool = False) -> Behaviour:
    """Return what a host behind these NATs, the outermost first, finds out."""
    world = NatWorld(seed=seed, line=line)
    return world.discover(world.discoverer(kinds, pool=pool, ipv6=ipv6))
