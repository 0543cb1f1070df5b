"""Whatever comes in, in whatever state: neither core raises, and both keep the laws."""

from collections.abc import Callable
from random import Random
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from teale_proto.contract import NEVER, SECOND
from teale_proto.effects import RelayState
from teale_proto.inputs import (
    WAKE,
    Address,
    ConnectionAccepted,
    ConnectionClosed,
    DataReceived,
    PingReceived,
    PongReceived,
    StopRequested,
)
from teale_proto.relay.server import RelayServer
from teale_proto.wire.codec import Flavour
from teale_proto.wire.relay import RELAY_CODEC, RelayData, RelayOpen, RelayReady
from tests.proto.relay.relays import ALICE, BOB, CONFIG, HOST, LEGACY, UNIX_TIME_AT_ZERO, RawNode, Relay, registration
from tests.proto.relay.scripted import ScriptedRelay, connected

EXAMPLES = settings(derandomize=True, deadline=None, max_examples=200)

nodes = st.sampled_from([ALICE.node_id, BOB.node_id, "", "zz"])
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8) | nodes,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
kinds = st.sampled_from([*RELAY_CODEC.kinds.values(), "peers", "signal", "unknown"])
payloads = st.fixed_dictionaries(
    {},
    optional={
        "fromNodeID": nodes,
        "toNodeID": nodes,
        "requestingNodeID": nodes,
        "nodeID": nodes,
        "publicKey": nodes,
        "sessionID": st.sampled_from(["s", "t", ""]),
        "data": st.sampled_from(["", "AA==", "AA", "?"]),
        "challenge": st.sampled_from(["", "ab", "a"]),
        "signature": st.sampled_from(["", "00" * 64]),
        "displayName": st.text(max_size=4),
        "capabilities": st.just({"hardware": {}}) | values,
        "filter": values,
        "peers": st.lists(values, max_size=2),
        "code": st.sampled_from(["rate_limited", "replaced", "peer_not_found", ""]),
        "message": st.text(max_size=4),
        "retryAfterSeconds": st.floats(),
        "registeredAt": st.floats(),
        "ttlSeconds": st.integers(),
        "candidate": values,
        "connectionInfo": values,
    },
)


def envelope(kind: str, payload: Any, flavour: Flavour) -> bytes:
    match flavour:
        case Flavour.DOCUMENTED:
            value: Any = {"type": kind, "payload": payload}
        case Flavour.DEPLOYED:
            value = {kind: payload}
        case _:
            value = {kind: {"_0": payload}}
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:  # lone surrogates, which JSON's escapes could carry
        return b'{"type":"\\ud800"}'


messages = (
    st.binary(max_size=40)
    | st.builds(envelope, kinds, payloads | values, st.sampled_from(Flavour))
    | values.map(lambda value: repr(value).encode("utf-8", "replace"))
)


def fresh(relay: Relay) -> RawNode:
    return RawNode(relay, ALICE)


def challenged(relay: Relay) -> RawNode:
    node = RawNode(relay, ALICE)
    node.say(registration(ALICE))
    return node


def registered(relay: Relay) -> RawNode:
    return relay.node(ALICE)


def in_session(relay: Relay) -> RawNode:
    node = relay.node(ALICE)
    bob = relay.node(BOB)
    node.say(RelayOpen(node.id, bob.id, "s"))
    bob.say(RelayReady(bob.id, node.id, "s"))
    return node


@EXAMPLES
@given(
    st.sampled_from([CONFIG, LEGACY]),
    st.sampled_from([fresh, challenged, registered, in_session]),
    st.lists(messages, max_size=15),
)
def test_no_message_makes_a_relay_raise(
    config: Any, prepare: Callable[[Relay], RawNode], received: list[bytes]
) -> None:
    relay = Relay(config)
    node = prepare(relay)
    for data in received:
        node.say_bytes(data)
    assert relay.server.health().peers <= 2
    relay.advance(300 * SECOND)
    assert relay.server.health().peers == 0
    assert relay.server.deadline == NEVER


addresses = st.builds(Address, st.text(max_size=5) | st.sampled_from(["::1", "127.0.0.1"]), st.integers(0, 65535))
numbers = st.integers(0, 3)
events = (
    st.just(WAKE)
    | st.just(StopRequested())
    | st.builds(DataReceived, numbers, messages)
    | st.builds(PingReceived, numbers)
    | st.builds(PongReceived, numbers)
    | st.builds(ConnectionClosed, numbers, st.text(max_size=3))
)


@EXAMPLES
@given(
    st.lists(st.tuples(events, st.integers(0, 40 * SECOND)), max_size=20),
    addresses,
    st.text(max_size=5) | st.just("localhost") | st.just(HOST),
)
def test_no_course_of_events_makes_a_relay_raise_and_a_replay_is_equal(
    journal: list[tuple[Any, int]], local: Address, host: str
) -> None:
    def run() -> list[Any]:
        server = RelayServer(LEGACY, Random(5), unix_time_at_zero=UNIX_TIME_AT_ZERO)
        effects: list[Any] = []
        for number in range(3):
            effects += server.handle(ConnectionAccepted(number, local, local, host), 0)
        effects += server.handle(DataReceived(0, RELAY_CODEC.encode(registration(BOB))), 0)
        now = 0
        for event, wait in journal:
            now += wait
            effects += server.handle(event, now)
            effects += server.handle(WAKE, now)
            assert server.deadline > now
            assert server.handle(WAKE, now) == []
        return effects

    assert run() == run()


def off(_: ScriptedRelay) -> None:
    """Nothing has been opened."""


def registering(relay: ScriptedRelay) -> None:
    relay.accept()


def talking(relay: ScriptedRelay) -> None:
    relay.accept()
    relay.acknowledge()
    relay.say(RelayOpen(BOB.node_id, ALICE.node_id, "s"))
    relay.say(RelayData(BOB.node_id, ALICE.node_id, "s", b"hello"))
    relay.client.open_session(BOB.node_id, relay.now, relay.out)
    relay.client.discover(None, relay.now, relay.out)


@EXAMPLES
@given(
    st.sampled_from([off, registering, talking]),
    st.lists(st.tuples(messages, st.integers(0, 20 * SECOND)), max_size=15),
)
def test_no_message_makes_a_client_raise(
    prepare: Callable[[ScriptedRelay], None], received: list[tuple[bytes, int]]
) -> None:
    relay = ScriptedRelay(ALICE)
    prepare(relay)
    for data, wait in received:
        relay.advance(wait)
        relay.say_bytes(data)
    relay.advance(200 * SECOND)
    assert relay.client.state in (RelayState.CONNECTING, RelayState.WAITING)
    relay.client.stop(relay.now, relay.out)
    assert relay.timers.deadline == NEVER


def test_a_client_s_spurious_timers_do_not_exist() -> None:
    relay = connected(ALICE)
    assert relay.timers.pop_due(relay.now) is None
