"""Signals as they travel: JSON inside the peers' encrypted relay session, and nothing of it believed unread.

A round of attempts has a name, and a secret that its initiator draws and sends with the first word; both sides key
their probes with it.
"""

from typing import Final

import msgspec

from teale_proto.contract import Value
from teale_proto.errors import PeerError
from teale_proto.nat.probe import SECRET_BYTES
from teale_proto.nat.punch_messages import Accept, Begin, Opened, Propose, Signal, checked
from teale_proto.nat.race import UNVOUCHED_BYTES_MAX
from teale_proto.wire.cluster import PathSignal

SIGNAL_BYTES_MAX: Final = 4096
BEGINNING_BYTES_MIN: Final = UNVOUCHED_BYTES_MAX + 100
"""Of a proposal and of its answer, so that nobody gains by having us send to somebody else."""
ROUND_BYTES: Final = 8

_DECODER: Final = msgspec.json.Decoder(Propose | Accept | Begin | Opened)
_ENCODER: Final = msgspec.json.Encoder()


class RoundSignal(Value):
    """A signal, and the round that it belongs to; only a proposal brings the secret."""

    name: str
    signal: Signal
    secret: bytes = b""


def encode_signal(said: RoundSignal) -> PathSignal:
    """Return the message that carries a signal."""
    secret = said.secret.hex() if said.secret else None
    encoded = _ENCODER.encode(said.signal)
    pad = BEGINNING_BYTES_MIN - len(encoded) if isinstance(said.signal, Propose | Accept) else 0
    return PathSignal(said.name, msgspec.Raw(encoded), secret, "." * pad)


def decode_signal(message: PathSignal) -> RoundSignal:
    """Return the signal in a message; raises PeerError for what is none."""
    if len(bytes(message.signal)) > SIGNAL_BYTES_MAX:
        raise PeerError("a path signal is too long")
    try:
        signal = checked(_DECODER.decode(message.signal))
        secret = bytes.fromhex(message.secret or "")
    except (msgspec.MsgspecError, ValueError) as error:
        raise PeerError(f"not a path signal: {error}") from error
    if isinstance(signal, Propose | Accept) and len(bytes(message.signal)) + len(message.pad) < BEGINNING_BYTES_MIN:
        raise PeerError("a path signal is shorter than what it would have us send")
    if len(message.round) != 2 * ROUND_BYTES or (secret and len(secret) != SECRET_BYTES):
        raise PeerError("a path signal's round or secret has a wrong length")
    return RoundSignal(message.round, signal, secret)
