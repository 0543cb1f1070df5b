"""A passcode proved without being shown: SPAKE2 over Ed25519, run inside an established Noise channel.

    dialler                                acceptor
    share  (33 bytes)           →
                                ←          share  (33 bytes)
    proof  (32 bytes)           →          compared; only whoever has the passcode gets an answer
                                ←          proof  (32 bytes)

Shares say nothing about the passcode, so whoever records an exchange has nothing to try guesses on, and whoever
takes part in one can try a single guess. Both node ids, the roles and the hash of the Noise handshake go into the
key as SPAKE2's identities and into the proofs, so an exchange is good for the one conversation that it was
begun in: it can be neither replayed nor passed on to a third node.

SPAKE2 (Abdalla and Pointcheval 2005; RFC 9382 describes a later edition) comes from the library `spake2`, whose
arithmetic is Python's: a share costs 3 ms and a proof 4.5 ms on the machine of `design/performance.md`, and
neither takes constant time. Hence the acceptor computes no more than its share before a proof has come, and
`teale_proto.door` bounds how many exchanges one address or node can have us begin.
"""

from hashlib import sha256
from hmac import compare_digest
from hmac import digest as hmac_digest
from typing import Final
from unicodedata import normalize

from spake2 import SPAKE2_A, SPAKE2_B, SPAKEError
from spake2.ed25519_basic import NotOnCurve

from teale_proto.errors import LocalError, PeerError
from teale_proto.inputs import NodeId
from teale_proto.rng import Rng
from teale_proto.secure.identity import Secret

SHARE_BYTES: Final = 33
PROOF_BYTES: Final = 32
PASSCODE_LENGTH_MIN: Final = 6
PASSCODE_LENGTH_MAX: Final = 128

_LABEL: Final = b"teale-passcode-1"


class Passcode(Secret):
    """What people type on every machine of one LAN."""

    __slots__ = ("_octets",)

    def __init__(self, text: str) -> None:
        """Raise LocalError for one of fewer than PASSCODE_LENGTH_MIN characters, or more than PASSCODE_LENGTH_MAX.

        Spaces around it do not count, and letters that look the same are the same (Unicode's NFKC).
        """
        text = normalize("NFKC", text).strip()
        if not PASSCODE_LENGTH_MIN <= len(text) <= PASSCODE_LENGTH_MAX:
            raise LocalError(f"a passcode has {PASSCODE_LENGTH_MIN} to {PASSCODE_LENGTH_MAX} characters")
        self._octets = text.encode()

    @property
    def octets(self) -> bytes:
        """What the exchange is run with."""
        return self._octets


class PasscodeExchange(Secret):
    """One exchange, seen from one side; each method is called once, in the order of the picture above."""

    __slots__ = ("_dialler", "_handshake_hash", "_key", "_share", "_spake", "_theirs")

    def __init__(
        self,
        passcode: Passcode,
        *,
        dialler: bool,
        own: NodeId,
        peer: NodeId,
        handshake_hash: bytes,
        rng: Rng,
    ) -> None:
        first, second = (own, peer) if dialler else (peer, own)
        side = SPAKE2_A if dialler else SPAKE2_B
        self._spake = side(
            passcode.octets,
            idA=_LABEL + handshake_hash + first.encode(),
            idB=_LABEL + handshake_hash + second.encode(),
            entropy_f=rng.randbytes,
        )
        self._dialler = dialler
        self._handshake_hash = handshake_hash
        self._share: bytes = self._spake.start()
        self._theirs = b""
        self._key = b""

    @property
    def share(self) -> bytes:
        """What the other side needs of us, SHARE_BYTES long."""
        return self._share

    def take_share(self, share: bytes) -> None:
        """Note what we need of the other side. Raises PeerError where it cannot be a share."""
        if len(share) != SHARE_BYTES:
            raise PeerError("its share of the passcode exchange has the wrong length")
        self._theirs = share

    def proof(self) -> bytes:
        """Return the proof, PROOF_BYTES long, that we have the passcode. Raises PeerError where the share was none."""
        return self._proof(dialler=self._dialler)

    def is_proof(self, proof: bytes) -> bool:
        """Return whether `proof` shows that the other side has our passcode. Raises PeerError as `proof` does."""
        return compare_digest(self._proof(dialler=not self._dialler), proof)

    def _proof(self, *, dialler: bool) -> bytes:
        role = b"dialler" if dialler else b"acceptor"
        return hmac_digest(self._shared_key(), b"\0".join((_LABEL, role, self._handshake_hash)), sha256)

    def _shared_key(self) -> bytes:
        if not self._key:
            try:
                self._key = self._spake.finish(self._theirs)
            except (SPAKEError, NotOnCurve, ValueError):
                raise PeerError("its share of the passcode exchange is not one") from None
        return self._key
