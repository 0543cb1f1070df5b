"""The asyncio half of discovery: one thread in which `zeroconf` advertises and browses.

A node that vanishes says no good-bye. zeroconf remembers a name for twenty minutes whatever its owner asked for, but
addresses only as long as they were given for. So every name is looked at again and again: while its records are
fresh that costs nothing, when they have run out their owner is asked, and when nobody answers the name is lost.

When the machine's own addresses change, everything is closed and opened anew on those that there are.
"""

import asyncio
import contextlib
import ipaddress
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import structlog
from zeroconf import Error as ZeroconfError
from zeroconf import IPVersion, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from teale_io.interfaces import IpVersions, LocalAddress, local_addresses
from teale_io.service_record import from_text, to_text
from teale_proto.contract import Value
from teale_proto.errors import PeerError
from teale_proto.inputs import Address, NodeId, ServiceFound, ServiceLost, ServiceRecord

SERVICE_TYPE: Final = "_teale._tcp.local."
ADDRESSES_MAX: Final = 16
RESOLVING_MAX: Final = 16
RESOLVE_MILLISECONDS: Final = 3000
LABEL_CHARACTERS: Final = 32
"""How much of the node id names its service: a DNS label holds 63 bytes, a node id has 64."""

Sighting: TypeAlias = ServiceFound | ServiceLost

_log = structlog.get_logger()


class DiscoveryOptions(Value):
    """How the LAN is used; `interfaces` are names or addresses, and none of them means all but the loopback."""

    interfaces: tuple[str, ...] = ()
    versions: IpVersions = IpVersions.BOTH
    ttl_seconds: int = 120
    """How long others may believe our addresses (RFC 6762, section 10)."""
    look_seconds: float = 15
    """How often names and our own interfaces are looked at."""
    services_max: int = 1000


class Mdns:
    """Advertises what it is given and reports what others advertise; `own` is the node that is not news.

    `report` is called in the thread of `run`. A service that changes is reported again; one that is not a
    node's, or breaks the rules, is logged once and ignored.
    """

    def __init__(self, own: NodeId, options: DiscoveryOptions, report: Callable[[Sighting], object]) -> None:
        self._own = own
        self._options = options
        self._report = report
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed = asyncio.Event()
        self._stopping = False
        self._record: ServiceRecord | None = None
        self._published: AsyncServiceInfo | None = None
        self._published_record: ServiceRecord | None = None
        self._reported: dict[str, ServiceFound | None] = {}
        """What was last said of each known name; None for those that are not, or no longer, to be found."""
        self._ignored: set[str] = set()
        self._resolving: dict[str, asyncio.Task[None]] = {}
        self._slots = asyncio.Semaphore(RESOLVING_MAX)
        self._trouble = ""

    # From any thread.

    def publish(self, record: ServiceRecord) -> None:
        """Advertise this record instead of the former one."""
        self._record = record
        self._poke()

    def stop(self) -> None:
        """Have `run` say good-bye and return."""
        self._stopping = True
        self._poke()

    def run(self) -> None:
        """Discover until stopped; blocks its thread."""
        asyncio.run(self._run())

    def _poke(self) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # closed: it has stopped already
                self._loop.call_soon_threadsafe(self._changed.set)

    # In the loop.

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        while not self._stopping:
            addresses = self._addresses()
            if addresses:
                try:
                    await self._discover(addresses)
                except (OSError, ZeroconfError) as error:
                    self._complain(str(error) or type(error).__name__)
            else:
                self._complain("there is no network")
            await self._pause()

    async def _discover(self, addresses: tuple[LocalAddress, ...]) -> None:
        """Discover on these addresses as long as they are what the machine has."""
        zeroconf = AsyncZeroconf(interfaces=_interfaces(addresses), ip_version=_ip_version(addresses))
        browser: AsyncServiceBrowser | None = None
        try:
            await zeroconf.zeroconf.async_wait_for_start()
            browser = AsyncServiceBrowser(zeroconf.zeroconf, SERVICE_TYPE, handlers=[self._on_change])
            _log.info("discovery is on", addresses=[each.address for each in addresses])
            self._trouble = ""
            while not self._stopping and self._addresses() == addresses:
                await self._advertise(zeroconf, addresses)
                await self._pause()
                for name in tuple(self._reported):
                    self._look(zeroconf.zeroconf, name)
        finally:
            if browser is not None:
                await browser.async_cancel()
            await self._forget_all()
            await zeroconf.async_close()

    async def _advertise(self, zeroconf: AsyncZeroconf, addresses: Sequence[LocalAddress]) -> None:
        record = self._record
        if record is None or record == self._published_record:
            return
        label = record.node[:LABEL_CHARACTERS]
        info = AsyncServiceInfo(
            SERVICE_TYPE,
            self._published.name if self._published is not None else f"{label}.{SERVICE_TYPE}",
            port=record.port,
            properties=to_text(record),
            server=f"{label}.local.",
            host_ttl=self._options.ttl_seconds,
            other_ttl=self._options.ttl_seconds,
            parsed_addresses=[each.address for each in addresses],
        )
        if self._published is None:
            # The name may be taken, by a copy of this node or by a joker; the id inside is what counts.
            announced = await zeroconf.async_register_service(info, allow_name_change=True)
        else:
            announced = await zeroconf.async_update_service(info)
        self._published, self._published_record = info, record
        await announced

    def _on_change(self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:  # noqa: ARG002
        if state_change is ServiceStateChange.Removed:
            self._lose(name)
            self._forget(name)
        elif name in self._reported or self._make_room():
            self._reported.setdefault(name, None)
            self._look(zeroconf, name)

    def _make_room(self) -> bool:
        """Return whether one more name may be known; names that lead nowhere give way."""
        if len(self._reported) < self._options.services_max:
            return True
        idle = next((name for name, found in self._reported.items() if not found and name not in self._resolving), None)
        if idle is None:
            self._complain("too many services on the LAN")
            return False
        self._forget(idle)
        return True

    def _look(self, zeroconf: Zeroconf, name: str) -> None:
        """Report a name from its fresh records, or have its owner asked for them."""
        if name in self._resolving:
            return
        try:
            info = AsyncServiceInfo(SERVICE_TYPE, name)
            if info.load_from_cache(zeroconf):
                self._judge(name, info)
                return
        except ZeroconfError:
            return  # a name that breaks the rules for names
        task = asyncio.ensure_future(self._resolve(zeroconf, name, info))
        self._resolving[name] = task
        task.add_done_callback(lambda _: self._resolving.pop(name, None))

    async def _resolve(self, zeroconf: Zeroconf, name: str, info: AsyncServiceInfo) -> None:
        try:
            async with self._slots:
                answered = await info.async_request(zeroconf, RESOLVE_MILLISECONDS)
        except Exception as error:  # whatever a neighbour's records do to the library, they must not end this node
            _log.warning("a service cannot be resolved", service=name, reason=type(error).__name__)
            answered = False
        if name not in self._reported:
            return
        if answered:
            self._judge(name, info)
        else:
            self._lose(name)

    def _judge(self, name: str, info: AsyncServiceInfo) -> None:
        try:
            record = from_text(info.properties, info.port)
        except PeerError as error:
            if name not in self._ignored:
                self._ignored.add(name)
                _log.info("a service is ignored", service=name, reason=error.reason)
            self._lose(name)
            return
        if record.node == self._own:
            return
        hosts = [host for host in info.parsed_scoped_addresses() if _can_be_dialled(host)]
        found = ServiceFound(name, record, tuple(Address(host, record.port) for host in hosts[:ADDRESSES_MAX]))
        if not found.addresses:
            self._lose(name)
        elif found != self._reported[name]:
            self._reported[name] = found
            self._report(found)

    def _lose(self, name: str) -> None:
        if self._reported.get(name) is not None:
            self._reported[name] = None
            self._report(ServiceLost(name))

    def _forget(self, name: str) -> None:
        self._reported.pop(name, None)
        self._ignored.discard(name)

    async def _forget_all(self) -> None:
        for task in tuple(self._resolving.values()):
            task.cancel()
        await asyncio.gather(*self._resolving.values(), return_exceptions=True)
        for name in tuple(self._reported):
            self._lose(name)
            self._forget(name)
        self._published = self._published_record = None

    async def _pause(self) -> None:
        """Wait until something is to be done, or it is time to look around."""
        if self._stopping:
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), self._options.look_seconds)
        self._changed.clear()

    def _addresses(self) -> tuple[LocalAddress, ...]:
        return local_addresses(self._options.interfaces, self._options.versions)

    def _complain(self, reason: str) -> None:
        if reason != self._trouble:
            self._trouble = reason
            _log.warning("discovery has trouble", reason=reason)


def _interfaces(addresses: Sequence[LocalAddress]) -> list[str | int]:
    """Return what zeroconf calls them: IPv4 interfaces by address, IPv6 ones by index."""
    return list(dict.fromkeys(each.interface_index if each.is_v6 else each.address for each in addresses))


def _ip_version(addresses: Sequence[LocalAddress]) -> IPVersion:
    if all(each.is_v6 for each in addresses):
        return IPVersion.V6Only
    return IPVersion.All if any(each.is_v6 for each in addresses) else IPVersion.V4Only


def _can_be_dialled(host: str) -> bool:
    address = ipaddress.ip_address(host)
    # A link-local address says nothing without its interface, which is known only if it came in over IPv6.
    without_scope = address.version == 6 and address.is_link_local and "%" not in host
    return not (address.is_multicast or address.is_unspecified or without_scope)
