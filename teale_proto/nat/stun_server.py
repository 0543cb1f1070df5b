"""A STUN server: says where a datagram came from, and answers from elsewhere when asked to.

With a second address and port it also serves NAT behaviour discovery (RFC 5780, section 6); with one address
it is an ordinary server, which refuses CHANGE-REQUEST. Either answers to another port of the address that asked,
where RESPONSE-PORT says so: that is how the lifetime of a mapping is found out. It keeps nothing between two datagrams.

What a forged source address can gain: every datagram causes at most one answer, and an answer is at most 72
bytes longer than its request (over IPv4 36): 2.8 times the shortest request over IPv4 and 4.6 times over IPv6,
or 1.8 and 2.1 times with the headers of IP and UDP. PADDING is answered by no more than was sent, where RFC
5780 would have the server fill its MTU. RESPONSE-PORT gains nothing: the answer goes to the address that it would
have gone to without, whose port a forger chooses anyway.
"""

from collections.abc import Sequence
from typing import Final, TypeAlias

from teale_proto.contract import NEVER, Instant
from teale_proto.effects import SendDatagram
from teale_proto.errors import LocalError, PeerError
from teale_proto.inputs import Address, DatagramReceived, Woken
from teale_proto.nat.stun import (
    BINDING,
    Attribute,
    ChangeRequest,
    ErrorCode,
    Message,
    MessageClass,
    OtherAddress,
    Padding,
    ResponseOrigin,
    ResponsePort,
    UnknownAttributes,
    XorMappedAddress,
    decode,
    encode,
)

StunServerInput: TypeAlias = Woken | DatagramReceived

PADDING_BYTES_MAX: Final = 1500
"""An Ethernet frame's worth: more makes no further fragment."""

_CHANGE_REQUEST: Final = 0x0003


class StunServer:
    """A core that answers Binding requests at `primary`, and at three more endpoints where there is `alternate`.

    Raises LocalError when the two share their address or port: four different endpoints are what tells
    mapping and filtering apart.
    """

    __slots__ = ("_alternate", "_endpoints", "_now")

    def __init__(self, primary: Address, alternate: Address | None = None) -> None:
        if alternate is not None and (alternate.host == primary.host or alternate.port == primary.port):
            raise LocalError("the alternate of a STUN server differs in address and port")
        self._alternate = {} if alternate is None else {primary: alternate, alternate: primary}
        if alternate is not None:
            crossed = Address(primary.host, alternate.port), Address(alternate.host, primary.port)
            self._alternate.update(zip(crossed, reversed(crossed), strict=True))
        self._endpoints = tuple(self._alternate) or (primary,)
        self._now: Instant = 0

    @property
    def endpoints(self) -> tuple[Address, ...]:
        """The sockets that it needs: one or four."""
        return self._endpoints

    @property
    def deadline(self) -> Instant:
        """NEVER: a server waits for nothing."""
        return NEVER

    def handle(self, event: StunServerInput, now: Instant) -> Sequence[SendDatagram]:
        """Answer one datagram; what is no Binding request, or is not for one of the endpoints, is ignored."""
        if now < self._now:
            raise LocalError(f"time ran backwards, from {self._now} to {now}")
        self._now = now
        if isinstance(event, Woken) or event.local not in self._endpoints or not event.remote.port:
            return []
        try:
            request = decode(event.data)
        except PeerError:
            return []
        if request.message_class is not MessageClass.REQUEST or request.method != BINDING:
            return []
        return [self._answer(request, event.local, event.remote)]

    def _answer(self, request: Message, local: Address, remote: Address) -> SendDatagram:
        change, padding, port = request.get(ChangeRequest), request.get(Padding), request.get(ResponsePort)
        if port is not None and (padding is not None or not port.port):
            # RFC 5780, section 7.5 forbids the two together; and nobody listens on port 0.
            return _datagram(request, MessageClass.ERROR, (ErrorCode(400, "Bad Request"),), local, remote)
        # A refusal goes there too: whoever listens at that port hears nothing at another.
        target = remote if port is None else Address(remote.host, port.port)
        refused = request.not_understood
        if change is not None and not self._alternate:
            refused = (_CHANGE_REQUEST, *refused)
        if refused:
            attributes: tuple[Attribute, ...] = (ErrorCode(420, "Unknown Attribute"), UnknownAttributes(refused))
            return _datagram(request, MessageClass.ERROR, attributes, local, target)
        origin = self._origin(local, change)
        attributes = (XorMappedAddress(remote), ResponseOrigin(origin))
        if self._alternate:
            attributes += (OtherAddress(self._alternate[local]),)
        if padding is not None:
            attributes += (Padding(min(padding.size_bytes, PADDING_BYTES_MAX)),)
        return _datagram(request, MessageClass.SUCCESS, attributes, origin, target)

    def _origin(self, local: Address, change: ChangeRequest | None) -> Address:
        """Return where to answer from (RFC 5780, section 6.1, table 1)."""
        if change is None:
            return local
        other = self._alternate[local]
        return Address(other.host if change.address else local.host, other.port if change.port else local.port)


def _datagram(
    request: Message, answer: MessageClass, attributes: tuple[Attribute, ...], origin: Address, remote: Address
) -> SendDatagram:
    message = Message(answer, request.transaction, attributes, request.fingerprinted)
    return SendDatagram(origin, remote, encode(message))
