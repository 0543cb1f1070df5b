"""Messages that carry a file, between nodes that encrypt: a small JSON head, then the bytes as they are.

    kind (1 byte, 0x01) | length of the head (2 bytes, big-endian) | head | data

In JSON the data would be base64, and making and reading that costs more than the encryption does. JSON begins
with `{`, so the first byte tells the two apart; only a node that has proved itself by Noise sends or gets this
form, and all of those know it.
"""

from typing import Final

import msgspec

from teale_proto.errors import PeerError
from teale_proto.wire.cluster import ModelTransferChunk

BULK: Final = b"\x01"
HEAD_BYTES_MAX: Final = 4096

_START: Final = 3
_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final = msgspec.json.Decoder(ModelTransferChunk)


def is_bulk(payload: bytes) -> bool:
    """Return whether a message has this form."""
    return payload.startswith(BULK)


def encode_bulk(chunk: ModelTransferChunk) -> bytes:
    """Return the message."""
    head = _ENCODER.encode(msgspec.structs.replace(chunk, data=b""))
    return b"".join((BULK, len(head).to_bytes(2, "big"), head, chunk.data))


def decode_bulk(payload: bytes) -> ModelTransferChunk:
    """Return what a message says; raises PeerError where it is not well formed."""
    end = _START + int.from_bytes(payload[1:_START], "big")
    if not _START < end <= len(payload) or end - _START > HEAD_BYTES_MAX:
        raise PeerError("malformed message: the head of a bulk message does not fit it")
    try:
        head = _DECODER.decode(payload[_START:end])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise PeerError("malformed message: the head of a bulk message is not well formed") from None
    if head.data:
        raise PeerError("malformed message: data in the head of a bulk message")
    return msgspec.structs.replace(head, data=payload[end:])
