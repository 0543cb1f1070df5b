"""STUN as a relay offers it to the whole internet: a StunServer behind limits that make it no use to a flooder.

Whoever forges the source of a request has its answer sent to a third party. That cannot be told from an honest
request, as STUN has no handshake; it can be made worthless. Three accounts are kept, for each address and for all
together:

- answers: how many there are. A flood gets fewer answers than it has requests, so it carries less than it cost.
- gain: by how much answers are longer than their requests. The shortest request of RFC 8489 is shorter than any
  answer to it can be, so every address has a little gain, and it comes back slowly. Our own programs pad their
  requests (`padded`) and need none.
- of all addresses together: the gain of the whole relay, which is what an army of forgers could win here in sum.

A request that finds an account empty is dropped: an error message would be an answer too. STUN clients ask again.
"""

import socket
from collections.abc import Sequence
from enum import Enum
from ipaddress import ip_address
from typing import Final, TypeAlias

import trio

from teale_io.runner import Runner
from teale_io.udp import ANY_V4, ANY_V6, DatagramSockets
from teale_proto.contract import NEVER, Instant, Value
from teale_proto.effects import SendDatagram
from teale_proto.errors import LocalError
from teale_proto.inputs import Address, DatagramReceived, Woken
from teale_proto.nat import stun_classic
from teale_proto.nat.stun import Message, Unknown, decode, encode
from teale_proto.nat.stun_server import StunServer
from teale_proto.relay.limits import Flow, FlowLimit
from teale_proto.relay.traffic import address_key

StunInput: TypeAlias = Woken | DatagramReceived

PAUSE_SECONDS: Final = 0.005
"""After a full turn: at most some 12 000 datagrams a second are looked at, a fraction of one core's time."""
REQUEST_BYTES: Final = 104
"""To so many bytes our requests are padded: no answer to a Binding request without PADDING is longer."""
PORT_MAX: Final = 0xFFFF
_FILLER: Final = 0xFEA1
"""A type that is optional to understand, and assigned to nothing (IANA's list of STUN attributes)."""


class StunLimits(Value):
    """What the service gives, in answers and in bytes of gain."""

    address_answers: Flow = Flow(50, burst=200)
    """For each address: an IPv4 address, or the /64 of an IPv6 address. Thousands may share one."""
    total_answers: Flow = Flow(5_000, burst=10_000)
    address_gain: Flow = Flow(16, burst=1024)
    """Two complete discoveries by a client of the shortest requests, over IPv6."""
    total_gain: Flow = Flow(16 << 10, burst=64 << 10)
    addresses_max: int = 8192
    """Addresses whose accounts are kept; beyond, the one unused for longest is forgotten."""


class Refusal(Enum):
    """Why a request was dropped."""

    ADDRESS_ANSWERS = "address"
    ADDRESS_GAIN = "address_gain"
    TOTAL_ANSWERS = "total"
    TOTAL_GAIN = "total_gain"


class _Account:
    """What is left of one address, or of all."""

    __slots__ = ("answers", "gain")

    def __init__(self, answers: Flow, gain: Flow) -> None:
        self.answers = FlowLimit(answers)
        self.gain = FlowLimit(gain)

    def is_full(self, now: Instant) -> bool:
        return self.answers.is_full(now) and self.gain.is_full(now)


class StunService:
    """A core: answers Binding requests at `primary` and, with an `alternate`, at the four endpoints of RFC 5780.

    A `primary` of None is whichever address a request came to. Raises LocalError as StunServer does.
    """

    def __init__(
        self, primary: Address | None, alternate: Address | None = None, *, limits: StunLimits | None = None
    ) -> None:
        if primary is None and alternate is not None:
            raise LocalError("an alternate needs a primary")
        self._server = None if primary is None else StunServer(primary, alternate)
        self._limits = limits or StunLimits()
        self._total = _Account(self._limits.total_answers, self._limits.total_gain)
        # The longest unused first.
        self._accounts: dict[str, _Account] = {}
        self._now: Instant = 0
        self.answered = 0
        """How many requests were answered."""
        self.not_stun = 0
        """How many datagrams were no Binding requests."""
        self.refused = dict.fromkeys(Refusal, 0)
        self.received_bytes = 0
        self.sent_bytes = 0

    @property
    def endpoints(self) -> tuple[Address, ...]:
        """The sockets that it needs; none are named where it answers at any address."""
        return () if self._server is None else self._server.endpoints

    @property
    def addresses(self) -> int:
        """How many addresses have an account."""
        return len(self._accounts)

    @property
    def deadline(self) -> Instant:
        """NEVER: nothing happens here but answers."""
        return NEVER

    def handle(self, event: StunInput, now: Instant) -> Sequence[SendDatagram]:
        """Answer one datagram, or drop it."""
        if now < self._now:
            raise LocalError(f"time ran backwards, from {self._now} to {now}")
        self._now = now
        if isinstance(event, Woken):
            return []
        self.received_bytes += len(event.data)
        answer = self._answer(event, now)
        if answer is None:
            self.not_stun += 1
            return []
        refusal = self._charge(event, answer, now)
        if refusal is not None:
            self.refused[refusal] += 1
            return []
        self.answered += 1
        self.sent_bytes += len(answer.data)
        return [answer]

    def _answer(self, event: DatagramReceived, now: Instant) -> SendDatagram | None:
        # A server keeps nothing, so one that knows only this datagram's address does as well as any.
        server = self._server or StunServer(event.local)
        for answer in server.handle(event, now):
            return answer
        opposite = (each for each in server.endpoints if _differs(each, event.local))
        return stun_classic.answer(event, next(opposite, None)) if event.local in server.endpoints else None

    def _charge(self, request: DatagramReceived, answer: SendDatagram, now: Instant) -> Refusal | None:
        """Charge an answer to its address and to all, or to nobody, and return why it may not be."""
        address, total = self._account(address_key(request.remote.host), now), self._total
        gain = len(answer.data) - len(request.data)
        if not address.answers.take(1, now):
            return Refusal.ADDRESS_ANSWERS
        if not total.answers.take(1, now):
            address.answers.give_back(1)
            return Refusal.TOTAL_ANSWERS
        refusal = None
        if gain <= 0:
            address.gain.give_back(-gain)
        elif not address.gain.take(gain, now):
            refusal = Refusal.ADDRESS_GAIN
        elif not total.gain.take(gain, now):
            address.gain.give_back(gain)
            refusal = Refusal.TOTAL_GAIN
        if refusal is not None:
            address.answers.give_back(1)
            total.answers.give_back(1)
        return refusal

    def _account(self, key: str, now: Instant) -> _Account:
        account = self._accounts.pop(key, None)
        if account is None:
            account = _Account(self._limits.address_answers, self._limits.address_gain)
            while self._accounts:
                oldest = next(iter(self._accounts))
                if len(self._accounts) < self._limits.addresses_max and not self._accounts[oldest].is_full(now):
                    break
                del self._accounts[oldest]
        self._accounts[key] = account
        return account


def _differs(one: Address, other: Address) -> bool:
    return one.host != other.host and one.port != other.port


class StunSockets:
    """A StunService with its sockets, which are open from the start. Raises OSError where one cannot be."""

    def __init__(self, service: StunService, addresses: Sequence[Address]) -> None:
        self.service: Final = service
        self._runner: Final[Runner[DatagramReceived, SendDatagram]] = Runner(service, (SendDatagram,))
        self._sockets: Final = DatagramSockets(self._runner.feed, pause_seconds=PAUSE_SECONDS)
        try:
            self.addresses: Final = tuple(self._sockets.bind(address) for address in addresses)
        except BaseException:
            self._sockets.close()
            raise
        self._runner.perform_with(self._sockets.performers)

    def close(self) -> None:
        """Close the sockets, where `run` has not been started."""
        self._sockets.close()

    async def run(self) -> None:
        """Answer until cancelled, and close the sockets; raises the error that broke the service, if one does."""
        with self._sockets:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._runner.run)
                nursery.start_soon(self._sockets.run)


def open_stun(host: str, port: int, *, alternate: str = "", limits: StunLimits | None = None) -> StunSockets:
    """Open what answers STUN at an IP address; "" is every address of both versions.

    `alternate` is another address of this machine, with or without a port, which by default is the next one; with it
    discovery of NAT behaviour is served (RFC 5780). Raises OSError where an address cannot be had, ValueError where
    the two do not fit together.
    """
    is_everywhere = not host or ip_address(host).is_unspecified
    if not alternate:
        service = StunService(None if is_everywhere else Address(host, port), limits=limits)
        hosts = (host,) if host else (ANY_V4, ANY_V6) if socket.has_dualstack_ipv6() else (ANY_V4,)
        return StunSockets(service, [Address(each, port) for each in hosts])
    if is_everywhere:
        raise ValueError("an alternate address needs one first address, not all of them")
    try:
        service = StunService(Address(host, port), _alternate(alternate, host, port), limits=limits)
    except LocalError as error:
        raise ValueError(str(error)) from None
    return StunSockets(service, service.endpoints)


def _alternate(text: str, host: str, port: int) -> Address:
    """Return the alternate that an operator named, `[2001:db8::2]:3479` for one of IPv6 with a port."""
    named, named_port = text, port + 1 if port < PORT_MAX else port - 1
    if text.startswith("[") or text.count(":") == 1:
        named, _, digits = text.rpartition(":")
        named_port = int(digits)
    other = ip_address(named.strip("[]"))
    if other.version != ip_address(host).version or other.is_unspecified:
        raise ValueError(f"{text} is not another address of the kind of {host}")
    if not 0 < named_port <= PORT_MAX:
        raise ValueError(f"{named_port} is no port")
    return Address(str(other), named_port)


def padded(request: bytes) -> bytes:
    """Return a STUN request of ours with a filler, so that whoever answers it gives no gain to a forger.

    Servers skip an attribute that they need not understand (RFC 8489, section 14).
    """
    missing = REQUEST_BYTES - len(request) - 4
    if missing < 0:
        return request
    message: Message = decode(request)
    filler = Unknown(_FILLER, bytes(missing))
    return encode(
        Message(
            message.message_class,
            message.transaction,
            (*message.attributes, filler),
            message.fingerprinted,
            message.method,
        )
    )
