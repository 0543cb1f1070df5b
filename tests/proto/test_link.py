"""Links in pairs: what one sends, the other reads, and nothing else gets through."""

import itertools
from collections.abc import Callable
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from teale_proto.contract import Value
from teale_proto.errors import LocalError, PeerError
from teale_proto.link import HANDSHAKE_MAX, MAGIC, MESSAGE_MAX, NO_ENCRYPTION, Established, Link
from teale_proto.wire.cluster import CLUSTER_CODEC, Goodbye, InferenceRequest
from teale_proto.wire.codec import Flavour, Unknown
from teale_proto.wire.framing import frame
from tests.proto.world import identity

ALICE, BOB, CAROL = identity(1), identity(2), identity(3)


class Pair:
    """Two links and the wire between them."""

    def __init__(self, initiator: Link, responder: Link) -> None:
        self.links = (initiator, responder)
        self.heard: tuple[list[Value], list[Value]] = ([], [])
        self.wire: list[bytes] = []
        pieces: list[bytes] = []
        initiator.start(pieces)
        self.carry(0, pieces)

    def carry(self, sender: int, pieces: list[bytes]) -> None:
        for piece in pieces:
            self.wire.append(piece)
            answers: list[bytes] = []
            self.heard[1 - sender].extend(self.links[1 - sender].receive(piece, answers))
            self.carry(1 - sender, answers)

    def say(self, sender: int, message: Goodbye | InferenceRequest) -> None:
        pieces: list[bytes] = []
        self.links[sender].send(message, pieces)
        self.carry(sender, pieces)


def lan_pair() -> Pair:
    dialled = Link.dial(ALICE, expected=BOB.node_id, instance=b"a" * 8, rng=Random(1))
    return Pair(dialled, Link.accept(BOB, instance=b"b" * 8, rng=Random(2), allow_plaintext=False))


def relayed_pair(session: str = "s", other: str = "s") -> Pair:
    opened = Link.relayed(ALICE, initiator=True, peer=BOB.node_id, session=session, instance=b"a" * 8, rng=Random(1))
    return Pair(
        opened,
        Link.relayed(BOB, initiator=False, peer=ALICE.node_id, session=other, instance=b"b" * 8, rng=Random(2)),
    )


@pytest.mark.parametrize(
    ("make", "protocol"),
    [(lan_pair, "Noise_XX_25519_ChaChaPoly_BLAKE2s"), (relayed_pair, "Noise_IK_25519_ChaChaPoly_BLAKE2s")],
)
def test_both_sides_learn_who_the_other_is_and_can_talk(make: Callable[[], Pair], protocol: str) -> None:
    pair = make()
    assert pair.heard == ([Established(BOB.node_id, b"b" * 8)], [Established(ALICE.node_id, b"a" * 8)])
    assert [link.encryption for link in pair.links] == [protocol] * 2
    pair.say(0, Goodbye("to bob"))
    pair.say(1, Goodbye("to alice"))
    assert pair.heard[1][-1] == Goodbye("to bob")
    assert pair.heard[0][-1] == Goodbye("to alice")
    assert not any(b"bob" in piece or b"reason" in piece for piece in pair.wire)


@pytest.mark.parametrize("fast_aes", [(False, True), (True, True)])
def test_what_seals_the_records_is_told(fast_aes: tuple[bool, bool]) -> None:
    pair = Pair(
        Link.dial(ALICE, expected=BOB.node_id, instance=b"a" * 8, rng=Random(1), fast_aes=fast_aes[0]),
        Link.accept(BOB, instance=b"b" * 8, rng=Random(2), allow_plaintext=False, fast_aes=fast_aes[1]),
    )
    expected = "Noise_XX_25519_ChaChaPoly_BLAKE2s" + (", records AESGCM" if all(fast_aes) else "")
    assert [link.encryption for link in pair.links] == [expected] * 2
    pair.say(0, Goodbye("to bob"))
    assert pair.heard[1][-1] == Goodbye("to bob")


def test_a_large_record_leaves_without_being_copied_behind_its_header() -> None:
    pair = lan_pair()
    pieces: list[bytes] = []
    pair.links[0].send(Goodbye("x" * 4000), pieces)
    pair.links[0].send(InferenceRequest("r", msgspec.Raw(b'"%b"' % (b"x" * 20_000)), True), pieces)
    assert [len(piece) for piece in pieces[1:]] == [4, int.from_bytes(pieces[1], "big")]
    pair.carry(0, pieces)
    assert len(pair.heard[1]) == 3


def test_a_large_message_arrives_whole() -> None:
    pair = lan_pair()
    body = msgspec.json.encode("x" * 1_000_000)
    pair.say(0, InferenceRequest("r", msgspec.Raw(body), True))
    received = pair.heard[1][-1]
    assert isinstance(received, InferenceRequest)
    assert bytes(received.request) == body


def test_a_message_over_the_limit_is_our_own_mistake() -> None:
    pair = lan_pair()
    with pytest.raises(LocalError, match="are allowed"):
        pair.say(0, InferenceRequest("r", msgspec.Raw(msgspec.json.encode("x" * MESSAGE_MAX)), True))


def test_nothing_is_sent_before_the_handshake_is_done() -> None:
    link = Link.dial(ALICE, expected=None, instance=b"a" * 8, rng=Random(1))
    assert not link.established
    assert link.encryption == NO_ENCRYPTION
    with pytest.raises(LocalError, match="handshake is not done"):
        link.send(Goodbye(), [])


def test_somebody_else_than_the_expected_node_is_refused() -> None:
    dialled = Link.dial(ALICE, expected=CAROL.node_id, instance=b"a" * 8, rng=Random(1))
    with pytest.raises(PeerError, match="another node"):
        Pair(dialled, Link.accept(BOB, instance=b"b" * 8, rng=Random(2), allow_plaintext=False))


def test_a_handshake_moved_to_another_relay_session_fails() -> None:
    with pytest.raises(PeerError):
        relayed_pair("one", "another")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (frame(b"GET / HTTP/1.1\r\n"), "neither our Noise handshake nor JSON"),
        (frame(b"\x01" + bytes(96)), "the deployed handshake, which is not Noise IK"),
        (frame(b"\x03" + bytes(96)), "neither our Noise handshake nor JSON"),
        (frame(b'{"type":"hello"}'), "does not encrypt"),
        (frame(b""), "neither our Noise handshake nor JSON"),
        (frame(MAGIC + bytes(40)), "handshake failed"),
        (frame(bytes(HANDSHAKE_MAX + 1)), "bytes where 1024 are allowed"),
        (b"\xff\xff\xff\xff", "4294967295 bytes where 1024"),
    ],
)
def test_a_stranger_that_does_not_shake_hands_is_refused(data: bytes, why: str) -> None:
    link = Link.accept(BOB, instance=b"b" * 8, rng=Random(2), allow_plaintext=False)
    with pytest.raises(PeerError, match=why):
        list(link.receive(data, []))


def test_the_responder_does_not_answer_the_initiator_twice() -> None:
    link = Link.dial(ALICE, expected=None, instance=b"a" * 8, rng=Random(1))
    with pytest.raises(PeerError, match="out of turn"):
        list(link.receive(frame(MAGIC + bytes(40)), []))


def test_without_encryption_the_answer_has_the_flavour_of_the_question() -> None:
    link = Link.accept(BOB, instance=b"b" * 8, rng=Random(2), allow_plaintext=True)
    question = CLUSTER_CODEC.encode(Goodbye("x"), Flavour.SWIFT)
    assert list(link.receive(frame(question), [])) == [Goodbye("x")]
    assert link.encryption == NO_ENCRYPTION
    out: list[bytes] = []
    link.send(Goodbye("y"), out)
    assert out == [frame(b'{"goodbye":{"_0":{"reason":"y"}}}')]


def test_an_unknown_kind_is_passed_up() -> None:
    link = Link.plaintext()
    assert list(link.receive(frame(b'{"type":"novelty","payload":{"a":1}}'), [])) == [Unknown("novelty", b'{"a":1}')]


@given(data=st.binary(max_size=300), cut=st.integers(0, 300), plaintext=st.booleans())
def test_any_bytes_split_anywhere_give_the_same_messages_or_the_same_error(
    data: bytes, cut: int, plaintext: bool
) -> None:
    def outcome(*pieces: bytes) -> tuple[list[object], str]:
        link = Link.accept(BOB, instance=b"b" * 8, rng=Random(2), allow_plaintext=plaintext)
        seen: list[object] = []
        try:
            for piece in pieces:
                seen.extend(link.receive(piece, []))
        except PeerError as error:
            return seen, error.reason
        return seen, ""

    framed = data + frame(data) if plaintext else frame(data)
    assert outcome(framed) == outcome(framed[:cut], framed[cut:])


@given(cuts=st.lists(st.integers(0, 700), max_size=5))
def test_a_real_conversation_survives_any_split(cuts: list[int]) -> None:
    pair = lan_pair()
    pieces: list[bytes] = []
    pair.links[0].send(Goodbye("one"), pieces)
    pair.links[0].send(Goodbye("two"), pieces)
    stream = b"".join(pieces)
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    heard: list[object] = []
    for start, end in itertools.pairwise(edges):
        heard.extend(pair.links[1].receive(stream[start:end], []))
    assert heard == [Goodbye("one"), Goodbye("two")]
