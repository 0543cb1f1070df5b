"""STUN messages from bytes and to bytes: Binding requests and their answers.

A message is a header and a few attributes (RFC 8489, sections 5 and 14, and RFC 5780, section 7); each
attribute is a value of its own, and one table says how each is coded. What this version does not know is kept
as Unknown, because a server must be able to name it. FINGERPRINT is checked wherever it is found;
MESSAGE-INTEGRITY is checked by whoever has the key, over the bytes that came in.
"""

import hmac
from collections.abc import Callable, Iterator
from enum import IntEnum
from ipaddress import IPv6Address, ip_address
from struct import Struct
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar
from zlib import crc32

from teale_proto.contract import Value
from teale_proto.errors import LocalError, PeerError
from teale_proto.inputs import Address

MAGIC_COOKIE: Final = 0x2112A442
HEADER_BYTES: Final = 20
TRANSACTION_BYTES: Final = 12
BINDING: Final = 0x001

ATTRIBUTES_MAX: Final = 32
"""More than three times what RFC 8489 and RFC 5780 put into one Binding message."""
TEXT_BYTES_MAX: Final = 763
"""What SOFTWARE and a reason phrase may take (RFC 8489, sections 14.8 and 14.14)."""

_HEADER: Final = Struct(">HHI12s")
_ATTRIBUTE: Final = Struct(">HH")
_MESSAGE_INTEGRITY: Final = 0x0008
_MESSAGE_INTEGRITY_SHA256: Final = 0x001C
_FINGERPRINT: Final = 0x8028
_FINGERPRINT_XOR: Final = 0x5354554E
_SHA1_BYTES: Final = 20
_OPTIONAL_FROM: Final = 0x8000
_CREDENTIALS: Final = frozenset({0x0006, 0x0014, 0x0015})
"""USERNAME, REALM and NONCE: understood by every agent, and of no concern to one that asks for none."""


class MessageClass(IntEnum):
    """The class of a message (RFC 8489, section 5)."""

    REQUEST = 0
    INDICATION = 1
    SUCCESS = 2
    ERROR = 3


class MappedAddress(Value):
    """MAPPED-ADDRESS: where the request came from, in the clear, as before RFC 5389."""

    address: Address


class XorMappedAddress(Value):
    """XOR-MAPPED-ADDRESS: where the request came from, hidden from NATs that rewrite payloads."""

    address: Address


class ResponseOrigin(Value):
    """RESPONSE-ORIGIN: the address that the response was sent from (RFC 5780, section 7.3)."""

    address: Address


class OtherAddress(Value):
    """OTHER-ADDRESS: where a response would come from if both changes were asked for (RFC 5780, section 7.4)."""

    address: Address


class ChangeRequest(Value):
    """CHANGE-REQUEST: asks for the response from the server's other address, port or both."""

    address: bool
    port: bool


class Padding(Value):
    """PADDING: makes a message large enough to be fragmented; what it consists of says nothing."""

    size_bytes: int


class ResponsePort(Value):
    """RESPONSE-PORT: asks for the response to another port of the address that asks (RFC 5780, section 7.5)."""

    port: int


class ErrorCode(Value):
    """ERROR-CODE: 300 to 699, with a phrase for people."""

    code: int
    reason: str = ""


class UnknownAttributes(Value):
    """UNKNOWN-ATTRIBUTES: the types for whose sake a request was refused."""

    types: tuple[int, ...]


class Software(Value):
    """SOFTWARE: who made the message, for people."""

    description: str


class Unknown(Value):
    """An attribute that this version does not interpret."""

    type: int
    value: bytes


Attribute: TypeAlias = (
    MappedAddress
    | XorMappedAddress
    | ResponseOrigin
    | OtherAddress
    | ChangeRequest
    | Padding
    | ResponsePort
    | ErrorCode
    | UnknownAttributes
    | Software
    | Unknown
)
A = TypeVar("A", bound=Attribute)


class Message(Value):
    """One STUN message. Where an attribute is repeated, the first one counts (RFC 8489, section 14)."""

    message_class: MessageClass
    transaction: bytes
    attributes: tuple[Attribute, ...] = ()
    fingerprinted: bool = False
    """Whether it carries a FINGERPRINT; `decode` has found it right."""
    method: int = BINDING

    def get(self, kind: type[A]) -> A | None:
        """Return the first attribute of `kind`, or None."""
        for attribute in self.attributes:
            if isinstance(attribute, kind):
                return attribute
        return None

    @property
    def not_understood(self) -> tuple[int, ...]:
        """The types that must be understood and are not: none below 0x8000 may be ignored (RFC 8489, section 14)."""
        return tuple(
            attribute.type
            for attribute in self.attributes
            if isinstance(attribute, Unknown) and attribute.type < _OPTIONAL_FROM and attribute.type not in _CREDENTIALS
        )


def decode(data: bytes) -> Message:
    """Return the message that `data`, one whole datagram, consists of.

    Raises PeerError for anything else: no STUN, an attribute cut short or with impossible content, more than
    ATTRIBUTES_MAX of them, a wrong FINGERPRINT. What follows MESSAGE-INTEGRITY is left out, except FINGERPRINT
    (RFC 8489, section 14.5).
    """
    message_type, transaction = _read_header(data)
    attributes: list[Attribute] = []
    fingerprinted = protected = False
    for at, kind, value in _walk(data):
        if fingerprinted:
            raise PeerError("attribute after FINGERPRINT")
        if kind == _FINGERPRINT:
            if value != _fingerprint(data[:at]):
                raise PeerError("wrong FINGERPRINT")
            fingerprinted = True
        elif kind in (_MESSAGE_INTEGRITY, _MESSAGE_INTEGRITY_SHA256):
            protected = True
        elif not protected:
            attributes.append(_decode_attribute(kind, value, transaction))
    message_class = message_type >> 4 & 1 | message_type >> 7 & 2
    method = message_type & 0xF | message_type >> 1 & 0x70 | message_type >> 2 & 0xF80
    return Message(MessageClass(message_class), transaction, tuple(attributes), fingerprinted, method)


def encode(message: Message, *, key: bytes | None = None) -> bytes:
    """Return `message` as one datagram, with MESSAGE-INTEGRITY (HMAC-SHA1) where a key is given.

    Raises LocalError for a message that no `decode` would accept.
    """
    if len(message.transaction) != TRANSACTION_BYTES:
        raise LocalError(f"a transaction id has {TRANSACTION_BYTES} bytes, not {len(message.transaction)}")
    if len(message.attributes) > ATTRIBUTES_MAX:
        raise LocalError(f"a message has at most {ATTRIBUTES_MAX} attributes")
    body = b"".join(_encode_attribute(attribute, message.transaction) for attribute in message.attributes)
    method, bits = message.method, message.message_class.value
    message_type = method & 0xF | (bits & 1) << 4 | (method & 0x70) << 1 | (bits & 2) << 7 | (method & 0xF80) << 2

    def with_header(size: int) -> bytes:
        # The checks at the end cover a header that counts them already, but nothing behind them.
        return _HEADER.pack(message_type, size, MAGIC_COOKIE, message.transaction) + body

    if key is not None:
        digest = hmac.digest(key, with_header(len(body) + 4 + _SHA1_BYTES), "sha1")
        body += _pack(_MESSAGE_INTEGRITY, digest)
    if message.fingerprinted:
        body += _pack(_FINGERPRINT, _fingerprint(with_header(len(body) + 8)))
    return with_header(len(body))


def has_integrity(data: bytes, key: bytes) -> bool:
    """Return whether a message, as it came in, carries a MESSAGE-INTEGRITY made with `key` (RFC 8489, section 14.5).

    For short-term credentials the key is the password. Raises PeerError for what `decode` refuses as malformed.
    """
    _read_header(data)
    for at, kind, value in _walk(data):
        if kind == _MESSAGE_INTEGRITY:
            size = at + 4 + _SHA1_BYTES - HEADER_BYTES
            covered = data[:2] + size.to_bytes(2, "big") + data[4:at]
            return hmac.compare_digest(value, hmac.digest(key, covered, "sha1"))
    return False


def _read_header(data: bytes) -> tuple[int, bytes]:
    if len(data) < HEADER_BYTES:
        raise PeerError("shorter than a STUN header")
    message_type, size, cookie, transaction = _HEADER.unpack_from(data)
    if message_type >= 0x4000 or cookie != MAGIC_COOKIE:
        raise PeerError("not a STUN message")
    if size != len(data) - HEADER_BYTES or size % 4:
        raise PeerError("wrong STUN message length")
    return message_type, transaction


def _walk(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield where each attribute begins, its type and its value."""
    at, end, count = HEADER_BYTES, len(data), 0
    while at < end:
        # The length is a multiple of four, so an attribute's header is never cut.
        kind, size = _ATTRIBUTE.unpack_from(data, at)
        following = at + 4 + (size + 3 & ~3)
        count += 1
        if following > end:
            raise PeerError("STUN attribute reaches beyond the message")
        if count > ATTRIBUTES_MAX:
            raise PeerError("too many STUN attributes")
        yield at, kind, data[at + 4 : at + 4 + size]
        at = following


def _fingerprint(covered: bytes) -> bytes:
    return (crc32(covered) ^ _FINGERPRINT_XOR).to_bytes(4, "big")


def _pack(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(kind, len(value)) + value + bytes(-len(value) % 4)


def _encode_attribute(attribute: Attribute, transaction: bytes) -> bytes:
    if isinstance(attribute, Unknown):
        return _pack(attribute.type, attribute.value)
    kind = _TYPES[type(attribute)]
    codec = _CODECS[kind]
    value = codec.encode(attribute)
    return _pack(kind, _xor(value, transaction) if codec.hidden else value)


def _decode_attribute(kind: int, value: bytes, transaction: bytes) -> Attribute:
    codec = _CODECS.get(kind)
    if codec is None:
        return Unknown(kind, value)
    return codec.decode(_xor(value, transaction) if codec.hidden else value)


# How each attribute is coded.


def _encode_address(address: Address) -> bytes:
    if not 0 <= address.port < 0x10000:
        raise LocalError("a port has 16 bits")
    try:
        packed = ip_address(address.host).packed
    except ValueError:
        raise LocalError("STUN carries IP addresses, no names") from None
    return bytes((0, 1 if len(packed) == 4 else 2)) + address.port.to_bytes(2, "big") + packed


def _decode_address(value: bytes) -> Address:
    if len(value) < 4 or (value[1], len(value)) not in ((1, 8), (2, 20)):
        raise PeerError("malformed address")
    host = ".".join(map(str, value[4:])) if value[1] == 1 else str(IPv6Address(value[4:]))
    return Address(host, int.from_bytes(value[2:4], "big"))


def _xor(value: bytes, transaction: bytes) -> bytes:
    """Hide or reveal an encoded address (RFC 8489, section 14.2): the same operation."""
    cookie = MAGIC_COOKIE.to_bytes(4, "big")
    mask = b"\0\0" + cookie[:2] + cookie + transaction
    return bytes(a ^ b for a, b in zip(value, mask, strict=False)) + value[len(mask) :]


def _encode_change(attribute: ChangeRequest) -> bytes:
    return bytes((0, 0, 0, attribute.address << 2 | attribute.port << 1))


def _decode_change(value: bytes) -> ChangeRequest:
    if len(value) != 4:
        raise PeerError("malformed CHANGE-REQUEST")
    return ChangeRequest(bool(value[3] & 4), bool(value[3] & 2))


def _encode_padding(attribute: Padding) -> bytes:
    return bytes(attribute.size_bytes)


def _decode_padding(value: bytes) -> Padding:
    return Padding(len(value))


def _encode_port(attribute: ResponsePort) -> bytes:
    if not 0 <= attribute.port < 0x10000:
        raise LocalError("a port has 16 bits")
    return attribute.port.to_bytes(2, "big") + bytes(2)


def _decode_port(value: bytes) -> ResponsePort:
    # The two bytes that follow are counted by some and not by others: RFC 5780 calls them padding.
    if len(value) not in (2, 4):
        raise PeerError("malformed RESPONSE-PORT")
    return ResponsePort(int.from_bytes(value[:2], "big"))


def _encode_error(attribute: ErrorCode) -> bytes:
    if not 300 <= attribute.code < 700:
        raise LocalError("an error code is 300 to 699")
    return bytes((0, 0, attribute.code // 100, attribute.code % 100)) + _encode_text(attribute.reason)


def _decode_error(value: bytes) -> ErrorCode:
    if len(value) < 4 or not 3 <= value[2] & 7 <= 6 or value[3] > 99:
        raise PeerError("malformed ERROR-CODE")
    return ErrorCode((value[2] & 7) * 100 + value[3], _decode_text(value[4:]))


def _encode_unknown(attribute: UnknownAttributes) -> bytes:
    return b"".join(kind.to_bytes(2, "big") for kind in attribute.types)


def _decode_unknown(value: bytes) -> UnknownAttributes:
    if len(value) % 2:
        raise PeerError("malformed UNKNOWN-ATTRIBUTES")
    return UnknownAttributes(tuple(int.from_bytes(value[at : at + 2], "big") for at in range(0, len(value), 2)))


def _encode_software(attribute: Software) -> bytes:
    return _encode_text(attribute.description)


def _decode_software(value: bytes) -> Software:
    return Software(_decode_text(value))


def _encode_text(text: str) -> bytes:
    encoded = text.encode()
    if len(encoded) > TEXT_BYTES_MAX:
        raise LocalError(f"a STUN text has at most {TEXT_BYTES_MAX} bytes")
    return encoded


def _decode_text(value: bytes) -> str:
    if len(value) > TEXT_BYTES_MAX:
        raise PeerError("STUN text too long")
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise PeerError("STUN text is not UTF-8") from None


class _Codec(NamedTuple):
    kind: type[Attribute]
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Attribute]
    hidden: bool = False
    """Whether the value travels under XOR with cookie and transaction."""


def _of_address(
    kind: type[MappedAddress | XorMappedAddress | ResponseOrigin | OtherAddress], *, hidden: bool = False
) -> _Codec:
    """Return the codec of an attribute that is one address."""
    return _Codec(
        kind, lambda attribute: _encode_address(attribute.address), lambda value: kind(_decode_address(value)), hidden
    )


_CODECS: Final[dict[int, _Codec]] = {
    0x0001: _of_address(MappedAddress),
    0x0003: _Codec(ChangeRequest, _encode_change, _decode_change),
    0x0009: _Codec(ErrorCode, _encode_error, _decode_error),
    0x000A: _Codec(UnknownAttributes, _encode_unknown, _decode_unknown),
    0x0020: _of_address(XorMappedAddress, hidden=True),
    0x0026: _Codec(Padding, _encode_padding, _decode_padding),
    0x0027: _Codec(ResponsePort, _encode_port, _decode_port),
    0x8022: _Codec(Software, _encode_software, _decode_software),
    0x802B: _of_address(ResponseOrigin),
    0x802C: _of_address(OtherAddress),
}
_TYPES: Final = {codec.kind: kind for kind, codec in _CODECS.items()}
