"""Coverage-guided fuzzing of everything that reads what others send: `python -m tests.soak.fuzzing TARGET …`.

Run by `test_fuzz` in a process of its own, since a fuzzer takes its process over; arguments after the target's
name are libFuzzer's. A target takes bytes, does with them what a hostile party could have done, and lets only a
`PeerError` (or `Problem`, at the API) pass. atheris guides it by the coverage of our packages.
"""

import contextlib
import sys
from collections.abc import Callable
from random import Random
from typing import Any

import atheris  # type: ignore[import-untyped]  # it is there in `make soak` only

with atheris.instrument_imports(include=["teale_proto", "teale_io"]):
    from teale_io.api.answers import Stamp, join_pieces, read_piece
    from teale_io.api.errors import Problem
    from teale_io.api.questions import read_question
    from teale_io.inference.sse import EventReader
    from teale_io.service_record import from_text
    from teale_proto.contract import SECOND
    from teale_proto.effects import Path, ReportFinished
    from teale_proto.errors import PeerError
    from teale_proto.inputs import (
        WAKE,
        ConnectionAccepted,
        ConnectionClosed,
        DataReceived,
        NodeId,
        PingReceived,
        Task,
    )
    from teale_proto.link import MAGIC, Link
    from teale_proto.relay.listings import salvaged
    from teale_proto.secure.noise import Handshake
    from teale_proto.wire.cluster import CLUSTER_CODEC
    from teale_proto.wire.framing import frame
    from teale_proto.wire.relay import RELAY_CODEC, RelayData, RelayOpen, RelayReady
    from tests.proto.relay.relays import ALICE, BOB, HOST, LOCAL, Relay
    from tests.proto.world import RELAY_URL, World, identity, make_node

HELLO = frame(b'{"hello":{"deviceInfo":{"id":"u","name":"x","hardware":{}}}}')
MESSAGES_MAX = 40


def codec(data: bytes) -> None:
    """Both unions of messages, and the lists of peers that are read entry by entry."""
    for each in (CLUSTER_CODEC, RELAY_CODEC):
        with contextlib.suppress(PeerError):
            each.decode(data)
    salvaged(data)


def link(data: bytes) -> None:
    """A stranger's bytes on the LAN port, in pieces: plaintext allowed or not, in frames of ours or of its own."""
    given = atheris.FuzzedDataProvider(data)
    allow, framed, opened = given.ConsumeBool(), given.ConsumeBool(), given.ConsumeBool()
    accepted = Link.accept(identity(1), instance=bytes(8), rng=Random(1), allow_plaintext=allow)
    out: list[bytes] = []
    with contextlib.suppress(PeerError):
        while given.remaining_bytes():
            piece = given.ConsumeBytes(given.ConsumeIntInRange(1, 200))
            piece = MAGIC + piece if opened else piece
            list(accepted.receive(frame(piece) if framed else piece, out))


def relayed(data: bytes) -> None:
    """What a relay says in the name of a peer, to either side of a handshake."""
    given = atheris.FuzzedDataProvider(data)
    session = Link.relayed(
        identity(1),
        initiator=given.ConsumeBool(),
        peer=identity(2).node_id,
        session="s",
        instance=bytes(8),
        rng=Random(1),
    )
    out: list[bytes] = []
    session.start(out)
    with contextlib.suppress(PeerError):
        while given.remaining_bytes():
            piece = given.ConsumeBytes(given.ConsumeIntInRange(1, 200))
            list(session.receive(MAGIC + piece if given.ConsumeBool() else piece, out))


def channel(data: bytes) -> None:
    """Records of a real channel, altered, doubled, dropped and mixed with others, and sealed nonsense inside."""
    given = atheris.FuzzedDataProvider(data)
    alice, bob = _shaken()
    try:
        while given.remaining_bytes():
            records = alice.seal(given.ConsumeBytes(given.ConsumeIntInRange(1, 300)) or b"x")
            record = bytearray(records[0])
            match given.ConsumeIntInRange(0, 5):
                case 0:
                    record[given.ConsumeIntInRange(0, len(record) - 1)] ^= given.ConsumeIntInRange(0, 255)
                case 1:
                    bob.open(bytes(record))
                case 2:
                    continue
                case 3:
                    record = bytearray(given.ConsumeBytes(60))
            opened = bob.open(bytes(record))
            if opened is not None:
                with contextlib.suppress(PeerError):
                    CLUSTER_CODEC.decode(opened)
    except PeerError:
        pass


def _shaken() -> Any:
    ends = [
        Handshake.xx(identity(number), initiator=number == 1, instance=bytes(8), rng=Random(number))
        for number in (1, 2)
    ]
    turn = 0
    while not all(end.finished for end in ends):
        ends[1 - turn].read(ends[turn].write())
        turn = 1 - turn
    return [end.channel() for end in ends]


def relay(data: bytes) -> None:
    """Any messages from nodes that are registered, one that is in a session, and strangers; and time."""
    given = atheris.FuzzedDataProvider(data)
    world = Relay()
    nodes = [world.node(ALICE), world.node(BOB)]
    nodes[0].say(RelayOpen(nodes[0].id, nodes[1].id, "s"))
    nodes[1].say(RelayReady(nodes[1].id, nodes[0].id, "s"))
    for number in range(MESSAGES_MAX):
        if not given.remaining_bytes():
            break
        connection = given.ConsumeIntInRange(0, 8)
        match given.ConsumeIntInRange(0, 6):
            case 0:
                with contextlib.suppress(KeyError):
                    world.server.handle(ConnectionClosed(connection, "gone"), world.now)
            case 1:
                world.server.handle(ConnectionAccepted(100 + number, LOCAL, LOCAL, HOST), world.now)
            case 2:
                world.advance(given.ConsumeIntInRange(0, 400) * SECOND)
            case 3:
                world.server.handle(PingReceived(connection), world.now)
            case _:
                said = given.ConsumeBytes(given.ConsumeIntInRange(1, 400))
                world.server.handle(DataReceived(connection, said), world.now)
    world.advance(1000 * SECOND)
    assert world.server.health().peers == 0


def node(data: bytes) -> None:
    """A peer on the LAN that has greeted, one that has not, and a relay, all of whom say anything; and time."""
    given = atheris.FuzzedDataProvider(data)
    world = World()
    core = make_node("a", 1, lan_encrypted=False, wan_enabled=True, wan_relay_url=RELAY_URL)
    world.add("a", core)
    world.add_relay()
    world.lan_of["a"] = ""
    world.start("a")
    peer, other = world.inject("a", HELLO), world.inject("a", b"")
    mallory: NodeId = identity(66).node_id
    to_us = core._relay.connection if core._relay is not None else 0
    for message in (RelayOpen(mallory, core.node_id, "s"), RelayData(mallory, core.node_id, "s", MAGIC)):
        core.handle(DataReceived(to_us or 0, RELAY_CODEC.encode(message)), world.now)
    for _ in range(MESSAGES_MAX):
        if not given.remaining_bytes():
            break
        kind = given.ConsumeIntInRange(0, 5)
        said = given.ConsumeBytes(given.ConsumeIntInRange(1, 400))
        if kind == 0:
            world.now += len(said) * SECOND
            core.handle(WAKE, world.now)
        elif kind == 1:
            core.handle(DataReceived(to_us or 0, said), world.now)
        elif kind == 2:
            core.handle(
                DataReceived(to_us or 0, RELAY_CODEC.encode(RelayData(mallory, core.node_id, "s", said))), world.now
            )
        else:
            core.handle(DataReceived(peer if kind < 5 else other, frame(said)), world.now)
    core.handle(WAKE, world.now + 4000 * SECOND)
    assert core.deadline > world.now + 4000 * SECOND


def api(data: bytes) -> None:
    """Bodies of requests, and the pieces of answers, on their way through the API."""
    for task in Task:
        with contextlib.suppress(Problem):
            read_question(task, data)
    pieces = []
    for part in data.split(b"\n"):
        with contextlib.suppress(PeerError):
            pieces.append(read_piece(part))
    stamp = Stamp(Task.CHAT, "m", token="t", created=1)
    with contextlib.suppress(PeerError):
        join_pieces(stamp, pieces, ReportFinished("r", NodeId("0" * 64), Path.LAN, 1, 1, 1))


def events(data: bytes) -> None:
    """A stream of server-sent events, in two pieces."""
    reader = EventReader(size_max=1000)
    with contextlib.suppress(PeerError):
        reader.feed(data[: len(data) // 2])
        reader.feed(data[len(data) // 2 :])
        reader.finish()


def advertisement(data: bytes) -> None:
    """A neighbour's text record."""
    fields = [part.partition(b"=") for part in data.split(b"\0")]
    with contextlib.suppress(PeerError):
        from_text({key: value if found else None for key, found, value in fields}, len(data) * 100)


TARGETS: dict[str, Callable[[bytes], None]] = {
    each.__name__: each for each in (codec, link, relayed, channel, relay, node, api, events, advertisement)
}

if __name__ == "__main__":
    name, *options = sys.argv[1:]
    atheris.Setup([name, *options], TARGETS[name])
    atheris.Fuzz()
