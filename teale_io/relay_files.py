"""What a relay reads from files: its certificate, and the tokens of those whom it lets in.

A token is compared by its hash, with every token that there is: how long that takes says nothing of any of them.
"""

import hashlib
import hmac
import re
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from teale_io.config import RELAY_TOKEN_PATTERN
from teale_io.connections import reason_of
from teale_io.paths import read_bounded
from teale_proto.errors import TealeError

TOKENS_MAX: Final = 4096
TOKEN_FILE_BYTES_MAX: Final = 1 << 20

_TOKEN: Final = re.compile(RELAY_TOKEN_PATTERN, re.ASCII)
_BEARER: Final = re.compile(r"bearer +(\S+) *", re.ASCII | re.IGNORECASE)


class Certificate:
    """A certificate chain and its key. Raises TealeError where they cannot be used."""

    what: Final = "certificate"

    def __init__(self, chain: Path, key: Path | None) -> None:
        self._chain: Final = chain
        self._key: Final = key
        self.load()

    @property
    def files(self) -> Sequence[Path]:
        """The chain, and the key where it is not in the chain."""
        return (self._chain,) if self._key is None else (self._chain, self._key)

    def context(self) -> ssl.SSLContext:
        """Return what new connections are secured with."""
        return self._context

    def load(self) -> None:
        """Use what the files hold now for new connections; raises TealeError, and changes nothing, where that fails."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            # An encrypted key must not make a service wait for somebody to type.
            context.load_cert_chain(self._chain, self._key, password=lambda: "")
        except ssl.SSLError as error:
            raise TealeError(f"the certificate or its key cannot be used: {error.reason or error}") from None
        except OSError as error:
            raise TealeError(f"the certificate or its key cannot be read: {reason_of(error)}") from None
        self._context = context


class Tokens:
    """The access tokens in a file: one a line, optionally followed by a name; `#` begins a comment.

    Raises TealeError where the file cannot be read or has a line that is no token; no token is ever quoted.
    """

    what: Final = "access tokens"

    def __init__(self, file: Path) -> None:
        self._file: Final = file
        self._hashes: Sequence[bytes] = ()
        self.load()

    @property
    def files(self) -> Sequence[Path]:
        """The one file."""
        return (self._file,)

    def __len__(self) -> int:
        return len(self._hashes)

    def load(self) -> None:
        """Accept what the file holds now; raises TealeError, and changes nothing, where that fails."""
        try:
            text = read_bounded(self._file, size_max=TOKEN_FILE_BYTES_MAX).decode()
        except OSError as error:
            raise TealeError(f"the token file cannot be read: {reason_of(error)}") from None
        except UnicodeDecodeError:
            raise TealeError("the token file is not UTF-8 text") from None
        except ValueError:
            raise TealeError(f"the token file is larger than {TOKEN_FILE_BYTES_MAX} bytes") from None
        self._hashes = _hashes(text)

    def accept(self, authorization: str | None) -> bool:
        """Return whether an `Authorization` header carries one of the tokens."""
        given = _BEARER.fullmatch(authorization or "")
        presented = _hash(given[1] if given is not None else "")
        # No early end: all are compared, whichever it is.
        matches = [hmac.compare_digest(presented, known) for known in self._hashes]
        return given is not None and any(matches)


def _hashes(text: str) -> Sequence[bytes]:
    hashes = []
    for number, line in enumerate(text.splitlines(), 1):
        token, *_ = line.partition("#")[0].split() or [""]
        if not token:
            continue
        if not _TOKEN.fullmatch(token):
            raise TealeError(
                f"line {number} of the token file: a token has 16 to 256 letters, digits and -._~+/ without spaces"
            )
        hashes.append(_hash(token))
    if not hashes:
        # Nobody could come in, and an empty file is more often a mistake than a wish.
        raise TealeError("the token file holds no token")
    if len(hashes) > TOKENS_MAX:
        raise TealeError(f"the token file holds {len(hashes)} tokens where {TOKENS_MAX} are allowed")
    return hashes


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="replace")).digest()
