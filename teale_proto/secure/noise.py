"""Noise handshakes: two nodes prove who they are and agree on keys that nobody between them learns.

XX where the other side is unknown (the LAN): ids travel encrypted, and each side learns the other's. IK where
its id is known (through a relay): both sides name both ids before the first byte, and the handshake fails if
either name is not the truth. The patterns are run by the library `noiseprotocol`; keys, payloads and what they
prove are decided here.

No signature is needed. A handshake proves that the other side holds the X25519 key that it showed, and a node
id converts to exactly one such key, so the id is proved by comparing the two (`identity` tells what becomes of
the sign). That the ids themselves, and the version, are what both sides believe is authenticated with the
prologue and the payloads, which enter the handshake's hash.

Every payload is the beginning of

    version (1) | sender's id (32) | start id (8) | abilities (1) | recipient's id as the sender knows it (32)

    XX  1 →  version            2 ←  … abilities           3 →  … recipient's id
    IK  1 →  … abilities        2 ←  … abilities

Abilities are bits, of which those that are not known here mean nothing: 1 says that AES is fast on the sender's
processor. Where both sides say so, records are sealed with AES-GCM (`records` tells why that is sound).

A relay can replay message 1 of an old IK handshake, and the responder, which answers at once, has then
finished with a peer that may be absent. The keys are of no use to the relay, so the first record that opens
proves that the peer is there: **a responder must not act for its peer before the first record came in.**
"""

from hmac import compare_digest
from typing import Final

from teale_proto.errors import LocalError, PeerError
from teale_proto.inputs import NodeId
from teale_proto.rng import Rng
from teale_proto.secure.identity import Secret
from teale_proto.secure.raw_noise import Pattern, RawHandshake
from teale_proto.secure.records import MESSAGE_MAX, REKEY_AFTER, Channel, Cipher
from teale_proto.secure.suite import NOISE, Keys, Suite

__all__ = ["Channel", "Handshake", "Pattern", "PROTOCOL_VERSION", "RawHandshake"]

PROTOCOL_VERSION: Final = 1

INSTANCE_BYTES: Final = 8
HANDSHAKE_MESSAGE_MAX: Final = 256
"""Bytes of one handshake message; the largest that is used has 138."""

_LABEL: Final = b"teale-noise"
_KEY_BYTES: Final = 32
_GREETING: Final = 1
_ABILITIES: Final = _GREETING + _KEY_BYTES + INSTANCE_BYTES
_INTRODUCTION: Final = _ABILITIES + 1
_FAST_AES: Final = 1
_CONFIRMATION: Final = _INTRODUCTION + _KEY_BYTES


# How much of the full payload each message of a pattern carries, in bytes.
_PAYLOAD_SIZES: Final = {
    Pattern.XX: (_GREETING, _INTRODUCTION, _CONFIRMATION),
    Pattern.IK: (_INTRODUCTION, _INTRODUCTION),
}


class Handshake(Secret):
    """One handshake, seen from one side.

    Messages alternate, the initiator's first. Any PeerError ends it for good.
    """

    __slots__ = (
        "_abilities",
        "_expected",
        "_failed",
        "_identity",
        "_initiator",
        "_instance",
        "_pattern",
        "_peer_abilities",
        "_raw",
        "_step",
        "_suite",
        "_taken",
        "peer",
        "peer_instance",
    )

    peer: NodeId | None
    """The other side's id, as soon as it is proved."""
    peer_instance: bytes
    """The eight bytes that the other side drew when it started, once it is proved; empty before."""

    def __init__(
        self,
        identity: Keys,
        pattern: Pattern,
        *,
        initiator: bool,
        expected: NodeId | None,
        prologue: bytes,
        instance: bytes,
        rng: Rng,
        fast_aes: bool,
        suite: Suite,
    ) -> None:
        """Use `xx` or `ik` instead."""
        if len(instance) != INSTANCE_BYTES:
            raise LocalError(f"a start id has {INSTANCE_BYTES} bytes, not {len(instance)}")
        suite.check(identity)
        remote_static = None if expected is None else _static_key_of_another(suite, identity, expected)
        self._suite = suite
        self._identity = identity
        self._pattern = pattern
        self._initiator = initiator
        self._expected = expected
        self._instance = instance
        self._abilities = _FAST_AES if fast_aes else 0
        self._peer_abilities = 0
        self._step = 0
        self._failed = False
        self._taken = False
        self.peer = None
        self.peer_instance = b""
        self._raw = suite.handshake(
            pattern,
            initiator=initiator,
            static_private=identity.static_private,
            ephemeral_private=rng.randbytes(_KEY_BYTES),
            prologue=prologue,
            remote_static=remote_static if initiator else None,
        )

    @classmethod
    def xx(
        cls,
        identity: Keys,
        *,
        initiator: bool,
        instance: bytes,
        rng: Rng,
        fast_aes: bool = False,
        suite: Suite = NOISE,
    ) -> "Handshake":
        """Begin a handshake with whoever is on the other side.

        `instance` is our start id, 8 bytes; `fast_aes` says that this machine would rather have AES. Raises LocalError
        for an identity that is not of the suite.
        """
        return cls(
            identity,
            Pattern.XX,
            initiator=initiator,
            expected=None,
            prologue=_LABEL + bytes([PROTOCOL_VERSION]),
            instance=instance,
            rng=rng,
            fast_aes=fast_aes,
            suite=suite,
        )

    @classmethod
    def ik(
        cls,
        identity: Keys,
        *,
        initiator: bool,
        peer: NodeId,
        context: bytes,
        instance: bytes,
        rng: Rng,
        fast_aes: bool = False,
        suite: Suite = NOISE,
    ) -> "Handshake":
        """Begin a handshake with `peer`, which both sides know from elsewhere.

        `context` is whatever else both sides must agree on, such as the id of the relay session. `fast_aes` says that
        this machine would rather have AES. Raises PeerError
        where `peer` is not a usable id, or is our own, and LocalError for an identity that is not of the suite.
        """
        ids = (identity.node_id, peer) if initiator else (peer, identity.node_id)
        return cls(
            identity,
            Pattern.IK,
            initiator=initiator,
            expected=peer,
            # All but the last have fixed lengths, so no two contexts give one prologue.
            prologue=b"".join((_LABEL, bytes([PROTOCOL_VERSION]), ids[0].encode(), ids[1].encode(), context)),
            instance=instance,
            rng=rng,
            fast_aes=fast_aes,
            suite=suite,
        )

    @property
    def finished(self) -> bool:
        """Whether both sides have said everything and `channel` may be taken."""
        return self._raw.finished and not self._failed

    @property
    def my_turn(self) -> bool:
        """Whether the next message is ours to write."""
        return not self._failed and not self._raw.finished and (self._step % 2 == 0) == self._initiator

    def write(self) -> bytes:
        """Return our next message; raises LocalError when it is not our turn."""
        if not self.my_turn:
            raise LocalError("there is no handshake message to write now")
        size = _PAYLOAD_SIZES[self._pattern][self._step]
        self._step += 1
        return self._raw.write(self._own_payload()[:size])

    def read(self, message: bytes) -> None:
        """Take the other side's next message; raises PeerError when it is wrong in whatever way."""
        if self._failed or self._raw.finished or self.my_turn:
            self._failed = True
            raise PeerError("a handshake message out of turn")
        try:
            self._read(message)
        except PeerError:
            self._failed = True
            self.peer = None
            raise

    def channel(self, *, message_max: int = MESSAGE_MAX, rekey_after: int = REKEY_AFTER) -> Channel:
        """Return the channel, once: two channels with the same keys would repeat nonces.

        `message_max` is in bytes; `rekey_after`, in records, must be the same on both sides. Raises LocalError
        before the handshake is finished and the second time.
        """
        if not self.finished or self._taken:
            raise LocalError("a channel can be taken once, when the handshake is finished")
        self._taken = True
        both_fast = self._abilities & self._peer_abilities & _FAST_AES
        sending_key, receiving_key = self._raw.split()
        return Channel(
            sending_key=sending_key,
            receiving_key=receiving_key,
            handshake_hash=self._raw.handshake_hash,
            protocol_name=self._raw.protocol_name,
            cipher=Cipher.AES_256_GCM if both_fast else Cipher.CHACHA20_POLY1305,
            message_max=message_max,
            rekey_after=rekey_after,
            make_cipher=self._suite.cipher,
        )

    def _own_payload(self) -> bytes:
        recipient = b"" if self.peer is None else bytes.fromhex(self.peer)
        own = bytes.fromhex(self._identity.node_id)
        return b"".join((bytes([PROTOCOL_VERSION]), own, self._instance, bytes([self._abilities]), recipient))

    def _read(self, message: bytes) -> None:
        if len(message) > HANDSHAKE_MESSAGE_MAX:
            raise PeerError(f"handshake message of {len(message)} bytes where {HANDSHAKE_MESSAGE_MAX} are allowed")
        payload = self._raw.read(message)
        size = _PAYLOAD_SIZES[self._pattern][self._step]
        self._step += 1
        if payload[:1] != bytes([PROTOCOL_VERSION]):
            raise PeerError(f"the other side does not speak version {PROTOCOL_VERSION}")
        if len(payload) != size:
            raise PeerError("handshake payload of another length than expected")
        if size >= _INTRODUCTION:
            self._authenticate(payload)

    def _authenticate(self, payload: bytes) -> None:
        claimed = NodeId(payload[_GREETING : _GREETING + _KEY_BYTES].hex())
        static_key = _static_key_of_another(self._suite, self._identity, claimed)
        if not compare_digest(static_key, self._raw.remote_static):
            raise PeerError("the other side claims a node id that is not its own")
        if self._expected is not None and claimed != self._expected:
            raise PeerError("another node than the expected one answered")
        recipient = payload[_INTRODUCTION:]
        if recipient and recipient != bytes.fromhex(self._identity.node_id):
            raise PeerError("the other side believes that it talks to another node")
        self.peer = claimed
        self.peer_instance = payload[_GREETING + _KEY_BYTES : _ABILITIES]
        self._peer_abilities = payload[_ABILITIES]


def _static_key_of_another(suite: Suite, identity: Keys, peer: NodeId) -> bytes:
    """Return `peer`'s static key; a node that meets itself, under either sign, is refused."""
    static_key = suite.static_key_of(peer)
    if static_key == identity.static_public:
        raise PeerError("the other side is this node itself")
    return static_key
