"""Carries out MapPort and UnmapPort: ports at the gateway, opened by UPnP and kept open as long as the core wants.

The library is in `teale_io.upnp`, and may be missing: then every answer is that nothing could be opened. What is under
way is not broken off when the port is not wanted any more, since it may open it yet; it is closed right after.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeAlias

import structlog
import trio

from teale_io import upnp
from teale_io.runner import Performers
from teale_proto.contract import SECOND
from teale_proto.effects import MapPort, UnmapPort
from teale_proto.inputs import PortMapFailed, PortMapped

PORTS_MAX: Final = 8
"""Ports that are open, or being opened or closed."""
TRY_SECONDS: Final = 30.0
RELEASE_SECONDS: Final = 10.0

Feed: TypeAlias = Callable[[PortMapped | PortMapFailed], object]

_log = structlog.get_logger()


class _Port:
    """One port that the core has asked for."""

    __slots__ = ("gateway", "is_busy", "is_wanted", "mapping")

    def __init__(self) -> None:
        self.gateway: upnp.UpnpGateway | None = None
        self.mapping: upnp.UpnpMapping | None = None
        self.is_busy = False
        self.is_wanted = True


class PortOpener:
    """Opens ports for a core; hand `performers` on, then start `run` as a task.

    `ssdp_port` is where gateways are asked.
    """

    def __init__(self, feed: Feed, *, ssdp_port: int = upnp.SSDP_PORT) -> None:
        self._feed: Final = feed
        self._ssdp_port: Final = ssdp_port
        self._ports: dict[int, _Port] = {}
        self._open_or_closing = 0
        self._nursery: trio.Nursery | None = None
        self._idle = trio.lowlevel.ParkingLot()
        self._busy = 0

    @property
    def performers(self) -> Performers:
        """What carries out MapPort and UnmapPort."""
        return {MapPort: self._map, UnmapPort: self._unmap}

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; what is open then stays open until its lifetime ends."""
        try:
            async with trio.open_nursery() as self._nursery:
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = None

    async def wait_idle(self) -> None:
        """Wait until no gateway is being asked for anything."""
        while self._busy:
            await self._idle.park()

    def _map(self, effect: MapPort) -> None:
        port = self._ports.get(effect.request)
        reason = self._hindrance(port)
        if reason or self._nursery is None:
            self._feed(PortMapFailed(effect.request, reason or "this node is stopping"))
            return
        if port is None:
            port = self._ports[effect.request] = _Port()
            self._open_or_closing += 1
        port.is_busy = True
        self._busy += 1
        self._nursery.start_soon(self._work, port, effect)

    def _hindrance(self, port: _Port | None) -> str:
        """Return why a port is not even asked for; "" where it can be."""
        if not upnp.is_installed():
            return str(upnp.UpnpMissing())
        if port is not None and port.is_busy:
            return "the gateway is being asked already"
        return "too many ports" if port is None and self._open_or_closing >= PORTS_MAX else ""

    def _unmap(self, effect: UnmapPort) -> None:
        port = self._ports.pop(effect.request, None)
        if port is None:
            return
        port.is_wanted = False
        if not port.is_busy and self._nursery is not None:
            port.is_busy = True
            self._busy += 1
            self._nursery.start_soon(self._work, port, None)

    async def _work(self, port: _Port, effect: MapPort | None) -> None:
        """Open a port, and say what came of it; close it where it is not, or no longer, wanted."""
        try:
            answer = None if effect is None else await self._answer(port, effect)
            if not port.is_wanted:
                await self._release(port)
        finally:
            self._busy -= 1
            port.is_busy = False
            if not port.is_wanted:
                self._open_or_closing -= 1
            self._idle.unpark_all()
        if answer is not None and port.is_wanted:
            self._feed(answer)

    async def _answer(self, port: _Port, effect: MapPort) -> PortMapped | PortMapFailed:
        reason = f"{effect.gateway} takes too long to answer"
        with trio.move_on_after(TRY_SECONDS):
            try:
                mapping = await self._open(port, effect)
            except upnp.UpnpError as error:
                reason = str(error)
            else:
                return PortMapped(effect.request, mapping.external, mapping.lifetime_seconds * SECOND)
        _log.debug("no port by UPnP", reason=reason)
        return PortMapFailed(effect.request, reason)

    async def _open(self, port: _Port, effect: MapPort) -> upnp.UpnpMapping:
        """Open a port or keep it open; raises UpnpError."""
        seconds = effect.lifetime // SECOND
        gateway, port.gateway = port.gateway, None
        if gateway is not None and port.mapping is not None:
            # One that has restarted may want to be asked elsewhere, or have given the port to somebody else.
            with suppress(upnp.UpnpError):
                port.mapping = await gateway.renew(port.mapping, seconds)
                port.gateway = gateway
                return port.mapping
        wanted = None if port.mapping is None else port.mapping.external.port
        gateway = await upnp.find_gateway(effect.gateway, effect.local.host, port=self._ssdp_port)
        port.mapping = await gateway.request(effect.local, seconds, wanted_port=wanted)
        port.gateway = gateway
        _log.info("the gateway has opened a port by UPnP", port=port.mapping.external.port)
        return port.mapping

    async def _release(self, port: _Port) -> None:
        if port.gateway is not None and port.mapping is not None:
            with trio.move_on_after(RELEASE_SECONDS), suppress(upnp.UpnpError):
                await port.gateway.release(port.mapping)
