"""A world in which two nodes have several paths, and each can be cut, or fall silent without a word."""

from teale_proto.contract import SECOND
from teale_proto.effects import Path
from teale_proto.inputs import (
    Address,
    ConnectionAccepted,
    ConnectionClosed,
    ConnectionId,
    ConnectionOpened,
    DataReceived,
    GenerationChunk,
    GenerationFinished,
)
from teale_proto.peer import Conversation
from tests.proto.world import End, World, chunk
from tests.proto.worlds import WAN, content


class Roads(World):
    """Nodes behind a relay that is always there, and direct paths where a test opens them."""

    def __init__(self, *names: str, serving: str = "", seed: int = 0) -> None:
        super().__init__(seed)
        self.silent: dict[End, None] = {}
        self.sizes: list[tuple[str, str, int]] = []
        self.taps.append(lambda sender, receiver, data: self.sizes.append((sender, receiver, len(data))))
        self.add_relay()
        for number, name in enumerate(names, 1):
            self.add_node(name, number, models=("m",) if name in serving else (), **WAN)
        self.start(*names)
        self.run_for(60 * SECOND)

    def join(self, name: str, other: str) -> ConnectionId:
        """Open a direct path, as if both had punched; return its id at the first."""
        connection = 100_001 + 2 * len(self._wires)
        remote = Address(other, 1)
        opening = self.node(name)._peers.dialled(connection, self.id(other), remote, self.now, path=Path.DIRECT)
        accepted = self._accept_id(other)
        self._wires[name, connection] = (other, accepted)
        self._wires[other, accepted] = (name, connection)
        self.feed(other, ConnectionAccepted(accepted, Address(name, 1), Address(other, 1), direct=True))
        self.feed(name, ConnectionOpened(connection))
        self.feed(other, DataReceived(accepted, opening))
        assert self.path(name, other) is Path.DIRECT
        return connection

    def silence(self, name: str, connection: ConnectionId) -> None:
        """Let everything that is sent on a connection from now on get lost, both ways."""
        self.silent[name, connection] = None
        self.silent[self._wires[name, connection]] = None

    def break_off(self, name: str, connection: ConnectionId) -> None:
        """End one connection; both sides are told."""
        other = self._wires.pop((name, connection))
        self._wires.pop(other, None)
        self.feed(name, ConnectionClosed(connection, "reset"))
        self.feed(other[0], ConnectionClosed(other[1], "reset"))

    def hush(self, name: str) -> None:
        """Let whatever one core says from now on get lost, on every connection."""
        self.silent.update((end, None) for end in self._wires if end[0] == name)

    def path(self, name: str, other: str) -> Path | None:
        """Return the path that the first node takes to the other one."""
        return next((p.path for p in self.node(name).peers() if p.node_id == self.id(other)), None)

    def conversation(self, name: str, other: str, path: Path) -> Conversation:
        """Return a conversation that is up, to look at it."""
        peer = self.node(name)._peers.get(self.id(other))
        assert peer is not None
        return peer.conversations[path]

    def _send(self, name: str, connection: ConnectionId, data: bytes, *, whole: bool = False) -> None:
        if (name, connection) not in self.silent:
            super()._send(name, connection, data, whole=whole)


def emit(world: World, name: str, numbers: range, job: int = 1) -> None:
    """Let a backend emit numbered pieces of an answer."""
    for number in numbers:
        world.feed(name, GenerationChunk(job, chunk(f"{number} ")))


def finish(world: World, name: str, job: int = 1) -> None:
    """Let a backend finish an answer."""
    world.feed(name, GenerationFinished(job, 1, 100))


def numbers(world: World, name: str, request: str = "r") -> list[int]:
    """Return the numbers that have come out, in the order in which they did."""
    return [int(number) for number in content(world, name, request).split()]
