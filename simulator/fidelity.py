"""How exactly a world is simulated, and cryptography that protects nothing.

At wire fidelity nodes shake hands and seal their records as they do on real networks. At message fidelity they run
the same code down to the last line above `teale_proto.secure.suite`, on the suite of this module: as many messages of
as many bytes, drawn from the same entropy, refused under the same circumstances, and without any secret. Everything
that is sealed is merely turned over (every bit of every byte), so that a checker can still tell what went through a
channel from what went around it.

Bytes stay bytes at both fidelities. Whoever passed the messages themselves would have to know their sizes, and so to
encode them, all the same; what is saved is to decode them, about a twentieth of what it costs to simulate one
(`bench/simulator.py` measures it). With bytes, sizes are exact by construction, and nodes and relays run no path that
real ones do not.

The ids of the two fidelities have the same order, for a node's id here is its real one but for the end, which says
what it is: who dials whom, and whoever else is drawn, is then the same at both.
"""

from enum import Enum
from hashlib import blake2b
from typing import Final, TypeAlias
from zlib import crc32

from nacl.signing import SigningKey

from teale_proto.errors import PeerError
from teale_proto.inputs import NodeId
from teale_proto.secure.identity import SIGNATURE_BYTES, Identity, is_node_id
from teale_proto.secure.raw_noise import Pattern
from teale_proto.secure.records import TAG_BYTES, Cipher
from teale_proto.secure.suite import NOISE, Keys, Suite

ID_ENDS_WITH: Final = "deadbeef"
"""What the id of every node without protection ends with; no key ends so but by a chance of one in 2**32."""

NAME: Final = "no protection at all (simulated)"
"""What nodes say of the encryption of such a channel."""

_EPHEMERAL_BYTES: Final = 32
_STATIC_BYTES: Final = 32 + TAG_BYTES
_MARK: Final = b"not a handshake!"
"""Where Noise has 16 bytes that nobody can foresee: whoever reads this is in a simulation."""
_NO_STATIC: Final = bytes(32)
_TURNED: Final = bytes(byte ^ 0xFF for byte in range(256))
_REST_OF_TAG: Final = bytes(TAG_BYTES - 4)

# Of each message of a pattern: whether it carries an ephemeral key, whether a static one, and whether it is sealed.
_TOKENS: Final = {
    Pattern.XX: ((True, False, False), (True, True, True), (False, True, True)),
    Pattern.IK: ((True, True, True), (True, False, True)),
}


class UnprotectedIdentity:
    """Stands for a key pair; anybody can sign in its name."""

    __slots__ = ("node_id",)

    def __init__(self, node_id: NodeId) -> None:
        self.node_id = node_id

    @classmethod
    def from_seed(cls, seed: bytes) -> "UnprotectedIdentity":
        """Return the one that stands for `Identity.from_seed(seed)`."""
        public = SigningKey(seed).verify_key.encode().hex()
        return cls(NodeId(public[: -len(ID_ENDS_WITH)] + ID_ENDS_WITH))

    @property
    def static_private(self) -> bytes:
        """The public one: there is nothing private."""
        return self.static_public

    @property
    def static_public(self) -> bytes:
        """What follows from the id."""
        return unprotected_static_key_of(self.node_id)

    def sign(self, message: bytes) -> bytes:
        """Return what `unprotected_verify` takes for a signature."""
        return blake2b(message, digest_size=SIGNATURE_BYTES, key=self.node_id.encode()).digest()

    def __repr__(self) -> str:
        return f"<UnprotectedIdentity {self.node_id}>"


def unprotected_static_key_of(node: NodeId) -> bytes:
    """Return 32 bytes that belong to a node id of this suite; raises PeerError for any other id."""
    if not is_node_id(node) or not node.endswith(ID_ENDS_WITH):
        raise PeerError("the node id is none of a node without protection")
    return bytes.fromhex(node)[::-1]


def unprotected_verify(node: NodeId, message: bytes, signature: bytes) -> bool:
    """Return whether `signature` is what `node` would have made of `message`, whoever made it."""
    if not is_node_id(node) or not node.endswith(ID_ENDS_WITH):
        return False
    return UnprotectedIdentity(node).sign(message) == signature


class UnprotectedHandshake:
    """The messages of a Noise pattern by number, size and meaning; see `teale_proto.secure.raw_noise`."""

    __slots__ = ("_ephemeral", "_initiator", "_pattern", "_said", "_static", "_step", "protocol_name", "remote_static")

    def __init__(
        self,
        pattern: Pattern,
        *,
        initiator: bool,
        static_private: bytes,
        ephemeral_private: bytes,
        prologue: bytes,
        remote_static: bytes | None = None,
    ) -> None:
        self.protocol_name = NAME
        self.remote_static = remote_static or _NO_STATIC
        self._pattern = pattern
        self._initiator = initiator
        self._static = static_private
        self._ephemeral = ephemeral_private
        self._step = 0
        # In IK the initiator speaks to one recipient, who alone can answer.
        recipient = b"" if pattern is Pattern.XX else self.remote_static if initiator else static_private
        self._said = blake2b(pattern.value.encode() + recipient + prologue, digest_size=32).digest()

    @property
    def finished(self) -> bool:
        """Whether the last message was written or read."""
        return self._step == len(_TOKENS[self._pattern])

    @property
    def handshake_hash(self) -> bytes:
        """A hash over everything that was said."""
        return self._said

    def write(self, payload: bytes) -> bytes:
        """Return the next message."""
        ephemeral, static, sealed = _TOKENS[self._pattern][self._step]
        body = b"".join(
            (
                _MARK + self._ephemeral[: _EPHEMERAL_BYTES - len(_MARK)] if ephemeral else b"",
                self._static + _MARK if static else b"",
                payload.translate(_TURNED) if sealed else payload,
            )
        )
        self._note(body)
        return body + self._said[:TAG_BYTES] if sealed else body

    def read(self, message: bytes) -> bytes:
        """Return the payload of the other side's next message; raises PeerError where it is not one."""
        ephemeral, static, sealed = _TOKENS[self._pattern][self._step]
        body = message[:-TAG_BYTES] if sealed else message
        at = _EPHEMERAL_BYTES if ephemeral else 0
        self._note(body)
        wrong = (ephemeral and not body.startswith(_MARK)) or (
            sealed and message[-TAG_BYTES:] != self._said[:TAG_BYTES]
        )
        if static:
            self.remote_static = body[at : at + _STATIC_BYTES - TAG_BYTES]
            at += _STATIC_BYTES
            wrong = wrong or body[at - TAG_BYTES : at] != _MARK
        if wrong or len(body) < at:
            raise PeerError("the handshake failed: other keys, another node or another version")
        return body[at:].translate(_TURNED) if sealed else body[at:]

    def split(self) -> tuple[bytes, bytes]:
        """Return what tells the two directions of this conversation from those of others."""
        first, second = self._said, self._said[::-1]
        return (first, second) if self._initiator else (second, first)

    def _note(self, body: bytes) -> None:
        self._said = blake2b(self._said + body, digest_size=32).digest()
        self._step += 1


class UnprotectedCipher:
    """One direction of a channel: anybody can read it, and what was altered, dropped or moved is still refused."""

    __slots__ = ("_next",)

    def __init__(self, key: bytes, *, cipher: Cipher, rekey_after: int) -> None:
        del cipher, rekey_after
        self._next = crc32(key)

    def encrypt(self, plaintext: bytes) -> bytes:
        """Return the next transport message."""
        turned = plaintext.translate(_TURNED)
        return turned + self._tag(turned)

    def decrypt(self, ciphertext: bytes | bytearray) -> bytes:
        """Return what the next transport message says; raises PeerError, and stays as it was, if it is another."""
        turned = ciphertext[:-TAG_BYTES]
        expected = self._next
        if self._tag(turned) != ciphertext[-TAG_BYTES:]:
            self._next = expected
            raise PeerError("a record was altered, replayed, lost or is out of order")
        return bytes(turned.translate(_TURNED))

    def _tag(self, turned: bytes | bytearray) -> bytes:
        # A checksum that begins with another number is another one, for whatever it is made of.
        tag = crc32(turned, self._next).to_bytes(4, "big") + _REST_OF_TAG
        self._next = (self._next + 1) & 0xFFFFFFFF
        return tag


UNPROTECTED: Final = Suite(
    UnprotectedIdentity, UnprotectedHandshake, UnprotectedCipher, unprotected_static_key_of, unprotected_verify
)
"""For simulations alone: nobody is proved to be anybody, and nothing is kept from anybody."""

AnyIdentity: TypeAlias = Identity | UnprotectedIdentity


class Fidelity(Enum):
    """How exactly a world is simulated."""

    WIRE = "wire"
    """Packets, handshakes leg by leg, and the cryptography of real nodes."""
    MESSAGE = "message"
    """Whole messages, and no cryptography: for ten thousand nodes and more."""

    @property
    def suite(self) -> Suite:
        """What nodes and relays are made with."""
        return NOISE if self is Fidelity.WIRE else UNPROTECTED

    def identity(self, seed: bytes) -> Keys:
        """Return the identity that follows from 32 bytes; its place among others is the same at every fidelity."""
        return Identity.from_seed(seed) if self is Fidelity.WIRE else UnprotectedIdentity.from_seed(seed)
