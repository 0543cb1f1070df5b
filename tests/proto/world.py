"""Several cores in one process, joined by perfect wires: what one sends, the other has received.

Time stands still while effects are carried out and jumps from one deadline to the next in `run_until`. For
delays, loss and crashes there is the simulator; this is for tests that read as a conversation.
"""

from collections import deque
from collections.abc import Callable, Sequence
from random import Random
from typing import Any
from urllib.parse import urlsplit

from teale_proto.contract import NEVER, SECOND, Core, Instant
from teale_proto.effects import (
    Advertise,
    CancelGeneration,
    CloseConnection,
    Connect,
    DirectTarget,
    SendData,
    SendPing,
    SendText,
    StartGeneration,
    WebSocketUrl,
)
from teale_proto.inputs import (
    WAKE,
    Address,
    ConnectFailed,
    ConnectionAccepted,
    ConnectionClosed,
    ConnectionId,
    ConnectionOpened,
    DataReceived,
    GenerationChunk,
    GenerationFinished,
    LoadedModelsChanged,
    NodeId,
    PingReceived,
    PongReceived,
    ServiceFound,
    Started,
)
from teale_proto.node import Node, NodeConfig
from teale_proto.relay.server import RelayServer, RelayServerConfig
from teale_proto.secure.identity import Identity

UNIX_TIME_AT_ZERO = 1_700_000_000 * SECOND
LAN_PORT = 11436
RELAY_URL = "ws://relay.test/ws"

End = tuple[str, ConnectionId]
AnyCore = Core[Any, Any]
Entry = tuple[Instant, Any, Sequence[Any]]


def identity(number: int) -> Identity:
    """Return one of a series of fixed identities."""
    return Identity.from_seed(number.to_bytes(32, "big"))


def make_node(name: str, number: int, **config: Any) -> Node:
    """Return a node that is the same for the same arguments, randomness included."""
    return Node(
        NodeConfig(display_name=name, **config),
        identity(number),
        Random(f"{number}"),
        unix_time_at_zero=UNIX_TIME_AT_ZERO,
    )


def make_relay(name: str, **config: Any) -> RelayServer:
    """Return a relay that is the same for the same arguments, randomness included."""
    return RelayServer(RelayServerConfig(names=(name,), **config), Random(name), unix_time_at_zero=UNIX_TIME_AT_ZERO)


class World:
    """Cores by name, the wires between them, and everything that they reported."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = Random(seed)
        self.now: Instant = 0
        self.cores: dict[str, AnyCore] = {}
        self.reports: dict[str, list[Any]] = {}
        self.generations: dict[str, list[StartGeneration]] = {}
        self.journals: dict[str, list[Entry]] = {}
        """What every core was fed, when, and what it answered."""
        self.advertised: dict[str, ServiceFound] = {}
        self.unreachable: set[str] = set()
        self.answering: set[str] = set()
        """Nodes whose backend answers at once; the others' generations wait for the test."""
        self.taps: list[Callable[[str, str, bytes], None]] = []
        self.lan_of: dict[str, str] = {}
        self.unheard: list[bytes] = []
        """What was sent to strangers that the test plays itself."""
        self.split = False
        """Whether streams are cut into pieces at random."""
        self._wires: dict[End, End] = {}
        self._next_accepted: dict[str, int] = {}
        self._queue: deque[tuple[str, Any]] = deque()
        self._busy = False

    # Who is in it.

    def add(self, name: str, core: AnyCore) -> None:
        """Put a core under a name, which is also its host name."""
        self.cores[name] = core
        self.reports[name] = []
        self.journals.setdefault(name, [])
        self.generations[name] = []
        self._next_accepted[name] = 2

    def add_node(self, name: str, number: int, **config: Any) -> Node:
        """Add a node with the given config; it is not started."""
        models = config.pop("models", ())
        lan = config.pop("lan", "")
        node = make_node(name, number, **config)
        self.add(name, node)
        self.lan_of[name] = lan
        if models:
            self.feed(name, LoadedModelsChanged(tuple(models)))
        return node

    def add_relay(self, name: str = "relay.test", **config: Any) -> RelayServer:
        """Add a relay that answers to its own name."""
        relay = make_relay(name, **config)
        self.add(name, relay)
        return relay

    def start(self, *names: str) -> None:
        """Start nodes, all with a LAN listener."""
        for name in names:
            self.feed(name, Started(LAN_PORT))

    def node(self, name: str) -> Node:
        """Return a node by name."""
        core = self.cores[name]
        assert isinstance(core, Node)
        return core

    def id(self, name: str) -> NodeId:
        """Return a node's id by name."""
        return self.node(name).node_id

    def of(self, name: str, kind: type[Any]) -> list[Any]:
        """Return what a core reported of one kind."""
        return [report for report in self.reports[name] if type(report) is kind]

    # What happens in it.

    def feed(self, name: str, event: Any) -> None:
        """Feed a core, and carry out everything that follows, at once."""
        self._queue.append((name, event))
        if self._busy:
            return
        self._busy = True
        try:
            while self._queue:
                target, item = self._queue.popleft()
                if target in self.cores:
                    effects = self.cores[target].handle(item, self.now)
                    # The fourth law; inputs that follow from this one may make more due at once.
                    assert item is not WAKE or self.cores[target].deadline > self.now
                    self.journals[target].append((self.now, item, effects))
                    self._perform(target, effects)
        finally:
            self._busy = False

    def run_until(self, at: Instant) -> None:
        """Wake every core at its deadline, in order, until `at`."""
        while True:
            name, due = min(((n, c.deadline) for n, c in self.cores.items()), key=lambda pair: pair[1])
            if due > at or due == NEVER:
                break
            self.now = max(self.now, due)
            self.feed(name, WAKE)
        self.now = max(self.now, at)

    def run_for(self, duration: int) -> None:
        """Let time pass."""
        self.run_until(self.now + duration)

    def vanish(self, name: str) -> None:
        """Let a core disappear without a word, as when a machine loses power."""
        del self.cores[name]
        self.unreachable.add(name)
        for end, other in list(self._wires.items()):
            if end[0] == name:
                del self._wires[end]
                self._wires.pop(other, None)
        self.advertised.pop(name, None)

    def cut(self, name: str, reason: str = "reset", *, between: str = "") -> None:
        """Break all connections of a core, or those with one other; both sides are told."""
        ends = [end for end, other in self._wires.items() if end[0] == name and between in ("", other[0])]
        for end in ends:
            other = self._wires.pop(end)
            self._wires.pop(other, None)
            self.feed(end[0], ConnectionClosed(end[1], reason))
            self.feed(other[0], ConnectionClosed(other[1], reason))

    def inject(self, name: str, data: bytes) -> ConnectionId:
        """Connect to a core as a stranger and send bytes; what it answers goes nowhere."""
        connection = self._accept_id(name)
        self.feed(name, ConnectionAccepted(connection, Address("stranger", 1), Address(name, LAN_PORT), name))
        self.feed(name, DataReceived(connection, data))
        return connection

    def _accept_id(self, name: str) -> ConnectionId:
        connection = self._next_accepted[name]
        self._next_accepted[name] += 2
        return connection

    def _perform(self, name: str, effects: Sequence[Any]) -> None:
        for effect in effects:
            match effect:
                case Connect():
                    self._connect(name, effect)
                case SendData(connection, data):
                    self._send(name, connection, data)
                case SendText(connection, data):
                    self._send(name, connection, data, whole=True)
                case SendPing(connection):
                    other = self._wires.get((name, connection))
                    if other is not None:
                        self._queue.append((other[0], PingReceived(other[1])))
                        self._queue.append((name, PongReceived(connection)))
                case CloseConnection(connection, reason):
                    other = self._wires.pop((name, connection), None)
                    if other is not None:
                        self._wires.pop(other, None)
                        self._queue.append((other[0], ConnectionClosed(other[1], reason)))
                case Advertise(record):
                    self._advertise(name, ServiceFound(name, record, (Address(name, record.port),)))
                case StartGeneration():
                    self.generations[name].append(effect)
                    if name in self.answering:
                        self.answer(name, effect)
                case CancelGeneration():
                    self.reports[name].append(effect)
                case _:
                    self.reports[name].append(effect)

    def answer(self, name: str, generation: StartGeneration, *pieces: str) -> None:
        """Answer a generation completely."""
        for piece in pieces or ("hello", " world"):
            self.feed(name, GenerationChunk(generation.job, chunk(piece)))
        self.feed(name, GenerationFinished(generation.job, 3, len(pieces or "ab")))

    def _advertise(self, name: str, service: ServiceFound) -> None:
        self.advertised[name] = service
        for other, segment in self.lan_of.items():
            if other != name and segment and segment == self.lan_of.get(name):
                self._queue.append((other, service))
                if other in self.advertised:
                    self._queue.append((name, self.advertised[other]))

    def _connect(self, name: str, effect: Connect) -> None:
        target = effect.target
        if isinstance(target, DirectTarget):
            self._queue.append((name, ConnectFailed(effect.connection, "there are no direct paths here")))
            return
        host = urlsplit(target.url).hostname or "" if isinstance(target, WebSocketUrl) else target.host
        if host not in self.cores or host in self.unreachable:
            self._queue.append((name, ConnectFailed(effect.connection, "connection refused")))
            return
        accepted = self._accept_id(host)
        self._wires[name, effect.connection] = (host, accepted)
        self._wires[host, accepted] = (name, effect.connection)
        local = Address(host, LAN_PORT)
        self._queue.append((host, ConnectionAccepted(accepted, Address(name, 40_000), local, host)))
        self._queue.append((name, ConnectionOpened(effect.connection)))

    def _send(self, name: str, connection: ConnectionId, data: bytes, *, whole: bool = False) -> None:
        other = self._wires.get((name, connection))
        if other is None:
            self.unheard.append(data)
            return
        for tap in self.taps:
            tap(name, other[0], data)
        while data and self.split and not whole:
            size = 1 + self.rng.randrange(len(data))
            self._queue.append((other[0], DataReceived(other[1], data[:size])))
            data = data[size:]
        if data:
            self._queue.append((other[0], DataReceived(other[1], data)))


def chunk(text: str) -> bytes:
    """Return a piece of an answer as a backend emits it."""
    return b'{"object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"%b"}}]}' % text.encode()
