"""One port of ours, opened at the gateway and kept open: by PCP, or by NAT-PMP where that is all it speaks.

PCP is asked for first. A gateway that says that it does not speak it, or says nothing at all, is asked again by
NAT-PMP, and after that it is left alone for a while. A mapping is renewed long before it ends, each attempt after
half of what remains. A gateway that restarts has forgotten it: every answer carries the seconds since it last lost
its state, and from time to time a question is asked just to see them.

What is believed comes from the gateway's own address and port, and by PCP bears our nonce.
"""

from collections.abc import Callable, Sequence
from enum import Enum
from ipaddress import ip_address
from typing import Any, ClassVar, Final

from teale_proto.contract import SECOND, Duration, Instant, Sink, Value
from teale_proto.effects import SendDatagram
from teale_proto.errors import LocalError, PeerError
from teale_proto.inputs import Address, DatagramReceived
from teale_proto.nat import nat_pmp, pcp
from teale_proto.nat.port_mapping_values import (
    LIFETIME_SECONDS_MAX,
    MappingUnwanted,
    MappingWanted,
    Patience,
    PortMappingEffect,
    PortMappingInput,
    Protocol,
    Refusal,
    ReportPortLost,
    ReportPortMapped,
    ReportPortRefused,
    ReportPortReleased,
    ReportPortUnavailable,
    Setting,
    routable,
)
from teale_proto.rng import Rng
from teale_proto.timers import Timers

LIFETIME_SECONDS_MIN: Final = 8
"""What a shorter lifetime is taken for, so that no gateway can keep us busy."""
REQUEST_GAP: Final[Duration] = 4 * SECOND
"""The least time between two renewals, or before a mapping is asked for anew (RFC 6887, section 11.2.1)."""
RECOVERY_JITTER: Final[Duration] = 5 * SECOND
"""Over how long the hosts behind a restarted gateway spread their requests (RFC 6887, section 14.1.3)."""


class _State(Enum):
    IDLE = "idle"
    ASKING_PCP = "asking by PCP"
    ASKING_ADDRESS = "asking for the address by NAT-PMP"
    ASKING_PORT = "asking for the port by NAT-PMP"
    MAPPED = "mapped"
    WAITING = "waiting to ask again"
    RELEASING = "releasing"


_ASKING: Final = frozenset({_State.ASKING_PCP, _State.ASKING_ADDRESS, _State.ASKING_PORT})


class _Moment(Enum):
    REQUEST = "the question under way is asked again, or given up"
    RENEWAL = "the mapping is renewed"
    EXPIRY = "the mapping ends"
    CHECK = "the epoch is asked for"
    RETRY = "everything is tried again"
    RECOVERY = "the mapping that a restarted gateway forgot is asked for anew"


class PortMapping:
    """A core that keeps one UDP port open at one gateway. Raises LocalError for a setting that cannot be asked for."""

    __slots__ = (
        "_address",
        "_epoch",
        "_external",
        "_lifetime",
        "_mapped_at",
        "_nonce",
        "_now",
        "_patience",
        "_protocol",
        "_renewals",
        "_requested_at",
        "_rng",
        "_sent",
        "_server",
        "_setting",
        "_state",
        "_timers",
    )

    def __init__(self, setting: Setting, rng: Rng, *, patience: Patience | None = None) -> None:
        self._setting = _checked(setting)
        self._server = Address(str(ip_address(setting.gateway)), pcp.SERVER_PORT)
        self._patience = patience or Patience()
        self._rng = rng
        self._timers: Timers[_Moment] = Timers()
        self._now: Instant = 0
        self._state = _State.IDLE
        self._protocol = Protocol.PCP
        self._nonce = b""
        self._sent = 0
        self._requested_at: Instant = 0
        self._address = ""
        """What NAT-PMP said of the external address, "" where nothing yet."""
        self._external: Address | None = None
        """Where the port is open, as it was reported."""
        self._mapped_at: Instant = 0
        self._lifetime: Duration = 0
        self._renewals = 0
        self._epoch: tuple[int, Instant] | None = None
        """What the gateway's clock showed last, in seconds, and when."""

    @property
    def deadline(self) -> Instant:
        """When something is to be sent, given up or declared lost."""
        return self._timers.deadline

    def handle(self, event: PortMappingInput, now: Instant) -> Sequence[PortMappingEffect]:
        """Take one input; raises LocalError for a command out of turn."""
        if now < self._now:
            raise LocalError(f"time ran backwards, from {self._now} to {now}")
        if isinstance(event, MappingWanted) and self._state is not _State.IDLE:
            raise LocalError("the port is wanted already, or not yet released")
        if isinstance(event, MappingUnwanted) and self._state in (_State.IDLE, _State.RELEASING):
            raise LocalError("the port is not wanted")
        self._now = now
        out: list[PortMappingEffect] = []
        if isinstance(event, MappingWanted):
            self._nonce = self._rng.randbytes(pcp.NONCE_BYTES)
            self._epoch = None
            self._ask(_State.ASKING_PCP, out)
        elif isinstance(event, MappingUnwanted):
            self._release(out)
        elif isinstance(event, DatagramReceived):
            self._received(event, out)
        else:
            while (due := self._timers.pop_due(now)) is not None:
                self._WHEN[due](self, out)
        return out

    # Asking.

    def _ask(self, state: _State, out: Sink[PortMappingEffect]) -> None:
        if state in _ASKING:
            self._protocol = Protocol.PCP if state is _State.ASKING_PCP else Protocol.NAT_PMP
        self._state = state
        self._sent = 0
        for due in (_Moment.RENEWAL, _Moment.CHECK, _Moment.RETRY, _Moment.RECOVERY):
            self._timers.cancel(due)
        self._request(out)

    def _request(self, out: Sink[PortMappingEffect]) -> None:
        """Send the question under way once more, or give it up."""
        if self._sent == self._requests_max():
            self._give_up(out)
            return
        self._sent += 1
        self._timers.set(_Moment.REQUEST, self._now + self._wait())
        if self._state is _State.ASKING_ADDRESS:
            self._send(nat_pmp.encode(nat_pmp.AddressRequest()), out)
        else:
            self._send(self._map_request(release=self._state is _State.RELEASING), out)

    def _requests_max(self) -> int:
        if self._state is _State.RELEASING:
            return self._patience.release_requests
        return self._patience.pcp_requests if self._protocol is Protocol.PCP else self._patience.nat_pmp_requests

    def _wait(self) -> Duration:
        if self._protocol is Protocol.NAT_PMP:
            return self._patience.nat_pmp_first << (self._sent - 1)
        wait = min(self._patience.pcp_first << (self._sent - 1), self._patience.pcp_longest)
        return wait - wait // 10 + self._rng.randrange(wait // 5 + 1)

    def _map_request(self, *, release: bool) -> bytes:
        setting, external = self._setting, self._external
        lifetime = 0 if release else setting.lifetime_seconds
        if self._protocol is Protocol.NAT_PMP:
            port = 0 if release else external.port if external else setting.port
            return nat_pmp.encode(nat_pmp.MapRequest(nat_pmp.Opcode.MAP_UDP, setting.port, port, lifetime))
        if external is None or release:
            host = "::" if ":" in setting.local.host else "0.0.0.0"  # noqa: S104 - "any" on the wire, nothing is bound
            external = Address(host, 0 if release else setting.port)
        request = pcp.MapRequest(self._nonce, pcp.UDP, setting.port, lifetime, setting.local.host, external)
        return pcp.encode(request)

    def _send(self, data: bytes, out: Sink[PortMappingEffect]) -> None:
        self._requested_at = self._now
        out.append(SendDatagram(self._setting.local, self._server, data))

    def _give_up(self, out: Sink[PortMappingEffect]) -> None:
        """Nothing answers: try the other protocol, or wait; a port that is not wanted is released."""
        if self._state is _State.RELEASING:
            self._released(out)
        elif self._state is _State.ASKING_PCP:
            self._fall_back(out)
        else:
            self._stay_without(ReportPortUnavailable(self._setting.local, self._patience.retry_after), out)

    def _fall_back(self, out: Sink[PortMappingEffect]) -> None:
        if ":" in self._server.host:
            self._stay_without(ReportPortUnavailable(self._setting.local, self._patience.retry_after), out)
            return
        self._epoch = None
        self._address = ""
        self._ask(_State.ASKING_ADDRESS, out)

    def _stay_without(self, report: ReportPortUnavailable | ReportPortRefused, out: Sink[PortMappingEffect]) -> None:
        self._lose(out)
        self._timers.cancel(_Moment.REQUEST)
        self._timers.set(_Moment.RETRY, self._now + report.retry_in)
        self._state = _State.WAITING
        out.append(report)

    def _lose(self, out: Sink[PortMappingEffect]) -> None:
        for due in (_Moment.EXPIRY, _Moment.RENEWAL, _Moment.CHECK, _Moment.RECOVERY):
            self._timers.cancel(due)
        if self._external is not None:
            out.append(ReportPortLost(self._setting.local, self._external))
            self._external = None

    # Keeping.

    def _mapped(self, external: Address, lifetime_seconds: int, out: Sink[PortMappingEffect]) -> None:
        """The gateway has made the mapping, or kept it."""
        seconds = min(max(lifetime_seconds, LIFETIME_SECONDS_MIN), LIFETIME_SECONDS_MAX)
        self._lifetime = seconds * SECOND
        self._mapped_at = self._now
        self._renewals = 0
        self._state = _State.MAPPED
        for due in (_Moment.REQUEST, _Moment.RETRY, _Moment.RECOVERY):
            self._timers.cancel(due)
        self._timers.set(_Moment.EXPIRY, self._now + self._lifetime)
        self._plan_renewal()
        self._plan_check()
        self._moved_to(external, out)

    def _moved_to(self, external: Address, out: Sink[PortMappingEffect]) -> None:
        if external != self._external:
            self._external = external
            where = routable(external.host)
            out.append(ReportPortMapped(self._setting.local, external, self._lifetime, self._protocol, where))

    def _plan_renewal(self) -> None:
        """Set the next renewal (RFC 6887, section 11.2.1): at 1/2 to 5/8 of the lifetime, 3/4 to 13/16."""
        passed = self._lifetime - (self._lifetime >> self._renewals + 1)
        jitter = self._rng.randrange((self._lifetime >> self._renewals + 3) + 1)
        at = max(self._mapped_at + passed + jitter, self._now + REQUEST_GAP)
        self._renewals += 1
        if at < self._mapped_at + self._lifetime:
            self._timers.set(_Moment.RENEWAL, at)

    def _renew(self, out: Sink[PortMappingEffect]) -> None:
        self._plan_renewal()
        self._send(self._map_request(release=False), out)

    def _expired(self, out: Sink[PortMappingEffect]) -> None:
        self._lose(out)
        if self._state is _State.MAPPED:
            self._retry(out)

    def _plan_check(self) -> None:
        every = self._patience.check_every
        self._timers.set(_Moment.CHECK, self._now + every - every // 8 + self._rng.randrange(every // 4 + 1))

    def _check(self, out: Sink[PortMappingEffect]) -> None:
        self._plan_check()
        if self._protocol is Protocol.PCP:
            self._send(pcp.encode(pcp.AnnounceRequest(self._setting.local.host)), out)
        else:
            self._send(nat_pmp.encode(nat_pmp.AddressRequest()), out)

    def _note_epoch(self, seconds: int, *, renewing: bool) -> None:
        """Take note of the gateway's clock; where it has lost its state, have the mapping made anew soon.

        An answer that makes the mapping says itself that it is there.
        """
        before, self._epoch = self._epoch, (seconds, self._now)
        if before is None or renewing or self._state is not _State.MAPPED:
            return
        kept = _pcp_kept if self._protocol is Protocol.PCP else _nat_pmp_kept
        if not kept(seconds - before[0], (self._now - before[1]) // SECOND):
            self._recover_soon()

    def _recover_soon(self) -> None:
        if self._timers.remaining(_Moment.RECOVERY, self._now) is None:
            at = self._now + self._rng.randrange(RECOVERY_JITTER + 1)
            self._timers.set(_Moment.RECOVERY, max(at, self._requested_at + REQUEST_GAP))

    def _recover(self, out: Sink[PortMappingEffect]) -> None:
        self._ask(_State.ASKING_PCP if self._protocol is Protocol.PCP else _State.ASKING_ADDRESS, out)

    def _retry(self, out: Sink[PortMappingEffect]) -> None:
        self._ask(_State.ASKING_PCP, out)

    # Releasing.

    def _release(self, out: Sink[PortMappingEffect]) -> None:
        # Even a question without an answer may have opened the port.
        self._timers.cancel(_Moment.EXPIRY)
        self._ask(_State.RELEASING, out)

    def _released(self, out: Sink[PortMappingEffect]) -> None:
        self._timers.cancel(_Moment.REQUEST)
        self._state = _State.IDLE
        self._external = None
        out.append(ReportPortReleased(self._setting.local))

    # What the gateway says.

    def _received(self, event: DatagramReceived, out: Sink[PortMappingEffect]) -> None:
        if event.remote != self._server or self._state is _State.IDLE:
            return
        try:
            message = (nat_pmp if event.data[:1] == b"\0" else pcp).decode_response(event.data)
        except PeerError:
            return
        # An announcement to all comes in at a port of its own.
        announced = isinstance(message, pcp.PlainResponse) and event.local.port == pcp.CLIENT_PORT
        if event.local == self._setting.local or announced:
            self._ON[type(message)](self, message, out)

    def _pcp_mapped(self, message: pcp.MapResponse, out: Sink[PortMappingEffect]) -> None:
        ours = message.nonce, message.protocol, message.internal_port
        if ours != (self._nonce, pcp.UDP, self._setting.port):
            return
        if self._state is _State.RELEASING:
            if message.result or not message.lifetime_seconds:
                self._released(out)
            return
        if message.result:
            self._pcp_refused(message.result, message.lifetime_seconds, out)
        elif message.lifetime_seconds and _usable(message.external) and self._may_be_mapped_by(Protocol.PCP):
            self._protocol = Protocol.PCP
            self._note_epoch(message.epoch_seconds, renewing=True)
            self._mapped(message.external, message.lifetime_seconds, out)

    def _may_be_mapped_by(self, protocol: Protocol) -> bool:
        """Return whether an answer, a late one too, is welcome: two protocols would open two ports."""
        return self._protocol is protocol or self._external is None

    def _pcp_plain(self, message: pcp.PlainResponse, out: Sink[PortMappingEffect]) -> None:
        if message.opcode == pcp.Opcode.ANNOUNCE and not message.result:
            if self._protocol is Protocol.PCP:
                self._note_epoch(message.epoch_seconds, renewing=False)
        elif message.opcode == pcp.Opcode.MAP and self._state is _State.ASKING_PCP:
            self._pcp_refused(message.result, message.lifetime_seconds, out)

    def _pcp_refused(self, result: int, lifetime_seconds: int, out: Sink[PortMappingEffect]) -> None:
        # A renewal that is refused leaves the mapping as it is, until its end.
        if self._state is not _State.ASKING_PCP:
            return
        if result == pcp.ResultCode.UNSUPP_OPCODE:
            self._fall_back(out)
        else:
            self._refused(_PCP_REFUSALS.get(result, Refusal.OTHER), lifetime_seconds, out)

    def _version_refused(self, _: pcp.VersionRefused, out: Sink[PortMappingEffect]) -> None:
        if self._state is _State.ASKING_PCP:
            self._fall_back(out)
        elif self._state in _ASKING:
            # It speaks neither our PCP nor NAT-PMP.
            self._stay_without(ReportPortUnavailable(self._setting.local, self._patience.retry_after), out)

    def _refused(self, reason: Refusal, lasts_seconds: int, out: Sink[PortMappingEffect]) -> None:
        retry_in = lasts_seconds * SECOND or self._patience.retry_after
        retry_in = min(max(retry_in, 30 * SECOND), LIFETIME_SECONDS_MAX * SECOND)
        self._stay_without(ReportPortRefused(self._setting.local, reason, retry_in), out)

    def _nat_pmp_address(self, message: nat_pmp.AddressResponse, out: Sink[PortMappingEffect]) -> None:
        if self._protocol is not Protocol.NAT_PMP or not _usable(Address(message.host, 1)):
            return
        self._note_epoch(message.epoch_seconds, renewing=False)
        self._address = message.host
        if self._state is _State.ASKING_ADDRESS:
            self._ask(_State.ASKING_PORT, out)
        elif self._state is _State.MAPPED and self._external is not None:
            self._moved_to(Address(message.host, self._external.port), out)

    def _nat_pmp_mapped(self, message: nat_pmp.MapResponse, out: Sink[PortMappingEffect]) -> None:
        ours = message.opcode is nat_pmp.Opcode.MAP_UDP and message.internal_port == self._setting.port
        if not ours or self._protocol is not Protocol.NAT_PMP:
            return
        if self._state is _State.RELEASING:
            if not message.lifetime_seconds:
                self._released(out)
        elif self._state in (_State.ASKING_PORT, _State.MAPPED) and message.lifetime_seconds and message.external_port:
            self._note_epoch(message.epoch_seconds, renewing=True)
            self._mapped(Address(self._address, message.external_port), message.lifetime_seconds, out)

    def _nat_pmp_refused(self, message: nat_pmp.Refused, out: Sink[PortMappingEffect]) -> None:
        if self._state is _State.ASKING_PCP:
            # Whatever was refused, it was refused in NAT-PMP.
            self._fall_back(out)
        elif self._state in (_State.ASKING_ADDRESS, _State.ASKING_PORT):
            if message.result != nat_pmp.ResultCode.UNSUPPORTED_VERSION:
                self._refused(_NAT_PMP_REFUSALS.get(message.result, Refusal.OTHER), 0, out)
        elif self._state is _State.RELEASING and self._protocol is Protocol.NAT_PMP:
            self._released(out)

    _WHEN: ClassVar[dict[_Moment, Callable[[Any, Sink[PortMappingEffect]], None]]] = {
        _Moment.REQUEST: _request,
        _Moment.RENEWAL: _renew,
        _Moment.EXPIRY: _expired,
        _Moment.CHECK: _check,
        _Moment.RETRY: _retry,
        _Moment.RECOVERY: _recover,
    }
    _ON: ClassVar[dict[type[Value], Callable[[Any, Any, Sink[PortMappingEffect]], None]]] = {
        pcp.MapResponse: _pcp_mapped,
        pcp.PlainResponse: _pcp_plain,
        pcp.VersionRefused: _version_refused,
        nat_pmp.AddressResponse: _nat_pmp_address,
        nat_pmp.MapResponse: _nat_pmp_mapped,
        nat_pmp.Refused: _nat_pmp_refused,
    }


_PCP_REFUSALS: Final[dict[int, Refusal]] = {
    pcp.ResultCode.NOT_AUTHORIZED: Refusal.NOT_AUTHORIZED,
    pcp.ResultCode.UNSUPP_PROTOCOL: Refusal.UNSUPPORTED,
    pcp.ResultCode.NETWORK_FAILURE: Refusal.NETWORK_FAILURE,
    pcp.ResultCode.NO_RESOURCES: Refusal.NO_RESOURCES,
    pcp.ResultCode.USER_EX_QUOTA: Refusal.NO_RESOURCES,
    pcp.ResultCode.CANNOT_PROVIDE_EXTERNAL: Refusal.NO_RESOURCES,
    pcp.ResultCode.ADDRESS_MISMATCH: Refusal.ADDRESS_MISMATCH,
}
_NAT_PMP_REFUSALS: Final[dict[int, Refusal]] = {
    nat_pmp.ResultCode.NOT_AUTHORIZED: Refusal.NOT_AUTHORIZED,
    nat_pmp.ResultCode.NETWORK_FAILURE: Refusal.NETWORK_FAILURE,
    nat_pmp.ResultCode.OUT_OF_RESOURCES: Refusal.NO_RESOURCES,
    nat_pmp.ResultCode.UNSUPPORTED_OPCODE: Refusal.UNSUPPORTED,
}


def _pcp_kept(server_seconds: int, client_seconds: int) -> bool:
    """Return whether two clocks that went on by so much fit a gateway that kept its state (RFC 6887, section 8.5)."""
    return (
        server_seconds >= -1
        and client_seconds + 2 >= server_seconds - server_seconds // 16
        and server_seconds + 2 >= client_seconds - client_seconds // 16
    )


def _nat_pmp_kept(server_seconds: int, client_seconds: int) -> bool:
    """Do the same by RFC 6886, section 3.6, which only minds a clock that is late."""
    return server_seconds >= client_seconds * 7 // 8 - 2


def _usable(external: Address) -> bool:
    return external.port > 0 and not ip_address(external.host).is_unspecified


def _checked(setting: Setting) -> Setting:
    try:
        hosts = ip_address(setting.local.host), ip_address(setting.gateway)
    except ValueError:
        raise LocalError("a gateway is asked from an IP address, at one") from None
    if hosts[0].version != hosts[1].version or hosts[0].is_unspecified:
        raise LocalError("a gateway is asked from an address of its own kind")
    if not 0 < setting.port < 1 << 16 or not 0 < setting.lifetime_seconds <= LIFETIME_SECONDS_MAX:
        raise LocalError("one port is mapped, for a day at most")
    return setting
