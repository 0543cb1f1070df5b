"""What happens to the hosts and the network of a world, and when.

Everything is planned with `at`, from before that instant on; nothing here looks at what a core does. A partition has
one direction: to cut both, plan two. What is named in it are hosts, sites or regions; a site or a region stands for
whatever crosses its edge, and not for what stays inside.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from simulator.engine import Engine
from simulator.events import (
    ClockDrifted,
    Crash,
    HostSlowed,
    NatRebooted,
    NatRebound,
    PartitionBegan,
    PartitionEnded,
    WeatherChanged,
)
from simulator.host import Host
from simulator.net.addresses import AddressBook
from simulator.net.link import CABLE, Link, Port
from simulator.net.medium import Block
from simulator.net.network import Network, NetworkError
from simulator.net.site import Site
from simulator.trace import Trace
from simulator.turns import Busy, Pace
from teale_proto.contract import Duration, Instant, Value
from teale_proto.inputs import Ask


class Happenings:
    """Hosts on a network in virtual time, and all that can befall them.

    Whatever names a host or site that there is not raises NetworkError, at once.
    """

    def __init__(self, engine: Engine, network: Network, trace: Trace) -> None:
        self.engine: Final = engine
        self.network: Final = network
        self.trace: Final = trace
        self.addresses: Final = AddressBook()
        """Where addresses come from that nobody chose."""
        self.hosts: Final[dict[str, Host]] = {}
        self._stacks: dict[str, tuple[Site, ...]] = {}

    # To hosts.

    def start(self, name: str, *, at: Instant) -> None:
        """Switch a host on, later."""
        self.engine.call_at(at, self._host(name).start)

    def ask(self, name: str, ask: Ask, *, at: Instant) -> None:
        """Have the local application of a node ask for something; a node that is dead by then is not asked."""
        self.engine.call_at(at, self._host(name).feed, ask)

    def crash(self, name: str, how: Crash, *, at: Instant) -> None:
        """Kill a host, later; one that is dead by then stays it."""
        self.engine.call_at(at, _if_alive, self._host(name), lambda host: host.crash(how))

    def stop(self, name: str, *, at: Instant) -> None:
        """End a host properly, later."""
        self.engine.call_at(at, _if_alive, self._host(name), Host.stop)

    def slow_down(self, name: str, each: Duration, *, at: Instant, until: Instant | None = None) -> None:
        """Have every input keep a host busy for so long, from `at` on; at `until` it is as quick as it was."""
        self._host(name)
        self.engine.call_at(at, self._slow_down, name, each, until)

    def drift(self, name: str, rate_ppm: int, *, at: Instant) -> None:
        """Have a host's clock run too fast, or too slow, by so many parts per million from `at` on."""
        self.engine.call_at(at, self._drift, self._host(name), rate_ppm)

    def move(self, name: str, site: Site, *, at: Instant, addresses: Sequence[str] = (), cable: Link = CABLE) -> None:
        """Take a host to another site, as from Wi-Fi to a mobile network; addresses are drawn where none are given.

        Its connections die without a word to either side, and its core is not told.
        """
        self.engine.call_at(at, self._move, self._host(name), site, tuple(addresses), cable)

    # To the network.

    def block(
        self, sources: Iterable[str], targets: Iterable[str], *, at: Instant, until: Instant | None = None
    ) -> None:
        """Let nothing get from some hosts, sites or regions to others; the way back is not touched.

        Datagrams vanish. Streams stall, and go on after `until` unless somebody has given up.
        """
        block = Block(frozenset(sources), frozenset(targets))
        for name in sorted(block.sources | block.targets):
            known = name in self.hosts or name in self.network.sites or name in self.network.medium.regions.names
            if not known:
                raise NetworkError(f"there is no host, site or region {name!r}")
        self.engine.call_at(at, self._block, block)
        if until is not None:
            self.engine.call_at(until, self._unblock, block)

    def change_weather(self, name: str, link: Link, *, at: Instant, until: Instant | None = None) -> None:
        """Exchange the link of a site, or of a host, for another one; at `until` the former one is back."""
        self.engine.call_at(at, self._change_weather, name, self._port(name), link, until)

    def reboot_nat(self, name: str, *, at: Instant) -> None:
        """Have all NATs and firewalls that were made with a site forget everything.

        A connection through one of them is dead, though nobody knows: what comes from outside vanishes, and the inside
        end is answered by a reset when it next sends.
        """
        self.engine.call_at(at, self._reboot, name, self.stack(name))

    def rebind_nat(self, name: str, outside: Sequence[str] = (), *, at: Instant) -> None:
        """Give the outermost NAT that was made with a site other addresses, drawn where none are given.

        For what goes through it, that is a reboot. Raises NetworkError where no NAT was made with the site.
        """
        site = next((site for site in self.stack(name) if site.outside), None)
        if site is None:
            raise NetworkError(f"{name!r} has no NAT that could get other addresses")
        self.engine.call_at(at, self._rebind, name, site, tuple(outside))

    def stack(self, name: str) -> tuple[Site, ...]:
        """Return the sites that were made together under a name, the outermost first."""
        return self._stacks.get(name) or (self._site(name),)

    def run_until(self, at: Instant) -> None:
        """Let everything happen up to and including `at`."""
        self.engine.run_until(at)

    # When the time has come.

    def _slow_down(self, name: str, each: Duration, until: Instant | None) -> None:
        host = self.hosts[name]
        if until is not None:
            self.engine.call_at(until, self._speed_up, name, host.pace)
        host.pace = lambda _: Busy(each)
        self._record(name, HostSlowed(each))

    def _speed_up(self, name: str, pace: Pace | None) -> None:
        self.hosts[name].pace = pace
        self._record(name, HostSlowed(0))

    def _drift(self, host: Host, rate_ppm: int) -> None:
        host.drift(rate_ppm)
        self._record(host.name, ClockDrifted(rate_ppm))

    def _move(self, host: Host, site: Site, addresses: tuple[str, ...], cable: Link) -> None:
        host.move(site, addresses or self.addresses.of_host(site), cable)

    def _block(self, block: Block) -> None:
        self.network.block(block)
        self._record("", PartitionBegan(tuple(sorted(block.sources)), tuple(sorted(block.targets))))

    def _unblock(self, block: Block) -> None:
        self.network.unblock(block)
        self._record("", PartitionEnded(tuple(sorted(block.sources)), tuple(sorted(block.targets))))

    def _change_weather(self, name: str, port: Port, link: Link, until: Instant | None) -> None:
        if until is not None:
            self.engine.call_at(until, self._change_weather, name, port, port.link, None)
        self.network.set_link(port, link)
        self._record(name, WeatherChanged(link))

    def _reboot(self, name: str, stack: Sequence[Site]) -> None:
        for site in stack:
            self.network.reboot_nat(site)
        self._record(name, NatRebooted())

    def _rebind(self, name: str, site: Site, outside: tuple[str, ...]) -> None:
        assert site.parent is not None, "a NAT has an outside"
        outside = outside or (self.addresses.outside(site.parent),)
        self.network.rebind_nat(site, outside)
        self._record(name, NatRebound(outside))

    def _record(self, name: str, value: Value) -> None:
        self.trace.record(self.engine.now, name, value)

    # Who is meant.

    def _host(self, name: str) -> Host:
        if name not in self.hosts:
            raise NetworkError(f"there is no host {name!r}")
        return self.hosts[name]

    def _site(self, name: str) -> Site:
        if name not in self.network.sites:
            raise NetworkError(f"there is no site {name!r}")
        return self.network.sites[name]

    def _port(self, name: str) -> Port:
        if name in self.network.sites:
            return self.network.sites[name].line
        ports = self._host(name).machine.ports
        if not ports:
            raise NetworkError(f"{name!r} is attached to nothing")
        return ports[0]


def _if_alive(host: Host, act: Callable[[Host], None]) -> None:
    if host.alive:
        act(host)
