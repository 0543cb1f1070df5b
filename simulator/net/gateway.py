"""What a simulated gateway offers to the hosts behind it: to open ports by PCP, by NAT-PMP and by UPnP.

The services are one core, which answers from the gateway's inside addresses and acts on its `Nat`. They tell what
the gateway knows, so behind a carrier's NAT the external address is one that the internet does not route, and the
client has to notice. Only UDP is forwarded, because that is what a `Nat` carries.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Final

from simulator.net import igd
from simulator.net.datagrams import Internet, Realm
from simulator.net.nat import Nat
from teale_proto.contract import NEVER, SECOND, Instant, Sink, Value
from teale_proto.effects import CloseConnection, SendData, SendDatagram
from teale_proto.errors import PeerError
from teale_proto.inputs import (
    Address,
    ConnectionAccepted,
    ConnectionClosed,
    ConnectionId,
    DatagramReceived,
    DataReceived,
)
from teale_proto.nat import nat_pmp, pcp

CONNECTIONS_MAX: Final = 16
"""HTTP connections that are open at once."""

_SHORT_ERROR_SECONDS: Final = 30
_LONG_ERROR_SECONDS: Final = 1800
"""How long a refusal is to last that time may mend, and one that it will not (RFC 6887, section 7.4)."""
_PASSING: Final = frozenset({pcp.ResultCode.NETWORK_FAILURE, pcp.ResultCode.NO_RESOURCES, pcp.ResultCode.USER_EX_QUOTA})


class Services(Value):
    """What a gateway offers."""

    pcp: bool = True
    nat_pmp: bool = True
    upnp: bool = True
    lifetime_seconds_min: int = 120
    lifetime_seconds_max: int = 24 * 3600
    """RFC 6887, section 15 wants a server to keep to these two."""
    ports_per_host_max: int = 32


class Refused(Exception):
    """A port is not opened or closed; `code` is PCP's."""

    def __init__(self, code: pcp.ResultCode) -> None:
        super().__init__(code.name)
        self.code = code


class Gateway:
    """The services of one gateway, at its inside `addresses`; `nats` are one box a kind of IP address."""

    def __init__(self, addresses: Sequence[str], nats: Sequence[Nat], services: Services | None = None) -> None:
        self.addresses: Final = tuple(addresses)
        self.services: Final = services or Services()
        self._nats = tuple(nats)
        self._restarts = [nat.restarts for nat in self._nats]
        self._epoch_began: Instant = 0
        self._nonces: dict[Address, bytes] = {}
        """By whom each forwarding was opened: the nonce of PCP, or nothing."""
        self._connections: dict[ConnectionId, igd.HttpConnection] = {}
        self.now: Instant = 0

    @property
    def deadline(self) -> Instant:
        """NEVER: forwardings end by themselves, and nothing else is waited for."""
        return NEVER

    def handle(self, event: Value, now: Instant) -> Sequence[Value]:
        """Answer one datagram, or one piece of an HTTP connection; what is for no service is ignored."""
        self.now = now
        out: list[Value] = []
        take = self._ON.get(type(event))
        if take is not None:
            self._notice_restarts()
            take(self, event, out)
        return out

    def _notice_restarts(self) -> None:
        restarts = [nat.restarts for nat in self._nats]
        if restarts != self._restarts:
            self._restarts = restarts
            self._epoch_began = self.now
            self._nonces.clear()

    def _datagram(self, event: DatagramReceived, out: Sink[Value]) -> None:
        if event.local.port == pcp.SERVER_PORT:
            answer = self._map(event)
        elif event.local.port == igd.SSDP_PORT and self.services.upnp:
            answer = igd.search_answer(event.data, self._own_address(event.remote.host))
        else:
            return
        # What came to a group is answered from an address of our own.
        if answer is not None:
            local = Address(self._own_address(event.remote.host), event.local.port)
            out.append(SendDatagram(local, event.remote, answer))

    def _map(self, event: DatagramReceived) -> bytes | None:
        if event.data[:1] == bytes((nat_pmp.VERSION,)) and self.services.nat_pmp:
            return self._nat_pmp(event)
        if self.services.pcp:
            return self._pcp(event)
        if self.services.nat_pmp and len(event.data) >= 2 and event.data[1] < 0x80:
            code = nat_pmp.ResultCode.UNSUPPORTED_VERSION
            return nat_pmp.encode(nat_pmp.Refused(event.data[1], code, self._epoch()))
        return None

    # PCP.

    def _pcp(self, event: DatagramReceived) -> bytes | None:
        if event.data[:1] != bytes((pcp.VERSION,)):
            return self._pcp_refusal(event.data, pcp.ResultCode.UNSUPP_VERSION)
        try:
            request = pcp.decode_request(event.data)
        except PeerError:
            return self._pcp_refusal(event.data, pcp.ResultCode.MALFORMED_REQUEST)
        if isinstance(request, pcp.OtherRequest):
            return self._pcp_refusal(event.data, pcp.ResultCode.UNSUPP_OPCODE)
        if any(option.mandatory and option.code != pcp.OptionCode.PREFER_FAILURE for option in request.options):
            return self._pcp_refusal(event.data, pcp.ResultCode.UNSUPP_OPTION)
        if request.client != event.remote.host:
            return self._pcp_refusal(event.data, pcp.ResultCode.ADDRESS_MISMATCH)
        if isinstance(request, pcp.AnnounceRequest):
            return pcp.encode(pcp.PlainResponse(pcp.Opcode.ANNOUNCE, pcp.ResultCode.SUCCESS, self._epoch()))
        try:
            lifetime, external = self._pcp_map(request)
        except Refused as refused:
            return self._pcp_refusal(event.data, refused.code)
        return pcp.encode(
            pcp.MapResponse(
                pcp.ResultCode.SUCCESS,
                lifetime,
                self._epoch(),
                request.nonce,
                request.protocol,
                request.internal_port,
                external,
            )
        )

    def _pcp_refusal(self, request: bytes, code: pcp.ResultCode) -> bytes | None:
        lasts = _SHORT_ERROR_SECONDS if code in _PASSING else _LONG_ERROR_SECONDS
        return pcp.refuse(request, code, lifetime_seconds=lasts, epoch_seconds=self._epoch())

    def _pcp_map(self, request: pcp.MapRequest) -> tuple[int, Address]:
        """Open or close what a request asks for; return the lifetime and the outside endpoint."""
        if request.protocol != pcp.UDP or not request.internal_port:
            raise Refused(pcp.ResultCode.UNSUPP_PROTOCOL)
        inside = Address(request.client, request.internal_port)
        if not request.lifetime_seconds:
            self.close(inside, request.nonce)
            return 0, request.suggested
        exact = any(option.code == pcp.OptionCode.PREFER_FAILURE for option in request.options)
        return self.open(inside, request.suggested.port, request.lifetime_seconds, request.nonce, exact=exact)

    # NAT-PMP.

    def _nat_pmp(self, event: DatagramReceived) -> bytes | None:
        try:
            request = nat_pmp.decode_request(event.data)
        except PeerError:
            if len(event.data) < 2 or event.data[1] >= 0x80:
                return None
            code = nat_pmp.ResultCode.UNSUPPORTED_OPCODE
            return nat_pmp.encode(nat_pmp.Refused(event.data[1], code, self._epoch()))
        if isinstance(request, nat_pmp.AddressRequest):
            host = self.nat_of(event.remote.host).paired(event.remote.host)
            return nat_pmp.encode(nat_pmp.AddressResponse(self._epoch(), host))
        try:
            lifetime, port = self._nat_pmp_map(request, event.remote.host)
        except Refused as refused:
            code = _NAT_PMP_CODES.get(refused.code, nat_pmp.ResultCode.OUT_OF_RESOURCES)
            return nat_pmp.encode(nat_pmp.Refused(request.opcode, code, self._epoch()))
        return nat_pmp.encode(nat_pmp.MapResponse(request.opcode, self._epoch(), request.internal_port, port, lifetime))

    def _nat_pmp_map(self, request: nat_pmp.MapRequest, host: str) -> tuple[int, int]:
        if request.opcode is not nat_pmp.Opcode.MAP_UDP:
            raise Refused(pcp.ResultCode.UNSUPP_PROTOCOL)
        if not request.internal_port:
            if request.lifetime_seconds:
                raise Refused(pcp.ResultCode.NOT_AUTHORIZED)
            self._close_all_of(host)
            return 0, 0
        inside = Address(host, request.internal_port)
        if not request.lifetime_seconds:
            self.close(inside, b"")
            return 0, 0
        lifetime, outside = self.open(inside, request.suggested_port, request.lifetime_seconds, b"", exact=False)
        return lifetime, outside.port

    def _close_all_of(self, host: str) -> None:
        """End what one host has opened by NAT-PMP (RFC 6886, section 3.4)."""
        for forwarding in self.nat_of(host).forwardings(self.now):
            if forwarding.inside.host == host and not self._nonces.get(forwarding.inside):
                self.close(forwarding.inside, b"")

    # What both, and UPnP, come to.

    def open(
        self, inside: Address, port: int, lifetime_seconds: int, nonce: bytes, *, exact: bool
    ) -> tuple[int, Address]:
        """Forward a port, or go on doing so; return the lifetime in seconds and the outside endpoint.

        Raises Refused where that cannot be, or where it was opened under another nonce.
        """
        nat = self.nat_of(inside.host)
        known = nat.forwarding(inside, self.now)
        if known is not None and self._nonces.get(inside, b"") != nonce:
            raise Refused(pcp.ResultCode.NOT_AUTHORIZED)
        if known is None:
            forwardings = nat.forwardings(self.now)
            if len(forwardings) >= nat.kind.forwardings_max:
                raise Refused(pcp.ResultCode.NO_RESOURCES)
            if sum(other.inside.host == inside.host for other in forwardings) >= self.services.ports_per_host_max:
                raise Refused(pcp.ResultCode.USER_EX_QUOTA)
        lifetime = max(min(lifetime_seconds, self.services.lifetime_seconds_max), self.services.lifetime_seconds_min)
        outside = nat.open_port(inside, port, lifetime * SECOND, self.now, exact=exact)
        if outside is None:
            raise Refused(pcp.ResultCode.CANNOT_PROVIDE_EXTERNAL)
        if known is None:
            self._forget_nonces()
        self._nonces[inside] = nonce
        return lifetime, outside

    def close(self, inside: Address, nonce: bytes) -> None:
        """Forward a port no longer, if it is; raises Refused where it was opened under another nonce."""
        nat = self.nat_of(inside.host)
        if nat.forwarding(inside, self.now) is None:
            return
        if self._nonces.get(inside, b"") != nonce:
            raise Refused(pcp.ResultCode.NOT_AUTHORIZED)
        nat.close_port(inside, self.now)
        self._nonces.pop(inside, None)

    def _forget_nonces(self) -> None:
        """Keep the nonces of what is still forwarded, so that there are never more of them than that."""
        kept = (nonce for nonce in self._nonces.items() if self.nat_of(nonce[0].host).forwarding(nonce[0], self.now))
        self._nonces = dict(kept)

    def nat_of(self, host: str) -> Nat:
        """Return the box that the packets of an inside host pass."""
        return next(nat for nat in self._nats if nat.carries(host))

    def _own_address(self, remote: str) -> str:
        """Return our address of the kind that `remote` is of."""
        return next((own for own in self.addresses if (":" in own) == (":" in remote)), self.addresses[0])

    def _epoch(self) -> int:
        return (self.now - self._epoch_began) // SECOND

    # UPnP's HTTP.

    def _accepted(self, event: ConnectionAccepted, out: Sink[Value]) -> None:
        if len(self._connections) >= CONNECTIONS_MAX or not self.services.upnp:
            out.append(CloseConnection(event.connection, "busy"))
            return
        host = self._own_address(event.remote.host)
        self._connections[event.connection] = igd.HttpConnection(host, _UpnpTable(self, event.remote.host))

    def _data(self, event: DataReceived, out: Sink[Value]) -> None:
        http = self._connections.get(event.connection)
        if http is None:
            return
        answer = http.received(event.data)
        if answer:
            out.append(SendData(event.connection, answer))
        if http.over:
            del self._connections[event.connection]
            out.append(CloseConnection(event.connection, "done"))

    def _closed(self, event: ConnectionClosed, _: Sink[Value]) -> None:
        self._connections.pop(event.connection, None)

    _ON: ClassVar[dict[type[Value], Callable[[Any, Any, Sink[Value]], None]]] = {
        DatagramReceived: _datagram,
        ConnectionAccepted: _accepted,
        DataReceived: _data,
        ConnectionClosed: _closed,
    }


_NAT_PMP_CODES: Final = {
    pcp.ResultCode.NOT_AUTHORIZED: nat_pmp.ResultCode.NOT_AUTHORIZED,
    pcp.ResultCode.UNSUPP_PROTOCOL: nat_pmp.ResultCode.UNSUPPORTED_OPCODE,
}


class _UpnpTable:
    """What one client may do by UPnP: with its own ports alone."""

    def __init__(self, gateway: Gateway, client: str) -> None:
        self._gateway = gateway
        self._client = client

    def external_address(self) -> str:
        return self._nat.paired(self._client)

    def add(self, protocol: str, external_port: int, client: str, internal_port: int, lease_seconds: int) -> None:
        if client != self._client:
            raise igd.ActionError(*igd.NOT_AUTHORIZED)
        if protocol != "UDP" or not internal_port or not external_port:
            raise igd.ActionError(*igd.ACTION_FAILED)
        try:
            self._gateway.open(Address(client, internal_port), external_port, lease_seconds, b"", exact=True)
        except Refused as refused:
            conflict = refused.code in (pcp.ResultCode.CANNOT_PROVIDE_EXTERNAL, pcp.ResultCode.NOT_AUTHORIZED)
            raise igd.ActionError(*(igd.CONFLICT if conflict else igd.ACTION_FAILED)) from None

    def delete(self, protocol: str, external_port: int) -> None:
        now = self._gateway.now
        forwarding = self._nat.forwarded(external_port, now) if protocol == "UDP" else None
        if forwarding is None:
            raise igd.ActionError(*igd.NO_SUCH_ENTRY)
        if forwarding.inside.host != self._client:
            raise igd.ActionError(*igd.NOT_AUTHORIZED)
        try:
            self._gateway.close(forwarding.inside, b"")
        except Refused:
            raise igd.ActionError(*igd.NOT_AUTHORIZED) from None

    @property
    def _nat(self) -> Nat:
        return self._gateway.nat_of(self._client)


def attach_gateway(
    internet: Internet, realm: Realm, addresses: Sequence[str], services: Services | None = None
) -> Gateway:
    """Have the gateway of a realm offer services at these inside addresses; they are its own from now on.

    Behind a NAT of IPv4 it also hears what is sent to SSDP's group: in a realm nobody else does.
    """
    gateway = Gateway(addresses, realm.gateways, services)
    translated = any(nat.kind.translates and nat.carries(igd.SSDP_GROUP) for nat in realm.gateways)
    groups = [igd.SSDP_GROUP] if translated and gateway.services.upnp else []
    internet.add_host(f"{realm.name} gateway", [*addresses, *groups], gateway, realm=realm)
    return gateway
