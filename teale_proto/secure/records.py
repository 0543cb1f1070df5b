"""After the handshake: messages of any size in encrypted records that cannot be altered, dropped or reordered.

A record is one Noise transport message of at most 65 535 bytes. Its plaintext begins with a byte that says
whether the message goes on; every record but the last of a message is full, so that a peer cannot make us
hold a message of a million crumbs. Nonces are counted, never sent: a record that was replayed, dropped or
moved is one that does not decrypt, and then the channel is dead.

The keys come out of the handshake's split; the AEAD is called directly, since going through the handshake's
library costs half of the throughput.

Records are sealed with the handshake's own ChaCha20-Poly1305, or with AES-256-GCM where both sides have said in
the handshake that their processor is fast at it. That departs from the letter of Noise, where one cipher serves
both, and is sound: the keys that come out of a split are 32 bytes from HKDF, indistinguishable from random and
used for nothing before, which is all that either AEAD asks of a key. What each side said is authenticated by the
handshake before a key comes out of it, so both choose the same, nobody between them can make them choose
otherwise, and no key ever serves two ciphers. A nonce is a count under either, and a key
is replaced after 2**28 blocks at most, when an attacker's advantage against AES-GCM is still below 2**-70.
"""

from collections.abc import Callable
from enum import Enum
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from teale_proto.errors import LocalError, PeerError
from teale_proto.secure.identity import Secret

RECORD_MAX: Final = 65_535
"""Bytes of one record: the largest Noise message (Noise specification, section 3)."""

TAG_BYTES: Final = 16
CONTENT_MAX: Final = RECORD_MAX - TAG_BYTES - 1
"""Bytes of a message that fit in one record."""

MESSAGE_MAX: Final = 16 * 2**20
"""Bytes of one message, unless the channel's owner says otherwise."""

REKEY_AFTER: Final = 2**16
"""Records of one direction after which both sides move on to a new key."""

LAST: Final = b"\x00"
MORE: Final = b"\x01"

_REKEY_NONCE: Final = 2**64 - 1


class Cipher(Enum):
    """What seals records; the values are the names of the Noise specification, section 12."""

    CHACHA20_POLY1305 = "ChaChaPoly"
    AES_256_GCM = "AESGCM"

    def aead(self, key: bytes) -> AESGCM | ChaCha20Poly1305:
        """Return the cipher with a key of 32 bytes."""
        return AESGCM(key) if self is Cipher.AES_256_GCM else ChaCha20Poly1305(key)

    def nonce(self, count: int) -> bytes:
        """Return a count as a nonce: sections 12.3 and 12.4 have it in opposite orders after 32 zero bits."""
        return bytes(4) + count.to_bytes(8, "big" if self is Cipher.AES_256_GCM else "little")


class RecordCipher(Protocol):
    """One direction of a channel: whatever it seals is TAG_BYTES longer, and opens in that order only."""

    def encrypt(self, plaintext: bytes) -> bytes:
        """Return the next transport message."""

    def decrypt(self, ciphertext: bytes | bytearray) -> bytes:
        """Return what the next transport message says; raises PeerError if it is another."""


class CipherState(Secret):
    """One direction of a channel: a key and the count of what it has done (Noise specification, section 5.1).

    After every `rekey_after` messages the key is replaced by REKEY(k) of section 4.2 and 11.3; the count goes
    on, as the specification has it. It would take 2**64 records to run out.
    """

    __slots__ = ("_aead", "_cipher", "_key", "_nonce", "_rekey_after")

    def __init__(
        self, key: bytes, *, cipher: Cipher = Cipher.CHACHA20_POLY1305, rekey_after: int = REKEY_AFTER
    ) -> None:
        self._key = key
        self._cipher = cipher
        self._aead = cipher.aead(key)
        self._nonce = 0
        self._rekey_after = rekey_after

    def encrypt(self, plaintext: bytes) -> bytes:
        """Return the next transport message, TAG_BYTES longer than `plaintext`."""
        ciphertext = self._aead.encrypt(self._cipher.nonce(self._nonce), plaintext, None)
        self._advance()
        return ciphertext

    def decrypt(self, ciphertext: bytes | bytearray) -> bytes:
        """Return what the next transport message says; raises PeerError, and stays as it was, if it is another."""
        try:
            plaintext = self._aead.decrypt(self._cipher.nonce(self._nonce), ciphertext, None)
        except InvalidTag:
            raise PeerError("a record was altered, replayed, lost or is out of order") from None
        self._advance()
        return plaintext

    def _advance(self) -> None:
        self._nonce += 1
        if self._nonce % self._rekey_after == 0:
            self._key = self._aead.encrypt(self._cipher.nonce(_REKEY_NONCE), bytes(32), None)[:32]
            self._aead = self._cipher.aead(self._key)


class Channel(Secret):
    """Two directions of messages, once the handshake is done.

    `message_max` bounds a message in bytes, both ways, and may be changed between messages.
    """

    __slots__ = (
        "_dead",
        "_parts",
        "_receiving",
        "_sending",
        "_size",
        "cipher",
        "handshake_hash",
        "message_max",
        "protocol_name",
    )

    def __init__(
        self,
        *,
        sending_key: bytes,
        receiving_key: bytes,
        handshake_hash: bytes,
        protocol_name: str,
        cipher: Cipher = Cipher.CHACHA20_POLY1305,
        message_max: int = MESSAGE_MAX,
        rekey_after: int = REKEY_AFTER,
        make_cipher: Callable[..., RecordCipher] = CipherState,
    ) -> None:
        self._sending = make_cipher(sending_key, cipher=cipher, rekey_after=rekey_after)
        self._receiving = make_cipher(receiving_key, cipher=cipher, rekey_after=rekey_after)
        self._parts: list[bytes | memoryview] = []
        self._size = 0
        self._dead = False
        self.handshake_hash = handshake_hash
        """Names this conversation and no other, the same on both sides: for channel binding."""
        self.protocol_name = protocol_name
        """The handshake's."""
        self.cipher = cipher
        self.message_max = message_max

    @property
    def encryption(self) -> str:
        """What protects the messages: the handshake, and the cipher of the records where it is another."""
        if self.cipher is Cipher.CHACHA20_POLY1305:
            return self.protocol_name
        return f"{self.protocol_name}, records {self.cipher.value}"

    def seal(self, message: bytes) -> list[bytes]:
        """Return the records, each of at most RECORD_MAX bytes, that carry `message`; they go out in this order.

        Raises LocalError for an empty message and for one over `message_max`.
        """
        size = len(message)
        if not 0 < size <= self.message_max:
            raise LocalError(f"message of {size} bytes where 1 to {self.message_max} are allowed")
        encrypt = self._sending.encrypt
        if size <= CONTENT_MAX:
            return [encrypt(LAST + message)]
        view = memoryview(message)
        return [
            encrypt(b"".join((MORE if start + CONTENT_MAX < size else LAST, view[start : start + CONTENT_MAX])))
            for start in range(0, size, CONTENT_MAX)
        ]

    def open(self, record: bytes | bytearray) -> bytes | None:
        """Take the next record; return the message that it completes, or None where more records follow.

        Raises PeerError for a record that is not the next one of the other side, and for every later one.
        """
        if self._dead:
            raise PeerError("the channel is closed after an error")
        try:
            return self._open(record)
        except PeerError:
            self._dead = True
            self._parts.clear()
            raise

    def _open(self, record: bytes | bytearray) -> bytes | None:
        if not TAG_BYTES + 1 < len(record) <= RECORD_MAX:
            raise PeerError(f"record of {len(record)} bytes where {TAG_BYTES + 2} to {RECORD_MAX} are allowed")
        plaintext = self._receiving.decrypt(record)
        flag = plaintext[:1]
        if flag not in (LAST, MORE):
            raise PeerError("unknown kind of record")
        if flag == MORE and len(record) < RECORD_MAX:
            raise PeerError("a record that is not the last of its message is not full")
        self._size += len(plaintext) - 1
        if self._size > self.message_max:
            raise PeerError(f"message of more than {self.message_max} bytes")
        if flag == MORE:
            self._parts.append(memoryview(plaintext)[1:])
            return None
        return self._complete(plaintext)

    def _complete(self, plaintext: bytes) -> bytes:
        self._size = 0
        if not self._parts:
            return plaintext[1:]
        self._parts.append(memoryview(plaintext)[1:])
        message = b"".join(self._parts)
        self._parts.clear()
        return message
