"""How something is attached to a network, and what a packet meets there: distance, chance, a queue each way.

A link leads from a host, or from a whole site, towards the middle of the network; a path is made of the links on its
way up and of those on its way down. The same value describes what streams and datagrams meet, and they share its
queues. What streams make of loss is in `simulator.net.lane`, what becomes of datagrams in `simulator.net.packets`.

Loss can come in bursts (Gilbert, Bell System Technical Journal 39, 1960; Elliott, 42, 1963): a link is good or bad,
stays either for a time that is exponentially distributed, and loses packets with a chance of its own in each. Its
state moves with time and not with packets, so that it is the same whoever sends.
"""

from typing import Annotated, Final

from msgspec import Meta

from simulator.rng import SplitMix64, stream
from teale_proto.contract import MILLISECOND, SECOND, Duration, Instant, Value

Rate = Annotated[int, Meta(gt=0)]

PACKET_OVERHEAD_BYTES: Final = 40
"""An IPv4 header and a TCP header without options (RFC 791, RFC 9293)."""

_WORD: Final = 1 << 64


class Burst(Value):
    """Loss in bursts: how long a link stays good and bad on average, and what share of packets is lost meanwhile."""

    good: Duration
    bad: Duration
    loss_good: float = 0.0
    loss_bad: float = 1.0

    def __post_init__(self) -> None:
        if min(self.good, self.bad) <= 0:
            raise ValueError("a link is good and bad for more than no time")
        for name in ("loss_good", "loss_bad"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a chance in [0, 1], not {getattr(self, name)}")
        if self.loss == 1:
            raise ValueError("what loses everything is no link")

    @property
    def loss(self) -> float:
        """The share of packets lost in the long run."""
        return (self.good * self.loss_good + self.bad * self.loss_bad) / (self.good + self.bad)


class Link(Value):
    """How a host is attached to a site, or a site to what is around it; each direction fares alike but for its rate."""

    latency: Duration = 10 * MILLISECOND
    """One way, from here to the middle of the network."""
    jitter: Duration = 0
    """The most that a packet may take longer; drawn evenly. What is behind it waits rather than overtake it."""
    loss: float = 0.0
    """The chance, in [0, 1), that a packet is lost; on a stream it is then sent again."""
    uplink_bytes_per_second: Rate | None = None
    downlink_bytes_per_second: Rate | None = None
    burst: Burst | None = None
    """Loss in bursts, beside `loss`."""
    reordering: float = 0.0
    """The chance that a packet is held for up to `reordered_by`, and others overtake it."""
    reordered_by: Duration = 20 * MILLISECOND
    duplication: float = 0.0
    """The chance that a datagram arrives twice; the copy takes its own time. TCP sorts copies out."""
    corruption: float = 0.0
    """The chance, in [0, 1), that one bit of a datagram arrives turned over. TCP's checksum makes it a loss."""
    buffer_bytes: Rate | None = None
    """How much may wait at either end of the line for its turn; what finds no room is lost. None: any amount."""
    mtu_bytes: Rate = 1500
    """The largest datagram that passes, IP header included; there are no fragments. Streams keep within it."""

    def __post_init__(self) -> None:
        for name in ("loss", "corruption"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is a chance in [0, 1), not {getattr(self, name)}")
        for name in ("reordering", "duplication"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a chance in [0, 1], not {getattr(self, name)}")
        if min(self.latency, self.jitter, self.reordered_by) < 0:
            raise ValueError("latency, jitter and reordered_by are not negative")

    @property
    def leaves_to_chance(self) -> bool:
        """Whether anything but its queues and the distance decides what becomes of a packet."""
        chances = self.jitter or self.loss or self.reordering or self.duplication or self.corruption
        return bool(chances) or self.burst is not None

    @property
    def lossiness(self) -> float:
        """The chance that a packet of a stream is lost or damaged, bursts apart."""
        return 1 - (1 - self.loss) * (1 - self.corruption)


CABLE: Final = Link(latency=0)
"""A host's cable to its own site: the distance is in the site's line."""


class Way:
    """One direction of a link: the queue in front of it, and what its weather has come to."""

    __slots__ = ("_burst", "_changes_at", "_free_at", "_is_bad", "_rng", "reached")

    def __init__(self) -> None:
        self._free_at: Instant = 0
        self._burst: Burst | None = None
        self._rng: SplitMix64 | None = None
        self._is_bad = False
        self._changes_at: Instant = 0
        self.reached: Instant = 0
        """When the last datagram in order gets to the other end."""

    def passes_at(self, now: Instant, size_bytes: int, bytes_per_second: int) -> Instant:
        """Return when the last of `size_bytes` that came in at `now` has gone through, one packet after the other."""
        self._free_at = max(now, self._free_at) + -(-size_bytes * SECOND // bytes_per_second)
        return self._free_at

    def has_room(self, now: Instant, size_bytes: int, bytes_per_second: int, buffer_bytes: int | None) -> bool:
        """Return whether so much can wait beside what is waiting already; where nothing waits, anything can."""
        if buffer_bytes is None or self._free_at <= now:
            return True
        waiting = -(-(self._free_at - now) * bytes_per_second // SECOND)
        return waiting + size_bytes <= buffer_bytes

    def loss(self, now: Instant, burst: Burst, seed: int, name: str, purpose: str) -> float:
        """Return the chance that a burst takes a packet at `now`, which never runs backwards."""
        rng = self._rng
        if rng is None or self._burst is not burst:
            # From the beginning of time, so that it is no matter when somebody first asks.
            self._rng = rng = stream(seed, name, purpose)
            self._burst = burst
            self._is_bad = rng.randrange(burst.good + burst.bad) < burst.bad
            self._changes_at = _sojourn(rng, burst.bad if self._is_bad else burst.good)
        while self._changes_at <= now:
            self._is_bad = not self._is_bad
            self._changes_at += _sojourn(rng, burst.bad if self._is_bad else burst.good)
        return burst.loss_bad if self._is_bad else burst.loss_good


class Port:
    """Where a link ends: at one host or one site, `name`. Above it are the ports between there and the root."""

    __slots__ = ("_down", "_link", "_up", "above", "is_plain", "name", "powered", "region")

    def __init__(self, name: str, link: Link, *, above: "tuple[Port, ...]" = (), region: str = "") -> None:
        self.name = name
        self.above = above
        self.region = region
        """Where it is attached to the root; "" is nowhere in particular."""
        self.powered = True
        self._up: Way | None = None
        self._down: Way | None = None
        self.link = link

    @property
    def link(self) -> Link:
        """The link; it may be exchanged while packets are under way."""
        return self._link

    @link.setter
    def link(self, link: Link) -> None:
        self._link = link
        self.is_plain = not link.leaves_to_chance

    @property
    def up(self) -> Way:
        """The direction towards the root."""
        if self._up is None:
            self._up = Way()
        return self._up

    @property
    def down(self) -> Way:
        """The direction from the root."""
        if self._down is None:
            self._down = Way()
        return self._down

    @property
    def top(self) -> "Port":
        """The port through which all that is sent from here reaches the root."""
        return self.above[-1] if self.above else self

    def burst_loss(self, now: Instant, seed: int, *, upwards: bool) -> float:
        """Return the chance that a burst takes a packet now; each direction has bursts of its own."""
        burst = self._link.burst
        if burst is None:
            return 0.0
        way = self.up if upwards else self.down
        return way.loss(now, burst, seed, self.name, "bursts up" if upwards else "bursts down")


def _sojourn(rng: SplitMix64, mean: Duration) -> Duration:
    """Return an exponentially distributed duration of at least a microsecond.

    By comparisons alone (von Neumann, "Various techniques used in connection with random digits", 1951): logarithms
    may differ in their last digit from one machine to another.
    """
    whole = 0
    while True:
        first = last = rng.next64()
        length = 1
        while (drawn := rng.next64()) < last:
            last = drawn
            length += 1
        if length % 2:
            return max(1, mean * (whole * _WORD + first) // _WORD)
        whole += 1
