"""The open connections of a process: streams on one side, inputs and effects of a core on the other.

Every connection is a stream, a framing that turns its bytes into inputs, and an outbox. One task waits for all
plain streams; only TLS, which is a stream over a stream, has a task for each. What has arrived is handed over
whole, and what is written in one turn leaves in one system call. What a socket does not take at once waits, up
to a bound: a reader that is too slow is closed.

A connection is in the table from the moment the core may use its id until the core or the other side has
ended it. Leaving the table happens once, and that is what makes the news of its end come exactly once.
"""

import contextlib
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

import trio

from teale_io.outbox import Outbox
from teale_io.poller import Poller
from teale_io.runner import Performers
from teale_io.stream import PlainStream
from teale_proto.effects import CloseConnection, Connect, SendData, SendPing, SendText
from teale_proto.errors import TealeError
from teale_proto.inputs import (
    Address,
    ConnectFailed,
    ConnectionAccepted,
    ConnectionClosed,
    ConnectionId,
    ConnectionOpened,
    DataReceived,
    MessagesReceived,
    PingReceived,
    PongReceived,
)

MIB: Final = 1 << 20
UNSENT_BYTES_MAX: Final = 32 * MIB
DIAL_SECONDS: Final = 10
RECEIVED_BYTES: Final = 64 * 1024
"""Read at a time: what is larger, memory is fetched from the system for and given back."""
READS_PER_TURN: Final = 8
"""So often is one connection read before the next one has its turn."""

PARTING_SECONDS: Final = 5
TRY_AGAIN_LATER: Final = 1013
"""What a WebSocket is closed with whose reader is too slow: a close code of the registry that RFC 6455 founded."""

Incoming: TypeAlias = DataReceived | MessagesReceived | PingReceived | PongReceived
ConnectionInput: TypeAlias = Incoming | ConnectionAccepted | ConnectionOpened | ConnectFailed | ConnectionClosed

Feed: TypeAlias = Callable[[Any], object]
"""Takes a ConnectionInput; Any, since a core that never asks for connections need not know the news of those."""

BROKEN_STREAM: Final = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)
"""What the operations of a stream raise when it is no longer one."""


class Received(NamedTuple):
    """What came of some bytes: inputs, an immediate answer, and why the connection has ended, if it has."""

    events: Sequence[Incoming]
    reply: bytes = b""
    ended: str = ""


class Framing(Protocol):
    """Turns what the core says into bytes and bytes into inputs, for one connection; does no I/O."""

    @property
    def may_close(self) -> bool:
        """Whether our half of the stream may be closed, now that the last words have been sent."""

    def data(self, data: bytes) -> bytes:
        """Return the bytes that carry data."""

    def text(self, data: bytes) -> bytes:
        """Return the bytes that carry a text message; raises LocalError where there is no such thing."""

    def ping(self) -> bytes:
        """Return the bytes of a ping; raises LocalError where there is no such thing."""

    def goodbye(self, reason: str, code: int) -> bytes:
        """Return the last words; `code` is for a WebSocket's close frame."""

    def receive(self, connection: ConnectionId, data: bytes) -> Received:
        """Take the next bytes of the stream; no bytes ask for what is left over from the handshake."""


class DialFailed(TealeError):
    """A connection could not be opened; the text is the reason, for people."""


Opened: TypeAlias = tuple[trio.abc.Stream, Framing]
Dialer: TypeAlias = Callable[[Any], Awaitable[Opened]]
"""Opens a connection to one type of target; raises DialFailed, or what a broken stream raises."""


class _Connection:
    __slots__ = ("broken", "dirty", "framing", "id", "lost", "outbox", "reading", "sending", "stream")

    def __init__(self, connection: ConnectionId, stream: trio.abc.Stream, framing: Framing) -> None:
        self.id = connection
        self.stream = stream
        self.framing = framing
        self.outbox = Outbox()
        self.reading: trio.CancelScope | None = None
        """Where a task of its own reads the stream."""
        self.sending: trio.Event | None = None
        self.dirty = False
        self.broken = False
        self.lost = ""


class Connections:
    """All connections of one core.

    `feed` takes their inputs; tasks run in `nursery`, which must outlive the core's use of `performers`. `dialers`
    opens targets by their type. At most `unsent_bytes_max` bytes wait for one connection.
    """

    def __init__(
        self,
        *,
        feed: Feed,
        nursery: trio.Nursery,
        dialers: Mapping[type[Any], Dialer] | None = None,
        unsent_bytes_max: int = UNSENT_BYTES_MAX,
    ) -> None:
        self._feed = feed
        self._dialers = dict(dialers or {})
        self._unsent_bytes_max = unsent_bytes_max
        self._open: dict[ConnectionId, _Connection] = {}
        self._dialling: dict[ConnectionId, trio.CancelScope] = {}
        self._accepted = 0
        self._serving = 0
        self._ended = trio.lowlevel.ParkingLot()
        self._poller: Poller[_Connection] = Poller(self._read_now)
        self._buffer = bytearray(RECEIVED_BYTES)
        self._view = memoryview(self._buffer)
        self._dirty: list[_Connection] = []
        self._written = trio.Event()
        self._flush_is_due = False
        self.nursery: Final = nursery
        nursery.start_soon(self._flush_all)
        nursery.start_soon(self._poll_all)

    @property
    def performers(self) -> Performers:
        """What carries out Connect, SendData, SendText, SendPing and CloseConnection."""
        return {
            Connect: self._connect,
            SendData: self._send_data,
            SendText: self._send_text,
            SendPing: self._send_ping,
            CloseConnection: self._close,
        }

    async def accept(
        self,
        stream: trio.abc.Stream,
        framing: Framing,
        *,
        remote: Address,
        local: Address,
        host: str = "",
        direct: bool = False,
    ) -> None:
        """Announce a connection that a listener accepted, or a QUIC stream if `direct`, and take its stream over."""
        self._accepted += 2
        connection = _Connection(self._accepted, stream, framing)
        await self._serve(connection, ConnectionAccepted(connection.id, remote, local, host, direct))

    def break_from(self, hosts: Collection[str]) -> None:
        """Break the connections whose end here is at an address that this machine has lost.

        Nothing can come to them any more, and TCP itself would go on hoping for minutes.
        """
        for connection in tuple(self._open.values()):
            if _local_host(connection.stream) in hosts:
                self._break(connection, "this machine has lost the address that it came from")

    async def wait_empty(self) -> None:
        """Wait until no connection is open, being opened, or flushing its last words."""
        while self._serving or self._dialling:
            await self._ended.park()

    # Effects. Unknown ids are those whose end the core is about to hear of.

    def _connect(self, effect: Connect) -> None:
        scope = self._dialling[effect.connection] = trio.CancelScope()
        self.nursery.start_soon(self._dial, effect, scope)

    def _send_data(self, effect: SendData) -> None:
        if found := self._open.get(effect.connection):
            self._write(found, found.framing.data(effect.data), bulk=effect.bulk)

    def _send_text(self, effect: SendText) -> None:
        if found := self._open.get(effect.connection):
            self._write(found, found.framing.text(effect.data), bulk=effect.bulk)

    def _send_ping(self, effect: SendPing) -> None:
        if found := self._open.get(effect.connection):
            self._write(found, found.framing.ping())

    def _close(self, effect: CloseConnection) -> None:
        if scope := self._dialling.pop(effect.connection, None):
            scope.cancel()
        elif closing := self._open.pop(effect.connection, None):
            # Bulk, so that nothing that was said before is left behind.
            self._write(closing, closing.framing.goodbye(effect.reason, effect.code), bulk=True)
            self._stop_reading(closing)

    # The life of a connection.

    async def _dial(self, effect: Connect, scope: trio.CancelScope) -> None:
        opened: Opened | None = None
        failure = ""
        with scope:
            try:
                with trio.fail_after(DIAL_SECONDS):
                    opened = await self._dialers[type(effect.target)](effect.target)
            except trio.TooSlowError:
                failure = f"no answer within {DIAL_SECONDS} s"
            except (DialFailed, *BROKEN_STREAM) as error:
                failure = reason_of(error)
        wanted = self._dialling.get(effect.connection) is scope
        if wanted:
            del self._dialling[effect.connection]
        if opened is not None and wanted:
            await self._serve(_Connection(effect.connection, *opened), ConnectionOpened(effect.connection))
            return
        if opened is not None:
            await trio.aclose_forcefully(opened[0])
        elif wanted:
            self._feed(ConnectFailed(effect.connection, failure))
        self._ended.unpark_all()

    async def _serve(self, connection: _Connection, beginning: ConnectionInput) -> None:
        """Serve a connection until it ends, or hand it to the poller."""
        stream = connection.stream
        try:
            await trio.lowlevel.checkpoint()  # no connection begins once everything is to end
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        self._serving += 1
        self._open[connection.id] = connection
        if isinstance(stream, PlainStream):
            self._poller.add(stream.sock, connection)
            self._feed(beginning)
            self._take(connection, b"")
            return
        connection.reading = trio.CancelScope()
        try:
            self._feed(beginning)
            with connection.reading:
                await self._read(connection)
        finally:
            await self._finish(connection)

    def _read_now(self, connection: _Connection) -> None:
        """Take what has arrived on a plain stream: the poller's callback."""
        assert isinstance(connection.stream, PlainStream)
        self._flush_is_due = True
        for _ in range(READS_PER_TURN):
            if self._open.get(connection.id) is not connection:
                return
            try:
                size = connection.stream.receive_now(self._buffer)
            except OSError as error:
                self._break(connection, reason_of(error))
                return
            if size:
                self._take(connection, bytes(self._view[:size]))
            elif size == 0:
                self._lose(connection, "closed by the other side")
            if size != RECEIVED_BYTES:
                return  # the kernel has no more

    async def _read(self, connection: _Connection) -> None:
        """Take what arrives until the connection ends."""
        try:
            data = b""
            while self._take(connection, data):
                data = bytes(await connection.stream.receive_some())
                if not data:
                    self._lose(connection, "closed by the other side")
        except BROKEN_STREAM as error:
            self._break(connection, reason_of(error))

    def _take(self, connection: _Connection, data: bytes) -> bool:
        """Feed what the next bytes mean; return whether the connection goes on."""
        if self._open.get(connection.id) is not connection:
            return False
        events, reply, ended = connection.framing.receive(connection.id, data)
        if reply:
            self._write(connection, reply)
        for event in events:
            self._feed(event)
            if self._open.get(connection.id) is not connection:
                return False
        if ended:
            self._lose(connection, ended)
        return not ended

    def _lose(self, connection: _Connection, reason: str) -> None:
        """Take note that a connection has ended, and tell the core once; never called while it feeds or performs."""
        if self._open.get(connection.id) is connection:
            del self._open[connection.id]
            self._feed(ConnectionClosed(connection.id, reason))
            self._stop_reading(connection)

    def _stop_reading(self, connection: _Connection) -> None:
        """Let go of a connection that has left the table; what is to be sent before it is closed still is."""
        if isinstance(connection.stream, PlainStream):
            self._poller.remove(connection.stream.sock)
            self.nursery.start_soon(self._finish, connection)
        elif connection.reading is not None:
            connection.reading.cancel()

    async def _finish(self, connection: _Connection) -> None:
        """Send what waits, let the other side finish, for a bounded time, and close the stream."""
        try:
            if not connection.broken:
                with trio.move_on_after(PARTING_SECONDS):
                    self._flush(connection)
                    if connection.sending is not None:
                        await connection.sending.wait()
                    if not connection.broken:
                        await part(connection.stream, connection.framing)
        finally:
            connection.outbox.clear()
            self._serving -= 1
            self._ended.unpark_all()
            await trio.aclose_forcefully(connection.stream)

    async def _poll_all(self) -> None:
        try:
            await self._poller.run(self._flush_dirty)
        finally:
            for connection in self._open.values():
                if isinstance(connection.stream, PlainStream):
                    connection.stream.close_now()
            self._open.clear()

    # Writing.

    def _write(self, connection: _Connection, data: bytes, *, bulk: bool = False) -> None:
        if connection.lost:
            return
        outbox = connection.outbox
        outbox.put(data, bulk=bulk)
        if not connection.dirty:
            connection.dirty = True
            self._dirty.append(connection)
            if not self._flush_is_due:
                self._written.set()
        if outbox.size_bytes > self._unsent_bytes_max:
            self._expel(connection, f"too slow: {outbox.size_bytes} bytes are waiting for it")

    def _expel(self, connection: _Connection, reason: str) -> None:
        """End a connection whose reader is too slow; it is told why, should it read on, and nothing else any more."""
        last_words = connection.framing.goodbye(reason, TRY_AGAIN_LATER)
        if last_words:
            connection.lost = reason
            connection.outbox.drop_waiting()
            connection.outbox.put(last_words)
        else:
            self._fail(connection, reason)

    async def _flush_all(self) -> None:
        while True:
            await self._written.wait()
            self._written = trio.Event()
            self._flush_dirty()

    def _flush_dirty(self) -> None:
        self._flush_is_due = False
        dirty, self._dirty = self._dirty, []
        for connection in dirty:
            connection.dirty = False
            self._flush(connection)

    def _flush(self, connection: _Connection) -> None:
        if connection.lost:
            self._lose(connection, connection.lost)
        if connection.broken or connection.sending is not None:
            return
        outbox, stream = connection.outbox, connection.stream
        if isinstance(stream, PlainStream):
            try:
                while taken := outbox.take():
                    sent = stream.send_now(taken)
                    outbox.settle(taken, sent)
                    if sent < len(taken):
                        break
            except OSError as error:
                self._break(connection, reason_of(error))
        if outbox.size_bytes:
            connection.sending = trio.Event()
            self.nursery.start_soon(self._drain, connection)

    async def _drain(self, connection: _Connection) -> None:
        outbox = connection.outbox
        try:
            while taken := outbox.take():
                await connection.stream.send_all(taken)
                outbox.settle(taken, len(taken))
        except BROKEN_STREAM as error:
            self._break(connection, reason_of(error))
        finally:
            assert connection.sending is not None
            connection.sending.set()
            connection.sending = None

    def _break(self, connection: _Connection, reason: str) -> None:
        """Take note that a stream is no longer one."""
        self._fail(connection, reason)
        self._lose(connection, connection.lost)

    def _fail(self, connection: _Connection, reason: str) -> None:
        connection.broken = True
        connection.lost = connection.lost or reason
        connection.outbox.clear()


async def part(stream: trio.abc.Stream, framing: Framing | None = None) -> None:
    """End a stream whose last words have been sent: wait until the other side has read them.

    To close while bytes are unread would reset the connection and could destroy them. The caller bounds the time.
    """
    with contextlib.suppress(*BROKEN_STREAM):
        while framing is not None and not framing.may_close:
            data = await stream.receive_some()
            if not data:
                return
            framing.receive(0, bytes(data))
        if isinstance(stream, PlainStream):  # TLS cannot close one half
            await stream.send_eof()
            while await stream.receive_some():
                pass


def _local_host(stream: trio.abc.Stream) -> str:
    """Return the address of our end of TCP, with TLS on it or not; "" where it is something else, or gone."""
    if isinstance(stream, trio.SSLStream):
        stream = stream.transport_stream
    if not isinstance(stream, PlainStream):
        return ""
    try:
        return stream.local.host.partition("%")[0]
    except OSError:
        return ""


def reason_of(error: BaseException) -> str:
    """Return why a stream broke or was not opened, in words for people."""
    while error.__cause__ is not None and not isinstance(error, DialFailed):
        error = error.__cause__
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(dict.fromkeys(reason_of(each) for each in error.exceptions))
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno).lower()
    if isinstance(error, socket.gaierror) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__
