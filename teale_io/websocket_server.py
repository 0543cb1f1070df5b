"""The server side of WebSockets, and the few plain pages beside it.

Everything before the core hears of a connection happens here: TLS, the request, the decision by its path. A
stranger gets a bounded time and a bounded number of bytes for that, and the reason of a refusal is logged.
"""

import ssl
from collections.abc import Callable
from http import HTTPStatus
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import structlog
import trio
from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from teale_io.connections import BROKEN_STREAM, PARTING_SECONDS, Connections, part, reason_of
from teale_io.listener import Listener
from teale_io.stream import PlainStream
from teale_io.websocket import HANDSHAKE_BYTES_MAX, MESSAGE_BYTES_MAX, WebSocketFraming
from teale_proto.errors import PeerError

HANDSHAKE_SECONDS: Final = 10

_log = structlog.get_logger()


class Page(NamedTuple):
    """What a plain GET is answered with."""

    body: bytes
    content_type: str = "application/json"


class WebSocketServer:
    """Serves WebSockets at `path` and, for any other path, whatever `page` returns; None is "not found".

    `tls` makes it `wss`. `handshake_seconds` bounds everything up to the open WebSocket.
    """

    def __init__(
        self,
        connections: Connections,
        *,
        path: str = "/ws",
        page: Callable[[str], Page | None] = lambda _: None,
        tls: ssl.SSLContext | None = None,
        message_bytes_max: int = MESSAGE_BYTES_MAX,
        handshake_seconds: float = HANDSHAKE_SECONDS,
    ) -> None:
        self._connections = connections
        self._path = path
        self._page = page
        self._tls = tls
        self._message_bytes_max = message_bytes_max
        self._handshake_seconds = handshake_seconds

    async def serve(self, listener: Listener) -> None:
        """Handle every connection that the listener accepts, until cancelled."""
        await listener.serve(self._connections.nursery, self._handle)

    async def _handle(self, plain: PlainStream) -> None:
        stream: trio.abc.Stream = plain
        try:
            remote, local = plain.remote, plain.local
        except OSError:
            return  # gone before we came to it
        try:
            try:
                with trio.fail_after(self._handshake_seconds):
                    if self._tls is not None:
                        stream = await _secured(plain, self._tls)
                    protocol = ServerProtocol(max_size=self._message_bytes_max)
                    request = await _read_request(stream, protocol)
                    response = self._answer(request, protocol)
                    protocol.send_response(response)
                    await stream.send_all(b"".join(protocol.data_to_send()))
            except trio.TooSlowError:
                raise PeerError(f"no complete request within {self._handshake_seconds:g} s") from None
            except BROKEN_STREAM as error:
                raise PeerError(reason_of(error)) from None
            if response.status_code == HTTPStatus.SWITCHING_PROTOCOLS:
                framing = WebSocketFraming(protocol)
                host = _host_name(request)
                await self._connections.accept(stream, framing, remote=remote, local=local, host=host)
            else:
                with trio.move_on_after(PARTING_SECONDS):
                    await part(stream)
        except PeerError as error:
            _log.info("connection refused", remote=remote.host, reason=error.reason)
        finally:
            await trio.aclose_forcefully(stream)

    def _answer(self, request: Request, protocol: ServerProtocol) -> Response:
        path = request.path.partition("?")[0]
        if path == self._path:
            return protocol.accept(request)
        if request.method != "GET":
            return protocol.reject(HTTPStatus.METHOD_NOT_ALLOWED, "Only GET is served here.\n")
        page = self._page(path)
        if page is None:
            return protocol.reject(HTTPStatus.NOT_FOUND, "There is nothing here.\n")
        headers = Headers()
        headers["Connection"] = "close"
        headers["Content-Length"] = str(len(page.body))
        headers["Content-Type"] = page.content_type
        headers["Cache-Control"] = "no-store"
        return Response(HTTPStatus.OK, HTTPStatus.OK.phrase, headers, page.body)


async def _secured(stream: PlainStream, tls: ssl.SSLContext) -> trio.abc.Stream:
    secured = trio.SSLStream(stream, tls, server_side=True, https_compatible=True)
    await secured.do_handshake()
    return secured


async def _read_request(stream: trio.abc.Stream, protocol: ServerProtocol) -> Request:
    """Read until there is a request; raises PeerError where there will be none."""
    size = 0
    while not (events := protocol.events_received()):
        data = await stream.receive_some()
        if not data:
            raise PeerError("closed before it asked for anything")
        size += len(data)
        protocol.receive_data(data)
        if protocol.handshake_exc is not None:
            await stream.send_all(b"".join(protocol.data_to_send()))
            raise PeerError(f"not a WebSocket request: {type(protocol.handshake_exc).__name__}")
        if size > HANDSHAKE_BYTES_MAX:
            raise PeerError(f"a request of more than {HANDSHAKE_BYTES_MAX} bytes")
    request, *rest = events
    if rest:
        raise PeerError("sent frames before the handshake was answered")
    assert isinstance(request, Request)
    return request


def _host_name(request: Request) -> str:
    """Return the host that the client named, in small letters and without the port; "" where it is unclear."""
    hosts = request.headers.get_all("Host")
    try:
        return urlsplit(f"//{hosts[0]}").hostname or "" if len(hosts) == 1 else ""
    except ValueError:
        return ""
