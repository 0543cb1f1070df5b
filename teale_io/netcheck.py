"""What stands between this machine and the internet, tried out: UDP, both versions of IP, NATs, port mapping.

For each version of IP one socket asks one STUN server after the other until one answers; what kind of NAT is
around that socket is then found out as RFC 5780 says, or as far as ordinary servers allow. The gateway is asked for a
port only where that is wanted; relays are connected to, and captive portals are looked for, where they are named.
Nothing here judges or advises: that is for whoever shows it.
"""

import random
import socket
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from struct import Struct
from typing import Any, Final, NamedTuple, get_args

import msgspec
import trio

from teale_io.gateway_check import Opening, PortOutcome, try_opening
from teale_io.relay_check import Portal, RelayLatency, look_for_portal, relay_latency
from teale_io.runner import Runner
from teale_io.stun_servers import STUN_PORT as STUN_PORT
from teale_io.stun_servers import Server as Server
from teale_io.stun_service import padded
from teale_io.udp import DatagramSockets
from teale_io.websocket import WebSocketDialer
from teale_proto.contract import MILLISECOND, Value
from teale_proto.effects import SendDatagram
from teale_proto.inputs import Address
from teale_proto.nat.behaviour import (
    BehaviourDiscovery,
    DiscoveryEffect,
    DiscoveryInput,
    DiscoveryStarted,
    ReportBehaviour,
    ReportMapped,
    Retransmission,
)
from teale_proto.nat.behaviour import Setting as DiscoverySetting
from teale_proto.nat.kinds import Behaviour
from teale_proto.nat.lifetime import ReportLifetime

RESOLVE_SECONDS: Final = 5.0
PATIENCE: Final = Retransmission(first=300 * MILLISECOND, requests=4, patience=4)
"""3.3 s for a question without an answer, of which there are two at most one after the other."""


class Family(Value):
    """What was found out over one version of IP."""

    version: int
    local: str = ""
    """This machine's address for it; "" where it has no way there."""
    server: Address | None = None
    """Who answered; None where nobody did."""
    asked: tuple[Address, ...] = ()
    behaviour: Behaviour | None = None
    round_trip_seconds: float | None = None
    lifetime: ReportLifetime | None = None
    """How long an unused mapping is remembered, where that was searched for."""


class Netcheck(Value):
    """The result. A family is there if any server has an address of its version."""

    families: tuple[Family, ...]
    unresolved: tuple[str, ...] = ()
    """Servers whose names led nowhere."""
    gateway: str = ""
    port_mapping: PortOutcome | None = None
    """What the gateway said, where it was asked."""
    upnp_tried: bool = False
    """Whether the gateway was asked by UPnP too."""
    relays: tuple[RelayLatency, ...] = ()
    portal: Portal | None = None
    """None where no portal was looked for."""

    def of(self, version: int) -> Family | None:
        """Return what was found over that version of IP."""
        return next((family for family in self.families if family.version == version), None)


class RelayTarget(NamedTuple):
    """A relay to be measured, and who asks its STUN service."""

    url: str
    dialer: WebSocketDialer
    stun: Server


class PortalPage(NamedTuple):
    """A page by which captive portals are known: a relay's `/health`, or one of which it is known that it is empty."""

    url: str
    is_health: bool


class _Resolved(NamedTuple):
    addresses: list[Address]
    unresolved: list[str]


async def netcheck(
    servers: Sequence[Server],
    *,
    map_port: bool = False,
    gateway: str | None = None,
    relays: Sequence[RelayTarget] = (),
    page: PortalPage | None = None,
    patience: Retransmission = PATIENCE,
) -> Netcheck:
    """Ask the servers, the first one first, and with `map_port` the gateway too, by default the system's own."""
    resolved = await _resolve(servers)
    families: dict[int, Family] = {}
    mapped = Opening(None)
    portal: Portal | None = None
    latencies: dict[int, RelayLatency] = {}
    gateway = (gateway if gateway is not None else default_gateway()) if map_port else ""
    async with trio.open_nursery() as nursery:

        async def look(version: int, candidates: Sequence[Address]) -> None:
            families[version] = await _family(version, candidates, patience)

        async def ask(where: str) -> None:
            nonlocal mapped
            mapped = await try_opening(where, source_for(Address(where, STUN_PORT)))

        async def measure(number: int, target: RelayTarget) -> None:
            latencies[number] = await _latency(target, patience)

        async def look_around(page: PortalPage) -> None:
            nonlocal portal
            portal = await look_for_portal(page.url, is_health=page.is_health)

        for version in (4, 6):
            candidates = [each for each in resolved.addresses if ip_address(each.host).version == version]
            if candidates:
                nursery.start_soon(look, version, candidates)
        if gateway:
            nursery.start_soon(ask, gateway)
        for number, target in enumerate(relays):
            nursery.start_soon(measure, number, target)
        if page is not None:
            nursery.start_soon(look_around, page)
    return Netcheck(
        tuple(families[version] for version in sorted(families)),
        tuple(resolved.unresolved),
        gateway,
        mapped.outcome,
        mapped.upnp_tried,
        tuple(latencies[number] for number in sorted(latencies)),
        portal,
    )


async def _latency(target: RelayTarget, patience: Retransmission) -> RelayLatency:
    latency = await relay_latency(target.url, target.dialer)
    for address in await _addresses(target.stun):
        host = source_for(address)
        if host:
            _, seconds = await _discover(host, address, None, patience, until_reached=True)
            if seconds is not None:
                return msgspec.structs.replace(latency, stun_seconds=seconds)
    return latency


async def _resolve(servers: Sequence[Server]) -> _Resolved:
    resolved = _Resolved([], [])
    for server in servers:
        addresses = await _addresses(server)
        resolved.addresses.extend(each for each in addresses if each not in resolved.addresses)
        if not addresses:
            resolved.unresolved.append(server.host)
    return resolved


async def _addresses(server: Server) -> list[Address]:
    found: list[Any] = []
    with suppress(OSError, UnicodeError), trio.move_on_after(RESOLVE_SECONDS):
        found = await trio.socket.getaddrinfo(server.host, server.port, type=socket.SOCK_DGRAM)
    return list(dict.fromkeys(Address(name[0], name[1]) for *_, name in found))


async def _family(version: int, servers: Sequence[Address], patience: Retransmission) -> Family:
    asked: list[Address] = []
    host = ""
    for server in servers:
        host = source_for(server) or host
        if not host:
            continue
        asked.append(server)
        # Another server helps only if it has another address.
        second = next((each for each in servers if each.host != server.host), None)
        behaviour, seconds = await _discover(host, server, second, patience)
        if behaviour is not None and behaviour.mapped is not None:
            return Family(version, host, server, tuple(asked), behaviour, seconds)
    behaviour = Behaviour(udp_blocked=True) if asked else None
    return Family(version, host, None, tuple(asked), behaviour)


def source_for(server: Address) -> str:
    """Return the address of ours that packets to a server come from; "" where there is no way. Sends nothing."""
    family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect((server.host, server.port))
            host: str = sock.getsockname()[0]
    except OSError:
        return ""
    return host


async def _discover(
    host: str, server: Address, second: Address | None, patience: Retransmission, *, until_reached: bool = False
) -> tuple[Behaviour | None, float | None]:
    """Return what is around a new socket at `host`, and the seconds to the server and back.

    With `until_reached` only the seconds are waited for.
    """
    outcome: list[Behaviour] = []
    over = trio.Event()
    asked_at = 0.0
    round_trip: float | None = None

    def reach(_report: ReportMapped) -> None:
        nonlocal round_trip
        round_trip = trio.current_time() - asked_at
        if until_reached:
            over.set()

    def conclude(report: ReportBehaviour) -> None:
        outcome.append(report.behaviour)
        over.set()

    with DatagramSockets(lambda received: runner.feed(received)) as sockets:
        try:
            local = sockets.bind(Address(host, 0))
        except OSError:
            return None, None

        def send(effect: SendDatagram) -> None:
            nonlocal asked_at
            if round_trip is None:
                asked_at = trio.current_time()
            sockets.send(SendDatagram(effect.local, effect.remote, padded(effect.data)))

        discovery = BehaviourDiscovery(
            DiscoverySetting(local, server, second), random.SystemRandom(), retransmission=patience
        )
        runner: Runner[DiscoveryInput, DiscoveryEffect] = Runner(discovery, get_args(DiscoveryEffect))
        runner.perform_with({SendDatagram: send, ReportMapped: reach, ReportBehaviour: conclude})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(runner.run)
            nursery.start_soon(sockets.run)
            runner.feed(DiscoveryStarted())
            await over.wait()
            nursery.cancel_scope.cancel()
    return outcome[0] if outcome else None, round_trip


# The way out.

_ROUTES: Final = Path("/proc/net/route")
_GATEWAY_COLUMN: Final = 2
_UP_AND_GATEWAY: Final = 0x3
_NATIVE_ADDRESS: Final = Struct("=I")


def default_gateway(routes: Path = _ROUTES) -> str:
    """Return the IPv4 gateway of the default route; "" where there is none, or the system does not say.

    `routes` is Linux's table (proc(5)); other systems have none, and the gateway has to be named.
    """
    try:
        lines = routes.read_text().splitlines()[1:]
    except OSError:
        return ""
    found: list[tuple[int, str]] = []
    for line in lines:
        columns = line.split()
        if len(columns) < 8 or columns[1] != "00000000" or columns[7] != "00000000":
            continue
        if int(columns[3], 16) & _UP_AND_GATEWAY == _UP_AND_GATEWAY:
            packed = _NATIVE_ADDRESS.pack(int(columns[_GATEWAY_COLUMN], 16))
            found.append((int(columns[6]), socket.inet_ntoa(packed)))
    return min(found)[1] if found else ""


def run(
    servers: Sequence[Server],
    *,
    map_port: bool = False,
    gateway: str | None = None,
    relays: Sequence[RelayTarget] = (),
    page: PortalPage | None = None,
    patience: Retransmission = PATIENCE,
) -> Netcheck:
    """Do `netcheck` in a trio run of its own."""
    return trio.run(
        partial(netcheck, servers, map_port=map_port, gateway=gateway, relays=relays, page=page, patience=patience)
    )
