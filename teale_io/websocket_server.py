"""The server side of WebSockets, and the few plain pages beside it.

Everything before the core hears of a connection happens here: TLS, the request, the decision by its path. A
stranger gets a bounded time and a bounded number of bytes for that, and the reason of a refusal is logged.
"""

import ssl
from collections.abc import Callable, Sequence
from email.utils import formatdate
from http import HTTPStatus
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import structlog
import trio
from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.protocol import SERVER
from websockets.server import ServerProtocol

from teale_io.connections import BROKEN_STREAM, PARTING_SECONDS, Connections, part, reason_of
from teale_io.listener import Listener
from teale_io.stream import PlainStream
from teale_io.websocket import END_OF_HEAD, HANDSHAKE_BYTES_MAX, MESSAGE_BYTES_MAX, WebSocketFraming
from teale_proto.errors import PeerError
from teale_proto.inputs import Address

HANDSHAKE_SECONDS: Final = 10

_log = structlog.get_logger()


class Visit(NamedTuple):
    """A request, and where it comes from."""

    path: str
    headers: Headers
    remote: Address


class Page(NamedTuple):
    """What a request is answered with that opens no WebSocket."""

    body: bytes
    content_type: str = "application/json"
    status: HTTPStatus = HTTPStatus.OK
    headers: Sequence[tuple[str, str]] = ()


class WebSocketServer:
    """Serves WebSockets at `path` and, for any other path, whatever `page` returns; None is "not found".

    A WebSocket that `refuse` has an answer for is not opened. `visitor` says where a request really comes from, which
    a reverse proxy may know better than the socket. `tls` makes it `wss`, with what it returns for each connection.
    `handshake_seconds` bounds everything up to the open WebSocket. Messages that came in together are told as one
    where `joins` says so.
    """

    def __init__(
        self,
        connections: Connections,
        *,
        path: str = "/ws",
        page: Callable[[Visit], Page | None] = lambda _: None,
        refuse: Callable[[Visit], Page | None] = lambda _: None,
        visitor: Callable[[Address, Headers], Address] = lambda remote, _: remote,
        tls: Callable[[], ssl.SSLContext] | None = None,
        message_bytes_max: int = MESSAGE_BYTES_MAX,
        handshake_seconds: float = HANDSHAKE_SECONDS,
        joins: bool = False,
    ) -> None:
        self._connections = connections
        self._path = path
        self._page = page
        self._refuse = refuse
        self._visitor = visitor
        self._tls = tls
        self._message_bytes_max = message_bytes_max
        self._handshake_seconds = handshake_seconds
        self._joins = joins

    async def serve(self, listener: Listener) -> None:
        """Handle every connection that the listener accepts, until cancelled."""
        await listener.serve(self._connections.nursery, self._handle)

    async def _handle(self, plain: PlainStream) -> None:
        stream: trio.abc.Stream = plain
        try:
            remote, local = plain.remote, plain.local
        except OSError:  # gone before we came to it
            plain.close_now()
            return
        handed_over = False
        try:
            try:
                with trio.fail_after(self._handshake_seconds):
                    if self._tls is not None:
                        stream = await _secured(plain, self._tls())
                    protocol = ServerProtocol(max_size=self._message_bytes_max)
                    request = await _read_request(stream, protocol)
                    remote = self._visitor(remote, request.headers)
                    visit = Visit(request.path.partition("?")[0], request.headers, remote)
                    response = self._answer(visit, request, protocol)
                    protocol.send_response(response)
                    await stream.send_all(b"".join(protocol.data_to_send()))
            except trio.TooSlowError:
                raise PeerError(f"no complete request within {self._handshake_seconds:g} s") from None
            except BROKEN_STREAM as error:
                raise PeerError(reason_of(error)) from None
            if response.status_code == HTTPStatus.SWITCHING_PROTOCOLS:
                framing = WebSocketFraming(SERVER, message_bytes_max=self._message_bytes_max, joins=self._joins)
                host = _host_name(request)
                handed_over = True
                await self._connections.accept(stream, framing, remote=remote, local=local, host=host)
            else:
                with trio.move_on_after(PARTING_SECONDS):
                    await part(stream)
                if visit.path == self._path:
                    raise PeerError(f"answered {response.status_code}")
        except PeerError as error:
            _log.info("connection refused", remote=remote.host, reason=error.reason)
        finally:
            if not handed_over:
                await trio.aclose_forcefully(stream)

    def _answer(self, visit: Visit, request: Request, protocol: ServerProtocol) -> Response:
        if visit.path == self._path:
            refusal = self._refuse(visit)
            return protocol.accept(request) if refusal is None else _response(refusal)
        if request.method != "GET":
            return protocol.reject(HTTPStatus.METHOD_NOT_ALLOWED, "Only GET is served here.\n")
        page = self._page(visit)
        return protocol.reject(HTTPStatus.NOT_FOUND, "There is nothing here.\n") if page is None else _response(page)


def _response(page: Page) -> Response:
    headers = Headers()
    headers["Connection"] = "close"
    headers["Content-Length"] = str(len(page.body))
    headers["Date"] = formatdate(usegmt=True)
    headers["Content-Type"] = page.content_type
    headers["Cache-Control"] = "no-store"
    for name, value in page.headers:
        headers[name] = value
    return Response(page.status, page.status.phrase, headers, page.body)


async def _secured(stream: PlainStream, tls: ssl.SSLContext) -> trio.abc.Stream:
    secured = trio.SSLStream(stream, tls, server_side=True, https_compatible=True)
    await secured.do_handshake()
    return secured


async def _read_request(stream: trio.abc.Stream, protocol: ServerProtocol) -> Request:
    """Read until there is a request; raises PeerError where there will be none."""
    size = 0
    ending = b""
    while not (events := protocol.events_received()):
        data = await stream.receive_some()
        if not data:
            raise PeerError("closed before it asked for anything")
        size += len(data)
        ending = (ending + data)[-len(END_OF_HEAD) :]
        protocol.receive_data(data)
        if protocol.handshake_exc is not None:
            await stream.send_all(b"".join(protocol.data_to_send()))
            raise PeerError(f"not a WebSocket request: {type(protocol.handshake_exc).__name__}")
        if size > HANDSHAKE_BYTES_MAX:
            raise PeerError(f"a request of more than {HANDSHAKE_BYTES_MAX} bytes")
    if ending != END_OF_HEAD:
        raise PeerError("sent frames before the handshake was answered")
    (request,) = events
    assert isinstance(request, Request)
    return request


def _host_name(request: Request) -> str:
    """Return the host that the client named, in small letters and without the port; "" where it is unclear."""
    hosts = request.headers.get_all("Host")
    try:
        return urlsplit(f"//{hosts[0]}").hostname or "" if len(hosts) == 1 else ""
    except ValueError:
        return ""
