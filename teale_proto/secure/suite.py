"""What everything that needs cryptography is made by, as one value.

Whoever makes a node or a relay may hand in another suite than `NOISE`. There is one reason to: a simulation of a
hundred thousand nodes, which spends its time on what nodes decide and not on what keeps their messages secret. Every
decision (who is believed, what is refused, how long a record is) is made above this line and is the same under any
suite, and no suite but `NOISE` lives in this package. Identities of one suite are of no use to another.
"""

from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from teale_proto.errors import LocalError
from teale_proto.inputs import NodeId
from teale_proto.secure.identity import Identity, static_key_of, verify
from teale_proto.secure.raw_noise import Pattern, RawHandshake
from teale_proto.secure.records import Cipher, CipherState, RecordCipher


class Keys(Protocol):
    """What a node shows and proves of itself: an `Identity`, or in a simulation something that costs less."""

    @property
    def node_id(self) -> NodeId:
        """Who the node is."""

    @property
    def static_private(self) -> bytes:
        """The private key of handshakes, 32 bytes."""

    @property
    def static_public(self) -> bytes:
        """The public key of handshakes, 32 bytes; it follows from the node id."""

    def sign(self, message: bytes) -> bytes:
        """Return the signature of `message`, SIGNATURE_BYTES long."""


class AnyHandshake(Protocol):
    """What `RawHandshake` is to the rest."""

    protocol_name: str

    @property
    def finished(self) -> bool:
        """Whether the last message was written or read."""

    @property
    def remote_static(self) -> bytes:
        """The static key, 32 bytes, that the other side showed or that it was given in advance."""

    @property
    def handshake_hash(self) -> bytes:
        """What names this conversation and no other, once finished."""

    def write(self, payload: bytes) -> bytes:
        """Return the next message."""

    def read(self, message: bytes) -> bytes:
        """Return the payload of the other side's next message; raises PeerError where it is not one."""

    def split(self) -> tuple[bytes, bytes]:
        """Return the keys for sending and for receiving, 32 bytes each, once finished."""


class MakeHandshake(Protocol):
    """How a handshake begins."""

    def __call__(
        self,
        pattern: Pattern,
        *,
        initiator: bool,
        static_private: bytes,
        ephemeral_private: bytes,
        prologue: bytes,
        remote_static: bytes | None = None,
    ) -> AnyHandshake:
        """Return one side of a handshake."""


class MakeCipher(Protocol):
    """How one direction of a channel begins."""

    def __call__(self, key: bytes, *, cipher: Cipher, rekey_after: int) -> RecordCipher:
        """Return the cipher with a key of 32 bytes."""


class Suite(NamedTuple):
    """Identities, handshakes, records and signatures that belong together."""

    identity: type[Keys]
    handshake: MakeHandshake
    cipher: MakeCipher
    static_key_of: Callable[[NodeId], bytes]
    """The static key that belongs to a node id; raises PeerError for an id that has none."""
    verify: Callable[[NodeId, bytes, bytes], bool]
    """Whether the last, a signature, is the node's over the message."""

    def check(self, identity: Keys) -> None:
        """Raise LocalError for an identity that belongs to another suite."""
        if type(identity) is not self.identity:
            raise LocalError(f"an identity of type {type(identity).__name__} where {self.identity.__name__} is needed")


NOISE: Final = Suite(Identity, RawHandshake, CipherState, static_key_of, verify)
"""The real one, and the default everywhere."""
