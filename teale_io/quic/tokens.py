"""Tokens by which a client shows that it receives what is sent to its address (RFC 9000, section 8.1.2).

A Retry packet is a ninth of the Initial that it answers: with it, whoever forges a source address gets less sent
to the victim than he sends himself. A token holds all that is needed to go on, so nothing is remembered for
those who never come back.
"""

import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from teale_io.quic.packets import CID_BYTES

LIFETIME_SECONDS: Final = 10
_NONCE_BYTES: Final = 12
_TIME_BYTES: Final = 8


class RetryTokens:
    """Makes tokens and recognises them; the key lives as long as the process."""

    __slots__ = ("_aead",)

    def __init__(self) -> None:
        self._aead: Final = AESGCM(AESGCM.generate_key(128))

    def make(self, address: tuple[str, int], *, first: bytes, ours: bytes, now: float) -> bytes:
        """Return the token for a client at `address` whose packet was for `first`, and is to be for `ours` now."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = int(now * 1000).to_bytes(_TIME_BYTES, "big") + first
        return nonce + self._aead.encrypt(nonce, sealed, _bound_to(address, ours))

    def first_destination(self, token: bytes, address: tuple[str, int], *, ours: bytes, now: float) -> bytes | None:
        """Return what the client's first packet was for; None for a token that is not ours, too old or for another."""
        if len(ours) != CID_BYTES:
            return None
        try:
            sealed = self._aead.decrypt(token[:_NONCE_BYTES], token[_NONCE_BYTES:], _bound_to(address, ours))
        except (InvalidTag, ValueError):
            return None
        age = now - int.from_bytes(sealed[:_TIME_BYTES], "big") / 1000
        return sealed[_TIME_BYTES:] if age <= LIFETIME_SECONDS else None


def _bound_to(address: tuple[str, int], ours: bytes) -> bytes:
    return ours + address[1].to_bytes(2, "big") + address[0].encode()
