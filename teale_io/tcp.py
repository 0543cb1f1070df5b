"""TCP as the LAN uses it: bytes go to the core as they come, and the core does the framing."""

import socket
from typing import Final

import trio

from teale_io.connections import BROKEN_STREAM, Connections, Framing, Opened, Received
from teale_io.listener import Listener
from teale_io.stream import PlainStream
from teale_proto.errors import LocalError
from teale_proto.inputs import Address, ConnectionId, DataReceived


class RawFraming(Framing):
    """Bytes as they are."""

    may_close = True

    def data(self, data: bytes) -> bytes:
        """Return the data."""
        return data

    def text(self, data: bytes) -> bytes:  # noqa: ARG002
        """Raise LocalError: a TCP stream has no messages."""
        raise LocalError("a TCP stream has no text messages")

    def ping(self) -> bytes:
        """Raise LocalError: a TCP stream has no pings."""
        raise LocalError("a TCP stream has no pings")

    def goodbye(self, reason: str, code: int) -> bytes:  # noqa: ARG002
        """Return nothing: the end of the stream says it."""
        return b""

    def receive(self, connection: ConnectionId, data: bytes) -> Received:
        """Return the data as one input."""
        return Received((DataReceived(connection, data),) if data else ())


_RAW: Final = RawFraming()


async def open_plain(host: str, port: int) -> PlainStream:
    """Connect to a host name or address, trying all of its addresses; raises OSError."""
    try:
        stream = await trio.open_tcp_stream(host, port)
    except ValueError:  # a name that cannot be put into a question to DNS
        raise OSError("not a host name") from None
    return PlainStream(socket.socket(fileno=stream.socket.detach()))


async def dial_tcp(target: Address) -> Opened:
    """Open a TCP stream: the dialer of `Address`."""
    return await open_plain(target.host, target.port), _RAW


async def serve_tcp(connections: Connections, listener: Listener) -> None:
    """Hand every connection that the listener accepts to the core, until cancelled."""

    async def handle(stream: PlainStream) -> None:
        try:
            remote, local = stream.remote, stream.local
        except BROKEN_STREAM:  # gone before we came to it
            stream.close_now()
            return
        await connections.accept(stream, _RAW, remote=remote, local=local)

    await listener.serve(connections.nursery, handle)
