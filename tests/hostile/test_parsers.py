"""At every door: an announcement of 4 GiB costs nothing, JSON without a bottom is an error, any bytes are survived."""

import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from teale_io.api.answers import read_embeddings, read_piece
from teale_io.api.errors import Problem
from teale_io.api.questions import read_question
from teale_io.inference.sse import EventReader
from teale_proto.effects import CloseConnection, ReportRefusal, SendText
from teale_proto.errors import PeerError
from teale_proto.inputs import Address, ConnectionAccepted, DataReceived, Task
from teale_proto.link import MAGIC, Link
from teale_proto.relay.listings import salvaged
from teale_proto.wire.cluster import CLUSTER_CODEC
from teale_proto.wire.framing import FrameReader, frame
from teale_proto.wire.relay import RELAY_CODEC
from tests.hostile.puppets import Puppet
from tests.proto.relay.relays import ALICE, Relay
from tests.proto.world import World, identity, make_relay

DEPTH = 100_000
KIBIBYTE = 1024
TASKS = st.sampled_from(Task)


@contextmanager
def costing_at_most(size_bytes: int) -> Iterator[None]:
    """Fail when what happens inside takes more memory than that at any time."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before <= size_bytes


# A length prefix of 4 GiB.


@pytest.mark.parametrize("prefix", [b"\xff\xff\xff\xff", b"\x80\0\0\0", b"\x7f\xff\xff\xff"])
def test_an_announced_4_gib_frame_from_a_stranger_costs_no_memory(prefix: bytes) -> None:
    world = World()
    world.add_node("a", 1)
    world.start("a")
    node = world.node("a")
    node.handle(ConnectionAccepted(2, Address("s", 1), Address("a", 1)), world.now)
    with costing_at_most(64 * KIBIBYTE):
        effects = node.handle(DataReceived(2, prefix + b"x" * 100), world.now)
    assert [type(effect) for effect in effects] == [ReportRefusal, CloseConnection]


def test_an_announced_4_gib_frame_from_a_peer_costs_no_memory() -> None:
    world, mallory = World(), Puppet()
    world.add("m", mallory)
    world.add_node("a", 1)
    world.start("a")
    mallory.dial(world, "m", "a")
    node = world.node("a")
    [connection] = [each.handle for each in node._peers._conversations.values()]
    assert isinstance(connection, int)
    with costing_at_most(64 * KIBIBYTE):
        effects = node.handle(DataReceived(connection, b"\xff\xff\xff\xff"), world.now)
    assert any(isinstance(effect, CloseConnection) for effect in effects)


@pytest.mark.parametrize("size_max", [1024, 65_535, 8 << 20])
def test_an_announced_4_gib_frame_is_refused_before_a_byte_of_it_is_kept(size_max: int) -> None:
    reader = FrameReader(size_max)
    with costing_at_most(16 * KIBIBYTE), pytest.raises(PeerError, match="4294967295 bytes"):
        list(reader.frames(b"\xff\xff\xff\xff"))


def test_a_stranger_that_announces_what_is_allowed_and_sends_nothing_costs_what_it_sent() -> None:
    world = World()
    world.add_node("a", 1)
    world.start("a")
    connection = world.inject("a", b"")
    with costing_at_most(64 * KIBIBYTE):
        world.node("a").handle(DataReceived(connection, (1024).to_bytes(4, "big")), world.now)


# JSON without a bottom.

DEEP = {
    "lists": b"[" * DEPTH + b"]" * DEPTH,
    "objects": b'{"a":' * DEPTH + b"1" + b"}" * DEPTH,
    "unclosed lists": b"[" * DEPTH,
    "unclosed objects": b'{"a":' * DEPTH,
}
deep = pytest.mark.parametrize("json", DEEP.values(), ids=DEEP.keys())


def within(json: bytes) -> list[bytes]:
    """Return the places of a message in which a deep value may stand."""
    return [
        json,
        b'{"type":%b}' % json,
        b'{"type":"heartbeat","payload":%b}' % json,
        b'{"heartbeat":%b}' % json,
        b'{"relayData":{"_0":%b}}' % json,
        b'{"type":"signal","payload":{"offer":%b}}' % json,
        b'{"type":"peers","payload":{"peers":[%b]}}' % json,
        b'{"inferenceRequest":{"requestID":"1","streaming":true,"request":%b}}' % json,
        b'{"inferenceRequest":{"requestID":"1","streaming":true,"request":{"model":"m","x":%b}}}' % json,
        b'{"inferenceChunk":{"requestID":"1","chunk":%b}}' % json,
        b'{"novelty":%b}' % json,
    ]


@deep
def test_deep_json_is_an_error_of_the_peer_for_both_codecs(json: bytes) -> None:
    for codec in (CLUSTER_CODEC, RELAY_CODEC):
        for message in within(json):
            with pytest.raises(PeerError):
                codec.decode(message)
    assert salvaged(b'{"type":"peers","payload":{"peers":[%b]}}' % json) is None


@deep
def test_deep_json_in_a_lan_frame_ends_that_conversation_alone(json: bytes) -> None:
    for message in within(json):
        world, mallory = World(), Puppet()
        world.add("m", mallory)
        world.add_node("a", 1, lan="home", models=("m",))
        world.add_node("b", 2, lan="home")
        world.start("a", "b")
        mallory.dial(world, "m", "a")
        mallory.say_json(world, "m", message)
        assert mallory.closed
        assert [peer.display_name for peer in world.node("a").peers()] == ["b"]


@deep
def test_deep_json_to_a_relay_is_an_offence_of_its_sender_alone(json: bytes) -> None:
    relay = Relay()
    sender, other = relay.node(ALICE), relay.node(identity(9))
    for message in within(json):
        if sender.closed is None and len(message) < 1 << 20:
            sender.say_bytes(message)
    assert sender.closed is not None
    assert "error" in sender.kinds()
    assert other.closed is None
    assert relay.server.health().peers == 1


@deep
def test_deep_json_from_a_stranger_at_a_relay_is_too_long(json: bytes) -> None:
    server = make_relay("relay.test")
    server.handle(ConnectionAccepted(2, Address("s", 1), Address("relay.test", 1), "relay.test"), 0)
    effects = server.handle(DataReceived(2, json), 0)
    assert [type(effect) for effect in effects[:1]] == [SendText]
    assert any(isinstance(effect, CloseConnection) for effect in effects)


@deep
def test_deep_json_at_the_api_is_a_bad_request(json: bytes) -> None:
    bodies = [json, b'{"model":"m","messages":[%b]}' % json, b'{"model":"m","messages":[1],"x":%b}' % json]
    bodies += [b'{"model":%b,"messages":[1]}' % json, b'{"model":"m","messages":[1],"stream_options":%b}' % json]
    for body in bodies:
        for task in Task:
            with pytest.raises(Problem) as refused:
                read_question(task, body)
            assert refused.value.status == 400


@deep
def test_deep_json_in_an_answer_is_an_error_of_the_node_that_serves(json: bytes) -> None:
    readers: list[Callable[[bytes], Any]] = [read_piece, lambda piece: read_embeddings([piece])]
    for read in readers:
        for piece in (json, b'{"choices":[%b]}' % json, b'{"data":[%b]}' % json):
            with pytest.raises(PeerError):
                read(piece)


# Any bytes.

bodies = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6) | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["model", "messages", "prompt", "input", "stream", "stream_options", "n", "x"]),
            inner,
            max_size=6,
        )
    ),
    max_leaves=12,
)


def encoded(value: Any) -> bytes:
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can carry and Python cannot encode
        return b'{"model":"\\ud800"}'


@given(TASKS, st.binary(max_size=60) | bodies.map(encoded))
@example(Task.CHAT, b'{"model":"m","messages":["\xff"]}')
@example(Task.CHAT, b'{"model":"\\ud800","messages":[1]}')
def test_any_body_is_a_question_or_a_bad_request(task: Task, body: bytes) -> None:
    with suppress(Problem):
        question = read_question(task, body)
        assert question.model
        assert question.body == body


@given(st.binary(max_size=200), st.booleans(), st.booleans(), st.lists(st.integers(1, 50), max_size=8))
def test_any_bytes_of_a_stranger_are_survived_by_a_link(
    data: bytes, framed: bool, magic: bool, cuts: list[int]
) -> None:
    link = Link.accept(identity(1), instance=bytes(8), rng=World().rng, allow_plaintext=not magic)
    stream = (MAGIC if magic else b"") + data
    stream = frame(stream) if framed else stream
    out: list[bytes] = []
    with suppress(PeerError):
        for cut in (*cuts, len(stream)):
            piece, stream = stream[:cut], stream[cut:]
            list(link.receive(piece, out))
    assert sum(map(len, out)) < 1024


@given(st.binary(max_size=300), st.integers(1, 40))
def test_any_stream_of_events_is_bounded(data: bytes, size_max: int) -> None:
    reader = EventReader(size_max=size_max)
    try:
        events = [*reader.feed(data), *reader.finish()]
    except PeerError:
        return
    assert all(len(event) <= size_max for event in events)
