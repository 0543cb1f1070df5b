"""How a NAT chooses the outside ports of new mappings, by asking STUN servers from fresh sockets.

RFC 4787 (section 4.2.1) names the ways; only where the mapping varies with the destination does it matter, because
then the port towards a peer is one that nobody has seen yet. The questions are asked one after another, as the
order of the ports is what tells.
"""

from collections.abc import Sequence
from enum import Enum
from itertools import pairwise
from typing import Final, TypeAlias

from teale_proto.contract import MILLISECOND, NEVER, Duration, Instant, Value
from teale_proto.effects import SendDatagram
from teale_proto.errors import LocalError, PeerError
from teale_proto.inputs import Address, DatagramReceived, Woken
from teale_proto.nat.birthday import PORT_MAX, PORT_MIN
from teale_proto.nat.stun import TRANSACTION_BYTES, Message, MessageClass, XorMappedAddress, decode, encode
from teale_proto.rng import Rng

STEP_MAX: Final = 64
"""Two ports further apart than this are no sequence."""

REQUESTS: Final = 5
WAIT: Final[Duration] = 300 * MILLISECOND


class Pattern(Enum):
    """What the next port depends on."""

    PRESERVING = "preserving"
    """The inside port, where that is free."""
    SEQUENTIAL = "sequential"
    RANDOM = "random"


class Allocation(Value):
    """How ports are chosen, as far as a few samples tell."""

    pattern: Pattern
    step: int = 0
    """How far one new port is from the one before it; 0 unless sequential."""
    port_min: int = PORT_MIN
    port_max: int = PORT_MAX

    @property
    def predictable(self) -> bool:
        """Whether the next port can be told from outside."""
        return self.pattern is not Pattern.RANDOM

    def following(self, base: int, count: int) -> tuple[int, ...]:
        """Return the `count` ports that come next, the likeliest first.

        `base` is the last port given, or for a preserving NAT the inside port of the socket that will ask.
        """
        step = self.step if self.pattern is Pattern.SEQUENTIAL else 1
        first = base + step if self.pattern is Pattern.SEQUENTIAL else base
        ports = (first + step * further for further in range(count))
        return tuple(port for port in ports if 0 < port <= PORT_MAX)


class Sample(Value):
    """The outside port of a mapping that a fresh inside port got."""

    inside: int
    outside: int


def allocation_from(samples: Sequence[Sample]) -> Allocation | None:
    """Return how ports are chosen, from samples in the order in which they were taken; None from fewer than three.

    A port that stays the same for one socket belongs to one mapping and counts once.
    """
    fresh = [sample for at, sample in enumerate(samples) if not any(sample == earlier for earlier in samples[:at])]
    if len(fresh) < 3:
        return None
    if fresh[0].inside == fresh[0].outside:
        return Allocation(Pattern.PRESERVING)
    steps = [after.outside - before.outside for before, after in pairwise(fresh)]
    if all(0 < step <= STEP_MAX for step in steps):
        # Somebody else's packet in between makes a step longer, never shorter.
        return Allocation(Pattern.SEQUENTIAL, min(steps))
    return Allocation(Pattern.RANDOM)


class SamplingStarted(Value):
    """The sockets are open and fresh: nothing has left through them yet."""


class ReportAllocation(Value):
    """The sampling is over; None where too few servers answered."""

    allocation: Allocation | None


SamplingInput: TypeAlias = Woken | SamplingStarted | DatagramReceived
SamplingEffect: TypeAlias = SendDatagram | ReportAllocation


class AllocationSampling:
    """A core that asks every server from every socket, one after another, once.

    Raises LocalError where there are fewer than three questions: two ports are no sequence.
    """

    __slots__ = ("_at", "_now", "_questions", "_rng", "_samples", "_sent", "_transaction", "deadline")

    def __init__(self, sockets: Sequence[Address], servers: Sequence[Address], rng: Rng) -> None:
        self._questions = [(local, server) for local in sockets for server in servers]
        if len(self._questions) < 3:
            raise LocalError("fewer than three ports tell no pattern")
        self._rng = rng
        self._samples: list[Sample] = []
        self._transaction = b""
        self._at = self._sent = 0
        self._now: Instant = 0
        self.deadline: Instant = NEVER
        """When the next request is to be sent."""

    def handle(self, event: SamplingInput, now: Instant) -> Sequence[SamplingEffect]:
        """Take one input; raises LocalError for a second SamplingStarted."""
        if now < self._now:
            raise LocalError(f"time ran backwards, from {self._now} to {now}")
        if isinstance(event, SamplingStarted) and self._transaction:
            raise LocalError("the sockets are not fresh any more")
        self._now = now
        if isinstance(event, DatagramReceived):
            return self._received(event, now)
        if isinstance(event, SamplingStarted):
            return self._ask_next(now)
        if now < self.deadline:
            return []
        return self._ask_next(now) if self._sent == REQUESTS else self._send(now)

    def _ask_next(self, now: Instant) -> Sequence[SamplingEffect]:
        if self._transaction:
            self._at += 1
        if self._at == len(self._questions):
            self.deadline = NEVER
            return [ReportAllocation(allocation_from(self._samples))]
        self._transaction = self._rng.randbytes(TRANSACTION_BYTES)
        self._sent = 0
        return self._send(now)

    def _send(self, now: Instant) -> Sequence[SamplingEffect]:
        self._sent += 1
        self.deadline = now + WAIT * self._sent
        local, server = self._questions[self._at]
        request = Message(MessageClass.REQUEST, self._transaction, fingerprinted=True)
        return [SendDatagram(local, server, encode(request))]

    def _received(self, event: DatagramReceived, now: Instant) -> Sequence[SamplingEffect]:
        if self.deadline == NEVER or (event.local, event.remote) != self._questions[self._at]:
            return []
        mapped = mapped_in(event.data, self._transaction)
        if mapped is None:
            return []
        self._samples.append(Sample(event.local.port, mapped.port))
        return self._ask_next(now)


def mapped_in(data: bytes, transaction: bytes) -> Address | None:
    """Return what an answer to the Binding request `transaction` says, or None for anything else."""
    try:
        message = decode(data)
    except PeerError:
        return None
    if message.message_class is not MessageClass.SUCCESS or message.transaction != transaction:
        return None
    mapped = message.get(XorMappedAddress)
    return mapped.address if mapped else None
