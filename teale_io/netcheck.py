"""What stands between this machine and the internet, tried out: UDP, both versions of IP, NATs, port mapping.

For each version of IP one socket asks one STUN server after the other until one answers; what kind of NAT is
around that socket is then found out as RFC 5780 says, or as far as ordinary servers allow. Nothing here judges or
advises: that is for whoever shows it.
"""

import random
import socket
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from struct import Struct
from typing import Any, Final, NamedTuple, TypeAlias, get_args

import trio

from teale_io.runner import Runner
from teale_io.stun_service import padded
from teale_io.udp import DatagramSockets
from teale_proto.contract import MILLISECOND, SECOND, Value
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
from teale_proto.nat.datagrams import SendDatagram
from teale_proto.nat.kinds import Behaviour
from teale_proto.nat.port_mapping import PortMapping
from teale_proto.nat.port_mapping_values import (
    MappingUnwanted,
    MappingWanted,
    Patience,
    PortMappingEffect,
    PortMappingInput,
    ReportPortLost,
    ReportPortMapped,
    ReportPortRefused,
    ReportPortReleased,
    ReportPortUnavailable,
)
from teale_proto.nat.port_mapping_values import Setting as MappingSetting

STUN_PORT: Final = 3478
RESOLVE_SECONDS: Final = 5.0
PATIENCE: Final = Retransmission(first=300 * MILLISECOND, requests=4, patience=4)
"""3.3 s for a question without an answer, of which there are two at most one after the other."""
MAPPING_PATIENCE: Final = Patience(
    pcp_first=SECOND, pcp_requests=2, nat_pmp_first=250 * MILLISECOND, nat_pmp_requests=4, release_requests=2
)
"""7 s in all; people are waiting."""
MAPPING_LIFETIME_SECONDS: Final = 120
"""Short, in case that we cannot release it."""
MAPPING_SECONDS: Final = 20.0
"""A safety net: the core gives up by itself."""

PortOutcome: TypeAlias = ReportPortMapped | ReportPortRefused | ReportPortUnavailable


class Server(Value):
    """A STUN server as people name it."""

    host: str
    port: int = STUN_PORT


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


class Netcheck(Value):
    """The result. A family is there if any server has an address of its version."""

    families: tuple[Family, ...]
    unresolved: tuple[str, ...] = ()
    """Servers whose names led nowhere."""
    gateway: str = ""
    port_mapping: PortOutcome | None = None
    """What the gateway said, where it was asked."""

    def of(self, version: int) -> Family | None:
        """Return what was found over that version of IP."""
        return next((family for family in self.families if family.version == version), None)


class _Resolved(NamedTuple):
    addresses: list[Address]
    unresolved: list[str]


async def netcheck(
    servers: Sequence[Server],
    *,
    map_port: bool = False,
    gateway: str | None = None,
    patience: Retransmission = PATIENCE,
) -> Netcheck:
    """Ask the servers, the first one first, and with `map_port` the gateway too, by default the system's own."""
    resolved = await _resolve(servers)
    families: dict[int, Family] = {}
    mapped: list[PortOutcome | None] = []
    gateway = (gateway if gateway is not None else default_gateway()) if map_port else ""
    async with trio.open_nursery() as nursery:

        async def look(version: int, candidates: Sequence[Address]) -> None:
            families[version] = await _family(version, candidates, patience)

        async def ask(where: str) -> None:
            mapped.append(await _port_mapping(where))

        for version in (4, 6):
            candidates = [each for each in resolved.addresses if ip_address(each.host).version == version]
            if candidates:
                nursery.start_soon(look, version, candidates)
        if gateway:
            nursery.start_soon(ask, gateway)
    found = tuple(families[version] for version in sorted(families))
    return Netcheck(found, tuple(resolved.unresolved), gateway, mapped[0] if mapped else None)


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
    host: str, server: Address, second: Address | None, patience: Retransmission
) -> tuple[Behaviour | None, float | None]:
    """Return what is around a new socket at `host`, and the seconds to the server and back."""
    outcome: list[Behaviour] = []
    over = trio.Event()
    asked_at = 0.0
    round_trip: float | None = None

    def reach(_report: ReportMapped) -> None:
        nonlocal round_trip
        round_trip = trio.current_time() - asked_at

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
    return outcome[0], round_trip


async def _port_mapping(gateway: str) -> PortOutcome | None:
    """Have the gateway open a port, and close it again; None where nothing came of it in time."""
    outcome: list[PortOutcome] = []
    decided, released = trio.Event(), trio.Event()

    def decide(report: PortOutcome) -> None:
        outcome.append(report)
        decided.set()

    host = source_for(Address(gateway, STUN_PORT))
    if not host:
        return None
    with DatagramSockets(lambda received: runner.feed(received)) as sockets:
        try:
            local = sockets.bind(Address(host, 0))
        except OSError:
            return None
        setting = MappingSetting(local, gateway, local.port, MAPPING_LIFETIME_SECONDS)
        core = PortMapping(setting, random.SystemRandom(), patience=MAPPING_PATIENCE)
        runner: Runner[PortMappingInput, PortMappingEffect] = Runner(core, get_args(PortMappingEffect))
        runner.perform_with(
            {
                **sockets.performers,
                **dict.fromkeys(get_args(PortOutcome), decide),
                ReportPortLost: lambda _: None,
                ReportPortReleased: lambda _: released.set(),
            }
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(runner.run)
            nursery.start_soon(sockets.run)
            runner.feed(MappingWanted())
            with trio.move_on_after(MAPPING_SECONDS):
                await decided.wait()
            with trio.CancelScope(shield=True), trio.move_on_after(MAPPING_SECONDS / 4):
                runner.feed(MappingUnwanted())
                if outcome and isinstance(outcome[0], ReportPortMapped):
                    await released.wait()
            nursery.cancel_scope.cancel()
    return outcome[0] if outcome else None


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
    patience: Retransmission = PATIENCE,
) -> Netcheck:
    """Do `netcheck` in a trio run of its own."""
    return trio.run(partial(netcheck, servers, map_port=map_port, gateway=gateway, patience=patience))
