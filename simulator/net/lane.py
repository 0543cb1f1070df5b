"""One direction of one connection: a stream of packets that arrive in order, late where TCP would be.

All of it is arithmetic on integers, so a test can state exactly when something arrives:

    departs = max(now, uplink free) + size / uplink rate
    reaches = departs + latencies + distance + jitter + retransmissions, and never before what was sent earlier
    arrives = max(reaches, downlink free) + size / downlink rate

with the queues of all links on the way up one after the other, then the distance, then the queues on the way down.

Loss never loses anything on a connection: it becomes delay, and what was sent later waits. So do damage, reordering
and a full buffer. In front of a partition packets are kept and tried again, at doubling intervals as under RFC 6298;
only the direction that is cut waits. Not modelled are acknowledgements, congestion control, slow start and windows:
a sender fills the line from the first instant, and a lost acknowledgement holds nobody up.
"""

from collections.abc import Callable
from enum import Enum
from typing import Any, Final, Protocol, TypeAlias, TypeVarTuple

from simulator.net.link import PACKET_OVERHEAD_BYTES, Port
from simulator.net.medium import Medium, Ports
from simulator.rng import SplitMix64
from teale_proto.contract import MILLISECOND, NEVER, SECOND, Duration, Instant

Ts = TypeVarTuple("Ts")

RETRANSMISSION_MIN: Final[Duration] = 200 * MILLISECOND
"""The least time after which something lost is sent again: Linux's floor under RFC 6298."""

RETRANSMISSION_MAX: Final[Duration] = 120 * SECOND
"""The longest pause between two attempts, as on Linux; RFC 6298 allows a bound of 60 s and more."""

GIVES_UP_AFTER: Final[Duration] = 924_600 * MILLISECOND
"""How long a sender tries in vain: Linux's 15 retransmissions; RFC 9293, section 3.8.3, wants at least 100 s."""

Cargo: TypeAlias = tuple[int, int, Callable[..., object], tuple[Any, ...]]
"""How many bytes and packets, and what to call with what when they are there."""


class Fate(Enum):
    """What becomes of what is sent."""

    ARRIVES = "arrives"
    VANISHES = "vanishes"
    """The way is gone and nobody says so: the other end has moved, or a NAT has forgotten whom it let in."""
    IS_RESET = "is reset"
    """A NAT has forgotten the connection and sends it on from another port, whose packets the far end refuses."""


class Sender(Protocol):
    """The end whose packets a lane carries."""

    def chance(self) -> SplitMix64:
        """Return a stream for what happens to its packets; asked for once, where there is chance at all."""

    def receive_reset(self) -> None:
        """What it sent was refused."""

    def time_out(self) -> None:
        """It has tried in vain for GIVES_UP_AFTER."""


class Path:
    """What lies between two hosts: one for both lanes of a connection, since links are alike in both directions."""

    __slots__ = (
        "_between",
        "_changes",
        "_jitter",
        "_latency",
        "_loss",
        "downs",
        "has_bursts",
        "has_chance",
        "has_queues",
        "medium",
        "ups",
    )

    def __init__(self, medium: Medium, ups: Ports, downs: Ports, between: Duration) -> None:
        """Lead up through `ups`, the first host's own port first, across `between`, and down to the last of `downs`."""
        self.medium = medium
        self.ups = ups
        self.downs = downs
        self._between = between
        self.look_around()

    @property
    def latency(self) -> Duration:
        """How long a packet takes without jitter, loss and queues."""
        return self._latency

    @property
    def jitter(self) -> Duration:
        """The most that a packet may take longer."""
        return self._jitter

    @property
    def loss(self) -> float:
        """The chance that a packet is lost, bursts apart."""
        return self._loss

    @property
    def is_stale(self) -> bool:
        """Whether some link has changed since it last looked around."""
        return self._changes != self.medium.changes

    @property
    def ports(self) -> Ports:
        """All ports on the way."""
        return self.ups + self.downs

    def look_around(self) -> None:
        """Sum up the links on the way as they are now."""
        self._changes = self.medium.changes
        latency, jitter, kept = self._between, 0, 1.0
        self.has_queues = self.has_chance = self.has_bursts = False
        for ports in (self.ups, self.downs):
            for port in ports:
                link = port.link
                latency += link.latency
                if link.uplink_bytes_per_second is not None or link.downlink_bytes_per_second is not None:
                    self.has_queues = True
                if not port.is_plain:
                    self.has_chance = True
                    self.has_bursts |= link.burst is not None
                    jitter += link.jitter
                    kept *= 1 - link.lossiness
        self._latency, self._jitter, self._loss = latency, jitter, 1 - kept


class Lane:
    """Carries packets along a path, `forth` or back."""

    __slots__ = (
        "_chance",
        "_forth",
        "_held_until",
        "_path",
        "_reached",
        "_sender",
        "_stalled",
        "cut_at",
        "fate",
    )

    def __init__(self, path: Path, sender: Sender, *, forth: bool) -> None:
        self._path = path
        self._forth = forth
        self._sender = sender
        self._chance: SplitMix64 | None = None
        self._reached: Instant = 0
        self._held_until: Instant = 0
        self._stalled: list[Cargo] | None = None
        self.fate = Fate.ARRIVES
        self.cut_at: Instant = NEVER
        """When the source died; what had not left its own link by then never will."""

    @property
    def latency(self) -> Duration:
        """How long a packet takes without jitter, loss and queues."""
        return self._fresh_path().latency

    @property
    def is_open(self) -> bool:
        """Whether a packet that is sent now gets through."""
        return self.fate is Fate.ARRIVES and not self._is_blocked()

    def leads_through(self, port: Port) -> bool:
        """Return whether a port is on its way, at either end or between."""
        return port in self._path.ups or port in self._path.downs

    def carry(self, size_bytes: int, packets: int, arrive: Callable[[*Ts], object], *args: *Ts) -> None:
        """Call `arrive` when the last of `packets` packets with `size_bytes` of payload in all is there."""
        if self.fate is not Fate.ARRIVES:
            self._waste()
            return
        cargo = (size_bytes + packets * PACKET_OVERHEAD_BYTES, packets, arrive, args)
        if self._stalled is not None:
            self._stalled.append(cargo)
        elif self._is_blocked():
            self._stalled = [cargo]
            self._retry_in(self._timeout(), self._path.medium.engine.now)
        else:
            self._leave(cargo)

    def die(self, fate: Fate) -> None:
        """Let nothing through from now on; what is under way is lost too where it VANISHES."""
        self.fate = fate
        self._stalled = None

    def _waste(self) -> None:
        engine = self._path.medium.engine
        if self.fate is Fate.IS_RESET:
            engine.call_at(engine.now + 2 * self.latency, self._sender.receive_reset)
        elif self._stalled is None:
            # The first packet that is never acknowledged counts; those behind it change nothing.
            self._stalled = []
            engine.call_at(engine.now + GIVES_UP_AFTER, self._sender.time_out)

    # In front of a partition.

    def _is_blocked(self) -> bool:
        path = self._path
        if not path.medium.blocks:
            return False
        ups, downs = (path.ups, path.downs) if self._forth else (path.downs, path.ups)
        return path.medium.stops(ups, downs)

    def _retry_in(self, timeout: Duration, since: Instant) -> None:
        engine = self._path.medium.engine
        engine.call_at(engine.now + timeout, self._retry, timeout, since)

    def _retry(self, timeout: Duration, since: Instant) -> None:
        if self._stalled is None or self.fate is not Fate.ARRIVES or self.cut_at != NEVER:
            return
        if not self._is_blocked():
            stalled, self._stalled = self._stalled, None
            for cargo in stalled:
                self._leave(cargo)
        elif self._path.medium.engine.now - since >= GIVES_UP_AFTER:
            self.die(Fate.VANISHES)
            self._sender.time_out()
        else:
            self._retry_in(min(2 * timeout, RETRANSMISSION_MAX), since)

    # On the way.

    def _leave(self, cargo: Cargo) -> None:
        path = self._fresh_path()
        if path.has_queues:
            self._climb(0, 0, -1, cargo)
        else:
            now = path.medium.engine.now
            self._cross(path, now, now, cargo)

    def _climb(self, level: int, late: Duration, departed: Instant, cargo: Cargo) -> None:
        """Pass the queues on the way up from `level` on, then go across."""
        path = self._fresh_path()
        engine = path.medium.engine
        now = at = engine.now
        ups = path.ups if self._forth else path.downs[::-1]
        for port in ups[level:]:
            link = port.link
            rate = link.uplink_bytes_per_second
            if rate is not None:
                if at > now:
                    # Its turn comes in the order in which packets get here, and not in that of sending.
                    engine.call_at(at, self._climb, level, late, departed, cargo)
                    return
                if not port.up.has_room(now, cargo[0], rate, link.buffer_bytes):
                    late += self._timeout()
                at = port.up.passes_at(now, cargo[0], rate)
            if level == 0:
                departed = at
            level += 1
        self._cross(path, at + late, departed, cargo)

    def _cross(self, path: Path, at: Instant, departed: Instant, cargo: Cargo) -> None:
        """Cover the distance, and what chance adds to it, from `at` on."""
        size_bytes, packets, arrive, args = cargo
        reaches = at + path.latency
        if path.has_chance:
            reaches += self._delay(path, packets)
        if reaches > self._reached:
            self._reached = reaches
        path.medium.engine.call_at(self._reached, self._descend, 0, departed, size_bytes, arrive, args)

    def _descend(
        self, level: int, departed: Instant, size_bytes: int, arrive: Callable[..., object], args: tuple[Any, ...]
    ) -> None:
        """Pass the queues on the way down from `level` on, then arrive."""
        path = self._path
        target = path.downs[-1] if self._forth else path.ups[0]
        if departed > self.cut_at or not target.powered or self.fate is Fate.VANISHES:
            return
        if path.has_queues:
            again = self._drain(level, size_bytes)
            if again is not None:
                at, level = again
                path.medium.engine.call_at(at, self._descend, level, departed, size_bytes, arrive, args)
                return
        arrive(*args)

    def _drain(self, level: int, size_bytes: int) -> tuple[Instant, int] | None:
        """Enter the next queue on the way down; return when it goes on at which level, or None when it is there."""
        path = self._path
        now = path.medium.engine.now
        downs = path.downs if self._forth else path.ups[::-1]
        for port in downs[level:]:
            level += 1
            link = port.link
            rate = link.downlink_bytes_per_second
            if rate is None:
                continue
            if not port.down.has_room(now, size_bytes, rate, link.buffer_bytes):
                self._held_until = now + self._timeout()
            if now < self._held_until:
                # Sent again by then, and what was sent in the meantime waits for it.
                return self._held_until, level - 1
            at = port.down.passes_at(now, size_bytes, rate)
            if at > now:
                return at, level
        return None

    def _delay(self, path: Path, packets: int) -> Duration:
        """Return how much chance adds to the way of so many packets."""
        rng = self._chance
        if rng is None:
            rng = self._chance = self._sender.chance()
        delay = rng.randrange(path.jitter + 1) if path.jitter else 0
        for port in path.ports:
            link = port.link
            if link.reordering and rng.random() < link.reordering:
                delay += rng.randrange(link.reordered_by + 1)
        loss = self._loss_now(path)
        if not loss:
            return delay
        # Packets are sent again side by side, so the unluckiest of them decides.
        return delay + max(self._retransmission_delay(path, loss, rng) for _ in range(packets))

    def _retransmission_delay(self, path: Path, loss: float, rng: SplitMix64) -> Duration:
        delay, timeout = 0, self._timeout()
        while rng.random() < loss:
            delay += timeout
            timeout = min(2 * timeout, RETRANSMISSION_MAX)
            if path.has_bursts:
                # By the time at which it is sent again a burst is over, or another one has come.
                loss = _loss_in_the_long_run(path)
        return delay

    def _loss_now(self, path: Path) -> float:
        if not path.has_bursts:
            return path.loss
        medium = path.medium
        kept = 1 - path.loss
        for ports, upwards in ((path.ups, self._forth), (path.downs, not self._forth)):
            for port in ports:
                kept *= 1 - port.burst_loss(medium.engine.now, medium.seed, upwards=upwards)
        return 1 - kept

    def _timeout(self) -> Duration:
        return max(RETRANSMISSION_MIN, 2 * self.latency)

    def _fresh_path(self) -> Path:
        path = self._path
        if path.is_stale:
            path.look_around()
        return path


def _loss_in_the_long_run(path: Path) -> float:
    kept = 1 - path.loss
    for port in path.ports:
        if port.link.burst is not None:
            kept *= 1 - port.link.burst.loss
    return 1 - kept


def one_way(source: Port, target: Port) -> Duration:
    """Return the latency between two hosts of one site without jitter, loss and queues."""
    return source.link.latency + target.link.latency
