"""UPnP's Internet Gateway Device, as far as a client needs it to open a port: found by SSDP, told by SOAP over HTTP.

Everything here is bytes in and bytes out; what the actions do is up to the `Table` that is handed in. Sources are
the UPnP Device Architecture 1.0, sections 1.2 (SSDP) and 3.2 (control), and WANIPConnection:1 (2001).
"""

from collections.abc import Callable, Mapping
from html import escape
from typing import Final, Protocol
from xml.etree import ElementTree

import h11

SSDP_PORT: Final = 1900
SSDP_GROUP: Final = "239.255.255.250"
HTTP_PORT: Final = 5000
DESCRIPTION_PATH: Final = "/description.xml"
CONTROL_PATH: Final = "/control"

HEADER_BYTES_MAX: Final = 8192
BODY_BYTES_MAX: Final = 16384
SEARCH_BYTES_MAX: Final = 1024
LEASE_SECONDS_MAX: Final = 604_800
"""A lease of 0 asks for ever, and gets a week (WANIPConnection:2, section 2.3.19)."""

SERVICE: Final = "urn:schemas-upnp-org:service:WANIPConnection:1"
_DEVICE: Final = "urn:schemas-upnp-org:device:InternetGatewayDevice:1"
_UUID: Final = "uuid:7ea1e000-0000-4000-8000-000000000001"
_TARGETS: Final = ("ssdp:all", "upnp:rootdevice", _DEVICE, SERVICE)
_ENVELOPE: Final = "http://schemas.xmlsoap.org/soap/envelope/"
_ENCODING: Final = "http://schemas.xmlsoap.org/soap/encoding/"


class ActionError(Exception):
    """An action failed; the codes are those of UPnP and of WANIPConnection."""

    def __init__(self, code: int, description: str) -> None:
        super().__init__(description)
        self.code = code
        self.description = description


INVALID_ACTION: Final = 401, "Invalid Action"
INVALID_ARGS: Final = 402, "Invalid Args"
ACTION_FAILED: Final = 501, "Action Failed"
NOT_AUTHORIZED: Final = 606, "Action not authorized"
NO_SUCH_ENTRY: Final = 714, "NoSuchEntryInArray"
CONFLICT: Final = 718, "ConflictInMappingEntry"


class Table(Protocol):
    """What a gateway does for one client; each method raises ActionError where it will not."""

    def external_address(self) -> str:
        """Return the address outside."""

    def add(self, protocol: str, external_port: int, client: str, internal_port: int, lease_seconds: int) -> None:
        """Forward an external port."""

    def delete(self, protocol: str, external_port: int) -> None:
        """Stop forwarding it."""


def search_answer(data: bytes, host: str) -> bytes | None:
    """Return the answer to an SSDP search that means a gateway at `host`, or None."""
    if len(data) > SEARCH_BYTES_MAX:
        return None
    first, *lines = data.decode("latin-1").split("\r\n")
    headers = {name.strip().upper(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    target = headers.get("ST")
    if first != "M-SEARCH * HTTP/1.1" or headers.get("MAN") != '"ssdp:discover"' or target not in _TARGETS:
        return None
    target = _DEVICE if target == "ssdp:all" else target
    answer = (
        "HTTP/1.1 200 OK",
        "CACHE-CONTROL: max-age=1800",
        "EXT:",
        f"LOCATION: http://{_authority(host)}{DESCRIPTION_PATH}",
        "SERVER: Teale/1 UPnP/1.0 Simulated/1",
        f"ST: {target}",
        f"USN: {_UUID}::{target}",
    )
    return "\r\n".join((*answer, "", "")).encode()


class HttpConnection:
    """One client's connection: requests come in as bytes in any pieces, and answers go out."""

    __slots__ = ("_body", "_h11", "_host", "_request", "_table", "over")

    def __init__(self, host: str, table: Table) -> None:
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=HEADER_BYTES_MAX)
        self._host = host
        self._table = table
        self._request: h11.Request | None = None
        self._body = b""
        self.over = False
        """Whether it is to be closed."""

    def received(self, data: bytes) -> bytes:
        """Take what came in and return what is to be sent; after an error, `over` is set."""
        out = b""
        try:
            self._h11.receive_data(data)
            while not self.over and (event := self._h11.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
                out += self._take(event)
        except h11.RemoteProtocolError as error:
            self.over = True
            if self._h11.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                out += self._respond(error.error_status_hint, b"")
        return out

    def _take(self, event: object) -> bytes:
        if isinstance(event, h11.Request):
            self._request, self._body = event, b""
        elif isinstance(event, h11.Data):
            self._body += event.data
            if len(self._body) > BODY_BYTES_MAX:
                self.over = True
                return self._respond(413, b"")
        elif isinstance(event, h11.EndOfMessage):
            assert self._request is not None, "an end has a beginning"
            status, answer = _answer(self._request, self._body, self._host, self._table)
            out = self._respond(status, answer)
            if self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE:
                self._h11.start_next_cycle()
            else:
                self.over = True
            return out
        elif isinstance(event, h11.ConnectionClosed):
            self.over = True
        return b""

    def _respond(self, status: int, body: bytes) -> bytes:
        headers = [("Content-Type", 'text/xml; charset="utf-8"'), ("Content-Length", str(len(body)))]
        if self.over:
            headers.append(("Connection", "close"))
        events = h11.Response(status_code=status, headers=headers), h11.Data(data=body), h11.EndOfMessage()
        return b"".join(self._h11.send(event) or b"" for event in events)


def _answer(request: h11.Request, body: bytes, host: str, table: Table) -> tuple[int, bytes]:
    headers = dict(request.headers)
    place = request.method, request.target
    if place == (b"GET", DESCRIPTION_PATH.encode()):
        return 200, _description(host)
    if place != (b"POST", CONTROL_PATH.encode()):
        return 404, b""
    try:
        service, _, action = headers.get(b"soapaction", b"").decode("latin-1").strip('"').partition("#")
        if service != SERVICE or action not in _ACTIONS:
            raise ActionError(*INVALID_ACTION)
        results = _ACTIONS[action](_arguments(body, action), table)
    except ActionError as error:
        return 500, _fault(error)
    said = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in results.items())
    return 200, _enveloped(f'<u:{action}Response xmlns:u="{SERVICE}">{said}</u:{action}Response>')


def _arguments(body: bytes, action: str) -> dict[str, str]:
    """Return the arguments of an action by their names; raises ActionError where there is none."""
    # Without a document type nothing can be expanded; as text it cannot hide one in another encoding.
    if b"<!" in body:
        raise ActionError(*INVALID_ARGS)
    try:
        root = ElementTree.fromstring(body.decode())  # noqa: S314 - see above, and it is short
    except (ElementTree.ParseError, ValueError):
        raise ActionError(*INVALID_ARGS) from None
    called = root.find(f"{{{_ENVELOPE}}}Body/{{{SERVICE}}}{action}")
    if called is None:
        raise ActionError(*INVALID_ARGS)
    return {argument.tag: (argument.text or "").strip() for argument in called}


def _add(arguments: Mapping[str, str], table: Table) -> dict[str, str]:
    if arguments.get("NewRemoteHost") or arguments.get("NewEnabled", "1") != "1":
        raise ActionError(*ACTION_FAILED)
    lease = _number(arguments, "NewLeaseDuration", LEASE_SECONDS_MAX) or LEASE_SECONDS_MAX
    table.add(
        _text(arguments, "NewProtocol"),
        _number(arguments, "NewExternalPort", 65535),
        _text(arguments, "NewInternalClient"),
        _number(arguments, "NewInternalPort", 65535),
        lease,
    )
    return {}


def _delete(arguments: Mapping[str, str], table: Table) -> dict[str, str]:
    table.delete(_text(arguments, "NewProtocol"), _number(arguments, "NewExternalPort", 65535))
    return {}


def _external(_: Mapping[str, str], table: Table) -> dict[str, str]:
    return {"NewExternalIPAddress": table.external_address()}


_ACTIONS: Final[dict[str, Callable[[Mapping[str, str], Table], dict[str, str]]]] = {
    "AddPortMapping": _add,
    "DeletePortMapping": _delete,
    "GetExternalIPAddress": _external,
}


def _text(arguments: Mapping[str, str], name: str) -> str:
    if not arguments.get(name):
        raise ActionError(*INVALID_ARGS)
    return arguments[name]


def _number(arguments: Mapping[str, str], name: str, most: int) -> int:
    text = _text(arguments, name)
    if not (text.isascii() and text.isdecimal() and len(text) <= 10) or int(text) > most:
        raise ActionError(*INVALID_ARGS)
    return int(text)


def _authority(host: str) -> str:
    return f"[{host}]:{HTTP_PORT}" if ":" in host else f"{host}:{HTTP_PORT}"


def _enveloped(body: str) -> bytes:
    return (
        f'<?xml version="1.0"?><s:Envelope xmlns:s="{_ENVELOPE}" s:encodingStyle="{_ENCODING}">'
        f"<s:Body>{body}</s:Body></s:Envelope>"
    ).encode()


def _fault(error: ActionError) -> bytes:
    return _enveloped(
        "<s:Fault><faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring><detail>"
        '<UPnPError xmlns="urn:schemas-upnp-org:control-1-0">'
        f"<errorCode>{error.code}</errorCode><errorDescription>{error.description}</errorDescription>"
        "</UPnPError></detail></s:Fault>"
    )


def _description(host: str) -> bytes:
    """Return the device's description; the two devices between the gateway and its connection say nothing more."""
    device, service = "urn:schemas-upnp-org:device", "urn:upnp-org:serviceId:WANIPConn1"
    connection = (
        f"<serviceList><service><serviceType>{SERVICE}</serviceType><serviceId>{service}</serviceId>"
        f"<controlURL>{CONTROL_PATH}</controlURL><eventSubURL/><SCPDURL/></service></serviceList>"
    )
    nested = connection
    for kind in ("WANConnectionDevice:1", "WANDevice:1"):
        nested = (
            f"<deviceList><device><deviceType>{device}:{kind}</deviceType><friendlyName>{kind}</friendlyName>"
            f"<UDN>{_UUID}</UDN>{nested}</device></deviceList>"
        )
    return (
        '<?xml version="1.0"?><root xmlns="urn:schemas-upnp-org:device-1-0">'
        "<specVersion><major>1</major><minor>0</minor></specVersion>"
        f"<URLBase>http://{_authority(host)}</URLBase><device><deviceType>{_DEVICE}</deviceType>"
        f"<friendlyName>Simulated gateway</friendlyName><manufacturer>Teale</manufacturer><modelName>1</modelName>"
        f"<UDN>{_UUID}</UDN>{nested}</device></root>"
    ).encode()
