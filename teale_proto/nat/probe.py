"""The datagrams that open a path, which only the two peers can make.

They carry a tag under a key that the peers share over their relayed session, one key a direction, so nobody
outside can make us send or believe anything, and our own datagrams sent back to us mean nothing. Each carries a
number that is taken once, so a copy means nothing either.

A PROBE asks whether it is heard; its token is a secret of its sender about this pair of endpoints. An ANSWER
gives that token back, with one of its own, and a CONFIRM gives back that one: whoever gets its own token back
knows that the peer really is at the other end. An ANSWER is shorter than its PROBE and a CONFIRM shorter still,
so what a forged source address could gain is less than it spends.
"""

import hmac
from enum import IntEnum
from hashlib import blake2s
from struct import Struct
from typing import Final

from teale_proto.contract import Value
from teale_proto.inputs import Address

SECRET_BYTES: Final = 32
TOKEN_BYTES: Final = 8
TAG_BYTES: Final = 16
OPENER: Final = b"\x08"
"""What only has to leave through our own NAT, and says nothing to whoever gets it."""

_HEADER: Final = Struct(">BBI")
# Not 0 to 3 (STUN), 16 to 79 (ZRTP, DTLS, TURN), nor what QUIC and RTP begin with (RFC 9443, section 2).
_MARKER: Final = 0x09
_BODY_BYTES: Final = {1: 40, 2: 2 * TOKEN_BYTES, 3: TOKEN_BYTES}


class ProbeKind(IntEnum):
    """The three steps; the values are those on the wire."""

    PROBE = 1
    ANSWER = 2
    CONFIRM = 3


class Probe(Value):
    """One such datagram."""

    kind: ProbeKind
    number: int
    """Taken once by whoever gets it; 32 bits."""
    token: bytes = b""
    """Of the sender, in a PROBE and an ANSWER."""
    echo: bytes = b""
    """The receiver's, in an ANSWER and a CONFIRM."""


SIZES: Final = {kind: _HEADER.size + _BODY_BYTES[kind] + TAG_BYTES for kind in ProbeKind}
"""How long each kind of datagram is, in bytes."""
_SIZES_ON_WIRE: Final[dict[int, int]] = {kind.value: size for kind, size in SIZES.items()}


class ProbeKeys:
    """What one peer seals with and what it opens with; never shown."""

    __slots__ = ("_ours", "_theirs", "_tokens")

    def __init__(self, secret: bytes, own_secret: bytes, *, initiator: bool) -> None:
        """Raises ValueError unless both secrets have SECRET_BYTES; `own_secret` never leaves this side."""
        if len(secret) != SECRET_BYTES or len(own_secret) != SECRET_BYTES:
            raise ValueError(f"a secret has {SECRET_BYTES} bytes")
        keys = [blake2s(name, key=secret, person=b"tealprob").digest() for name in (b"initiator", b"responder")]
        self._ours, self._theirs = keys if initiator else reversed(keys)
        self._tokens = own_secret

    def __repr__(self) -> str:
        return "ProbeKeys(…)"

    def seal(self, probe: Probe) -> bytes:
        """Return a probe as one datagram."""
        body = (probe.token + probe.echo).ljust(_BODY_BYTES[probe.kind], b"\0")
        data = _HEADER.pack(_MARKER, probe.kind, probe.number) + body
        return data + _tag(self._ours, data)

    def open(self, data: bytes) -> Probe | None:
        """Return what the peer sealed, or None for anything else."""
        if len(data) < _HEADER.size or data[0] != _MARKER or len(data) != _SIZES_ON_WIRE.get(data[1]):
            return None
        covered, tag = data[:-TAG_BYTES], data[-TAG_BYTES:]
        if not hmac.compare_digest(tag, _tag(self._theirs, covered)):
            return None
        _, kind, number = _HEADER.unpack_from(covered)
        first = covered[_HEADER.size : _HEADER.size + TOKEN_BYTES]
        second = covered[_HEADER.size + TOKEN_BYTES : _HEADER.size + 2 * TOKEN_BYTES]
        match ProbeKind(kind):
            case ProbeKind.PROBE:
                return Probe(ProbeKind.PROBE, number, token=first)
            case ProbeKind.ANSWER:
                return Probe(ProbeKind.ANSWER, number, token=first, echo=second)
            case ProbeKind.CONFIRM:
                return Probe(ProbeKind.CONFIRM, number, echo=first)

    def token(self, local: Address, remote: Address) -> bytes:
        """Return our secret about a pair of endpoints, which only who receives at `remote` can know."""
        named = f"{local.host} {local.port} {remote.host} {remote.port}".encode()
        return blake2s(named, key=self._tokens, digest_size=TOKEN_BYTES).digest()


class TakenOnce:
    """Which numbers have come in: a sliding window, as IPsec's against replays (RFC 4303, section 3.4.3)."""

    __slots__ = ("_highest", "_seen")

    SIZE: Final = 1024

    def __init__(self) -> None:
        self._highest = -1
        self._seen = 0

    def take(self, number: int) -> bool:
        """Return whether `number` is new, and remember it; what has fallen out of the window is never new."""
        ahead = number - self._highest
        if ahead > 0:
            self._seen = (self._seen << min(ahead, self.SIZE) | 1) & ((1 << self.SIZE) - 1)
            self._highest = number
            return True
        bit = 1 << -ahead
        if -ahead >= self.SIZE or self._seen & bit:
            return False
        self._seen |= bit
        return True


def _tag(key: bytes, data: bytes) -> bytes:
    return blake2s(data, key=key, digest_size=TAG_BYTES).digest()
