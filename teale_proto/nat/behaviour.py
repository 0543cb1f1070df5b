"""What kind of NAT stands between one socket and the internet, by asking a STUN server (RFC 5780, section 4).

Filtering is probed before mapping, although RFC 5780 tells it in the other order: the mapping tests send to the
server's other address, and that would open the filter that is to be probed. As the wait for answers that a
filter holds back is long, and a NAT may have forgotten the mapping meanwhile, the mapping tests are compared
with a fresh first test.

What to ask next and what follows from the answers are pure functions of the findings so far; the core only
sends, waits and sends again.
"""

from collections.abc import Mapping as ReadOnly
from collections.abc import Sequence
from enum import Enum
from ipaddress import ip_address
from typing import Final, TypeAlias

from teale_proto.contract import MILLISECOND, Duration, Instant, Sink, Value
from teale_proto.effects import SendDatagram
from teale_proto.errors import LocalError, PeerError
from teale_proto.inputs import Address, DatagramReceived, Woken
from teale_proto.nat.kinds import Behaviour, Filtering, Hairpinning, Mapping
from teale_proto.nat.stun import (
    TRANSACTION_BYTES,
    Attribute,
    ChangeRequest,
    MappedAddress,
    Message,
    MessageClass,
    OtherAddress,
    XorMappedAddress,
    decode,
    encode,
)
from teale_proto.rng import Rng
from teale_proto.timers import Timers


class Finding(Value):
    """What came of a probe; without `mapped` it was answered by nothing of use."""

    answered: bool
    mapped: Address | None = None
    """For a hairpin, where our own packet came from."""
    other: Address | None = None
    """The server's other address, where it offers one."""


class DiscoveryStarted(Value):
    """The socket is open and the network is there: find out now; legal again once the last report is out."""

    reach: Finding | None = None
    """What came of the first question, where the server was just asked that from this socket."""


class ReportMapped(Value):
    """The server sees the local endpoint as `mapped`; what kind of NAT makes it so is still being asked."""

    local: Address
    mapped: Address


class ReportBehaviour(Value):
    """The discovery is over; every DiscoveryStarted leads to exactly one of these."""

    local: Address
    behaviour: Behaviour


DiscoveryInput: TypeAlias = Woken | DiscoveryStarted | DatagramReceived
DiscoveryEffect: TypeAlias = SendDatagram | ReportMapped | ReportBehaviour


class Retransmission(Value):
    """How long to ask (RFC 8489, section 6.2.1): by default 7 requests in 31.5 s, given up after 39.5 s."""

    first: Duration = 500 * MILLISECOND
    """RTO: the wait after the first request; it doubles from request to request."""
    requests: int = 7
    """Rc: how many requests there are."""
    patience: int = 16
    """Rm: how many times `first` to wait after the last request."""

    def wait_after(self, request: int) -> Duration:
        """Return how long to wait for an answer to the `request`-th request."""
        return self.first << (request - 1) if request < self.requests else self.first * self.patience


class Probe(Enum):
    """One question to the server; the numerals are those of RFC 5780's tests."""

    REACH = "test I"
    FILTER_BOTH = "filtering, test II: answer from another address and port"
    FILTER_PORT = "filtering, test III: answer from another port"
    HAIRPIN = "to our own mapping"
    REACH_AGAIN = "test I, right before the mapping tests"
    MAP_ADDRESS = "mapping, test II: to another address"
    MAP_BOTH = "mapping, test III: to another address and port"


SILENT: Final = Finding(answered=False)
REFUSED: Final = Finding(answered=True)

Findings: TypeAlias = ReadOnly[Probe, Finding]


class Setting(Value):
    """What the questions are about; `second` is another ordinary server, at another address."""

    local: Address
    server: Address
    second: Address | None = None
    hairpin: bool = True


def next_probes(findings: Findings, setting: Setting) -> tuple[Probe, ...]:
    """Return what is to be asked next, all at once; nothing when all is known that can be."""
    if Probe.REACH not in findings:
        return (Probe.REACH,)
    reach = findings[Probe.REACH]
    if reach.mapped is None:
        return ()
    translated = reach.mapped != setting.local
    filtering = (Probe.FILTER_BOTH, Probe.FILTER_PORT) if reach.other else ()
    hairpin = (Probe.HAIRPIN,) if translated and setting.hairpin else ()
    waiting = tuple(probe for probe in (*filtering, *hairpin) if probe not in findings)
    if waiting:
        return waiting
    if not translated or not (reach.other or setting.second):
        return ()
    mapping = (Probe.REACH_AGAIN, Probe.MAP_ADDRESS, *((Probe.MAP_BOTH,) if reach.other else ()))
    for probe in mapping:
        if probe not in findings:
            # The third test only splits what the second has found to vary.
            return () if probe is Probe.MAP_BOTH and _varies(findings) is not True else (probe,)
        if findings[probe].mapped is None:
            return ()
    return ()


def conclude(findings: Findings, setting: Setting) -> Behaviour:
    """Return what follows from the findings (RFC 5780, sections 4.3 and 4.4)."""
    reach = findings[Probe.REACH]
    if reach.mapped is None:
        return Behaviour(udp_blocked=not reach.answered)
    translated = reach.mapped != setting.local
    return Behaviour(
        udp_blocked=False,
        mapped=findings.get(Probe.REACH_AGAIN, reach).mapped or reach.mapped,
        translated=translated,
        mapping=_mapping(findings) if translated else Mapping.ENDPOINT_INDEPENDENT,
        mapping_varies=_varies(findings) if translated else False,
        filtering=_filtering(findings),
        hairpinning=_hairpinning(findings),
    )


def target(probe: Probe, findings: Findings, setting: Setting) -> Address:
    """Return where the request of a probe goes."""
    if probe not in (Probe.HAIRPIN, Probe.MAP_ADDRESS, Probe.MAP_BOTH):
        return setting.server
    reach = findings[Probe.REACH]
    if probe is Probe.HAIRPIN:
        assert reach.mapped is not None, "only what has a mapping has a hairpin"
        return reach.mapped
    if reach.other is None:
        assert setting.second is not None, "nobody else to ask"
        return setting.second
    return reach.other if probe is Probe.MAP_BOTH else Address(reach.other.host, setting.server.port)


def origin(probe: Probe, findings: Findings, setting: Setting) -> Address:
    """Return where the answer to a probe comes from; from elsewhere it proves nothing."""
    other = findings[Probe.REACH].other if Probe.REACH in findings else None
    if other is not None and probe is Probe.FILTER_BOTH:
        return other
    if other is not None and probe is Probe.FILTER_PORT:
        return Address(setting.server.host, other.port)
    return target(probe, findings, setting)


def _varies(findings: Findings) -> bool | None:
    first, second = findings.get(Probe.REACH_AGAIN, SILENT), findings.get(Probe.MAP_ADDRESS, SILENT)
    return None if first.mapped is None or second.mapped is None else first.mapped != second.mapped


def _mapping(findings: Findings) -> Mapping | None:
    varies = _varies(findings)
    if not varies:
        return None if varies is None else Mapping.ENDPOINT_INDEPENDENT
    third = findings.get(Probe.MAP_BOTH, SILENT)
    if third.mapped is None:
        return None
    same = third.mapped == findings[Probe.MAP_ADDRESS].mapped
    return Mapping.ADDRESS_DEPENDENT if same else Mapping.ADDRESS_AND_PORT_DEPENDENT


def _filtering(findings: Findings) -> Filtering | None:
    both, port = findings.get(Probe.FILTER_BOTH, REFUSED), findings.get(Probe.FILTER_PORT, REFUSED)
    if both.mapped is not None:
        return Filtering.ENDPOINT_INDEPENDENT
    if both.answered or (port.answered and port.mapped is None):
        return None
    return Filtering.ADDRESS_DEPENDENT if port.answered else Filtering.ADDRESS_AND_PORT_DEPENDENT


def _hairpinning(findings: Findings) -> Hairpinning | None:
    hairpin, mapped = findings.get(Probe.HAIRPIN), findings[Probe.REACH].mapped
    if hairpin is None or mapped is None:
        return None
    if hairpin.mapped is None:
        return Hairpinning.NONE
    # Where the mapping depends on the destination, the packet to ourselves came from a port of its own.
    external = hairpin.mapped.host == mapped.host
    return Hairpinning.EXTERNAL_SOURCE if external else Hairpinning.INTERNAL_SOURCE


class _Transaction:
    """One probe under way."""

    __slots__ = ("data", "id", "origin", "sent", "target")

    def __init__(self, probe: Probe, findings: Findings, setting: Setting, transaction: bytes) -> None:
        self.id = transaction
        self.target = target(probe, findings, setting)
        self.origin = origin(probe, findings, setting)
        self.sent = 0
        attributes: tuple[Attribute, ...] = ()
        if probe in (Probe.FILTER_BOTH, Probe.FILTER_PORT):
            attributes = (ChangeRequest(address=probe is Probe.FILTER_BOTH, port=True),)
        self.data = encode(Message(MessageClass.REQUEST, transaction, attributes, fingerprinted=True))


class BehaviourDiscovery:
    """A core that classifies what is around one socket, once for every DiscoveryStarted.

    `setting.local` is the socket's own address; were it unspecified, a node without NAT would seem to have one.
    Raises LocalError where the servers are not given by IP address, or `second` is at the address of the first.
    """

    __slots__ = ("_findings", "_now", "_retransmission", "_rng", "_setting", "_timers", "_under_way")

    def __init__(self, setting: Setting, rng: Rng, *, retransmission: Retransmission | None = None) -> None:
        self._setting = _checked(setting)
        self._rng = rng
        self._retransmission = retransmission or Retransmission()
        self._findings: dict[Probe, Finding] = {}
        self._under_way: dict[Probe, _Transaction] = {}
        self._timers: Timers[Probe] = Timers()
        self._now: Instant = 0

    @property
    def deadline(self) -> Instant:
        """When the next request is to be sent or given up."""
        return self._timers.deadline

    def handle(self, event: DiscoveryInput, now: Instant) -> Sequence[DiscoveryEffect]:
        """Take one input; raises LocalError for a DiscoveryStarted while a discovery is under way."""
        if now < self._now:
            raise LocalError(f"time ran backwards, from {self._now} to {now}")
        if isinstance(event, DiscoveryStarted) and self._under_way:
            raise LocalError("a discovery is under way")
        self._now = now
        out: list[DiscoveryEffect] = []
        if isinstance(event, DiscoveryStarted):
            self._findings.clear()
            if event.reach is not None:
                self._findings[Probe.REACH] = event.reach
            self._advance(now, out)
        elif isinstance(event, DatagramReceived):
            self._received(event, now, out)
        else:
            while (probe := self._timers.pop_due(now)) is not None:
                self._ask(probe, now, out)
        return out

    def _advance(self, now: Instant, out: Sink[DiscoveryEffect]) -> None:
        probes = next_probes(self._findings, self._setting)
        for probe in probes:
            transaction = self._rng.randbytes(TRANSACTION_BYTES)
            self._under_way[probe] = _Transaction(probe, self._findings, self._setting, transaction)
        for probe in probes:
            self._ask(probe, now, out)
        if not probes:
            out.append(ReportBehaviour(self._setting.local, conclude(self._findings, self._setting)))

    def _ask(self, probe: Probe, now: Instant, out: Sink[DiscoveryEffect]) -> None:
        """Send the next request of a probe, or give it up after the last."""
        transaction = self._under_way[probe]
        if transaction.sent == self._retransmission.requests:
            self._found(probe, SILENT, now, out)
            return
        transaction.sent += 1
        self._timers.set(probe, now + self._retransmission.wait_after(transaction.sent))
        out.append(SendDatagram(self._setting.local, transaction.target, transaction.data))

    def _found(self, probe: Probe, finding: Finding, now: Instant, out: Sink[DiscoveryEffect]) -> None:
        self._end(probe, finding)
        if probe is Probe.REACH and finding.mapped is not None:
            out.append(ReportMapped(self._setting.local, finding.mapped))
        if probe is Probe.FILTER_BOTH and finding.answered and Probe.FILTER_PORT in self._under_way:
            # Who lets in everybody need not be asked about somebody.
            self._end(Probe.FILTER_PORT, REFUSED)
        if not self._under_way:
            self._advance(now, out)

    def _end(self, probe: Probe, finding: Finding) -> None:
        del self._under_way[probe]
        self._timers.cancel(probe)
        self._findings[probe] = finding

    def _received(self, event: DatagramReceived, now: Instant, out: Sink[DiscoveryEffect]) -> None:
        if event.local != self._setting.local:
            return
        try:
            message = decode(event.data)
        except PeerError:
            return
        for probe, transaction in self._under_way.items():
            if transaction.id == message.transaction:
                finding = self._finding(probe, transaction, message, event.remote)
                if finding is not None:
                    self._found(probe, finding, now, out)
                return

    def _finding(self, probe: Probe, asked: _Transaction, message: Message, remote: Address) -> Finding | None:
        """Return what a message that belongs to a probe tells, or None where it proves nothing."""
        if probe is Probe.HAIRPIN:
            return Finding(answered=True, mapped=remote) if message.message_class is MessageClass.REQUEST else None
        if remote != asked.origin:
            # A server that ignores CHANGE-REQUEST, or refuses it, answers from where it was asked.
            return REFUSED if remote == asked.target else None
        return finding_in(message, self._setting.server)


def finding_in(message: Message, server: Address) -> Finding | None:
    """Return what the answer of a server tells, or None where it is none."""
    if message.message_class is MessageClass.ERROR:
        return REFUSED
    mapped = message.get(XorMappedAddress) or message.get(MappedAddress)
    if message.message_class is not MessageClass.SUCCESS or mapped is None:
        return None
    return Finding(answered=True, mapped=mapped.address, other=_usable(message, server))


def _checked(setting: Setting) -> Setting:
    """Return the setting with its servers as a socket would name them."""
    server, second = _canonical(setting.server), setting.second and _canonical(setting.second)
    if second is not None and second.host == server.host:
        raise LocalError("two ports of one address do not tell an address-dependent mapping")
    return Setting(setting.local, server, second, setting.hairpin)


def _canonical(address: Address) -> Address:
    try:
        return Address(str(ip_address(address.host)), address.port)
    except ValueError:
        raise LocalError("a STUN server is asked at an IP address") from None


def _usable(message: Message, server: Address) -> Address | None:
    """Return the server's other address if it differs in address and port, and is somewhere one may send to."""
    offered = message.get(OtherAddress)
    if offered is None:
        return None
    here, there = ip_address(server.host), ip_address(offered.address.host)
    differs = there != here and offered.address.port not in (0, server.port)
    reachable = there.version == here.version and not (there.is_multicast or there.is_unspecified)
    return offered.address if differs and reachable else None
