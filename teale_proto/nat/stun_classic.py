"""STUN as it was before there was a magic cookie: Binding requests of RFC 3489, answered as RFC 8489, section 11 asks.

Programs that speak it are still about, above all those that tell the old kinds of NAT apart. Where a server has a
second address, they find the other endpoints in CHANGED-ADDRESS. RESPONSE-ADDRESS, by which a request could have its
answer sent to anybody, is refused like anything else that is not understood.
"""

from collections.abc import Iterator
from ipaddress import IPv4Address
from struct import Struct
from typing import Final

from teale_proto.effects import SendDatagram
from teale_proto.errors import PeerError
from teale_proto.inputs import Address, DatagramReceived
from teale_proto.nat.stun import ATTRIBUTES_MAX, HEADER_BYTES, MAGIC_COOKIE

_HEADER: Final = Struct(">HH16s")
_PAIR: Final = Struct(">HH")
_BINDING_REQUEST: Final = 0x0001
_BINDING_RESPONSE: Final = 0x0101
_BINDING_ERROR: Final = 0x0111
_MAPPED_ADDRESS: Final = 0x0001
_CHANGE_REQUEST: Final = 0x0003
_SOURCE_ADDRESS: Final = 0x0004
_CHANGED_ADDRESS: Final = 0x0005
_ERROR_CODE: Final = 0x0009
_UNKNOWN_ATTRIBUTES: Final = 0x000A
_OPTIONAL_ABOVE: Final = 0x7FFF
_CHANGE_ADDRESS_BIT: Final = 4
_CHANGE_PORT_BIT: Final = 2


def answer(request: DatagramReceived, alternate: Address | None = None) -> SendDatagram | None:
    """Return the answer to a Binding request without a magic cookie; None for anything else, and over IPv6.

    `alternate` is the endpoint of the server that differs from `request.local` in both address and port.
    """
    data, remote, local = request.data, request.remote, request.local
    if len(data) < HEADER_BYTES or not remote.port or ":" in remote.host or ":" in local.host:
        return None
    kind, size, transaction = _HEADER.unpack_from(data)
    if kind != _BINDING_REQUEST or size != len(data) - HEADER_BYTES or transaction[:4] == _COOKIE:
        return None
    try:
        attributes = tuple(_attributes(data))
    except PeerError:
        return None
    change = next((value[3] for kind, value in attributes if kind == _CHANGE_REQUEST and len(value) == 4), 0)
    wants_change = change & (_CHANGE_ADDRESS_BIT | _CHANGE_PORT_BIT)
    strange = {kind for kind, _ in attributes if kind <= _OPTIONAL_ABOVE and kind != _CHANGE_REQUEST}
    if wants_change and alternate is None:
        strange.add(_CHANGE_REQUEST)
    if strange:
        return SendDatagram(local, remote, _message(_BINDING_ERROR, transaction, _refusal(sorted(strange))))
    origin = local
    if alternate is not None:
        host = alternate.host if change & _CHANGE_ADDRESS_BIT else local.host
        origin = Address(host, alternate.port if change & _CHANGE_PORT_BIT else local.port)
    body = _address(_MAPPED_ADDRESS, remote) + _address(_SOURCE_ADDRESS, origin)
    if alternate is not None:
        body += _address(_CHANGED_ADDRESS, alternate)
    return SendDatagram(origin, remote, _message(_BINDING_RESPONSE, transaction, body))


_COOKIE: Final = MAGIC_COOKIE.to_bytes(4, "big")


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield types and values; there is no padding between them (RFC 3489, section 11.2)."""
    at = HEADER_BYTES
    count = 0
    while at < len(data):
        count += 1
        if count > ATTRIBUTES_MAX or at + _PAIR.size > len(data):
            raise PeerError("not a list of STUN attributes")
        kind, size = _PAIR.unpack_from(data, at)
        at += _PAIR.size + size
        if at > len(data):
            raise PeerError("STUN attribute reaches beyond the message")
        yield kind, data[at - size : at]


def _refusal(strange: list[int]) -> bytes:
    if len(strange) % 2:
        # The list fills whole words; a type is repeated to that end (RFC 3489, section 11.2.10).
        strange = [*strange, strange[-1]]
    types = b"".join(kind.to_bytes(2, "big") for kind in strange)
    reason = b"Unknown Attribute   "
    error = bytes((0, 0, 4, 20)) + reason
    return _PAIR.pack(_ERROR_CODE, len(error)) + error + _PAIR.pack(_UNKNOWN_ATTRIBUTES, len(types)) + types


def _address(kind: int, address: Address) -> bytes:
    packed = IPv4Address(address.host).packed
    return _PAIR.pack(kind, 8) + b"\0\1" + address.port.to_bytes(2, "big") + packed


def _message(kind: int, transaction: bytes, body: bytes) -> bytes:
    return _HEADER.pack(kind, len(body), transaction) + body
