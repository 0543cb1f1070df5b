"""A core that does nothing but remember: tests act in its place and wait for what it was told."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar, get_args

import trio

from teale_io.connections import ConnectionInput, Connections
from teale_io.listener import Listener, bind
from teale_io.runner import Runner
from teale_io.stream import PlainStream
from teale_io.tcp import dial_tcp, open_plain, serve_tcp
from teale_io.websocket import WebSocketDialer
from teale_proto.contract import NEVER, Instant
from teale_proto.effects import CloseConnection, Connect, SendData, SendPing, SendText, WebSocketUrl
from teale_proto.inputs import Address, ConnectionId, DataReceived, Woken

Effect = Connect | SendData | SendText | SendPing | CloseConnection
T = TypeVar("T")
DEADLINE_SECONDS = 20
"""A safety net; nothing here waits for time to pass."""


class Do:
    """Has the core return these effects."""

    def __init__(self, *effects: Effect) -> None:
        self.effects = effects


class Journal:
    """Remembers its inputs; a test waits for them and says what to do."""

    def __init__(self, *, echoes: bool = False) -> None:
        self.deadline: Instant = NEVER
        self.inputs: list[ConnectionInput] = []
        self.on_input: Sequence[Effect] = ()
        """Done at every input, once."""
        self._echoes = echoes
        self._more = trio.Event()

    def handle(self, event: ConnectionInput | Do | Woken, now: Instant) -> Sequence[Effect]:
        if isinstance(event, Do):
            return event.effects
        if isinstance(event, Woken):
            return ()
        self.inputs.append(event)
        self._more.set()
        done, self.on_input = self.on_input, ()
        if self._echoes and isinstance(event, DataReceived):
            return [*done, SendData(event.connection, event.data)]
        return done

    async def next(self, kind: type[T]) -> T:
        """Wait for the first input of a kind that has not been waited for, and take it out."""
        with trio.fail_after(DEADLINE_SECONDS):
            while True:
                for event in self.inputs:
                    if isinstance(event, kind):
                        self.inputs.remove(event)
                        return event
                self._more = trio.Event()
                await self._more.wait()

    async def data(self, connection: ConnectionId, size: int) -> bytes:
        """Wait until that much has come in on a connection, and take it out."""
        received = b""
        while len(received) < size:
            event = await self.next(DataReceived)
            assert event.connection == connection
            received += event.data
        return received


class Host:
    """A journal with drivers around it."""

    def __init__(
        self,
        nursery: trio.Nursery,
        *,
        echoes: bool = False,
        unsent_bytes_max: int = 1 << 25,
        websockets: WebSocketDialer | None = None,
    ) -> None:
        self.journal = Journal(echoes=echoes)
        self._runner: Runner[ConnectionInput | Do, Effect] = Runner(self.journal, get_args(Effect))
        self.connections = Connections(
            feed=self._runner.feed,
            nursery=nursery,
            dialers={Address: dial_tcp, WebSocketUrl: websockets or WebSocketDialer()},
            unsent_bytes_max=unsent_bytes_max,
        )
        self._runner.perform_with(self.connections.performers)
        self._nursery = nursery
        nursery.start_soon(self._runner.run)

    def do(self, *effects: Effect) -> None:
        """Perform effects as if the core had returned them."""
        self._runner.feed(Do(*effects))

    def listen(self, *, connections_max: int = 100) -> Address:
        """Listen for TCP on loopback."""
        listener = Listener(bind("127.0.0.1", 0), connections_max=connections_max)
        self._nursery.start_soon(serve_tcp, self.connections, listener)
        return listener.address


@asynccontextmanager
async def hosts() -> AsyncIterator[trio.Nursery]:
    """A nursery for hosts; leaving it ends them all."""
    with trio.fail_after(3 * DEADLINE_SECONDS):
        async with trio.open_nursery() as nursery:
            yield nursery
            nursery.cancel_scope.cancel()


async def visitor(address: Address) -> PlainStream:
    """Connect a plain socket, as a stranger would."""
    return await open_plain(address.host, address.port)


async def read_to_end(stream: trio.abc.ReceiveStream) -> bytes:
    """Return everything up to the end of the stream."""
    received = bytearray()
    with trio.fail_after(DEADLINE_SECONDS):
        while data := await stream.receive_some():
            received += data
    return bytes(received)
