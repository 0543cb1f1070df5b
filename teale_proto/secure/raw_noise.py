"""Noise's patterns as they are, with nothing of ours in them, over the library `noiseprotocol`."""

from enum import Enum
from typing import Any

from cryptography.exceptions import InvalidTag
from noise.connection import Keypair, NoiseConnection
from noise.exceptions import NoiseInvalidMessage, NoiseValueError

from teale_proto.errors import PeerError
from teale_proto.secure.identity import Secret


class Pattern(Enum):
    """Which handshake is run."""

    XX = "XX"
    IK = "IK"

    @property
    def protocol_name(self) -> str:
        """The full name, as in the Noise specification, section 8."""
        return f"Noise_{self.value}_25519_ChaChaPoly_BLAKE2s"


class RawHandshake(Secret):
    """A Noise handshake with nothing of ours in it: any prologue, any payloads, keys as they are given.

    This is all that touches the library, whose several exceptions become PeerError here. Ephemeral keys are
    given, since the core draws no entropy of its own.
    """

    __slots__ = ("_connection", "_state", "protocol_name")

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
        self.protocol_name = pattern.protocol_name
        connection = NoiseConnection.from_name(pattern.protocol_name.encode())
        if initiator:
            connection.set_as_initiator()
        else:
            connection.set_as_responder()
        connection.set_prologue(prologue)
        connection.set_keypair_from_private_bytes(Keypair.STATIC, static_private)
        if remote_static is not None:
            connection.set_keypair_from_public_bytes(Keypair.REMOTE_STATIC, remote_static)
        connection.start_handshake()
        self._connection: Any = connection
        self._state: Any = connection.noise_protocol.handshake_state
        # Put in after the start, because the library warns of ephemeral keys that are set before it.
        self._state.e = connection.noise_protocol.keypair_class.from_private_bytes(ephemeral_private)

    @property
    def finished(self) -> bool:
        """Whether the last message was written or read."""
        finished: bool = self._connection.handshake_finished
        return finished

    @property
    def remote_static(self) -> bytes:
        """The static key, 32 bytes, that the other side showed or that it was given in advance."""
        key: bytes = self._state.rs.public_bytes
        return key

    @property
    def handshake_hash(self) -> bytes:
        """The hash over everything that was said, once finished."""
        digest: bytes = self._connection.get_handshake_hash()
        return digest

    def write(self, payload: bytes) -> bytes:
        """Return the next message."""
        return bytes(self._connection.write_message(payload))

    def read(self, message: bytes) -> bytes:
        """Return the payload of the other side's next message; raises PeerError where it is not one."""
        try:
            payload = bytes(self._connection.read_message(message))
            if not self.finished:
                # The library may meet the ephemeral key of the other side only when it writes. One of low order,
                # whose shared secret is zero, must be found here, where it can be blamed on the peer.
                self._state.e.private.exchange(self._state.re.public)
        except (InvalidTag, NoiseInvalidMessage, NoiseValueError, ValueError):
            raise PeerError("the handshake failed: other keys, another node or another version") from None
        return payload

    def split(self) -> tuple[bytes, bytes]:
        """Return the keys for sending and for receiving, 32 bytes each, once finished."""
        protocol = self._connection.noise_protocol
        return protocol.cipher_state_encrypt.k, protocol.cipher_state_decrypt.k
