"""The short way through the relay leads nowhere else than the long one, and only where it may be taken."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from teale_proto.effects import RelayEffect, SendData, SendText
from teale_proto.errors import PeerError
from teale_proto.inputs import DataReceived, MessagesReceived
from teale_proto.relay.forwarding import HEADS_MAX, Forwarding, is_canonical_base64
from teale_proto.relay.limits import Flow, RelayServerConfig, Traffic
from teale_proto.wire.binary import encode_binary
from teale_proto.wire.codec import Flavour
from teale_proto.wire.relay import RELAY_CODEC, RelayClose, RelayData, RelayOpen, RelayReady
from tests.proto.relay.relays import ALICE, BOB, CAROL, HOST, MALLORY, RawNode, Relay

EXAMPLES = settings(derandomize=True, deadline=None, max_examples=400)

SESSION = "00112233445566778899aabbccddeeff"
ODD = 'a "data":" of\\a session'
FEW = Traffic(messages=Flow(per_second=1, burst=16))
DOCUMENTED, DEPLOYED, SWIFT = Flavour


def data(content: bytes = b"secret", session: str = SESSION) -> RelayData:
    return RelayData(ALICE.node_id, BOB.node_id, session, content)


@dataclass
class Scene:
    """A relay, and Alice with an open session to Bob and another to Carol."""

    relay: Relay
    alice: RawNode
    bob: RawNode
    carol: RawNode

    @classmethod
    def set(
        cls,
        flavours: Sequence[Flavour] = (DOCUMENTED, DOCUMENTED),
        binary: Sequence[bool] = (False, False),
        *,
        session: str = SESSION,
        limited: bool = False,
    ) -> "Scene":
        config = RelayServerConfig(names=(HOST,), client_traffic=FEW if limited else Traffic(), message_bytes_max=4096)
        relay = Relay(config)
        alice = relay.node(ALICE, flavours[0], binary=binary[0])
        bob = relay.node(BOB, flavours[1], binary=binary[1])
        carol = relay.node(CAROL)
        for other, name in ((bob, session), (carol, "with Carol")):
            alice.say(RelayOpen(ALICE.node_id, other.id, name))
            other.say(RelayReady(other.id, ALICE.node_id, name))
        for node in (alice, bob, carol):
            node.inbox.clear()
            node.raw.clear()
        return cls(relay, alice, bob, carol)

    def without_the_short_way(self) -> "Scene":
        self.relay.server._forwarding = Forwarding(message_bytes_max=-1)
        return self

    def told(self, messages: Sequence[bytes]) -> list[RelayEffect]:
        """Have Alice's messages come in one by one."""
        number = self.alice.connection
        return [effect for message in messages for effect in self.relay.feed(DataReceived(number, message))]

    def told_together(self, messages: Sequence[bytes]) -> list[RelayEffect]:
        return list(self.relay.feed(MessagesReceived(self.alice.connection, tuple(messages))))


def short(scene: Scene, message: bytes) -> bool:
    """Return whether a message goes the short way, without sending it."""
    server = scene.relay.server
    connection = server._connections[scene.alice.connection]
    return bool(server._forwarding.run(connection, (message,), 0, server._switch, scene.relay.now).effects)


# What goes the short way.


@pytest.mark.parametrize("flavour", list(Flavour))
@pytest.mark.parametrize("session", [SESSION, "s", ODD])
@pytest.mark.parametrize("size", range(7))
def test_the_second_message_of_a_session_goes_the_short_way_as_it_came(
    flavour: Flavour, session: str, size: int
) -> None:
    scene = Scene.set((flavour, flavour), session=session)
    message = RELAY_CODEC.encode(data(bytes(range(200, 200 + size)), session), flavour)
    assert not short(scene, message)
    scene.alice.say_bytes(message)
    assert short(scene, message)
    scene.alice.say_bytes(message)
    assert scene.bob.raw == [message, message]


def test_many_at_once_are_passed_on_in_order_as_data_that_may_be_overtaken() -> None:
    scene = Scene.set()
    messages = [RELAY_CODEC.encode(data(bytes([number]))) for number in range(100)]
    scene.told(messages[:1])
    assert scene.told_together(messages) == [SendText(scene.bob.connection, message, True) for message in messages]


def test_binary_messages_go_the_short_way_from_the_first_one_on() -> None:
    scene = Scene.set(binary=(True, True))
    message = encode_binary(SESSION, b"\x00 anything \xff")
    assert short(scene, message)
    assert scene.told([message]) == [SendData(scene.bob.connection, message, True)]


# What does not, and what becomes of it.


def test_a_reader_of_another_dialect_gets_the_message_in_its_own() -> None:
    scene = Scene.set((DOCUMENTED, DEPLOYED))
    message = RELAY_CODEC.encode(data())
    scene.alice.say_bytes(message)
    assert not short(scene, message)
    scene.alice.say_bytes(message)
    assert scene.bob.raw == [RELAY_CODEC.encode(data(), DEPLOYED)] * 2


@pytest.mark.parametrize("binary", [(True, False), (False, True)])
def test_binary_and_json_are_turned_into_each_other(binary: tuple[bool, bool]) -> None:
    forms = {True: encode_binary(SESSION, b"secret"), False: RELAY_CODEC.encode(data())}
    scene = Scene.set(binary=binary)
    for _ in range(2):
        scene.alice.say_bytes(forms[binary[0]])
    assert scene.bob.raw == [forms[binary[1]]] * 2


def test_a_session_that_has_no_binary_name_stays_in_json() -> None:
    scene = Scene.set(binary=(True, True), session="s")
    scene.alice.say(data(session="s"))
    assert scene.bob.take() == [data(session="s")]


@pytest.mark.parametrize(
    "message",
    [
        encode_binary(SESSION, b"x")[:-2],
        b"\x01",
        b"\x02" + bytes.fromhex(SESSION) + b"x",
    ],
)
def test_half_a_binary_head_is_an_offence(message: bytes) -> None:
    scene = Scene.set(binary=(True, True))
    scene.alice.say_bytes(message)
    assert scene.alice.last.code in ("invalid_json", "invalid_message")
    assert scene.bob.raw == []


def test_whoever_did_not_offer_binary_messages_may_not_send_them() -> None:
    scene = Scene.set(binary=(False, True))
    scene.alice.say_bytes(encode_binary(SESSION, b"x"))
    assert scene.alice.last.code == "invalid_json"
    assert scene.bob.raw == []


def test_nobody_gets_into_the_session_of_others() -> None:
    scene = Scene.set(binary=(True, True))
    mallory = scene.relay.node(MALLORY, binary=True)
    scene.alice.say(data())
    for message in (RELAY_CODEC.encode(data()), encode_binary(SESSION, b"forged")):
        before = len(scene.bob.raw)
        mallory.say_bytes(message)
        assert mallory.last.code == "invalid_message"
        assert len(scene.bob.raw) == before


@pytest.mark.parametrize("message", [RELAY_CODEC.encode(data()), encode_binary(SESSION, b"secret")])
def test_a_session_that_is_over_takes_no_more(message: bytes) -> None:
    scene = Scene.set(binary=(True, True))
    scene.told([message, message])
    scene.alice.say(RelayClose(ALICE.node_id, BOB.node_id, SESSION))
    scene.bob.raw.clear()
    scene.told([message])
    assert (scene.alice.last.code, scene.alice.last.session_id) == ("invalid_message", SESSION)
    assert scene.bob.raw == []
    assert scene.relay.refusals == []


CANONICAL = RELAY_CODEC.encode(data(b"12345"))


@pytest.mark.parametrize(
    "message",
    [
        CANONICAL + b" ",
        b" " + CANONICAL,
        CANONICAL.replace(b",", b", ", 1),
        CANONICAL.replace(b'"data"', b'"d\\u0061ta"'),
        CANONICAL.replace(b'"payload":{', b'"payload":{"data":"",'),
        CANONICAL.replace(b'"data":"', b'"data":"AAAA","data":"'),
        CANONICAL.replace(b'"}}', b'","toNodeID":"' + CAROL.node_id.encode() + b'"}}'),
        CANONICAL.replace(b'"}}', b'","more":1}}'),
        CANONICAL.replace(b"MTIzNDU=", b"MTIz\\/DU="),
        CANONICAL.replace(b"MTIzNDU=", b"MTIzNDV="),
        CANONICAL.replace(b"MTIzNDU=", b"MTIzNDU"),
        CANONICAL.replace(b"MTIzNDU=", b"MTIzNA=="),
        CANONICAL.replace(BOB.node_id.encode(), CAROL.node_id.encode()),
        CANONICAL.replace(ALICE.node_id.encode(), MALLORY.node_id.encode()),
        RELAY_CODEC.encode(data(b"12345"), SWIFT),
        RELAY_CODEC.encode(data(bytes(3100))),
    ],
)
def test_what_the_codec_would_not_write_like_this_goes_the_long_way(message: bytes) -> None:
    scene = Scene.set()
    scene.alice.say_bytes(CANONICAL)
    rewritten = message == CANONICAL.replace(b"MTIzNDU=", b"MTIzNA==")
    assert short(scene, CANONICAL)
    assert short(scene, message) is rewritten, "the one among these that is another canonical message"


@EXAMPLES
@given(st.binary(max_size=12))
def test_canonical_base64_is_what_an_encoder_writes(content: bytes) -> None:
    assert is_canonical_base64(base64.b64encode(content))


@EXAMPLES
@given(st.text("AQEIg0+/=-_\n", max_size=9).map(str.encode))
def test_only_what_an_encoder_writes_is_canonical(written: bytes) -> None:
    try:
        is_written = base64.b64encode(base64.b64decode(written, validate=True)) == written
    except ValueError:
        is_written = False
    assert is_canonical_base64(written) is is_written


def test_heads_are_bounded_and_learned_anew() -> None:
    forwarding = Forwarding(message_bytes_max=4096)
    for number in range(HEADS_MAX + 1):
        forwarding.learn(data(session=str(number)), DOCUMENTED)
    assert len(forwarding._heads) == 1
    assert forwarding.recognise(RELAY_CODEC.encode(data(session=str(HEADS_MAX)))) is not None


def test_the_longest_head_there_can_be_is_recognised() -> None:
    forwarding = Forwarding(message_bytes_max=4096)
    for flavour in Flavour:
        forwarding.learn(data(session=128 * "\x00"), flavour)
        assert forwarding.recognise(RELAY_CODEC.encode(data(session=128 * "\x00"), flavour)) is not None


# For any messages, the two ways have equal effects.

SEEDS = st.builds(
    lambda content, session, flavour: RELAY_CODEC.encode(data(content, session), flavour),
    st.binary(max_size=40),
    st.sampled_from([SESSION, ODD, "with Carol", "unknown"]),
    st.sampled_from(list(Flavour)),
) | st.builds(encode_binary, st.sampled_from([SESSION, 32 * "0"]), st.binary(max_size=40))


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Return a real message with a few bytes replaced, repeated or removed."""
    message = draw(SEEDS)
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(message)))
        end = draw(st.integers(at, min(len(message), at + 80)))
        piece = draw(
            st.sampled_from([b"", b"=", b"A", b'"', b"\\", b",", b" ", b"\xff", b"\x01"])
            | st.just(message[at:end] * 2)
            | st.sampled_from([b'"data":"', b'"}}', BOB.node_id.encode(), CAROL.node_id.encode()])
        )
        message = message[:at] + piece + message[end:]
    return message


@EXAMPLES
@given(
    messages=st.lists(SEEDS | mutated(), min_size=1, max_size=24),
    flavours=st.tuples(st.sampled_from(list(Flavour)), st.sampled_from(list(Flavour))),
    binary=st.tuples(st.booleans(), st.booleans()),
    session=st.sampled_from([SESSION, ODD]),
    limited=st.booleans(),
)
def test_the_short_way_and_the_long_way_have_equal_effects(
    messages: list[bytes],
    flavours: tuple[Flavour, Flavour],
    binary: tuple[bool, bool],
    session: str,
    limited: bool,
) -> None:
    scenes = [Scene.set(flavours, binary, session=session, limited=limited) for _ in range(3)]
    one_by_one, together, long_way = scenes
    first = [RELAY_CODEC.encode(data(b"", session), flavours[0])]
    expected = long_way.without_the_short_way().told([*first, *messages])
    assert one_by_one.told([*first, *messages]) == expected
    assert [*together.told(first), *together.told_together(messages)] == expected
    assert len({scene.relay.server.metrics(0) for scene in scenes}) == 1
    assert len({scene.relay.server.deadline for scene in scenes}) == 1


@EXAMPLES
@given(message=mutated())
def test_the_short_way_is_only_for_what_the_codec_writes_exactly_like_that(message: bytes) -> None:
    forwarding = Forwarding(message_bytes_max=4096)
    for session in (SESSION, ODD, "with Carol"):
        for flavour in Flavour:
            forwarding.learn(data(session=session), flavour)
    head = forwarding.recognise(message)
    try:
        decoded, flavour = RELAY_CODEC.decode(message)
    except PeerError:
        assert head is None
        return
    if head is not None:
        assert isinstance(decoded, RelayData)
        assert RELAY_CODEC.encode(decoded, flavour) == message
        assert (head.sender, head.target, head.session, head.flavour) == (
            decoded.from_node_id,
            decoded.to_node_id,
            decoded.session_id,
            flavour,
        )
