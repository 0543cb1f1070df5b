"""Opening a UDP port by UPnP, with `miniupnpc` where it is installed: the last resort, after PCP and NAT-PMP.

UPnP finds its gateway by asking around, and believes whoever answers. Here the gateway is known already, from the
routing table; so only its own answers count, and what they name has to be at its own address: the description that
the library reads, and the address that the library sends commands to. A neighbour who answers for it is not heard.

The library does the rest: the description, and the commands in SOAP. It blocks, so it works in threads; one that takes
too long is left to itself, and its gateway is not used again.
"""

import secrets
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from ipaddress import ip_address
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import trio

from teale_io.udp import DatagramSockets
from teale_proto.contract import Value
from teale_proto.effects import SendDatagram
from teale_proto.errors import TealeError
from teale_proto.inputs import Address, DatagramReceived
from teale_proto.nat.port_mapping_values import Refusal

T = TypeVar("T")

SSDP_PORT: Final = 1900
SSDP_GROUP: Final = "239.255.255.250"
SEARCH_SECONDS: Final = (0.5, 1.0, 1.5)
"""The waits after each question: 3 s until nobody has answered."""
COMMAND_SECONDS: Final = 8.0
LOCATION_LENGTH_MAX: Final = 512
PORTS_TRIED_MAX: Final = 4
"""Outside ports that are tried, where others have theirs already."""
FIRST_PORT: Final = 1024

_TARGETS: Final = tuple(f"urn:schemas-upnp-org:device:InternetGatewayDevice:{version}" for version in (1, 2))
_PERMANENT: Final = "OnlyPermanentLeasesSupported"
_TAKEN: Final = "ConflictInMappingEntry"
_REFUSALS: Final = {
    "NotAuthorized": Refusal.NOT_AUTHORIZED,
    "ActionNotAuthorized": Refusal.NOT_AUTHORIZED,
    _TAKEN: Refusal.NO_RESOURCES,
    "NoPortMapsAvailable": Refusal.NO_RESOURCES,
    "InvalidAction": Refusal.UNSUPPORTED,
    "OptionalActionNotImplemented": Refusal.UNSUPPORTED,
}
"""By the library's names of UPnP's errors, without the spaces that some of them have."""


class UpnpError(TealeError):
    """No port could be opened, renewed or closed by UPnP; the message says why."""


class UpnpMissing(UpnpError):
    """The library is not installed."""

    def __init__(self) -> None:
        super().__init__("UPnP needs the extra `upnp`: pip install 'teale[upnp]'")


class UpnpUnavailable(UpnpError):
    """The gateway does not speak UPnP, or not so that it could be believed."""


class UpnpRefused(UpnpError):
    """The gateway has refused."""

    def __init__(self, message: str, reason: Refusal) -> None:
        super().__init__(message)
        self.reason = reason


class UpnpMapping(Value):
    """A UDP port that a gateway has opened."""

    internal: Address
    external: Address
    lifetime_seconds: int
    """0 is until it is closed: old gateways know nothing else."""


def is_installed() -> bool:
    """Say whether UPnP can be used at all."""
    return find_spec("miniupnpc") is not None


async def find_gateway(gateway: str, host: str, *, port: int = SSDP_PORT) -> "UpnpGateway":
    """Return the gateway at an IPv4 address, for whoever has the address `host` on its network.

    `port` is where it is asked. Raises UpnpMissing, or UpnpUnavailable.
    """
    if not is_installed():
        raise UpnpMissing
    location = await _search(gateway, host, port)
    if location is None:
        raise UpnpUnavailable(f"{gateway} does not answer to UPnP")
    library = await trio.to_thread.run_sync(_library)
    found = UpnpGateway(gateway, library)
    await found.select(location)
    return found


class UpnpGateway:
    """A gateway that opens ports; its methods raise UpnpUnavailable and UpnpRefused. One at a time."""

    def __init__(self, gateway: str, library: Any) -> None:
        self._gateway = gateway
        self._library = library
        self._is_usable = True

    async def select(self, description: str) -> None:
        """Have the library read the gateway's description, and see where it would send commands to."""
        control = await self._command(lambda: self._library.selectigd(description))
        if not is_on(str(control), self._gateway):
            self._is_usable = False
            raise UpnpUnavailable(f"{self._gateway} wants commands to be sent to somebody else")

    async def request(self, internal: Address, lifetime_seconds: int, *, wanted_port: int | None = None) -> UpnpMapping:
        """Open a port to `internal`: the wanted one, by default that of `internal`, or another one if that is taken."""
        port = internal.port if wanted_port is None else wanted_port
        host = await self._external_host()
        for tried in range(1, PORTS_TRIED_MAX + 1):
            try:
                granted = await self._add(port, internal, lifetime_seconds)
            except UpnpRefused as error:
                if error.reason is not Refusal.NO_RESOURCES or tried == PORTS_TRIED_MAX:
                    raise
                port = FIRST_PORT + secrets.randbelow(0x10000 - FIRST_PORT)
            else:
                return UpnpMapping(internal, Address(host, port), granted)
        raise AssertionError("the last try returns or raises")

    async def renew(self, mapping: UpnpMapping, lifetime_seconds: int) -> UpnpMapping:
        """Prolong a mapping; the same port is kept, and the outside address is what it is now."""
        granted = await self._add(mapping.external.port, mapping.internal, lifetime_seconds)
        return UpnpMapping(mapping.internal, Address(await self._external_host(), mapping.external.port), granted)

    async def release(self, mapping: UpnpMapping) -> None:
        """Close a port."""
        await self._command(lambda: self._library.deleteportmapping(mapping.external.port, "UDP", ""))

    async def _add(self, port: int, internal: Address, lifetime_seconds: int) -> int:
        """Open a port, and return for how many seconds; 0 where the gateway knows only for ever."""
        arguments = (port, "UDP", internal.host, internal.port, "teale", "")
        try:
            await self._command(partial(self._library.addportmapping, *arguments, lifetime_seconds))
        except UpnpRefused as error:
            if _PERMANENT not in str(error):
                raise
            await self._command(partial(self._library.addportmapping, *arguments, 0))
            return 0
        return lifetime_seconds

    async def _external_host(self) -> str:
        host = str(await self._command(self._library.externalipaddress))
        with suppress(ValueError):
            if ip_address(host).version == 4 and not ip_address(host).is_unspecified:
                return host
        raise UpnpUnavailable(f"{self._gateway} has no outside address")

    async def _command(self, command: Callable[[], T]) -> T:
        if not self._is_usable:
            raise UpnpUnavailable(f"{self._gateway} is not used any more")
        with trio.move_on_after(COMMAND_SECONDS):
            try:
                return await trio.to_thread.run_sync(command, abandon_on_cancel=True)
            except Exception as error:  # the library knows no other class
                raise self._refusal(str(error)) from None
        # A thread may still be at it, and the library is not made for two.
        self._is_usable = False
        raise UpnpUnavailable(f"{self._gateway} takes too long to answer")

    def _refusal(self, message: str) -> UpnpError:
        said = message.replace(" ", "")
        if said == _PERMANENT:
            return UpnpRefused(said, Refusal.OTHER)
        reason = _REFUSALS.get(said)
        if reason is not None:
            return UpnpRefused(f"{self._gateway} refuses: {reason.value}", reason)
        if message.startswith(("Miniupnpc", "No UPnP")):
            return UpnpUnavailable(f"{self._gateway} does not speak UPnP as it should")
        return UpnpRefused(f"{self._gateway} refuses", Refusal.OTHER)


def is_on(url: str, host: str) -> bool:
    """Say whether an http URL is at this very IP address, written as such."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    return parts.scheme == "http" and parts.hostname == host and port != 0 and parts.username is None


def location_in(answer: bytes, gateway: str) -> str | None:
    """Return where the description of a gateway is, from its answer to a search; None for what cannot be believed."""
    try:
        head = answer.decode("ascii")
    except UnicodeDecodeError:
        return None
    status, *lines = head.split("\r\n")
    if not status.startswith("HTTP/1.1 200"):
        return None
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    location = headers.get("location", "")
    is_gateway = headers.get("st", "") in _TARGETS
    is_sound = len(location) <= LOCATION_LENGTH_MAX and location.isprintable() and " " not in location
    return location if is_gateway and is_sound and is_on(location, gateway) else None


def _library() -> Any:
    from miniupnpc import UPnP

    return UPnP()


async def _search(gateway: str, host: str, port: int) -> str | None:
    """Ask the gateway, and all around since many answer only to that; only the gateway's own answer counts."""
    found: list[str] = []
    heard = trio.Event()

    def hear(received: DatagramReceived) -> None:
        location = location_in(received.data, gateway) if received.remote.host == gateway else None
        if location is not None:
            found.append(location)
            heard.set()

    with DatagramSockets(hear) as sockets:
        try:
            local = sockets.bind(Address(host, 0))
        except OSError:
            return None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sockets.run)
            for wait in SEARCH_SECONDS:
                for where in (gateway, SSDP_GROUP):
                    for target in _TARGETS:
                        sockets.send(SendDatagram(local, Address(where, port), _question(target)))
                with trio.move_on_after(wait):
                    await heard.wait()
                if found:
                    break
            nursery.cancel_scope.cancel()
    return found[0] if found else None


def _question(target: str) -> bytes:
    """Return a search (UPnP Device Architecture 1.1, section 1.3.2)."""
    lines = (
        "M-SEARCH * HTTP/1.1",
        f"HOST: {SSDP_GROUP}:{SSDP_PORT}",
        'MAN: "ssdp:discover"',
        "MX: 1",
        f"ST: {target}",
    )
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode()
