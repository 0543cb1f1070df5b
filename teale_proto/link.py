"""One conversation with one peer as bytes: frames, encryption and codec of one connection.

On a byte stream everything travels in frames; through a relay every record is a message of its own. The
first frame says what the connection is: a Noise handshake after `MAGIC`, or the JSON of a peer that does
not encrypt, which is refused unless this node was told to allow it. A handshake over a stream is XX, where
the other side may be anybody; through a relay it is IK, where the relay has named the other side and the
handshake proves the relay right or ends the session.

Programs of the deployed system begin with neither: their own handshake has one mark for each of its messages,
and where it finds no key they send JSON as it is. Both are recognised, so that a refusal can say why; the JSON is
taken where the owner of a closed test network has allowed it.
"""

from collections.abc import Iterator
from typing import Final, TypeAlias, TypedDict

from teale_proto.contract import Value
from teale_proto.errors import LocalError, PeerError
from teale_proto.inputs import NodeId
from teale_proto.rng import Rng
from teale_proto.secure.noise import INSTANCE_BYTES, Channel, Handshake
from teale_proto.secure.suite import NOISE, Keys, Suite
from teale_proto.wire.bulk import decode_bulk, encode_bulk, is_bulk
from teale_proto.wire.cluster import CLUSTER_CODEC, ClusterMessage, ModelTransferChunk
from teale_proto.wire.codec import Flavour, Unknown
from teale_proto.wire.framing import FrameReader, frame, header_of
from teale_proto.wire.numbered import PREFIX_BYTES, is_numbered, opened

MAGIC: Final = b"\0TL1\x01"
"""Opens every handshake message: no JSON begins like this. The last byte names the cipher suite."""

HANDSHAKE_MAX: Final = 1024
"""Bytes of one handshake frame; a stranger gets no more until it is known who it is."""

RECORD_MAX: Final = 65_535
MESSAGE_MAX: Final = 8 * 2**20
"""Bytes of one message, encrypted or not."""

RELAYED_MAX: Final = 700 * 1024
"""Bytes of one message that goes through a relay unencrypted, where nothing cuts it into records."""

COPIED_MAX: Final = 16 * 1024
"""A record of at least so many bytes leaves as a piece of its own after its header: to join them would copy it."""

NO_ENCRYPTION: Final = "none"

DEPLOYED_HANDSHAKES: Final = (b"\x01", b"\x02")
"""What the two handshake messages of the deployed system begin with."""

DEPLOYED_HANDSHAKE: Final = (
    "the peer uses the deployed handshake, which is not Noise IK (it computes es twice and se never): "
    "only a program with the real one can talk to this node"
)
PLAINTEXT_ON_LAN: Final = "the other side does not encrypt, and lan_encryption is not off here"
PLAINTEXT_THROUGH_RELAY: Final = (
    "the peer does not encrypt: through a relay that is refused, but for a deployed node "
    "that has never encrypted where allow_plaintext_legacy is on"
)


class Established(Value):
    """The handshake is done: from here on, what arrives comes from `peer`."""

    peer: NodeId
    instance: bytes
    """Eight bytes that the peer drew when it started."""


class Numbered(Value):
    """A message with the number that its sender gave it among all that it told us; `size_bytes` includes the number."""

    number: int
    message: ClusterMessage | Unknown
    size_bytes: int


Heard: TypeAlias = Established | Numbered | ClusterMessage | Unknown
"""What comes out of a link."""


class Link:
    """Bytes in, messages out, and back.

    What must be sent is appended to the `out` that a method is handed: pieces of the stream, or whole relay
    messages. A PeerError leaves the link unusable; its owner closes the connection.
    """

    __slots__ = (
        "_allow_plaintext",
        "_channel",
        "_expected",
        "_frames",
        "_handshake",
        "_heard",
        "_plaintext",
        "flavour",
        "peer",
    )

    def __init__(
        self,
        handshake: Handshake | None,
        *,
        framed: bool,
        expected: NodeId | None = None,
        allow_plaintext: bool = False,
    ) -> None:
        self._handshake = handshake
        self._channel: Channel | None = None
        self._frames = FrameReader(HANDSHAKE_MAX) if framed else None
        self._expected = expected
        self._allow_plaintext = allow_plaintext
        self._plaintext = handshake is None
        self.flavour = Flavour.DOCUMENTED
        """The envelope that we use: the one that the other side used first, and until then the documented one."""
        self._heard = False
        self.peer: NodeId | None = None
        if self._plaintext and self._frames is not None:
            self._frames.size_max = MESSAGE_MAX

    @classmethod
    def dial(
        cls,
        identity: Keys,
        *,
        expected: NodeId | None,
        instance: bytes,
        rng: Rng,
        fast_aes: bool = False,
        suite: Suite = NOISE,
    ) -> "Link":
        """Return the link of a stream that we opened, to `expected` or to whoever answers."""
        handshake = Handshake.xx(identity, initiator=True, instance=instance, rng=rng, fast_aes=fast_aes, suite=suite)
        return cls(handshake, framed=True, expected=expected)

    @classmethod
    def accept(
        cls,
        identity: Keys,
        *,
        instance: bytes,
        rng: Rng,
        allow_plaintext: bool,
        fast_aes: bool = False,
        suite: Suite = NOISE,
    ) -> "Link":
        """Return the link of a stream that somebody opened to us."""
        handshake = Handshake.xx(identity, initiator=False, instance=instance, rng=rng, fast_aes=fast_aes, suite=suite)
        return cls(handshake, framed=True, allow_plaintext=allow_plaintext)

    @classmethod
    def plaintext(cls) -> "Link":
        """Return a link without encryption, for debugging on a LAN of one's own."""
        return cls(None, framed=True)

    @classmethod
    def relayed_plaintext(cls) -> "Link":
        """Return the link of a relay session with a deployed node that has no key, on a closed test network."""
        link = cls(None, framed=False)
        # Nobody else talks like that through a relay, and this is what the deployed programs read.
        link.flavour = Flavour.DEPLOYED
        return link

    @classmethod
    def relayed(
        cls,
        identity: Keys,
        *,
        initiator: bool,
        peer: NodeId,
        session: str,
        instance: bytes,
        rng: Rng,
        allow_plaintext: bool = False,
        fast_aes: bool = False,
        suite: Suite = NOISE,
    ) -> "Link":
        """Return the link of a relay session with the node that the relay names.

        `allow_plaintext` lets the node that opened the session begin without encryption; we ourselves never go back
        on having begun with it.
        """
        handshake = Handshake.ik(
            identity,
            initiator=initiator,
            peer=peer,
            context=session.encode(),
            instance=instance,
            rng=rng,
            fast_aes=fast_aes,
            suite=suite,
        )
        return cls(handshake, framed=False, expected=peer, allow_plaintext=allow_plaintext and not initiator)

    @property
    def encryption(self) -> str:
        """The Noise protocol that protects this link, and the cipher of its records if it is another; or "none"."""
        return self._channel.encryption if self._channel is not None else NO_ENCRYPTION

    @property
    def handshake_hash(self) -> bytes:
        """What names this conversation and no other, the same on both sides; empty without encryption."""
        return self._channel.handshake_hash if self._channel is not None else b""

    @property
    def message_max(self) -> int:
        """How long a message, encoded, may be."""
        return RELAYED_MAX if self._plaintext and self._frames is None else MESSAGE_MAX

    @property
    def established(self) -> bool:
        """Whether messages can be sent."""
        return self._plaintext or self._channel is not None

    def start(self, out: list[bytes]) -> None:
        """Send the first handshake message, if it is ours to send."""
        if self._handshake is not None and self._handshake.my_turn:
            self._put(MAGIC + self._handshake.write(), out)

    def opening(self) -> bytes:
        """Return the first handshake message, which `start` then sends no more; b"" where it is not ours to send.

        It is a fresh key that nobody but us can use: whoever repeats it gets an answer that he cannot read.
        """
        out: list[bytes] = []
        self.start(out)
        return b"".join(out)

    def send(self, message: ClusterMessage, out: list[bytes]) -> None:
        """Encode, encrypt and frame one message.

        Raises LocalError before the handshake is done, and for a message over `message_max`.
        """
        if isinstance(message, ModelTransferChunk) and self._channel is not None:
            payload = encode_bulk(message)
        else:
            payload = CLUSTER_CODEC.encode(message, self.flavour)
        if len(payload) > self.message_max:
            raise LocalError(f"message of {len(payload)} bytes where {self.message_max} are allowed")
        if self._plaintext:
            self._put(payload, out)
        else:
            self.send_encoded(payload, out)

    def send_encoded(self, payload: bytes, out: list[bytes]) -> None:
        """Encrypt and frame one message that is encoded. Raises LocalError where nothing is encrypted."""
        if self._channel is None:
            raise LocalError("the handshake is not done")
        for record in self._channel.seal(payload):
            self._put(record, out)

    def receive(self, data: bytes, out: list[bytes]) -> Iterator[Heard]:
        """Take bytes of the stream, or one relay message, and yield what they mean; the caller exhausts the iterator.

        Raises PeerError, after whatever came before it, at the first thing the protocol does not allow.
        """
        if self._frames is None:
            yield from self._receive_unit(data, out)
            return
        for unit in self._frames.frames(data):
            yield from self._receive_unit(unit, out)

    def _receive_unit(self, unit: bytes, out: list[bytes]) -> Iterator[Heard]:
        if self._channel is not None:
            payload = self._channel.open(unit)
            if payload is not None:
                yield _numbered(payload) if is_numbered(payload) else self._decode(payload)
        elif self._plaintext:
            yield self._decode(unit)
        elif unit[:1] == b"{":
            self._fall_to_plaintext()
            yield self._decode(unit)
        else:
            yield from self._advance_handshake(unit, out)

    def _advance_handshake(self, unit: bytes, out: list[bytes]) -> Iterator[Established]:
        handshake = self._handshake
        assert handshake is not None
        if unit[:1] in DEPLOYED_HANDSHAKES:
            raise PeerError(DEPLOYED_HANDSHAKE)
        if not unit.startswith(MAGIC):
            raise PeerError("the other side speaks neither our Noise handshake nor JSON")
        if handshake.my_turn:
            raise PeerError("a handshake message out of turn")
        handshake.read(unit[len(MAGIC) :])
        if not handshake.finished:
            self._put(MAGIC + handshake.write(), out)
        if handshake.finished:
            peer = handshake.peer
            assert peer is not None
            if self._expected is not None and peer != self._expected:
                raise PeerError("another node than the expected one answered")
            self._channel = handshake.channel()
            self._channel.message_max = MESSAGE_MAX
            self._handshake = None
            if self._frames is not None:
                self._frames.size_max = RECORD_MAX
            self.peer = peer
            yield Established(peer, handshake.peer_instance)

    def _fall_to_plaintext(self) -> None:
        if not self._allow_plaintext:
            raise PeerError(PLAINTEXT_THROUGH_RELAY if self._frames is None else PLAINTEXT_ON_LAN)
        self._plaintext = True
        self._handshake = None
        if self._frames is not None:
            self._frames.size_max = MESSAGE_MAX

    def _decode(self, payload: bytes) -> ClusterMessage | Unknown:
        if is_bulk(payload) and self._channel is not None:
            return decode_bulk(payload)
        message, flavour = CLUSTER_CODEC.decode(payload)
        if not self._heard:
            self._heard = True
            self.flavour = flavour
        return message

    def _put(self, unit: bytes, out: list[bytes]) -> None:
        if self._frames is None:
            out.append(unit)
        elif len(unit) < COPIED_MAX:
            out.append(frame(unit))
        else:
            out += (header_of(unit), unit)


class Links:
    """How one start of a node begins to talk, by what all its links have in common."""

    __slots__ = ("_common", "_identity")

    def __init__(self, identity: Keys, *, rng: Rng, fast_aes: bool, suite: Suite) -> None:
        self._identity = identity
        self._common = _Common(instance=rng.randbytes(INSTANCE_BYTES), rng=rng, fast_aes=fast_aes, suite=suite)

    def dial(self, expected: NodeId) -> Link:
        """Return the link of a stream that we opened to a node."""
        return Link.dial(self._identity, expected=expected, **self._common)

    def accept(self, *, allow_plaintext: bool) -> Link:
        """Return the link of a stream that somebody opened to us."""
        return Link.accept(self._identity, allow_plaintext=allow_plaintext, **self._common)

    def relayed(self, session: str, peer: NodeId, *, initiator: bool, allow_plaintext: bool) -> Link:
        """Return the link of a relay session with a node. Raises PeerError for an id that nobody can have."""
        return Link.relayed(
            self._identity,
            session=session,
            peer=peer,
            initiator=initiator,
            allow_plaintext=allow_plaintext,
            **self._common,
        )


class _Common(TypedDict):
    instance: bytes
    rng: Rng
    fast_aes: bool
    suite: Suite


def encoded(message: ClusterMessage) -> bytes:
    """Return a message as it is numbered. Raises LocalError where it would be over MESSAGE_MAX."""
    payload = encode_bulk(message) if isinstance(message, ModelTransferChunk) else CLUSTER_CODEC.encode(message)
    if len(payload) + PREFIX_BYTES > MESSAGE_MAX:
        raise LocalError(f"message of {len(payload)} bytes where {MESSAGE_MAX - PREFIX_BYTES} are allowed")
    return payload


def _numbered(payload: bytes) -> Numbered:
    number, inner = opened(payload)
    message = decode_bulk(inner) if is_bulk(inner) else CLUSTER_CODEC.decode(inner)[0]
    return Numbered(number, message, len(payload))
