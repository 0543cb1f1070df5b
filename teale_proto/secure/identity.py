"""Who a node is: one Ed25519 key pair, from which everything else follows.

The public key in hexadecimal is the node id. The same key signs (Ed25519) and, converted to X25519 the way
libsodium does it, is the static key of Noise handshakes, so knowing a node's id is enough to encrypt to it.
Using one key for both is safe: see Thormarker, "On using the same key pair for Ed25519 and an X25519 based
KEM" (2021).

The conversion forgets the sign of the point: the node ids of A and -A have one X25519 key. Whoever holds the
private key of one holds that of the other (the negated scalar), so nobody can pass for somebody else; a node
has merely a second id, as anybody can have by making a second key.
"""

import re
from typing import Final, NoReturn, SupportsIndex

import base58
from nacl.exceptions import CryptoError
from nacl.signing import SigningKey, VerifyKey

from teale_proto.errors import LocalError, PeerError
from teale_proto.inputs import NodeId

SEED_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64

_NODE_ID: Final = re.compile(r"[0-9a-f]{64}")
_MULTICODEC_ED25519_PUB: Final = b"\xed\x01"
_MULTIBASE_BASE58BTC: Final = "z"
_MULTIBASE_LENGTH_MAX: Final = 64


class Secret:
    """Base of objects that hold keys: their text is their type, and they neither pickle nor copy."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError(f"{type(self).__name__} holds secrets and cannot be pickled or copied")


class Identity(Secret):
    """A node's key pair."""

    __slots__ = ("_signing_key", "node_id", "static_private", "static_public")

    node_id: NodeId
    static_private: bytes
    """The X25519 private key, 32 bytes."""
    static_public: bytes
    """The X25519 public key, 32 bytes; `static_key_of(node_id)` is the same."""

    def __init__(self, signing_key: SigningKey) -> None:
        self._signing_key = signing_key
        self.node_id = NodeId(signing_key.verify_key.encode().hex())
        self.static_private = signing_key.to_curve25519_private_key().encode()
        self.static_public = signing_key.verify_key.to_curve25519_public_key().encode()

    @classmethod
    def from_seed(cls, seed: bytes) -> "Identity":
        """Return the identity whose Ed25519 seed (RFC 8032, section 5.1.5) is `seed`, 32 bytes.

        Raises LocalError for any other length.
        """
        if len(seed) != SEED_BYTES:
            raise LocalError(f"an identity is made from {SEED_BYTES} bytes, not from {len(seed)}")
        return cls(SigningKey(seed))

    @property
    def seed(self) -> bytes:
        """The seed that the identity is made from, its whole secret."""
        return self._signing_key.encode()

    def sign(self, message: bytes) -> bytes:
        """Return the Ed25519 signature of `message`, 64 bytes."""
        return self._signing_key.sign(message).signature

    def __repr__(self) -> str:
        return f"<Identity {self.node_id}>"


def is_node_id(text: str) -> bool:
    """Return whether a text has the form of a node id; the key need not be usable."""
    return _NODE_ID.fullmatch(text) is not None


def verify(node: NodeId, message: bytes, signature: bytes) -> bool:
    """Return whether `signature` is `node`'s over `message`; malformed ids and signatures are simply not."""
    if not is_node_id(node) or len(signature) != SIGNATURE_BYTES:
        return False
    try:
        VerifyKey(bytes.fromhex(node)).verify(message, signature)
    except CryptoError:
        return False
    return True


def static_key_of(node: NodeId) -> bytes:
    """Return the X25519 public key, 32 bytes, that belongs to a node id.

    Raises PeerError where the id is not the encoding of a curve point of the full prime order: such a key
    would give a shared secret that everybody can compute.
    """
    if not is_node_id(node):
        raise PeerError("a node id is 64 lower-case hexadecimal characters")
    try:
        return VerifyKey(bytes.fromhex(node)).to_curve25519_public_key().encode()
    except CryptoError:
        raise PeerError("the node id is not a usable public key") from None


def to_multibase(node: NodeId) -> str:
    """Return the node id as base58btc multibase of the multicodec `ed25519-pub`, as in `did:key`: `z6Mk…`."""
    return _MULTIBASE_BASE58BTC + base58.b58encode(_MULTICODEC_ED25519_PUB + bytes.fromhex(node)).decode()


def parse_node_id(text: str) -> NodeId:
    """Return the node id that a person wrote: hexadecimal in any case, or multibase (`z6Mk…`).

    Raises LocalError, saying what was expected, for anything else. Whether the key is usable is not checked.
    """
    text = text.strip()
    if is_node_id(text.lower()):
        return NodeId(text.lower())
    if text.startswith(_MULTIBASE_BASE58BTC) and len(text) <= _MULTIBASE_LENGTH_MAX:
        return _parse_multibase(text)
    raise LocalError("a node id is 64 hexadecimal characters, or 48 characters beginning with z6Mk")


def _parse_multibase(text: str) -> NodeId:
    try:
        key = base58.b58decode(text.removeprefix(_MULTIBASE_BASE58BTC))
    except ValueError:
        raise LocalError("a node id that begins with z is in base 58, which has no 0, O, I, l or punctuation") from None
    if not key.startswith(_MULTICODEC_ED25519_PUB) or len(key) != len(_MULTICODEC_ED25519_PUB) + 32:
        raise LocalError("a node id in base 58 is an Ed25519 public key and begins with z6Mk; is a part missing?")
    return NodeId(key.removeprefix(_MULTICODEC_ED25519_PUB).hex())
