"""WebSockets: the framing that both sides share, and the client.

The protocol itself is the Sans-I/O layer of the `websockets` package; here its frames become whole messages and
inputs. Compression is not offered: what travels is encrypted already, and a compressed message of a kilobyte can
unpack to a gigabyte.
"""

import ssl
from pathlib import Path
from typing import Final

import trio
from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus, InvalidURI, PayloadTooBig
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import OPEN, Protocol
from websockets.uri import WebSocketURI, parse_uri

from teale_io.connections import DialFailed, Framing, Incoming, Opened, Received
from teale_io.tcp import open_plain
from teale_proto.effects import WebSocketUrl
from teale_proto.inputs import ConnectionId, DataReceived, PingReceived, PongReceived

MESSAGE_BYTES_MAX: Final = (1 << 20) + (1 << 16)
"""A mebibyte and what surrounds it."""

HANDSHAKE_BYTES_MAX: Final = 32 * 1024
CLOSE_REASON_BYTES_MAX: Final = 123
"""RFC 6455, section 5.5: a control frame holds 125 bytes, and two of them are the code."""


class WebSocketFraming(Framing):
    """One open WebSocket; `protocol` has completed its handshake."""

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol
        self._message = bytearray()
        self._is_text = False

    @property
    def may_close(self) -> bool:
        """Whether the closing handshake is over: RFC 6455, section 7.1.1, has the server close first."""
        return self._protocol.eof_sent

    def data(self, data: bytes) -> bytes:
        """Return a binary message."""
        if self._protocol.state is OPEN:
            self._protocol.send_binary(data)
        return self._outgoing()

    def text(self, data: bytes) -> bytes:
        """Return a text message."""
        if self._protocol.state is OPEN:
            self._protocol.send_text(data)
        return self._outgoing()

    def ping(self) -> bytes:
        """Return an empty ping."""
        if self._protocol.state is OPEN:
            self._protocol.send_ping(b"")
        return self._outgoing()

    def goodbye(self, reason: str) -> bytes:
        """Return the close frame; the stream is closed once the other side has answered it."""
        if self._protocol.state is OPEN:
            shown = reason.encode()[:CLOSE_REASON_BYTES_MAX].decode(errors="ignore")
            self._protocol.send_close(CloseCode.NORMAL_CLOSURE, shown)
        return self._outgoing()

    def receive(self, connection: ConnectionId, data: bytes) -> Received:
        """Take bytes; pings are answered here."""
        if data:
            self._protocol.receive_data(data)
        events: list[Incoming] = []
        ended = ""
        for frame in self._protocol.events_received():
            assert isinstance(frame, Frame), "the handshake is over"
            if frame.opcode is Opcode.PING:
                events.append(PingReceived(connection))
            elif frame.opcode is Opcode.PONG:
                events.append(PongReceived(connection))
            elif frame.opcode is not Opcode.CLOSE:
                message = self._assemble(frame)
                if message is None:
                    continue
                if self._is_text and not _is_utf8(message):
                    # RFC 6455, section 8.1.
                    self._protocol.fail(CloseCode.INVALID_DATA)
                    ended = "sent text that is not UTF-8"
                    break
                events.append(DataReceived(connection, message))
        return Received(events, self._outgoing(), ended or self._end())

    def _assemble(self, frame: Frame) -> bytes | None:
        """Return the message that the frame completes; the protocol has checked order and total size."""
        if frame.opcode is not Opcode.CONT:
            self._is_text = frame.opcode is Opcode.TEXT
            if frame.fin:
                return bytes(frame.data)
        # One buffer rather than a list: empty fragments, of which there may be any number, must cost nothing.
        self._message += frame.data
        if not frame.fin:
            return None
        message = bytes(self._message)
        self._message.clear()
        return message

    def _end(self) -> str:
        error, close = self._protocol.parser_exc, self._protocol.close_rcvd
        if isinstance(error, PayloadTooBig):
            return "sent a message that is too big"
        if error is not None:
            return "broke the WebSocket protocol"
        if close is None:
            return ""
        said = "".join(c if c.isprintable() else "\ufffd" for c in close.reason)
        return f"closed by the other side ({close.code}{': ' if said else ''}{said})"

    def _outgoing(self) -> bytes:
        return b"".join(self._protocol.data_to_send())


class WebSocketDialer:
    """Opens WebSockets: the dialer of `WebSocketUrl`.

    `ca_file` names certificates to trust beside none of the system's, for relays that people run themselves.
    """

    def __init__(self, *, ca_file: Path | None = None, message_bytes_max: int = MESSAGE_BYTES_MAX) -> None:
        self._ca_file = ca_file
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
        protocol.send_request(protocol.connect())
        await stream.send_all(b"".join(protocol.data_to_send()))
        size = 0
        while protocol.state is not OPEN:
            if protocol.handshake_exc is not None:
                raise DialFailed(_refusal(protocol.handshake_exc))
            data = await stream.receive_some()
            size += len(data)
            if not data or size > HANDSHAKE_BYTES_MAX:
                raise DialFailed("the answer is not that of a WebSocket server")
            protocol.receive_data(data)
        # The answer comes first; frames that came with it stay for the framing.
        first, *rest = protocol.events_received()
        assert isinstance(first, Response)
        protocol.events.extend(rest)
        return WebSocketFraming(protocol)


def _refusal(error: Exception) -> str:
    if isinstance(error, InvalidStatus):
        return f"the server answered {error.response.status_code} to a WebSocket request"
    return "the answer is not that of a WebSocket server"


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
