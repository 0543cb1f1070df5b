"""NAT-PMP messages from bytes and to bytes: what PCP's predecessor asks and answers (RFC 6886).

It knows IPv4 alone, and asks for the external address and for a port apart. A gateway that speaks only this
answers PCP, whose version is 2, with `Refused` and UNSUPPORTED_VERSION.
"""

from enum import IntEnum
from ipaddress import IPv4Address
from struct import Struct
from typing import Final, TypeAlias

from teale_proto.contract import Value
from teale_proto.errors import LocalError, PeerError

VERSION: Final = 0

_MAP_REQUEST: Final = Struct(">BBxxHHI")
_RESPONSE: Final = Struct(">BBHI")
_MAPPED: Final = Struct(">HHI")
_RESPONSE_BIT: Final = 0x80
_MESSAGE_BYTES_MAX: Final = 1100
"""RFC 6886 has no limit; a refusal may give back what was asked, and that was PCP at its largest."""


class Opcode(IntEnum):
    """What is asked for; those of mappings are also the protocols (RFC 6886, sections 3.2 and 3.3)."""

    ADDRESS = 0
    MAP_UDP = 1
    MAP_TCP = 2


class ResultCode(IntEnum):
    """What came of a request (RFC 6886, section 3.5)."""

    SUCCESS = 0
    UNSUPPORTED_VERSION = 1
    NOT_AUTHORIZED = 2
    NETWORK_FAILURE = 3
    OUT_OF_RESOURCES = 4
    UNSUPPORTED_OPCODE = 5


class AddressRequest(Value):
    """Asks for the external address."""


class MapRequest(Value):
    """Asks for a mapping of `internal_port`; a lifetime of 0, with an external port of 0, ends one."""

    opcode: Opcode
    internal_port: int
    suggested_port: int
    lifetime_seconds: int


class AddressResponse(Value):
    """The external address, as it is now."""

    epoch_seconds: int
    host: str


class MapResponse(Value):
    """A mapping was made, kept or (with a lifetime of 0) ended."""

    opcode: Opcode
    epoch_seconds: int
    internal_port: int
    external_port: int
    lifetime_seconds: int


class Refused(Value):
    """Any request failed; what else an error may carry says nothing."""

    opcode: int
    result: int
    epoch_seconds: int


Request: TypeAlias = AddressRequest | MapRequest
Response: TypeAlias = AddressResponse | MapResponse | Refused


def decode_request(data: bytes) -> Request:
    """Return the request that `data`, one whole datagram, is; raises PeerError for anything else."""
    if data == bytes((VERSION, Opcode.ADDRESS)):
        return AddressRequest()
    if len(data) != _MAP_REQUEST.size:
        raise PeerError("wrong size of a NAT-PMP request")
    version, opcode, internal_port, suggested_port, lifetime = _MAP_REQUEST.unpack(data)
    if version != VERSION or opcode not in (Opcode.MAP_UDP, Opcode.MAP_TCP):
        raise PeerError("not a NAT-PMP request")
    return MapRequest(Opcode(opcode), internal_port, suggested_port, lifetime)


def decode_response(data: bytes) -> Response:
    """Return the response that `data`, one whole datagram, is; raises PeerError for anything else."""
    if not _RESPONSE.size <= len(data) <= _MESSAGE_BYTES_MAX:
        raise PeerError("wrong size of a NAT-PMP response")
    version, opcode, result, epoch = _RESPONSE.unpack_from(data)
    if version != VERSION or not opcode & _RESPONSE_BIT:
        raise PeerError("not a NAT-PMP response")
    opcode &= ~_RESPONSE_BIT
    body = data[_RESPONSE.size :]
    if result:
        return Refused(opcode, result, epoch)
    if opcode == Opcode.ADDRESS and len(body) == 4:
        return AddressResponse(epoch, ".".join(map(str, body)))
    if opcode in (Opcode.MAP_UDP, Opcode.MAP_TCP) and len(body) == _MAPPED.size:
        internal_port, external_port, lifetime = _MAPPED.unpack(body)
        return MapResponse(Opcode(opcode), epoch, internal_port, external_port, lifetime)
    raise PeerError("malformed NAT-PMP response")


def encode(message: Request | Response) -> bytes:
    """Return a message as one datagram; raises LocalError for one that no decoder would accept."""
    if isinstance(message, AddressRequest):
        return bytes((VERSION, Opcode.ADDRESS))
    if isinstance(message, MapRequest):
        _check_mapping(message.opcode, message.internal_port, message.suggested_port, message.lifetime_seconds)
        return _MAP_REQUEST.pack(
            VERSION, message.opcode, message.internal_port, message.suggested_port, message.lifetime_seconds
        )
    if isinstance(message, AddressResponse):
        return _header(Opcode.ADDRESS, ResultCode.SUCCESS, message.epoch_seconds) + _pack_host(message.host)
    if isinstance(message, MapResponse):
        _check_mapping(message.opcode, message.internal_port, message.external_port, message.lifetime_seconds)
        return _header(message.opcode, ResultCode.SUCCESS, message.epoch_seconds) + _MAPPED.pack(
            message.internal_port, message.external_port, message.lifetime_seconds
        )
    if not 0 < message.result < 1 << 16 or not 0 <= message.opcode < _RESPONSE_BIT:
        raise LocalError("a refusal has a result code of 16 bits, and an opcode of 7")
    return _header(message.opcode, message.result, message.epoch_seconds)


def _header(opcode: int, result: int, epoch_seconds: int) -> bytes:
    if not 0 <= epoch_seconds < 1 << 32:
        raise LocalError("an epoch has 32 bits")
    return _RESPONSE.pack(VERSION, opcode | _RESPONSE_BIT, result, epoch_seconds)


def _check_mapping(opcode: Opcode, internal_port: int, external_port: int, lifetime_seconds: int) -> None:
    if opcode is Opcode.ADDRESS:
        raise LocalError("a mapping is one of UDP or of TCP")
    if not (0 <= internal_port < 1 << 16 and 0 <= external_port < 1 << 16 and 0 <= lifetime_seconds < 1 << 32):
        raise LocalError("a port has 16 bits, and a lifetime 32")


def _pack_host(host: str) -> bytes:
    try:
        return IPv4Address(host).packed
    except ValueError:
        raise LocalError("NAT-PMP carries IPv4 addresses alone") from None
