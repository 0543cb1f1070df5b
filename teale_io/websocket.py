"""WebSockets: the framing that both sides share, and the client.

The protocol itself is the Sans-I/O layer of the `websockets` package, except for ordinary data messages, which
`websocket_frames` reads and writes many at a time. Compression is not offered: what travels is encrypted already,
and a compressed message of a kilobyte can unpack to a gigabyte.
"""

import secrets
import ssl
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Final

import trio
from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus, InvalidURI, PayloadTooBig
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import CLIENT, OPEN, SERVER, Side
from websockets.protocol import Protocol as WebSocketProtocol
from websockets.uri import WebSocketURI, parse_uri

from teale_io.connections import DialFailed, Framing, Incoming, Opened, Received
from teale_io.tcp import open_plain
from teale_io.websocket_frames import (
    BINARY,
    PING,
    TEXT,
    DataFrames,
    data_frame,
    frame_end,
    is_utf8,
)
from teale_proto.effects import WebSocketUrl
from teale_proto.inputs import ConnectionId, DataReceived, MessagesReceived, PingReceived, PongReceived

MESSAGE_BYTES_MAX: Final = (1 << 20) + (1 << 16)
"""A mebibyte and what surrounds it."""

HANDSHAKE_BYTES_MAX: Final = 32 * 1024
END_OF_HEAD: Final = b"\r\n\r\n"
CLOSE_REASON_BYTES_MAX: Final = 123
"""RFC 6455, section 5.5: a control frame holds 125 bytes, and two of them are the code."""


class WebSocketFraming(Framing):
    """One open WebSocket, seen from `side`.

    `leftover` is what came after the handshake; a message may have up to `message_bytes_max` bytes. With `joins`,
    messages that came in together are one MessagesReceived.

    Whole data messages are read and written here. A library object is made when anything else comes or is to be
    said, and is dropped when that is over: most connections are silent most of the time.
    """

    __slots__ = ("_data_frames", "_is_text", "_joins", "_library", "_message", "_rest", "_rest_bytes_min", "_side")

    def __init__(
        self, side: Side, *, message_bytes_max: int = MESSAGE_BYTES_MAX, leftover: bytes = b"", joins: bool = False
    ) -> None:
        self._side = side
        self._data_frames = _data_frames(side, message_bytes_max)
        self._joins = joins
        self._library: WebSocketProtocol | None = None
        # One buffer rather than a list: empty fragments, of which there may be any number, must cost nothing.
        self._message: bytearray | None = None
        self._is_text = False
        self._rest: bytearray | None = bytearray(leftover) if leftover else None
        self._rest_bytes_min = 0

    @property
    def may_close(self) -> bool:
        """Whether the closing handshake is over: RFC 6455, section 7.1.1, has the server close first."""
        return self._library is not None and self._library.eof_sent

    def data(self, data: bytes) -> bytes:
        """Return a binary message."""
        return self._frame(BINARY, data)

    def text(self, data: bytes) -> bytes:
        """Return a text message."""
        return self._frame(TEXT, data)

    def ping(self) -> bytes:
        """Return an empty ping."""
        return self._frame(PING, b"")

    def goodbye(self, reason: str, code: int) -> bytes:
        """Return the close frame; the stream is closed once the other side has answered it."""
        library = self._get_library()
        if self._rest is not None:
            library.receive_data(bytes(self._rest))
            self._rest = None
        if library.state is OPEN:
            shown = reason.encode()[:CLOSE_REASON_BYTES_MAX].decode(errors="ignore")
            library.send_close(code, shown)
        return b"".join(library.data_to_send())

    def receive(self, connection: ConnectionId, data: bytes) -> Received:
        """Take bytes; pings are answered here."""
        if self._rest is not None:
            self._rest += data
            if len(self._rest) < self._rest_bytes_min:
                return _NOTHING
            data, self._rest = bytes(self._rest), None
        events: list[Incoming] = []
        replies: list[bytes] = []
        ended = ""
        start = 0
        while start < len(data) and not ended:
            if self._library is None:
                messages: list[bytes] = []
                start = self._data_frames.cut(data, start, messages)
                self._announce(connection, messages, events)
            end = self._end_of_frame(data, start)
            if end > len(data):
                self._rest = bytearray(data[start:])
                self._rest_bytes_min = end - start
                break
            if start < end:
                ended = self._through_library(connection, data[start:end], events, replies)
                start = end
        return Received(events, b"".join(replies), ended)

    def _announce(self, connection: ConnectionId, messages: list[bytes], events: list[Incoming]) -> None:
        if self._joins and len(messages) > 1:
            events.append(MessagesReceived(connection, tuple(messages)))
        else:
            events.extend([DataReceived(connection, message) for message in messages])

    def _end_of_frame(self, data: bytes, start: int) -> int:
        """Return where the next frame ends; all of the data belongs to one that is never to be completed."""
        if start == len(data) or (self._library is not None and self._library.state is not OPEN):
            return len(data)
        return len(data) if self._data_frames.is_hopeless(data, start) else frame_end(data, start)

    def _through_library(
        self, connection: ConnectionId, data: bytes, events: list[Incoming], replies: list[bytes]
    ) -> str:
        """Take one frame, or what can never become one; return why the connection has ended, if it has."""
        library = self._get_library()
        library.receive_data(data)
        ended = ""
        for frame in library.events_received():
            assert isinstance(frame, Frame), "the handshake is over"
            if frame.opcode is Opcode.PING:
                events.append(PingReceived(connection))
            elif frame.opcode is Opcode.PONG:
                events.append(PongReceived(connection))
            elif frame.opcode is not Opcode.CLOSE:
                message = self._assemble(frame)
                if message is None:
                    continue
                if self._is_text and not is_utf8(message):
                    # RFC 6455, section 8.1.
                    library.fail(CloseCode.INVALID_DATA)
                    ended = "sent text that is not UTF-8"
                    break
                events.append(DataReceived(connection, message))
        replies += library.data_to_send()
        if library.state is OPEN and self._message is None:
            self._library = None
        return ended or _end_of(library)

    def _get_library(self) -> WebSocketProtocol:
        if self._library is None:
            self._library = WebSocketProtocol(self._side, max_size=self._data_frames.size_max)
        return self._library

    def _assemble(self, frame: Frame) -> bytes | None:
        """Return the message that the frame completes; the library has checked order and total size."""
        if frame.opcode is not Opcode.CONT:
            self._is_text = frame.opcode is Opcode.TEXT
            if frame.fin:
                return bytes(frame.data)
            self._message = bytearray()
        assert self._message is not None
        self._message += frame.data
        if not frame.fin:
            return None
        message, self._message = bytes(self._message), None
        return message

    def _frame(self, first: int, payload: bytes) -> bytes:
        if self._library is not None and self._library.state is not OPEN:
            return b""
        return data_frame(first, payload, secrets.token_bytes(4) if self._side is CLIENT else b"")


_NOTHING: Final = Received(())


@cache
def _data_frames(side: Side, size_max: int) -> DataFrames:
    return DataFrames(masked=side is SERVER, size_max=size_max)


def _end_of(library: WebSocketProtocol) -> str:
    """Return why the connection has ended, "" where it has not."""
    error, close = library.parser_exc, library.close_rcvd
    if isinstance(error, PayloadTooBig):
        return "sent a message that is too big"
    if error is not None:
        return "broke the WebSocket protocol"
    if close is None:
        return ""
    said = "".join(c if c.isprintable() else "\ufffd" for c in close.reason)
    return f"closed by the other side ({close.code}{': ' if said else ''}{said})"


class WebSocketDialer:
    """Opens WebSockets: the dialer of `WebSocketUrl`.

    `ca_file` names certificates to trust beside none of the system's, for relays that people run themselves.
    `token` is shown to the server, unless it is "".
    """

    def __init__(
        self, *, ca_file: Path | None = None, message_bytes_max: int = MESSAGE_BYTES_MAX, token: str = ""
    ) -> None:
        self._ca_file = ca_file
        self._token = token
        self._message_bytes_max = message_bytes_max
        self._tls: ssl.SSLContext | None = None

    async def __call__(self, target: WebSocketUrl) -> Opened:
        """Open a WebSocket; raises DialFailed, or what a broken stream raises."""
        try:
            uri = parse_uri(target.url)
        except InvalidURI as error:
            raise DialFailed(f"not a WebSocket address: {error.msg}") from None
        except ValueError:
            raise DialFailed("not a WebSocket address") from None
        stream: trio.abc.Stream = await open_plain(uri.host, uri.port)
        try:
            if uri.secure:
                tls = trio.SSLStream(stream, await self._context(), server_hostname=uri.host, https_compatible=True)
                stream = tls
                await tls.do_handshake()
            return stream, await self._shake_hands(stream, uri)
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise

    async def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            # Reading the system's certificates takes long enough to be felt.
            self._tls = await trio.to_thread.run_sync(lambda: ssl.create_default_context(cafile=self._ca_file))
        return self._tls

    async def _shake_hands(self, stream: trio.abc.Stream, uri: WebSocketURI) -> WebSocketFraming:
        protocol = ClientProtocol(uri, max_size=self._message_bytes_max)
        request = protocol.connect()
        if self._token:
            request.headers["Authorization"] = f"Bearer {self._token}"
        protocol.send_request(request)
        await stream.send_all(b"".join(protocol.data_to_send()))
        received = bytearray()
        while True:
            data = await stream.receive_some()
            known = len(received)
            received += data
            # Frames that come with the answer are for the framing, so the library sees the answer alone.
            end = received.find(END_OF_HEAD, max(known - len(END_OF_HEAD), 0)) + len(END_OF_HEAD)
            head_ends = end >= len(END_OF_HEAD)
            protocol.receive_data(bytes(received[known:end] if head_ends else data))
            if protocol.state is OPEN:
                return WebSocketFraming(
                    CLIENT, message_bytes_max=self._message_bytes_max, leftover=bytes(received[end:])
                )
            if head_ends and protocol.handshake_exc is None:
                protocol.receive_data(bytes(received[end:]))
            if protocol.handshake_exc is not None:
                raise DialFailed(_refusal(protocol.handshake_exc, has_token=bool(self._token)))
            if not data or len(received) > HANDSHAKE_BYTES_MAX:
                raise DialFailed("the answer is not that of a WebSocket server")


def _refusal(error: Exception, *, has_token: bool) -> str:
    if isinstance(error, InvalidStatus):
        status = error.response.status_code
        if status == HTTPStatus.UNAUTHORIZED:
            return "the server does not accept our access token" if has_token else "the server wants an access token"
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            return "the server takes nobody new at the moment"
        return f"the server answered {status} to a WebSocket request"
    return "the answer is not that of a WebSocket server"
