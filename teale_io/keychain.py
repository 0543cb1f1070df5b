"""The node's secret key: where it is kept, and why it is never replaced by mistake.

It lives in the operating system's keychain, in a file encrypted under a passphrase, or, where somebody asked for
that, in a plain file of mode 0600. Beside it stands a public marker that says where the secret is and which node
id it has. The secret is made safe first and the marker written last, so that a crash in between leaves a secret
that the next start adopts. As long as the marker exists no other identity is made: a secret that cannot be read
is an error that says what to do.
"""

import functools
import os
import stat
import unicodedata
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Final, Literal, TypeAlias, cast

import keyring
import keyring.backend
import keyring.errors
import msgspec
import nacl.exceptions
import nacl.pwhash
import nacl.secret
from msgspec import Meta

from teale_io.paths import Paths, locked, read_bounded, unfinished_prefix, write_atomically
from teale_proto.errors import TealeError
from teale_proto.rng import Rng
from teale_proto.secure.identity import SEED_BYTES, Identity
from teale_proto.wire.fields import Id

StorageKind: TypeAlias = Literal["keychain", "encrypted-file", "plain-file"]
StorageChoice: TypeAlias = Literal["auto", "keychain", "encrypted-file", "plain-file"]

SERVICE: Final = "teale"
"""The keychain service under which all nodes of this user are filed; the account is the node's home folder."""

FILE_SIZE_MAX: Final = 4096

_CHOOSE: Final = (
    "Set the environment variable TEALE_PASSPHRASE (or run `teale up` in a terminal) to keep the key in an encrypted "
    "file, or run `teale config set identity_storage plain-file` to keep it unencrypted in a file of mode 0600."
)


class IdentityError(TealeError):
    """The identity cannot be read or made; the message says what to do. No secret has been replaced."""


class Kdf(msgspec.Struct, frozen=True):
    """The cost of turning a passphrase into a key with Argon2id (RFC 9106).

    The bounds hold for what is read from a file, too: a hostile one shall not take all memory or all day.
    """

    passes: Annotated[int, Meta(ge=1, le=16)] = nacl.pwhash.argon2id.OPSLIMIT_MODERATE
    memory_bytes: Annotated[int, Meta(ge=8192, le=512 << 20)] = nacl.pwhash.argon2id.MEMLIMIT_MODERATE


class Marker(msgspec.Struct, frozen=True):
    """The public half of the identity store."""

    version: Literal[1]
    storage: StorageKind
    node_id: Id
    account: Annotated[str, Meta(max_length=4096)] = ""
    """The account in the keychain; kept here, so that the home folder can be moved."""


class _PlainSecret(msgspec.Struct, frozen=True, tag="plain-file", tag_field="storage"):
    version: Literal[1]
    node_id: Id
    seed: Annotated[bytes, Meta(min_length=SEED_BYTES, max_length=SEED_BYTES)]

    def __repr__(self) -> str:
        return f"<secret of {self.node_id}>"


class _EncryptedSecret(msgspec.Struct, frozen=True, tag="encrypted-file", tag_field="storage"):
    version: Literal[1]
    node_id: Id
    kdf: Kdf
    salt: Annotated[bytes, Meta(min_length=nacl.pwhash.argon2id.SALTBYTES, max_length=nacl.pwhash.argon2id.SALTBYTES)]
    box: Annotated[bytes, Meta(max_length=256)]
    """Nonce and ciphertext of NaCl's secretbox."""


_Secret: TypeAlias = _PlainSecret | _EncryptedSecret


def passphrase_from(environ: Mapping[str, str]) -> str:
    """Return the passphrase that the environment holds, "" where it holds none."""
    return environ.get("TEALE_PASSPHRASE", "")


def read_marker(paths: Paths) -> Marker | None:
    """Return which identity this node has, without its secret; None before it has one. Raises IdentityError."""
    file = paths.identity_marker
    try:
        return msgspec.json.decode(read_bounded(file, size_max=FILE_SIZE_MAX * 2), type=Marker)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise IdentityError(f"{file} cannot be read: {error.strerror}.") from error
    except (ValueError, msgspec.DecodeError):
        raise IdentityError(
            f"{file} is damaged. Restore it from a backup; if there is none, delete that one file, and the secret "
            "key is looked for where identity_storage says."
        ) from None


def load_or_create_identity(
    paths: Paths,
    storage: StorageChoice,
    *,
    passphrase: Callable[[], str],
    entropy: Rng,
    kdf: Kdf | None = None,
) -> Identity:
    """Return this node's identity, made from `entropy` where there never was one.

    `passphrase` is called only where one is needed, and returns "" where there is none. `kdf` is the cost of a
    new encrypted file. Raises IdentityError.
    """
    store = _IdentityStore(paths, storage, functools.cache(passphrase), kdf or Kdf())
    try:
        marker = read_marker(paths)
        if marker is not None:
            return store.load(marker)
        with locked(paths.identity_marker):  # two nodes of one home that start for the first time at once
            marker = read_marker(paths)
            if marker is not None:
                return store.load(marker)
            return store.adopt() or store.create(entropy)
    except OSError as error:
        raise IdentityError(f"The identity cannot be kept: {error}.") from error


class _IdentityStore:
    """One node's identity, wherever it is."""

    def __init__(self, paths: Paths, storage: StorageChoice, passphrase: Callable[[], str], kdf: Kdf) -> None:
        self._paths = paths
        self._storage = storage
        self._passphrase = passphrase
        self._kdf = kdf

    def load(self, marker: Marker) -> Identity:
        """Return the identity that the marker promises."""
        self._check_choice(marker.storage)
        if marker.storage == "keychain":
            secret: _Secret | None = _keychain_read(marker.account)
            place = f"the keychain (service {SERVICE}, account {marker.account})"
        else:
            secret = _file_read(self._paths.identity_secret)
            place = str(self._paths.identity_secret)
        if secret is None:
            raise IdentityError(
                f"The secret key of node {marker.node_id} is no longer in {place}. Restore it from a backup; only to "
                f"give this identity up for ever, delete {self._paths.identity_marker}."
            )
        is_promised_kind = marker.storage == "keychain" or _kind(secret) == marker.storage
        if secret.node_id != marker.node_id or not is_promised_kind:
            raise IdentityError(
                f"What is in {place} is not the secret key of node {marker.node_id} ({marker.storage}), which "
                f"{self._paths.identity_marker} promises. Restore the file that was changed from a backup."
            )
        return self._open(secret, place)

    def adopt(self) -> Identity | None:
        """Return the identity whose creation was interrupted before the marker was written, if there is one."""
        self._remove_unfinished()
        secret = _file_read(self._paths.identity_secret)
        if secret is not None:
            self._check_choice(_kind(secret))
            identity = self._open(secret, str(self._paths.identity_secret))
            self._mark(_kind(secret), identity)
            return identity
        if self._wants_keychain():
            kept = _keychain_read(self._account)
            if kept is not None:
                identity = self._open(kept, "the keychain")
                self._mark("keychain", identity)
                return identity
        return None

    def create(self, entropy: Rng) -> Identity:
        """Make a new identity, its secret first, its marker last."""
        seed = entropy.randbytes(SEED_BYTES)
        identity = Identity.from_seed(seed)
        secret = _PlainSecret(version=1, node_id=identity.node_id, seed=seed)
        kind = self._kind_for_new()
        if kind == "keychain":
            _keychain_write(self._account, secret)
        elif kind == "encrypted-file":
            _file_write(self._paths.identity_secret, _encrypted(secret, self._need_passphrase(), self._kdf, entropy))
        else:
            _file_write(self._paths.identity_secret, secret)
        self._mark(kind, identity)
        return identity

    @property
    def _account(self) -> str:
        return os.path.realpath(self._paths.home)

    def _wants_keychain(self) -> bool:
        return self._storage == "keychain" or (self._storage == "auto" and _keychain_is_usable())

    def _kind_for_new(self) -> StorageKind:
        if self._storage != "auto":
            return self._storage
        if _keychain_is_usable():
            return "keychain"
        if not self._passphrase():
            raise IdentityError(f"There is no keychain here to keep the node's secret key in. {_CHOOSE}")
        return "encrypted-file"

    def _check_choice(self, kind: StorageKind) -> None:
        if self._storage not in ("auto", kind):
            raise IdentityError(
                f"The secret key is kept as {kind}, but identity_storage is {self._storage}. It is not moved by "
                f"itself: run `teale config set identity_storage {kind}`."
            )

    def _need_passphrase(self) -> str:
        passphrase = self._passphrase()
        if not passphrase:
            raise IdentityError(
                "The secret key is kept in an encrypted file, and there is no passphrase. Set the environment variable "
                "TEALE_PASSPHRASE, or run `teale up` in a terminal."
            )
        return passphrase

    def _open(self, secret: _Secret, place: str) -> Identity:
        """Return the identity in `secret`, which must have the node id that it says."""
        seed = secret.seed if isinstance(secret, _PlainSecret) else _decrypted(secret, self._need_passphrase(), place)
        identity = Identity.from_seed(seed) if len(seed) == SEED_BYTES else None
        if identity is None or identity.node_id != secret.node_id:
            raise IdentityError(f"The secret key in {place} is damaged. Restore it from a backup.")
        return identity

    def _mark(self, kind: StorageKind, identity: Identity) -> None:
        account = self._account if kind == "keychain" else ""
        marker = Marker(version=1, storage=kind, node_id=identity.node_id, account=account)
        write_atomically(self._paths.identity_marker, _json(marker))

    def _remove_unfinished(self) -> None:
        """Remove half-written files of a start that was killed; some would hold a secret."""
        for file in (self._paths.identity_secret, self._paths.identity_marker):
            for unfinished in file.parent.glob(unfinished_prefix(file) + "*"):
                with suppress(FileNotFoundError):
                    unfinished.unlink()


def _kind(secret: _Secret) -> StorageKind:
    return "plain-file" if isinstance(secret, _PlainSecret) else "encrypted-file"


def _json(value: msgspec.Struct) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"


# Files.


def _file_read(file: Path) -> _Secret | None:
    try:
        content = read_bounded(file, size_max=FILE_SIZE_MAX)
        secret = cast("_Secret", msgspec.json.decode(content, type=_Secret))
        mode = file.stat().st_mode
    except FileNotFoundError:
        return None
    except OSError as error:
        raise IdentityError(f"{file} cannot be read: {error.strerror}.") from error
    except (ValueError, msgspec.DecodeError):
        raise IdentityError(f"{file} is damaged. Restore it from a backup.") from None
    if isinstance(secret, _PlainSecret) and os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise IdentityError(f"{file} holds the secret key and others may read it. Run: chmod 600 '{file}'")
    return secret


def _file_write(file: Path, secret: _Secret) -> None:
    write_atomically(file, _json(secret))


def _encrypted(secret: _PlainSecret, passphrase: str, kdf: Kdf, entropy: Rng) -> _EncryptedSecret:
    salt = entropy.randbytes(nacl.pwhash.argon2id.SALTBYTES)
    nonce = entropy.randbytes(nacl.secret.SecretBox.NONCE_SIZE)
    box = bytes(_box(passphrase, salt, kdf).encrypt(secret.seed, nonce))
    return _EncryptedSecret(version=1, node_id=secret.node_id, kdf=kdf, salt=salt, box=box)


def _decrypted(secret: _EncryptedSecret, passphrase: str, place: str) -> bytes:
    try:
        return _box(passphrase, secret.salt, secret.kdf).decrypt(secret.box)
    except (nacl.exceptions.CryptoError, ValueError):
        raise IdentityError(
            f"The passphrase does not open {place}, or the file is damaged. Try again with the right TEALE_PASSPHRASE, "
            "or restore the file from a backup."
        ) from None


def _box(passphrase: str, salt: bytes, kdf: Kdf) -> nacl.secret.SecretBox:
    password = unicodedata.normalize("NFC", passphrase).encode("utf-8", "surrogateescape")
    size = nacl.secret.SecretBox.KEY_SIZE
    try:
        return nacl.secret.SecretBox(
            nacl.pwhash.argon2id.kdf(size, password, salt, opslimit=kdf.passes, memlimit=kdf.memory_bytes)
        )
    except (MemoryError, nacl.exceptions.RuntimeError):
        raise IdentityError(
            f"There is not enough memory to check the passphrase: {kdf.memory_bytes >> 20} MiB are needed."
        ) from None


# The keychain. Its backends raise what their platform raises, hence the broad clauses.


def _keychain_is_usable() -> bool:
    """Whether the operating system has a keychain; `keyring` gives backends that keep no secret safe less than 1."""
    try:
        return bool(keyring.get_keyring().priority >= 1)
    except Exception:
        return False


def _keychain_read(account: str) -> _PlainSecret | None:
    try:
        kept = keyring.get_password(SERVICE, account)
    except Exception as error:
        raise _keychain_failure(error) from error
    if kept is None:
        return None
    try:
        return msgspec.json.decode(kept[:FILE_SIZE_MAX], type=_PlainSecret)
    except msgspec.DecodeError:
        raise IdentityError(
            f"The keychain's entry (service {SERVICE}, account {account}) is damaged. Restore it from a backup."
        ) from None


def _keychain_write(account: str, secret: _PlainSecret) -> None:
    try:
        keyring.set_password(SERVICE, account, msgspec.json.encode(secret).decode())
        kept = _keychain_read(account)
    except IdentityError:
        raise
    except Exception as error:
        raise _keychain_failure(error) from error
    if kept != secret:
        raise IdentityError(f"The keychain does not keep what is put into it. {_CHOOSE}")


def _keychain_failure(error: Exception) -> IdentityError:
    if isinstance(error, keyring.errors.NoKeyringError):
        return IdentityError(
            "The node's secret key belongs in the keychain, and there is none here. Start the node in a session that "
            "has one; a node that never had an identity can keep it in a file: run "
            "`teale config set identity_storage encrypted-file`."
        )
    return IdentityError(
        f"The keychain does not answer ({type(error).__name__}). Unlock it and try again; a node that never had an "
        "identity can keep it in a file: run `teale config set identity_storage encrypted-file`."
    )
