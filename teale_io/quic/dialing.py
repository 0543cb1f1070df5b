"""QUIC as `Connections` uses it: a stream of a QUIC connection is one connection of the core, with bytes as they are.

The core does its own framing and encryption on it, as on TCP. Either side may open streams on a connection, whoever
opened that. It ends when the last of its streams has: opening it again costs no round trip.
"""

from typing import Final

from teale_io.connections import Connections, DialFailed, Opened
from teale_io.quic.connection import QuicConnection
from teale_io.quic.endpoint import Endpoint
from teale_io.quic.errors import Code, QuicError
from teale_io.quic.stream import QuicStream
from teale_io.tcp import RawFraming
from teale_proto.inputs import Address, NodeId

STREAMS_MAX: Final = 512
"""Streams that others have opened, of all connections together."""

_RAW: Final = RawFraming()


async def _begin(connection: QuicConnection, opening: bytes) -> QuicStream:
    """Open a stream, with what it begins with if anything, and wait until the connection is up; raises QuicError."""
    if not opening:
        await connection.wait_connected()
        return connection.open_stream()
    stream = connection.open_stream(early=opening)
    try:
        await connection.wait_connected()
    except BaseException:
        stream.reset()
        stream.break_off("nobody wants it any more")
        raise
    return stream


class QuicStreams:
    """The streams of one core, on any endpoints; at most `streams_max` at a time are such as others have opened."""

    def __init__(self, connections: Connections, *, streams_max: int = STREAMS_MAX) -> None:
        self._connections: Final = connections
        self._streams_max: Final = streams_max
        self._streams = 0
        self._served: set[QuicConnection] = set()

    async def dial(
        self, endpoint: Endpoint, local: Address, node: NodeId, address: Address, opening: bytes = b""
    ) -> Opened:
        """Open a stream to a node, on the connection to that address that there is or on a new one.

        `local` is how the core knows the endpoint. `opening` is what the stream begins with; where we have a ticket of
        that node, it leaves with the first packet. Raises DialFailed.
        """
        try:
            connection = endpoint.dial(node, address)
            connection.closes_when_unused = True
            stream = await _begin(connection, opening)
        except QuicError as error:
            raise DialFailed(str(error)) from error
        self.serve(connection, local)
        return stream, _RAW

    def serve(self, connection: QuicConnection, local: Address) -> None:
        """Hand every stream that the other side opens to the core, until the connection ends."""
        if connection not in self._served:
            self._served.add(connection)
            connection.closes_when_unused = True
            self._connections.nursery.start_soon(self._serve, connection, local)

    async def _serve(self, connection: QuicConnection, local: Address) -> None:
        try:
            while True:
                stream = await connection.accept_stream()
                if self._streams >= self._streams_max:
                    stream.reset(Code.REFUSED)
                    continue
                self._streams += 1
                remote = connection.info.remote
                self._connections.nursery.start_soon(self._accept, stream, remote, local)
        except QuicError:
            return
        finally:
            self._served.discard(connection)

    async def _accept(self, stream: QuicStream, remote: Address, local: Address) -> None:
        try:
            await self._connections.accept(stream, _RAW, remote=remote, local=local, direct=True)
        finally:
            self._streams -= 1
