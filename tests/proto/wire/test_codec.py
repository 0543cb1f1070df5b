"""Messages: three flavours of envelope in, one message out; nonsense is a PeerError whatever it is."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from teale_proto.errors import PeerError
from teale_proto.inputs import NodeId
from teale_proto.wire.cluster import (
    CLUSTER_CODEC,
    DeviceInfo,
    Goodbye,
    Heartbeat,
    Hello,
    InferenceCancel,
    InferenceChunk,
    InferenceRequest,
)
from teale_proto.wire.codec import Codec, Flavour, Unknown
from teale_proto.wire.fields import Message
from teale_proto.wire.relay import (
    RELAY_CODEC,
    Candidate,
    Discover,
    DiscoverFilter,
    DiscoverResponse,
    Error,
    Hardware,
    IceCandidate,
    RegisterAck,
    RelayData,
    RelayOpen,
)
from tests.proto.wire.strategies import CHARACTERS, JSON, messages

EXAMPLES = settings(derandomize=True, deadline=None, max_examples=200)
A_FEW = settings(derandomize=True, deadline=None, max_examples=15)

A, B = NodeId("aa" * 32), NodeId("bb" * 32)


def wire(text: str) -> bytes:
    """Return the bytes of a message in which <A> and <B> stand for node ids."""
    return text.replace("<A>", A).replace("<B>", B).encode()


CODECS: dict[str, Codec[Any]] = {"relay": RELAY_CODEC, "cluster": CLUSTER_CODEC}
BOTH = pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS.keys())
EVERY_MESSAGE = pytest.mark.parametrize(
    ("codec", "message_type"),
    [(codec, message_type) for codec in CODECS.values() for message_type in codec.kinds],
    ids=lambda value: getattr(value, "__name__", ""),
)
FLAVOURS = pytest.mark.parametrize("flavour", list(Flavour), ids=lambda flavour: flavour.value)


# Every message, every flavour.


@EVERY_MESSAGE
@A_FEW
@given(data=st.data())
def test_every_message_survives_every_flavour(
    codec: Codec[Any], message_type: type[Message], data: st.DataObject
) -> None:
    message = data.draw(messages(message_type))
    encoded = {flavour: codec.encode(message, flavour) for flavour in Flavour}
    for flavour in Flavour:
        assert codec.decode(encoded[flavour]) == (message, flavour)

    kind = codec.kinds[message_type]
    deployed = json.loads(encoded[Flavour.DEPLOYED])
    assert list(deployed) == [kind]
    assert json.loads(encoded[Flavour.SWIFT]) == {kind: {"_0": deployed[kind]}}
    documented = json.loads(encoded[Flavour.DOCUMENTED])
    assert list(documented) == ["type", "payload"]
    assert documented["payload"] == (deployed if documented["type"] == "signal" else deployed[kind])


@EVERY_MESSAGE
@A_FEW
@given(data=st.data())
def test_fields_of_a_later_version_are_ignored(
    codec: Codec[Any], message_type: type[Message], data: st.DataObject
) -> None:
    message = data.draw(messages(message_type))
    envelope = json.loads(codec.encode(message, Flavour.DEPLOYED))
    envelope[codec.kinds[message_type]]["fieldOfALaterVersion"] = data.draw(JSON)
    assert codec.decode(msgspec.json.encode(envelope)) == (message, Flavour.DEPLOYED)


@BOTH
@FLAVOURS
@EXAMPLES
@given(kind=st.text(CHARACTERS, min_size=1, max_size=64), value=JSON)
def test_unknown_kinds_survive(codec: Codec[Any], flavour: Flavour, kind: str, value: Any) -> None:
    kind += "?"
    envelope: dict[str, Any] = {
        Flavour.DOCUMENTED: {"type": kind, "payload": value},
        Flavour.DEPLOYED: {kind: value},
        Flavour.SWIFT: {kind: {"_0": value}},
    }[flavour]
    message, read_as = codec.decode(msgspec.json.encode(envelope))
    assert isinstance(message, Unknown)
    assert message.kind == kind[:64]
    if flavour is Flavour.DEPLOYED and isinstance(value, dict) and value.keys() == {"_0"}:
        assert read_as is Flavour.SWIFT, "the two cannot be told apart"
    else:
        assert read_as is flavour
        assert json.loads(message.payload) == value


@pytest.mark.parametrize("payload", ['"_0"', '["_0"]', '{"_0":1,"_1":2}', "null", "7"])
def test_an_unknown_payload_of_any_shape_is_not_an_error(payload: str) -> None:
    message, flavour = RELAY_CODEC.decode(b'{"novelty":%b}' % payload.encode())
    assert message == Unknown("novelty", payload.encode())
    assert flavour is Flavour.DEPLOYED


def test_a_signal_of_an_unknown_kind_is_not_an_error() -> None:
    assert RELAY_CODEC.decode(b'{"type":"signal","payload":{"hint":{"a":1}}}') == (
        Unknown("hint", b'{"a":1}'),
        Flavour.DOCUMENTED,
    )


def test_a_documented_message_may_leave_out_an_empty_payload() -> None:
    assert CLUSTER_CODEC.decode(b'{"type":"goodbye"}') == (Goodbye(), Flavour.DOCUMENTED)


# Known bytes.

KNOWN: list[tuple[Codec[Any], Message, Flavour, str]] = [
    (
        RELAY_CODEC,
        RegisterAck(A, 721_692_800.5, 300),
        Flavour.DEPLOYED,
        '{"registerAck":{"nodeID":"<A>","registeredAt":721692800.5,"ttlSeconds":300}}',
    ),
    (
        RELAY_CODEC,
        Discover(A, DiscoverFilter(model_id="tiny", min_ram_gb=16.0, min_tier=2, max_peers=50)),
        Flavour.DEPLOYED,
        '{"discover":{"requestingNodeID":"<A>","filter":{"modelID":"tiny","minRAMGB":16.0,"minTier":2,"maxPeers":50}}}',
    ),
    (
        RELAY_CODEC,
        RelayOpen(A, B, "s1"),
        Flavour.SWIFT,
        '{"relayOpen":{"_0":{"fromNodeID":"<A>","toNodeID":"<B>","sessionID":"s1"}}}',
    ),
    (
        RELAY_CODEC,
        RelayData(A, B, "s1", b"\x00\xff~"),
        Flavour.DOCUMENTED,
        '{"type":"relayData","payload":{"fromNodeID":"<A>","toNodeID":"<B>","sessionID":"s1","data":"AP9+"}}',
    ),
    (
        RELAY_CODEC,
        IceCandidate(A, B, "s1", Candidate("192.0.2.1", 4242, "serverReflexive", 7)),
        Flavour.DOCUMENTED,
        '{"type":"signal","payload":{"iceCandidate":{"fromNodeID":"<A>","toNodeID":"<B>","sessionID":"s1",'
        '"candidate":{"ip":"192.0.2.1","port":4242,"type":"serverReflexive","priority":7}}}}',
    ),
    (RELAY_CODEC, DiscoverResponse(()), Flavour.DOCUMENTED, '{"type":"peers","payload":{"peers":[]}}'),
    (RELAY_CODEC, DiscoverResponse(()), Flavour.DEPLOYED, '{"discoverResponse":{"peers":[]}}'),
    (
        RELAY_CODEC,
        Error("rate_limited", "one discover in 10 s", retry_after_seconds=8.5),
        Flavour.DEPLOYED,
        '{"error":{"code":"rate_limited","message":"one discover in 10 s","retryAfterSeconds":8.5}}',
    ),
    (
        CLUSTER_CODEC,
        InferenceRequest("r1", msgspec.Raw(b'{"model":"tiny","messages":[]}'), streaming=True),
        Flavour.DEPLOYED,
        '{"inferenceRequest":{"requestID":"r1","request":{"model":"tiny","messages":[]},"streaming":true}}',
    ),
    (
        CLUSTER_CODEC,
        InferenceChunk("r1", msgspec.Raw(b'{"object":"chat.completion.chunk"}')),
        Flavour.DOCUMENTED,
        '{"type":"inferenceChunk","payload":{"requestID":"r1","chunk":{"object":"chat.completion.chunk"}}}',
    ),
    (CLUSTER_CODEC, InferenceCancel("r1"), Flavour.SWIFT, '{"inferenceCancel":{"_0":{"requestID":"r1"}}}'),
]


@pytest.mark.parametrize(("codec", "message", "flavour", "text"), KNOWN, ids=[known[3][:24] for known in KNOWN])
def test_known_messages_have_known_bytes(codec: Codec[Any], message: Message, flavour: Flavour, text: str) -> None:
    assert codec.encode(message, flavour) == wire(text)
    assert codec.decode(wire(text)) == (message, flavour)


def test_the_documented_dialect_is_the_default() -> None:
    assert CLUSTER_CODEC.encode(InferenceCancel("r1")) == b'{"type":"inferenceCancel","payload":{"requestID":"r1"}}'


@pytest.mark.parametrize("kind", ["peers", "discoverResponse"])
def test_either_name_of_a_listing_is_understood(kind: str) -> None:
    text = b'{"type":"%b","payload":{"peers":[]}}' % kind.encode()
    assert RELAY_CODEC.decode(text) == (DiscoverResponse(()), Flavour.DOCUMENTED)


def test_spaces_and_line_breaks_do_not_matter() -> None:
    assert RELAY_CODEC.decode(b' { "type" : "peers" ,\n "payload" : { "peers" : [ ] } } ') == (
        DiscoverResponse(()),
        Flavour.DOCUMENTED,
    )
    assert RELAY_CODEC.decode(b'{ "discoverResponse" : { "_0" : { "peers" : [ ] } } }') == (
        DiscoverResponse(()),
        Flavour.SWIFT,
    )


def test_a_kind_that_is_called_type_is_told_from_the_envelope() -> None:
    assert RELAY_CODEC.decode(b'{"type":{"a":1}}') == (Unknown("type", b'{"a":1}'), Flavour.DEPLOYED)


def test_what_deployed_programs_insist_on_is_written_even_where_it_is_the_default() -> None:
    hello = json.loads(CLUSTER_CODEC.encode(Hello(DeviceInfo("id", "name", Hardware())), Flavour.DEPLOYED))["hello"]
    assert hello == {
        "deviceInfo": {
            "id": "id",
            "name": "name",
            "hardware": {
                "chipFamily": "",
                "chipName": "",
                "totalRAMGB": 0.0,
                "gpuCoreCount": 0,
                "memoryBandwidthGBs": 0.0,
                "tier": 4,
            },
            "registeredAt": 0.0,
            "lastSeenAt": 0.0,
            "isCurrentDevice": False,
            "loadedModels": [],
        },
        "protocolVersion": 1,
        "loadedModels": [],
    }
    heartbeat = json.loads(CLUSTER_CODEC.encode(Heartbeat("id", 5.0), Flavour.DEPLOYED))["heartbeat"]
    assert heartbeat == {
        "deviceID": "id",
        "timestamp": 5.0,
        "thermalLevel": "nominal",
        "throttleLevel": 100,
        "loadedModels": [],
        "isGenerating": False,
        "queueDepth": 0,
    }


# Nonsense.

DEEP = 100_000

NONSENSE = {
    "nothing": b"",
    "not JSON": b"hello",
    "cut": b'{"goodbye":{"reason":"',
    "two messages": b'{"goodbye":{}}{"goodbye":{}}',
    "not an object": b"[1,2]",
    "null": b"null",
    "no key": b"{}",
    "two keys": b'{"goodbye":{},"relayClose":{}}',
    "documented with a third key": b'{"type":"goodbye","payload":{},"id":1}',
    "a type that is no text": b'{"type":7,"payload":{}}',
    "a payload without a type": b'{"payload":{},"more":{}}',
    "a byte-order mark": b'\xef\xbb\xbf{"goodbye":{}}',
    "UTF-16": '{"goodbye":{}}'.encode("utf-16"),
    "invalid UTF-8 in a kind": b'{"\xff":{}}',
    "invalid UTF-8 in a known field": b'{"goodbye":{"reason":"\xff"}}',
    "invalid UTF-8 in an unknown kind": b'{"novelty":"\xff"}',
    "invalid UTF-8 in what stays raw": b'{"inferenceChunk":{"requestID":"r","chunk":{"a":"\xc3("}}}',
    "a lone surrogate": b'{"\\ud800":{}}',
    "deep arrays": b"[" * DEEP,
    "deep objects": b'{"a":' * DEEP,
    "deep and complete": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "deep in an unknown kind": b'{"novelty":' + b"[" * DEEP + b"]" * DEEP + b"}",
    "deep in a documented payload": b'{"type":"goodbye","payload":' + b"[" * DEEP + b"]" * DEEP + b"}",
    "deep in what stays raw": b'{"inferenceChunk":{"requestID":"r","chunk":' + b"[" * DEEP + b"]" * DEEP + b"}}",
    "deep in a signal": b'{"type":"signal","payload":{"offer":' + b"[" * DEEP + b"]" * DEEP + b"}}",
}


@BOTH
@pytest.mark.parametrize("data", NONSENSE.values(), ids=NONSENSE.keys())
def test_nonsense_is_a_peer_error(codec: Codec[Any], data: bytes) -> None:
    with pytest.raises(PeerError, match=r"\Amalformed message: "):
        codec.decode(data)


@pytest.mark.parametrize(
    "text",
    [
        '{"type":"signal","payload":{}}',
        '{"type":"signal","payload":{"offer":{},"answer":{}}}',
        '{"type":"signal","payload":[]}',
        '{"type":"registerAck"}',
        '{"registerAck":[]}',
        '{"registerAck":"_0"}',
        '{"registerAck":{"_0":[]}}',
        '{"registerAck":{"_0":{},"_1":{}}}',
        '{"registerAck":{"nodeID":"<A>","registeredAt":0.0}}',
        '{"registerAck":{"nodeID":"<A>","registeredAt":0.0,"ttlSeconds":-1}}',
        '{"registerAck":{"nodeID":"<A>","registeredAt":1e999,"ttlSeconds":1}}',
        '{"registerAck":{"nodeID":"<A>","registeredAt":NaN,"ttlSeconds":1}}',
        '{"registerAck":{"nodeID":null,"registeredAt":0.0,"ttlSeconds":1}}',
    ],
)
def test_a_known_kind_with_the_wrong_content_is_a_peer_error(text: str) -> None:
    with pytest.raises(PeerError, match=r"\Amalformed message: "):
        RELAY_CODEC.decode(wire(text))


@BOTH
@EXAMPLES
@given(data=st.binary(max_size=200) | JSON.map(msgspec.json.encode))
def test_any_bytes_are_a_message_or_a_peer_error(codec: Codec[Any], data: bytes) -> None:
    try:
        message, flavour = codec.decode(data)
    except PeerError as error:
        assert len(error.reason) < 200  # noqa: PT017 - either outcome is right
    else:
        assert isinstance(message, Message | Unknown)
        assert isinstance(flavour, Flavour)


@EVERY_MESSAGE
@A_FEW
@given(data=st.data())
def test_a_known_kind_with_any_content_is_a_message_or_a_peer_error(
    codec: Codec[Any], message_type: type[Message], data: st.DataObject
) -> None:
    names = st.sampled_from(message_type.__struct_encode_fields__)
    payload = data.draw(st.dictionaries(names, JSON | st.binary(max_size=9).map(bytes.hex), max_size=6) | JSON)
    kind = codec.kinds[message_type]
    for envelope in ({kind: payload}, {kind: {"_0": payload}}, {"type": kind, "payload": payload}):
        try:
            message, _ = codec.decode(msgspec.json.encode(envelope))
        except PeerError:
            continue
        assert type(message) is message_type


@EVERY_MESSAGE
@A_FEW
@given(data=st.data())
def test_a_damaged_message_is_a_message_or_a_peer_error(
    codec: Codec[Any], message_type: type[Message], data: st.DataObject
) -> None:
    encoded = bytearray(codec.encode(data.draw(messages(message_type)), data.draw(st.sampled_from(Flavour))))
    for _ in range(data.draw(st.integers(1, 3))):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    try:
        message, _ = codec.decode(bytes(encoded))
    except PeerError:
        return
    assert isinstance(message, Message | Unknown)


@pytest.mark.parametrize(
    "text",
    [
        '{"type":"goodbye","payload":{},"SECRET":1}',
        '{"SECRET":1,"MORE SECRET":2}',
        '{"type":"relayData","payload":{"fromNodeID":"SECRET"}}',
        '{"registerAck":{"nodeID":"SECRET","registeredAt":0.0,"ttlSeconds":1}}',
        '{"registerAck":{"nodeID":"<A>","registeredAt":"SECRET","ttlSeconds":1}}',
        '{"relayData":{"fromNodeID":"<A>","toNodeID":"<B>","sessionID":"s","data":"SECRET!"}}',
        '{"SECRET',
    ],
)
@BOTH
def test_a_reason_never_quotes_the_peer(codec: Codec[Any], text: str) -> None:
    try:
        codec.decode(wire(text))
    except PeerError as error:
        assert "SECRET" not in error.reason  # noqa: PT017 - the other codec may not know the kind


# Limits.


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ("sessionID", "s" * 128, "s" * 129),
        ("sessionID", "s", ""),
        ("fromNodeID", "0" * 64, "0" * 63),
        ("fromNodeID", "0" * 64, "0" * 65),
        ("fromNodeID", "a" * 64, "A" * 64),
        ("fromNodeID", "a" * 64, "a" * 64 + "\n"),
        ("fromNodeID", "a" * 64, "g" * 64),
        ("data", "AAAA", "AAA"),
        ("data", "AAA=", "AAA*"),
    ],
)
def test_a_field_beyond_its_limit_is_refused(field: str, good: str, bad: str) -> None:
    payload = {"fromNodeID": A, "toNodeID": B, "sessionID": "s", "data": ""}
    RELAY_CODEC.decode(json.dumps({"relayData": payload | {field: good}}).encode())
    with pytest.raises(PeerError, match=field):
        RELAY_CODEC.decode(json.dumps({"relayData": payload | {field: bad}}).encode())


def test_a_listing_of_more_peers_than_the_limit_is_refused() -> None:
    peer = {"nodeID": A, "publicKey": A, "displayName": "", "capabilities": {"hardware": {}}, "lastSeen": 0.0}
    message, _ = RELAY_CODEC.decode(json.dumps({"discoverResponse": {"peers": [peer] * 1000}}).encode())
    assert isinstance(message, DiscoverResponse)
    assert len(message.peers) == 1000
    with pytest.raises(PeerError, match="length <= 1000"):
        RELAY_CODEC.decode(json.dumps({"discoverResponse": {"peers": [peer] * 1001}}).encode())


def test_the_name_of_an_unknown_kind_is_cut() -> None:
    message, _ = RELAY_CODEC.decode(b'{"%b":{}}' % (b"k" * 10_000))
    assert message == Unknown("k" * 64, b"{}")


def test_of_a_repeated_key_the_last_counts() -> None:
    # Why what is passed on to others must be encoded again, never copied.
    text = '{"relayOpen":{"fromNodeID":"<A>","toNodeID":"<B>","sessionID":"s","fromNodeID":"<B>"}}'
    assert RELAY_CODEC.decode(wire(text)) == (RelayOpen(B, B, "s"), Flavour.DEPLOYED)
