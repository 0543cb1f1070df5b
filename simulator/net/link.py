"""What a packet meets on its way: a sender's uplink, the distance, chance, and a receiver's downlink.

All of it is arithmetic on integers, so a test can state exactly when something arrives:

    departs = max(now, uplink free) + size / uplink rate
    reaches = departs + both latencies + jitter + retransmissions, and never before what was sent earlier
    arrives = max(reaches, downlink free) + size / downlink rate

Loss never loses anything on a connection: as under TCP, it becomes delay, and what was sent later waits.
"""

from collections.abc import Callable
from typing import Annotated, Final, ParamSpec

from msgspec import Meta

from simulator.engine import Engine
from simulator.rng import SplitMix64
from teale_proto.contract import MILLISECOND, NEVER, SECOND, Duration, Instant, Value

P = ParamSpec("P")

PACKET_OVERHEAD_BYTES: Final = 40
"""An IPv4 header and a TCP header without options (RFC 791, RFC 9293)."""

RETRANSMISSION_MIN: Final[Duration] = 200 * MILLISECOND
"""The least time after which something lost is sent again: Linux's floor under RFC 6298."""

Rate = Annotated[int, Meta(gt=0)]


class Link(Value):
    """How one host is attached to one network; a path is made of the links at its two ends."""

    latency: Duration = 10 * MILLISECOND
    """One way, from the host to the middle of the network."""
    jitter: Duration = 0
    """The most that a packet may take longer; drawn evenly."""
    loss: float = 0.0
    """The chance, in [0, 1), that a packet has to be sent again."""
    uplink_bytes_per_second: Rate | None = None
    downlink_bytes_per_second: Rate | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.loss < 1:
            raise ValueError(f"loss is a chance in [0, 1), not {self.loss}")
        if self.latency < 0 or self.jitter < 0:
            raise ValueError("latency and jitter are not negative")


class Queue:
    """One direction of a link: it serves one packet after the other at a fixed rate."""

    __slots__ = ("_free_at", "_rate")

    def __init__(self, bytes_per_second: int | None) -> None:
        self._rate = bytes_per_second
        self._free_at: Instant = 0

    def passes_at(self, now: Instant, size_bytes: int) -> Instant:
        """Return when the last of `size_bytes` that came in at `now` has gone through."""
        if self._rate is None:
            return now
        self._free_at = max(now, self._free_at) + -(-size_bytes * SECOND // self._rate)
        return self._free_at


class Port:
    """One host's end of one network: its link with the state of its two queues, and whether it is powered."""

    __slots__ = ("address", "downlink", "link", "powered", "uplink")

    def __init__(self, address: str, link: Link) -> None:
        self.address = address
        self.link = link
        self.uplink = Queue(link.uplink_bytes_per_second)
        self.downlink = Queue(link.downlink_bytes_per_second)
        self.powered = True


def one_way(source: Port, target: Port) -> Duration:
    """Return the latency between two hosts without jitter, loss and queues."""
    return source.link.latency + target.link.latency


class Lane:
    """One direction of one connection: delivers in order, late where packets were lost."""

    __slots__ = ("_engine", "_jitter", "_loss", "_reached", "_rng", "_source", "_target", "cut_at", "latency")

    def __init__(self, engine: Engine, source: Port, target: Port, rng: SplitMix64) -> None:
        self._engine = engine
        self._source = source
        self._target = target
        self._rng = rng
        self.latency: Final = one_way(source, target)
        self._jitter = source.link.jitter + target.link.jitter
        self._loss = 1 - (1 - source.link.loss) * (1 - target.link.loss)
        self._reached: Instant = 0
        self.cut_at: Instant = NEVER
        """When the source died; what had not left its uplink by then never will."""

    def carry(self, size_bytes: int, packets: int, arrive: Callable[P, object], *args: P.args, **kw: P.kwargs) -> None:
        """Call `arrive` when the last of `packets` packets with `size_bytes` of payload in all is there."""
        size_bytes += packets * PACKET_OVERHEAD_BYTES
        departs = self._source.uplink.passes_at(self._engine.now, size_bytes)
        reaches = departs + self.latency + self._delay(packets)
        self._reached = max(reaches, self._reached)
        self._engine.call_at(self._reached, self._reach, departs, size_bytes, lambda: arrive(*args, **kw))

    def _delay(self, packets: int) -> Duration:
        delay = self._rng.randrange(self._jitter + 1) if self._jitter else 0
        if not self._loss:
            return delay
        # Packets are sent again side by side, so the unluckiest of them decides.
        return delay + max(self._retransmission_delay() for _ in range(packets))

    def _retransmission_delay(self) -> Duration:
        delay, timeout = 0, max(RETRANSMISSION_MIN, 2 * self.latency)
        while self._rng.random() < self._loss:
            delay += timeout
            timeout *= 2
        return delay

    def _reach(self, departed: Instant, size_bytes: int, arrive: Callable[[], object]) -> None:
        if departed > self.cut_at or not self._target.powered:
            return
        now = self._engine.now
        arrives = self._target.downlink.passes_at(now, size_bytes)
        if arrives == now:
            arrive()
        else:
            self._engine.call_at(arrives, self._arrive, arrive)

    def _arrive(self, arrive: Callable[[], object]) -> None:
        if self._target.powered:
            arrive()
