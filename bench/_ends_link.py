"""Our ends: the real drivers around a core that does nothing but talk over links.

`link` sends what nodes send, messages of the cluster's codec over `Link`. `records` leaves the codec out: the same
handshake, records and frames under plain bytes, which shows what the codec costs.
"""

import random
import sys
from collections.abc import Callable, Iterator, Sequence
from time import perf_counter
from typing import Any, Final, Protocol, TypeAlias, get_args

import msgspec
import trio

from bench._ends import ANSWER, SMALL, WARM, Exchange, exchange_named, figure_of, say, wait_for_end_of_input
from teale_io.connections import Connections
from teale_io.hardware import has_fast_aes
from teale_io.listener import Listener, bind
from teale_io.memory import keep_freed_memory
from teale_io.runner import Runner
from teale_io.tcp import dial_tcp, serve_tcp
from teale_proto.contract import NEVER, Instant, Value
from teale_proto.effects import CloseConnection, Connect, SendData, SendPing, SendText
from teale_proto.inputs import (
    Address,
    ConnectFailed,
    ConnectionAccepted,
    ConnectionClosed,
    ConnectionId,
    ConnectionOpened,
    DataReceived,
    Woken,
)
from teale_proto.link import Established, Link
from teale_proto.secure.identity import Identity
from teale_proto.secure.noise import Handshake
from teale_proto.secure.records import Channel
from teale_proto.speaking import JOINED_BYTES_MAX
from teale_proto.wire.cluster import InferenceChunk, ModelTransferChunk
from teale_proto.wire.framing import FrameReader, frame

FRAME_MAX: Final = 65_535
FAST_AES: Final = has_fast_aes()


class Talk(Protocol):
    """One encrypted conversation; `b""` among what is received says that it is open."""

    def start(self, out: list[bytes]) -> None:
        """Begin, where it is ours to begin."""

    def send(self, payload: bytes, out: list[bytes]) -> None:
        """Send one message."""

    def receive(self, data: bytes, out: list[bytes]) -> Iterator[bytes]:
        """Take bytes of the stream, yield messages."""


class LinkTalk:
    """What nodes do."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self.start = link.start

    def send(self, payload: bytes, out: list[bytes]) -> None:
        """Send one message: a piece of an answer if it is small, a piece of a file if it is large."""
        if len(payload) == SMALL:
            self._link.send(InferenceChunk("bench", msgspec.Raw(payload)), out)
        else:
            self._link.send(ModelTransferChunk("bench", "model", "file", 0, payload, False), out)

    def receive(self, data: bytes, out: list[bytes]) -> Iterator[bytes]:
        """Take bytes of the stream, yield the payloads of messages."""
        for message in self._link.receive(data, out):
            if isinstance(message, InferenceChunk):
                yield bytes(message.chunk)
            elif isinstance(message, ModelTransferChunk):
                yield message.data
            elif isinstance(message, Established):
                yield b""


class RecordsTalk:
    """The same without the codec."""

    def __init__(self, handshake: Handshake) -> None:
        self._handshake = handshake
        self._channel: Channel | None = None
        self._frames = FrameReader(FRAME_MAX)

    def start(self, out: list[bytes]) -> None:
        """Begin, where it is ours to begin."""
        if self._handshake.my_turn:
            out.append(frame(self._handshake.write()))

    def send(self, payload: bytes, out: list[bytes]) -> None:
        """Send one message."""
        assert self._channel is not None
        out.extend(map(frame, self._channel.seal(payload)))

    def receive(self, data: bytes, out: list[bytes]) -> Iterator[bytes]:
        """Take bytes of the stream, yield messages."""
        for unit in self._frames.frames(data):
            if self._channel is not None:
                message = self._channel.open(unit)
                if message is not None:
                    yield message
                continue
            self._handshake.read(unit)
            if not self._handshake.finished:
                out.append(frame(self._handshake.write()))
            if self._handshake.finished:
                self._channel = self._handshake.channel()
                yield b""


class Dial(Value):
    """Open a connection and the conversation on it."""

    connection: ConnectionId
    address: Address


class Say(Value):
    """Send a message several times."""

    connection: ConnectionId
    payload: bytes
    times: int


class Arrived(Value):
    """So many messages have come at once; none says that the conversation is open."""

    connection: ConnectionId
    messages: int


Input: TypeAlias = (
    Dial | Say | ConnectionAccepted | ConnectionOpened | ConnectFailed | ConnectionClosed | DataReceived | Woken
)
Effect: TypeAlias = Connect | SendData | SendText | SendPing | CloseConnection | Arrived


class Talker:
    """The core: as a server it answers every message, as a client it reports them."""

    def __init__(self, kind: str, seed: int, *, answers: bool) -> None:
        self._kind = kind
        self._identity = Identity.from_seed(bytes([seed]) * 32)
        self._rng = random.SystemRandom()
        self._answers = answers
        self._talks: dict[ConnectionId, Talk] = {}
        self.deadline: Instant = NEVER

    def handle(self, event: Input, now: Instant) -> Sequence[Effect]:
        """Take one input."""
        del now
        out: list[bytes] = []
        match event:
            case DataReceived(connection, data):
                return self._received(connection, data, out)
            case Say(connection, payload, times):
                talk = self._talks[connection]
                for _ in range(times):
                    talk.send(payload, out)
                return _sends(connection, out)
            case Dial(connection, address):
                return [Connect(connection, address)]
            case ConnectionAccepted(connection=connection) | ConnectionOpened(connection=connection):
                talk = self._talks[connection] = self._talk(dialled=isinstance(event, ConnectionOpened))
                talk.start(out)
                return _sends(connection, out)
            case ConnectionClosed(connection=connection):
                self._talks.pop(connection, None)
            case ConnectFailed(reason=reason):
                raise RuntimeError(reason)
        return []

    def _received(self, connection: ConnectionId, data: bytes, out: list[bytes]) -> list[Effect]:
        talk, count, opened = self._talks[connection], 0, False
        for message in talk.receive(data, out):
            if not message:
                opened = True
                continue
            assert message[:2] == ANSWER[:2], "another message than was sent"
            count += 1
            if self._answers:
                talk.send(ANSWER, out)
        effects = _sends(connection, out)
        if not self._answers and (count or opened):
            effects.append(Arrived(connection, count))
        return effects

    def _talk(self, *, dialled: bool) -> Talk:
        ours: Any = {"instance": bytes(8), "rng": self._rng, "fast_aes": FAST_AES}
        if self._kind == "records":
            return RecordsTalk(Handshake.xx(self._identity, initiator=dialled, **ours))
        if dialled:
            return LinkTalk(Link.dial(self._identity, expected=None, **ours))
        return LinkTalk(Link.accept(self._identity, allow_plaintext=False, **ours))


def _sends(connection: ConnectionId, pieces: list[bytes]) -> list[Effect]:
    """Return what a node makes of what its link wants sent."""
    if sum(map(len, pieces)) <= JOINED_BYTES_MAX:
        return [SendData(connection, b"".join(pieces))] if pieces else []
    return [SendData(connection, piece) for piece in pieces]


class Client:
    """An application at the client's end."""

    def __init__(self, feed: Callable[[Input], None], address: Address) -> None:
        self._feed = feed
        self._address = address
        self._next: ConnectionId = -1
        self._exchange = Exchange(SMALL, 0, 0)
        self._message = b""
        self._sent = self._answered = 0
        self._done = trio.Event()

    def arrived(self, effect: Arrived) -> None:
        """Take answers, and send as many new messages."""
        if effect.messages == 0:
            self._done.set()
            return
        self._answered += effect.messages
        more = min(effect.messages, self._exchange.count - self._sent)
        if more:
            self._sent += more
            self._feed(Say(effect.connection, self._message, more))
        elif self._answered == self._exchange.count:
            self._done.set()

    async def connect(self) -> ConnectionId:
        """Open a conversation."""
        self._next += 2
        self._done = trio.Event()
        self._feed(Dial(self._next, self._address))
        await self._done.wait()
        return self._next

    async def exchange(self, connection: ConnectionId, exchange: Exchange) -> float:
        """Return the seconds that an exchange takes."""
        self._exchange, self._message = exchange, exchange.message()
        self._answered, self._sent = 0, min(exchange.window, exchange.count)
        self._done = trio.Event()
        began = perf_counter()
        self._feed(Say(connection, self._message, self._sent))
        await self._done.wait()
        return perf_counter() - began


async def serve(kind: str) -> None:
    """Serve until killed."""
    keep_freed_memory()
    async with trio.open_nursery() as nursery:
        runner: Runner[Any, Any] = Runner(Talker(kind, 1, answers=True), get_args(Effect))
        connections = Connections(feed=runner.feed, nursery=nursery)
        runner.perform_with({**connections.performers, Arrived: lambda _: None})
        listener = Listener(bind("127.0.0.1", 0), connections_max=2000)
        nursery.start_soon(runner.run)
        say(f"127.0.0.1:{listener.address.port}")
        await serve_tcp(connections, listener)


async def client(kind: str, address: Address, what: str, count: int) -> None:
    """Measure one thing."""
    keep_freed_memory()
    async with trio.open_nursery() as nursery:
        runner: Runner[Any, Any] = Runner(Talker(kind, 2, answers=False), get_args(Effect))
        connections = Connections(feed=runner.feed, nursery=nursery, dialers={Address: dial_tcp})
        application = Client(runner.feed, address)
        runner.perform_with({**connections.performers, Arrived: application.arrived})
        nursery.start_soon(runner.run)
        await measure(application, what, count)
        nursery.cancel_scope.cancel()


async def measure(application: Client, what: str, count: int) -> None:
    """Measure one thing, and say what came of it."""
    if what == "setup":
        taken = []
        for _ in range(count):
            began = perf_counter()
            await application.exchange(await application.connect(), Exchange(SMALL, 1, 1))
            taken.append((perf_counter() - began) * 1e3)
        say(taken)
    elif what == "hold":
        for _ in range(count):
            await application.exchange(await application.connect(), Exchange(SMALL, 1, 1))
        say("held")
        await trio.to_thread.run_sync(wait_for_end_of_input)
    else:
        exchange = exchange_named(what, count)
        connection = await application.connect()
        await application.exchange(connection, WARM)
        say(figure_of(exchange, await application.exchange(connection, exchange)))


if __name__ == "__main__":
    if sys.argv[2] == "serve":
        trio.run(serve, sys.argv[1])
    else:
        server, _, port = sys.argv[3].rpartition(":")
        trio.run(client, sys.argv[1], Address(server, int(port)), sys.argv[4], int(sys.argv[5]))
