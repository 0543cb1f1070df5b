"""An internet of network namespaces: hosts, sites behind routers of the kernel's own, and a wide area in between.

It is described as a simulated one is, with the same addresses, NATs, lines and regions, and what befalls it has the
same names. Routers and cables are Linux's (`simulator.lab.places`, `routers`); the wide area is a process that holds
packets for as long as light takes (`forwarder`). Everything hangs on file descriptors of whoever makes it: nothing
has a name in the system, and nothing is left of it when that process is gone, however it went. Nothing leaves it.
"""

import socket
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from threading import RLock
from types import MappingProxyType, TracebackType
from typing import Final

from simulator.lab import partitions, routers
from simulator.lab.errors import LabError, MissingMeans
from simulator.lab.orders import Counts
from simulator.lab.places import LabHost, LabSite, Traffic
from simulator.lab.privileges import missing
from simulator.lab.wide_area import WideArea
from simulator.net.addresses import AddressBook
from simulator.net.link import CABLE, Link
from simulator.net.medium import Block
from simulator.net.nat import NatKind
from simulator.net.regions import WORLD, Regions
from simulator.net.site import Site

__all__ = ["Counts", "Internet", "LabHost", "LabSite", "Traffic"]

_BUILDERS: Final = 4
"""Sites that are built at once."""


class Internet:
    """One internet; a context. Nothing of it is left once it is closed, or once the process that made it is dead.

    Sites and hosts are added before `start` or after it; after it they are there when the call returns. All calls
    block for milliseconds, and one waits for another. What cannot be raises `NotOnLinux`, and a name that nothing has,
    or that is taken, `LabError`.
    """

    def __init__(self, seed: int, regions: Regions = WORLD) -> None:
        """Begin one without anything; raises MissingMeans where it cannot be run."""
        if lacking := missing():
            raise MissingMeans(lacking)
        self._seed: Final = seed
        self._regions: Final = regions
        self._lock = RLock()
        self._book = AddressBook()
        self._root = Site("internet", seed=seed)
        self._hosts: dict[str, LabHost] = {}
        self._sites: dict[str, LabSite] = {}
        self._blocks: list[Block] = []
        self._lines_blocked: frozenset[tuple[int, int]] = frozenset()
        self._is_started = False
        self._stack = ExitStack()
        # Starting takes it as long as describing all the rest.
        self._area = WideArea(seed, regions)
        self._stack.callback(self._area.close)

    def __enter__(self) -> "Internet":
        """Return it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Take it down."""
        self.close()

    @property
    def hosts(self) -> Mapping[str, LabHost]:
        """All hosts, by their names, in the order in which they were added."""
        return MappingProxyType(self._hosts)

    @property
    def sites(self) -> Mapping[str, LabSite]:
        """All sites, likewise."""
        return MappingProxyType(self._sites)

    def host(self, name: str) -> LabHost:
        """Return a host; raises LabError where there is none."""
        if name not in self._hosts:
            raise LabError(f"there is no host {name!r}")
        return self._hosts[name]

    def site(self, name: str) -> LabSite:
        """Return a site; raises LabError where there is none."""
        if name not in self._sites:
            raise LabError(f"there is no site {name!r}")
        return self._sites[name]

    # What there is.

    def add_site(
        self,
        name: str,
        nats: Sequence[NatKind] = (),
        line: Link = CABLE,
        *,
        region: str = "",
        only_tcp_443: bool = False,
        offers_port_mapping: bool = False,
    ) -> LabSite:
        """Add a site behind routers, the outermost first; without any it is public. Its hosts share a LAN.

        With `only_tcp_443`, nothing else leaves. The innermost router may offer to open ports.
        """
        with self._lock:
            self._check_new(name, region)
            for nat in nats:
                routers.check(nat)
            parent, chain = self._root, list[Site]()
            kinds: Sequence[NatKind | None] = nats or [None]
            for level, kind in enumerate(kinds):
                is_innermost = level == len(kinds) - 1
                outside = (self._book.outside(parent),) if kind is not None and kind.translates else ()
                named = name if is_innermost else f"{name} (gateway {level + 1} of {len(nats)})"
                parent = Site(named, seed=self._seed, parent=parent, kind=kind, outside=outside)
                chain.append(parent)
            site = LabSite(
                chain,
                line=line,
                region=region,
                seed=self._seed,
                only_tcp_443=only_tcp_443,
                offers_port_mapping=offers_port_mapping,
            )
            self._stack.callback(site.close)
            self._sites[name] = site
            if self._is_started:
                self._build_site(site)
            return site

    def add_host(self, name: str, site: str) -> LabHost:
        """Add a host to a site; its address is the one that the simulator would draw."""
        with self._lock:
            self._check_new(name)
            where = self.site(site)
            host = self._keep(LabHost(name, self._book.of_host(where.chain[-1]), where))
            where.hosts += (host,)
            if self._is_started:
                host.build()
                self._attach(host)
            return host

    def add_server(self, name: str, addresses: Sequence[str], line: Link, *, region: str = "") -> LabHost:
        """Add a host on the internet itself, with one public address or several."""
        with self._lock:
            self._check_new(name, region)
            if not addresses:
                raise LabError(f"the server {name!r} has no address")
            host = self._keep(LabHost(name, addresses, region=region, line=line))
            if self._is_started:
                self._build_server(host)
            return host

    def start(self) -> None:
        """Switch it on; returns when packets pass. Raises LabError where the kernel does not do as it is told."""
        with self._lock:
            if self._is_started:
                raise LabError("it is started already")
            servers = [host for host in self._hosts.values() if host.site is None]
            acts = [host.build_server for host in servers] + [site.build for site in self._sites.values()]
            with ThreadPoolExecutor(_BUILDERS) as pool:
                for built in [pool.submit(act) for act in acts]:
                    built.result()
            self._area.begin()
            places: list[LabHost | LabSite] = [*servers, *self._sites.values()]
            for place in places:
                self._connect(place)
            self._is_started = True
            self._partition()

    def close(self) -> None:
        """Take it down; programs that still run in it are not ended, but nothing of theirs gets anywhere."""
        with self._lock:
            self._is_started = False
            self._stack.close()

    # To do things there.

    def run_in(self, host: str, argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Run a command on a host to its end, and return what it said; the exit code is the caller's matter."""
        command = [*self.host(host).prefix, *argv]
        return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - what it is for

    def connect(self, host: str, port: int, *, timeout: float = 10.0) -> socket.socket:
        """Connect to 127.0.0.1:`port` of a host; raises OSError when nobody listens there."""
        return self.host(host).namespace.call(lambda: socket.create_connection(("127.0.0.1", port), timeout))

    # What befalls it.

    def cut(self, host: str) -> None:
        """Let nothing in or out of a host, as when its power is gone; nobody is told."""
        self._set_power(host, powered=False)

    def mend(self, host: str) -> None:
        """Let it pass again."""
        self._set_power(host, powered=True)

    def block(self, sources: Iterable[str], targets: Iterable[str]) -> None:
        """Let nothing get from some hosts, sites or regions to others; the way back is not touched.

        A site or a region stands for whatever crosses its edge, and not for what stays inside.
        """
        with self._lock:
            block = Block(frozenset(sources), frozenset(targets))
            for name in sorted(block.sources | block.targets):
                if name not in self._hosts and name not in self._sites and name not in self._regions.names:
                    raise LabError(f"there is no host, site or region {name!r}")
            self._blocks.append(block)
            self._partition()

    def unblock(self, sources: Iterable[str], targets: Iterable[str]) -> None:
        """Lift a block that was put up with the same names."""
        with self._lock:
            block = Block(frozenset(sources), frozenset(targets))
            if block not in self._blocks:
                raise LabError("there is no such block")
            self._blocks.remove(block)
            self._partition()

    def reboot_nat(self, site: str) -> None:
        """Have all routers of a site forget everything: mappings, connections, forwarded ports."""
        with self._lock:
            self.site(site).reboot()

    def rebind_nat(self, site: str) -> str:
        """Give the outermost NAT of a site another address, which is returned; what its routers knew is gone."""
        with self._lock:
            where = self.site(site)
            level = next((level for level, each in enumerate(where.chain) if each.outside), None)
            if level is None:
                raise LabError(f"{site!r} has no NAT that could get another address")
            parent = where.chain[level].parent
            assert parent is not None, "a NAT has an outside"
            outside = self._book.outside(parent)
            where.rebind(level, outside)
            where.reboot()
            self._area.set_addresses(where.number, where.public)
            return outside

    def change_weather(self, name: str, line: Link) -> None:
        """Exchange the line of a site, or of a server; what is under way stays so."""
        with self._lock:
            place = self._sites.get(name) or self.host(name)
            if isinstance(place, LabHost) and place.site is not None:
                raise LabError(f"{name!r} has no line of its own, but that of {place.site.name!r}")
            place.line = line
            self._area.set_link(place.number, line)

    def move(self, host: str, site: str) -> tuple[str, ...]:
        """Take a host to another site, and return its new addresses; what runs there goes on running."""
        with self._lock:
            moving, where = self.host(host), self.site(site)
            before = moving.site
            if before is None or before is where:
                raise LabError(f"{host!r} cannot be moved to {site!r}")
            moving.unplug()
            before.hosts = tuple(each for each in before.hosts if each is not moving)
            self._area.set_addresses(before.number, before.public)
            moving.site = where
            moving.addresses = self._book.of_host(where.chain[-1])
            where.hosts += (moving,)
            self._attach(moving)
            return moving.addresses

    # What there was.

    def traffic(self, host: str) -> Traffic:
        """Return what has crossed the cable of a host."""
        with self._lock:
            return self.host(host).traffic

    def counts(self) -> Counts:
        """Return what became of the packets between sites."""
        with self._lock:
            return self._area.counts()

    # How it is done.

    def _check_new(self, name: str, region: str = "") -> None:
        if name in self._hosts or name in self._sites:
            raise LabError(f"there is a host or site {name!r} already")
        if region:
            self._regions.index(region)

    def _keep(self, host: LabHost) -> LabHost:
        self._stack.callback(host.close)
        self._hosts[host.name] = host
        return host

    def _build_site(self, site: LabSite) -> None:
        site.build()
        self._connect(site)

    def _build_server(self, host: LabHost) -> None:
        host.build_server()
        self._connect(host)
        self._partition()

    def _attach(self, host: LabHost) -> None:
        """Plug a host into its site, and have everybody know the way."""
        assert host.site is not None, "a server is not plugged into anything"
        host.plug()
        host.site.learn()
        self._area.set_addresses(host.site.number, host.site.public)
        self._partition()

    def _connect(self, place: LabHost | LabSite) -> None:
        """Hand a TUN device over to the wide area."""
        assert place.device is not None, "it is built"
        addresses = place.addresses if isinstance(place, LabHost) else place.public
        place.number = self._area.add_line(place.device.give(), place.name, place.line, place.region, addresses)

    def _set_power(self, name: str, *, powered: bool) -> None:
        with self._lock:
            host = self.host(name)
            if host.is_cut is not powered:
                return
            host.is_cut = not powered
            if host.site is None:
                self._area.set_power(host.number, powered=powered)
            else:
                host.set_power(powered=powered)

    def _partition(self) -> None:
        """Do what the blocks ask for, as far as it is not done."""
        if not self._is_started:
            return
        stops = partitions.stops_of(self._blocks, [host.attached for host in self._hosts.values()])
        if stops.lines != self._lines_blocked:
            self._area.set_blocks(sorted(stops.lines))
            self._lines_blocked = stops.lines
        for name, host in self._hosts.items():
            rules = partitions.rules_of(stops.marks.get(name), stops.drops.get(name, frozenset()))
            if rules != host.rules:
                host.namespace.nft(rules)
                host.rules = rules
