"""Which network this machine is in, and when that changes.

Nothing is sent to find out: the system says from which address it would send to a STUN server, or anywhere else,
and where its default route leads. That is looked at every few seconds, as there is no portable way to be told. A
machine that has slept may wake up in the same network, but nothing that was known of NATs on the way is still true;
so a jump of the wall clock against the other one is a change too.
"""

import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from ipaddress import ip_address
from itertools import count
from typing import Any, Final, NamedTuple

import structlog
import trio

from teale_io.interfaces import local_addresses
from teale_io.netcheck import default_gateway, source_for
from teale_io.stun_servers import STUN_PORT, Server
from teale_proto.contract import Value
from teale_proto.inputs import Address
from teale_proto.nat.pcp import SERVER_PORT

LOOK_SECONDS: Final = 3.0
RESOLVE_SECONDS: Final = 5.0
RESOLVE_AGAIN_SECONDS: Final = 60.0
"""After so long the names of STUN servers are looked up again, where some led nowhere."""
ASLEEP_SECONDS: Final = 5.0
"""By so much clocks disagree only after sleep, or where somebody has set one."""

_ANYWHERE: Final = (Address("192.0.2.1", STUN_PORT), Address("2001:db8::1", STUN_PORT))
"""Addresses that nobody has (RFC 5737, RFC 3849); packets to them would take the default route."""

_log = structlog.get_logger()


class Network(Value):
    """What there is to know of a network."""

    hosts: tuple[str, ...]
    """Our addresses in it, at most one of each IP version, IPv4 first."""
    stun: tuple[Address, ...] = ()
    gateway: Address | None = None


class Clocks(NamedTuple):
    """What two clocks say at one moment, in seconds."""

    wall: float
    monotonic: float


def has_slept(before: Clocks, after: Clocks) -> bool:
    """Return whether the machine slept between two moments, or its clock was set."""
    return abs((after.wall - before.wall) - (after.monotonic - before.monotonic)) > ASLEEP_SECONDS


def look(stun: Sequence[Address]) -> Network:
    """Return the network that this machine is in; `stun` are the servers to be asked in it."""
    hosts = []
    for anywhere in _ANYWHERE:
        alike = [server for server in stun if _version(server) == _version(anywhere)]
        # Where all that is to be reached is on this machine, the way into the world is of no interest.
        if not alike and any(ip_address(server.host).is_loopback for server in stun):
            continue
        if host := _source([*alike, anywhere]):
            hosts.append(host)
    gateway = default_gateway()
    is_outside = any("." in host and not ip_address(host).is_loopback for host in hosts)
    return Network(tuple(hosts), tuple(stun), Address(gateway, SERVER_PORT) if gateway and is_outside else None)


def _source(servers: Sequence[Address]) -> str:
    for server in servers:
        host = source_for(server).partition("%")[0]
        if host and not ip_address(host).is_link_local and not ip_address(host).is_unspecified:
            return host
    return ""


def _version(address: Address) -> int:
    return 6 if ":" in address.host else 4


def read_addresses() -> frozenset[str]:
    """Return the addresses of this machine's interfaces, but for the loopback's."""
    return frozenset(each.address for each in local_addresses())


def read_clocks() -> Clocks:
    """Return what the clocks say now."""
    return Clocks(time.time(), time.monotonic())


class OwnAddresses:
    """The addresses of this machine's interfaces, and which of them have gone since somebody last asked."""

    def __init__(self, look: Callable[[], frozenset[str]] = read_addresses) -> None:
        self._look: Final = look
        self._known = look()

    def gone(self) -> frozenset[str]:
        """Return those that there are no more, once."""
        before, self._known = self._known, self._look()
        return before - self._known


class NetworkWatch:
    """Calls `tell` with the network at the beginning and after every change; `look` and `clocks` see to that."""

    def __init__(
        self,
        servers: Sequence[Server],
        tell: Callable[[Network], object],
        *,
        look: Callable[[Sequence[Address]], Network] = look,
        clocks: Callable[[], Clocks] = read_clocks,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        self._servers: Final = tuple(servers)
        self._tell: Final = tell
        self._look: Final = look
        self._clocks: Final = clocks
        self._look_seconds: Final = look_seconds
        self._stun: dict[Server, tuple[Address, ...]] = {}

    async def run(self) -> None:
        """Watch until cancelled."""
        told: Network | None = None
        resolved_at = -RESOLVE_AGAIN_SECONDS
        before = self._clocks()
        while True:
            clocks = self._clocks()
            slept = has_slept(before, clocks)
            before = clocks
            moved = told is None or self._look(self._known).hosts != told.hosts
            wanted = self._servers if moved or slept else self._unresolved
            if wanted and (moved or slept or clocks.monotonic >= resolved_at + RESOLVE_AGAIN_SECONDS):
                await self._resolve(wanted)
                resolved_at = clocks.monotonic
            network = self._look(self._known)
            if network != told or slept:
                _log.info("the network is there" if told is None else "the network has changed", hosts=network.hosts)
                self._tell(network)
                told = network
            await trio.sleep(self._look_seconds)

    @property
    def _known(self) -> tuple[Address, ...]:
        """The addresses of the servers, in the order of these: the first of each and of either IP version comes first.

        Two addresses of one name may be of one server; the core asks those that come first at the same time, and learns
        most from different ones.
        """
        ranked: list[tuple[int, Address]] = []
        for server in self._servers:
            ranks = {4: count(), 6: count()}
            ranked += ((next(ranks[_version(each)]), each) for each in self._stun.get(server, ()))
        return tuple(dict.fromkeys(each for _, each in sorted(ranked, key=lambda found: found[0])))

    @property
    def _unresolved(self) -> tuple[Server, ...]:
        return tuple(server for server in self._servers if server not in self._stun)

    async def _resolve(self, servers: Sequence[Server]) -> None:
        """Look up names; where one leads nowhere now, what it led to before has to do."""
        async with trio.open_nursery() as nursery:
            for server in servers:
                nursery.start_soon(self._resolve_one, server)

    async def _resolve_one(self, server: Server) -> None:
        found: list[Any] = []
        with suppress(OSError, UnicodeError), trio.move_on_after(RESOLVE_SECONDS):
            found = await trio.socket.getaddrinfo(server.host, server.port, type=socket.SOCK_DGRAM)
        if found:
            self._stun[server] = tuple(dict.fromkeys(Address(name[0], name[1]) for *_, name in found))
