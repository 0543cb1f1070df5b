"""PCP messages from bytes and to bytes: asking a gateway for a port, and its answers (RFC 6887).

Of the opcodes, MAP and ANNOUNCE are values of their own; a request for any other is kept as OtherRequest, because
a server must be able to refuse it by name. Addresses travel as 16 bytes, those of IPv4 in IPv4-mapped form. An
error answers with the request as it came, so it is made from the request's bytes: `refuse` does that.
"""

from enum import IntEnum
from ipaddress import IPv6Address, ip_address
from struct import Struct
from typing import Final, TypeAlias

from teale_proto.contract import Value
from teale_proto.errors import LocalError, PeerError
from teale_proto.inputs import Address

VERSION: Final = 2
SERVER_PORT: Final = 5351
CLIENT_PORT: Final = 5350
"""Where a gateway announces to all hosts at once that it has restarted (RFC 6887, section 14.1.2)."""

NONCE_BYTES: Final = 12
MESSAGE_BYTES_MAX: Final = 1100
OPTIONS_MAX: Final = 16
"""No message has use for more than the three that RFC 6887 knows; THIRD_PARTY and FILTER take 20 bytes each."""

UDP: Final = 17
TCP: Final = 6

_REQUEST: Final = Struct(">BBHI16s")
_RESPONSE: Final = Struct(">BBBBII12x")
_MAP: Final = Struct(">12sB3xHH16s")
_OPTION: Final = Struct(">BxH")
_HEADER_BYTES: Final = 24
_RESPONSE_BIT: Final = 0x80


class Opcode(IntEnum):
    """What is asked for (RFC 6887, section 19.2); PEER is named and not coded."""

    ANNOUNCE = 0
    MAP = 1
    PEER = 2


class ResultCode(IntEnum):
    """What came of a request (RFC 6887, section 7.4)."""

    SUCCESS = 0
    UNSUPP_VERSION = 1
    NOT_AUTHORIZED = 2
    MALFORMED_REQUEST = 3
    UNSUPP_OPCODE = 4
    UNSUPP_OPTION = 5
    MALFORMED_OPTION = 6
    NETWORK_FAILURE = 7
    NO_RESOURCES = 8
    UNSUPP_PROTOCOL = 9
    USER_EX_QUOTA = 10
    CANNOT_PROVIDE_EXTERNAL = 11
    ADDRESS_MISMATCH = 12
    EXCESSIVE_REMOTE_PEERS = 13


class OptionCode(IntEnum):
    """The options of MAP (RFC 6887, section 13)."""

    THIRD_PARTY = 1
    PREFER_FAILURE = 2
    FILTER = 3


class Option(Value):
    """An option as it travels; what is below 128 must be understood by whoever is asked."""

    code: int
    data: bytes = b""

    @property
    def mandatory(self) -> bool:
        """Whether a server that does not know it refuses the request (RFC 6887, section 7.3)."""
        return self.code < 0x80


class MapRequest(Value):
    """Asks for a mapping of `internal_port` of `client`; a lifetime of 0 ends one."""

    nonce: bytes
    protocol: int
    internal_port: int
    lifetime_seconds: int
    client: str
    """The IP address that the client believes to have."""
    suggested: Address
    """The external endpoint that it would like; unspecified address, or port 0: any."""
    options: tuple[Option, ...] = ()


class AnnounceRequest(Value):
    """Asks for nothing but an answer, which tells the epoch."""

    client: str
    options: tuple[Option, ...] = ()


class OtherRequest(Value):
    """A request with an opcode that is not coded here."""

    opcode: int
    client: str


class MapResponse(Value):
    """What came of a MapRequest; of an error, `lifetime_seconds` tells how long it will last."""

    result: int
    lifetime_seconds: int
    epoch_seconds: int
    nonce: bytes
    protocol: int
    internal_port: int
    external: Address
    options: tuple[Option, ...] = ()


class PlainResponse(Value):
    """An answer of which no more than the header says something: to ANNOUNCE, or any error cut short."""

    opcode: int
    result: int
    epoch_seconds: int
    lifetime_seconds: int = 0


class VersionRefused(Value):
    """The server speaks `version` at most, and said so in that version's header (RFC 6887, section 9)."""

    version: int


Request: TypeAlias = MapRequest | AnnounceRequest | OtherRequest
Response: TypeAlias = MapResponse | PlainResponse | VersionRefused


def decode_request(data: bytes) -> Request:
    """Return the request that `data`, one whole datagram, is; raises PeerError for anything else."""
    _check_size(data)
    version, opcode, _, lifetime, client = _REQUEST.unpack_from(data)
    if version != VERSION or opcode & _RESPONSE_BIT:
        raise PeerError("not a PCP request")
    host = _unpack_host(client)
    if opcode == Opcode.ANNOUNCE:
        return AnnounceRequest(host, _unpack_options(data, _HEADER_BYTES))
    if opcode != Opcode.MAP:
        return OtherRequest(opcode, host)
    nonce, protocol, internal_port, external, options = _unpack_map(data)
    return MapRequest(nonce, protocol, internal_port, lifetime, host, external, options)


def decode_response(data: bytes) -> Response:
    """Return the response that `data`, one whole datagram, is; raises PeerError for anything else."""
    # A refusal of the version is in the header of another one, of which only this much is common to all.
    if len(data) >= 4 and data[0] != VERSION and data[1] & _RESPONSE_BIT and data[3] == ResultCode.UNSUPP_VERSION:
        return VersionRefused(data[0])
    _check_size(data)
    version, opcode, _, result, lifetime, epoch = _RESPONSE.unpack_from(data)
    if version != VERSION or not opcode & _RESPONSE_BIT:
        raise PeerError("not a PCP response")
    opcode &= ~_RESPONSE_BIT
    if result == ResultCode.UNSUPP_VERSION:
        return VersionRefused(version)
    if opcode != Opcode.MAP or (result and len(data) < _HEADER_BYTES + _MAP.size):
        return PlainResponse(opcode, result, epoch, lifetime)
    # An error gives the options back as they were, which may be what was wrong with them.
    nonce, protocol, internal_port, external, options = _unpack_map(data, with_options=not result)
    return MapResponse(result, lifetime, epoch, nonce, protocol, internal_port, external, options)


def encode(message: MapRequest | AnnounceRequest | MapResponse | PlainResponse) -> bytes:
    """Return a message as one datagram; raises LocalError for one that no decoder would accept."""
    if isinstance(message, MapRequest):
        header = _REQUEST.pack(
            VERSION, Opcode.MAP, 0, _fits(message.lifetime_seconds, 32, "lifetime"), _pack_host(message.client)
        )
        encoded = header + _pack_map(message, message.suggested) + _pack_options(message.options)
    elif isinstance(message, AnnounceRequest):
        header = _REQUEST.pack(VERSION, Opcode.ANNOUNCE, 0, 0, _pack_host(message.client))
        encoded = header + _pack_options(message.options)
    elif isinstance(message, MapResponse):
        encoded = _pack_response(Opcode.MAP, message) + _pack_map(message, message.external)
        encoded += _pack_options(message.options)
    else:
        encoded = _pack_response(_fits(message.opcode, 7, "opcode"), message)
    if len(encoded) > MESSAGE_BYTES_MAX:
        raise LocalError(f"a PCP message has at most {MESSAGE_BYTES_MAX} bytes, not {len(encoded)}")
    return encoded


def refuse(request: bytes, result: ResultCode, *, lifetime_seconds: int, epoch_seconds: int) -> bytes | None:
    """Return the error that answers `request`, whatever it is, or None where it deserves silence.

    The request is given back under a new header, cut or filled to what a message may be (RFC 6887, section 8.3).
    """
    if len(request) < 2 or request[1] & _RESPONSE_BIT:
        return None
    body = request[_HEADER_BYTES:MESSAGE_BYTES_MAX]
    header = _RESPONSE.pack(VERSION, request[1] | _RESPONSE_BIT, 0, result, lifetime_seconds, epoch_seconds)
    return header + body + bytes(-len(body) % 4)


def _check_size(data: bytes) -> None:
    if not _HEADER_BYTES <= len(data) <= MESSAGE_BYTES_MAX or len(data) % 4:
        raise PeerError("wrong size of a PCP message")


def _unpack_map(data: bytes, *, with_options: bool = True) -> tuple[bytes, int, int, Address, tuple[Option, ...]]:
    end = _HEADER_BYTES + _MAP.size
    if len(data) < end:
        raise PeerError("PCP MAP cut short")
    nonce, protocol, internal_port, external_port, external_host = _MAP.unpack_from(data, _HEADER_BYTES)
    options = _unpack_options(data, end) if with_options else ()
    return nonce, protocol, internal_port, Address(_unpack_host(external_host), external_port), options


def _pack_map(message: MapRequest | MapResponse, external: Address) -> bytes:
    if len(message.nonce) != NONCE_BYTES:
        raise LocalError(f"a mapping nonce has {NONCE_BYTES} bytes, not {len(message.nonce)}")
    return _MAP.pack(
        message.nonce,
        _fits(message.protocol, 8, "protocol"),
        _fits(message.internal_port, 16, "port"),
        _fits(external.port, 16, "port"),
        _pack_host(external.host),
    )


def _pack_response(opcode: int, message: MapResponse | PlainResponse) -> bytes:
    return _RESPONSE.pack(
        VERSION,
        opcode | _RESPONSE_BIT,
        0,
        _fits(message.result, 8, "result code"),
        _fits(message.lifetime_seconds, 32, "lifetime"),
        _fits(message.epoch_seconds, 32, "epoch"),
    )


def _unpack_options(data: bytes, at: int) -> tuple[Option, ...]:
    options: list[Option] = []
    while at < len(data):
        # The size is a multiple of four, so an option's header is never cut.
        code, size = _OPTION.unpack_from(data, at)
        value = data[at + 4 : at + 4 + size]
        at += 4 + (size + 3 & ~3)
        if at > len(data):
            raise PeerError("PCP option reaches beyond the message")
        if len(options) == OPTIONS_MAX:
            raise PeerError("too many PCP options")
        options.append(Option(code, value))
    return tuple(options)


def _pack_options(options: tuple[Option, ...]) -> bytes:
    if len(options) > OPTIONS_MAX:
        raise LocalError(f"a PCP message has at most {OPTIONS_MAX} options")
    return b"".join(
        _OPTION.pack(_fits(option.code, 8, "option code"), _fits(len(option.data), 16, "option size"))
        + option.data
        + bytes(-len(option.data) % 4)
        for option in options
    )


def _pack_host(host: str) -> bytes:
    try:
        packed = ip_address(host).packed
    except ValueError:
        raise LocalError("PCP carries IP addresses, no names") from None
    return packed if len(packed) == 16 else b"\0" * 10 + b"\xff\xff" + packed


def _unpack_host(packed: bytes) -> str:
    address = IPv6Address(packed)
    return str(address.ipv4_mapped or address)


def _fits(number: int, bits: int, what: str) -> int:
    if not 0 <= number < 1 << bits:
        raise LocalError(f"a {what} has {bits} bits")
    return number
