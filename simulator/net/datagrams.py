"""An internet for datagrams alone: hosts that live from the moment they are added, and say what they report.

It is the network of `simulator.world` with less around it, for whatever needs no connections, no checkers and no
report: the discovery of NATs, port mapping, hole punching. How datagrams travel is in `simulator.net.packets`.
"""

from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias

from simulator.engine import Engine
from simulator.events import HostStarted
from simulator.host import Host
from simulator.journal import AnyCore
from simulator.net.link import CABLE, Link
from simulator.net.nat import NatKind
from simulator.net.network import Network
from simulator.net.site import Site
from simulator.rng import SplitMix64, stream
from simulator.trace import Trace
from teale_proto.contract import Instant, Value

__all__ = ["HOME", "AnyCore", "DatagramHost", "Internet", "Realm", "Uplink"]

Realm: TypeAlias = Site
"""What lies behind one gateway."""

Uplink = Link
HOME: Final = CABLE


class DatagramHost(Host):
    """A host with one core for its one life; what it reports is kept in `reports`, with the instant."""

    __slots__ = ("reports",)

    def __init__(
        self, name: str, engine: Engine, network: Network, trace: Trace | None, core: AnyCore, seed: int
    ) -> None:
        super().__init__(name, engine, network, trace, lambda _rng, _now: core, seed=seed)
        self.reports: list[tuple[Instant, Value]] = []

    @property
    def realm(self) -> Site:
        """Where it is."""
        return self.machine.ports[0].site

    def _record(self, value: Value) -> None:
        if not isinstance(value, HostStarted):
            super()._record(value)

    def _perform(self, effect: Value) -> None:
        if type(effect).__name__.startswith("Report"):
            self.reports.append((self._engine.now, effect))
        else:
            super()._perform(effect)


class Internet:
    """A network, and how to add to it.

    All chance derives from `seed` and the names, so one more host disturbs no other. With a trace, everything
    that goes into a core or comes out of one is recorded.
    """

    def __init__(self, engine: Engine, *, seed: int, trace: Trace | None = None) -> None:
        self.engine: Final = engine
        self.network: Final = Network(engine, seed=seed)
        self.root: Final = self.network.internet
        self._seed = seed
        self._trace = trace
        self._names: set[str] = set()

    @property
    def lost(self) -> int:
        """Packets lost on a link, by chance."""
        return self.network.datagrams.lost

    @property
    def dropped(self) -> int:
        """Packets that a gateway did not let pass."""
        return self.network.datagrams.dropped

    @property
    def unreachable(self) -> int:
        """Packets for an address that nobody has."""
        return self.network.datagrams.unreachable

    def add_realm(
        self,
        name: str,
        kind: NatKind,
        outside: Iterable[str] = (),
        *,
        behind: Site | None = None,
        uplink: Link = CABLE,
    ) -> Site:
        """Add what lies behind a NAT with these outside addresses, or behind a firewall without any.

        Raises NetworkError, a ValueError, for a name or an address that is taken.
        """
        return self.network.add_site(name, kind, uplink, outside=tuple(outside), behind=behind)

    def add_host(
        self, name: str, addresses: Sequence[str], core: AnyCore, *, realm: Site | None = None, uplink: Link = CABLE
    ) -> DatagramHost:
        """Add a machine to a realm, or to the public internet; raises NetworkError for what is taken."""
        if name in self._names:
            raise ValueError(f"the name {name} is taken")
        self._names.add(name)
        host = DatagramHost(name, self.engine, self.network, self._trace, core, self._seed)
        self.network.attach(host.machine, realm or self.root, addresses, uplink)
        host.start()
        return host

    def entropy(self, name: str) -> SplitMix64:
        """Return the stream that the core of host `name` is to be made with."""
        return stream(self._seed, name, "core")
