"""The driver's half of UPnP: what a simulated host does when its core wants a port opened by it.

The core knows its gateway, and what a driver would find by SSDP is where every simulated gateway has it; so this begins
with the connection to it. From there on it is HTTP and SOAP as on the wire, one request after the other.
"""

from collections.abc import Callable
from html import escape
from typing import Final
from xml.etree import ElementTree

import h11

from simulator.engine import Engine
from simulator.net import igd
from simulator.net.connection import EndOfConnection, State
from simulator.net.machine import Machine
from simulator.net.network import Network
from teale_proto.contract import SECOND, Duration, Value
from teale_proto.effects import MapPort, UnmapPort
from teale_proto.inputs import (
    Address,
    ConnectFailed,
    ConnectionClosed,
    ConnectionOpened,
    DataReceived,
    PortMapFailed,
    PortMapped,
)

TRY_MAX: Final[Duration] = 30 * SECOND
PORTS_TRIED_MAX: Final = 4

Feed = Callable[[PortMapped | PortMapFailed], None]


class _Port:
    """One port that the core has asked for; `effect` is how it did so last."""

    __slots__ = ("effect", "external", "is_wanted", "talk")

    def __init__(self, effect: MapPort) -> None:
        self.effect = effect
        self.external: Address | None = None
        self.is_wanted = True
        self.talk: _Talk | None = None


class _Talk:
    """One connection to the gateway, to open a port or to close it."""

    __slots__ = ("body", "end", "h11", "host", "is_release", "port", "status", "tried")

    def __init__(self, port: _Port, *, is_release: bool) -> None:
        self.port = port
        self.is_release = is_release
        self.end: EndOfConnection
        self.h11 = h11.Connection(h11.CLIENT)
        self.status = 0
        self.body = b""
        self.host = ""
        """What the gateway said of its outside address."""
        self.tried = 0


class UpnpClient:
    """Opens and closes ports for the core of one life of a host; `feed` takes the answers."""

    __slots__ = ("_engine", "_feed", "_machine", "_network", "_ports", "_serial", "_talks")

    def __init__(self, engine: Engine, network: Network, machine: Machine, feed: Feed) -> None:
        self._engine = engine
        self._network = network
        self._machine = machine
        self._feed = feed
        self._ports: dict[int, _Port] = {}
        self._talks: dict[int, _Talk] = {}
        self._serial = 0

    def map(self, effect: MapPort) -> None:
        """Open a port, or keep it open."""
        port = self._ports.setdefault(effect.request, _Port(effect))
        port.effect = effect
        self._begin(port, is_release=False)

    def unmap(self, effect: UnmapPort) -> None:
        """Close a port, at once or when it has been opened."""
        port = self._ports.pop(effect.request, None)
        if port is None:
            return
        port.is_wanted = False
        if port.talk is None and port.external is not None:
            self._begin(port, is_release=True)

    def _begin(self, port: _Port, *, is_release: bool) -> None:
        talk = port.talk = _Talk(port, is_release=is_release)
        self._serial -= 1  # such as no core ever uses
        self._talks[self._serial] = talk
        talk.end = self._network.connect(self._machine, self._serial, Address(port.effect.gateway, igd.HTTP_PORT))
        self._engine.call_at(self._engine.now + TRY_MAX, self._end, talk, "the gateway takes too long to answer")

    # What the host is told of our connections.

    def hear(self, end: EndOfConnection, event: Value) -> None:
        """Take what happened to a connection of ours."""
        talk = self._talks[end.id]
        match event:
            case ConnectionOpened():
                self._opened(talk)
            case DataReceived(data=data):
                self._received(talk, data)
            case ConnectFailed(reason=reason) | ConnectionClosed(reason=reason):
                self._end(talk, reason)

    def _opened(self, talk: _Talk) -> None:
        if talk.is_release:
            assert talk.port.external is not None
            arguments = {"NewRemoteHost": "", "NewExternalPort": str(talk.port.external.port), "NewProtocol": "UDP"}
            self._ask(talk, "DeletePortMapping", arguments)
        else:
            self._ask(talk, "GetExternalIPAddress", {})

    def _received(self, talk: _Talk, data: bytes) -> None:
        try:
            talk.h11.receive_data(data)
            while (event := talk.h11.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
                if isinstance(event, h11.Response):
                    talk.status, talk.body = event.status_code, b""
                elif isinstance(event, h11.Data):
                    talk.body += event.data
                elif isinstance(event, h11.EndOfMessage):
                    self._answered(talk)
                    return
        except h11.RemoteProtocolError:
            self._end(talk, "the gateway does not speak HTTP")

    # One question after the other.

    def _ask(self, talk: _Talk, action: str, arguments: dict[str, str]) -> None:
        said = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in arguments.items())
        body = (
            '<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" '
            's:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/">'
            f'<s:Body><u:{action} xmlns:u="{igd.SERVICE}">{said}</u:{action}></s:Body></s:Envelope>'
        ).encode()
        headers = [
            ("Host", f"{talk.port.effect.gateway}:{igd.HTTP_PORT}"),
            ("Content-Type", 'text/xml; charset="utf-8"'),
            ("Content-Length", str(len(body))),
            ("SOAPAction", f'"{igd.SERVICE}#{action}"'),
        ]
        events = (
            h11.Request(method="POST", target=igd.CONTROL_PATH, headers=headers),
            h11.Data(body),
            h11.EndOfMessage(),
        )
        talk.end.send(b"".join(talk.h11.send(event) or b"" for event in events))

    def _answered(self, talk: _Talk) -> None:
        """Go on after an answer: the address first, then the port, or another one where that is taken."""
        is_open = talk.h11.our_state is h11.DONE and talk.h11.their_state is h11.DONE
        if is_open:
            talk.h11.start_next_cycle()
        if talk.is_release or not is_open:
            self._end(talk, f"the gateway answered {talk.status}")
        elif not talk.host:
            found = ElementTree.fromstring(talk.body).find(".//NewExternalIPAddress")  # noqa: S314 - of our own gateway
            talk.host = (found.text or "") if found is not None else ""
            if talk.status != 200 or not talk.host:
                self._end(talk, "the gateway has no outside address")
            else:
                self._add(talk)
        elif talk.status == 200:
            talk.port.external = Address(talk.host, self._wanted(talk))
            self._end(talk, "")
        elif str(igd.CONFLICT[0]).encode() in talk.body and talk.tried < PORTS_TRIED_MAX:
            self._add(talk)
        else:
            self._end(talk, "the gateway refuses")

    def _add(self, talk: _Talk) -> None:
        effect = talk.port.effect
        talk.tried += 1
        self._ask(
            talk,
            "AddPortMapping",
            {
                "NewRemoteHost": "",
                "NewExternalPort": str(self._wanted(talk)),
                "NewProtocol": "UDP",
                "NewInternalPort": str(effect.local.port),
                "NewInternalClient": effect.local.host,
                "NewEnabled": "1",
                "NewPortMappingDescription": "teale",
                "NewLeaseDuration": str(effect.lifetime // SECOND),
            },
        )

    def _wanted(self, talk: _Talk) -> int:
        port = talk.port
        return (port.external.port if port.external is not None else port.effect.local.port) + talk.tried - 1

    def _end(self, talk: _Talk, reason: str) -> None:
        """End a talk, unless it has ended: answer, or close what is not wanted any more."""
        if self._talks.pop(talk.end.id, None) is None:
            return
        if talk.end.state in (State.CONNECTING, State.OPEN):
            talk.end.close("done")
        port, effect = talk.port, talk.port.effect
        port.talk = None
        if talk.is_release:
            return
        if not port.is_wanted:
            if port.external is not None:
                self._begin(port, is_release=True)
        elif reason or port.external is None:
            self._feed(PortMapFailed(effect.request, reason))
        else:
            self._feed(PortMapped(effect.request, port.external, effect.lifetime))
