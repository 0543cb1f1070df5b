"""What a relay's work costs: processor time by kind of message, memory, bandwidth, and money.

A profile is fitted to measurements of one relay program on one machine, and can be written to a file and read
from one, so that it may be measured anew elsewhere. Processor time has two regimes that differ by more than a
factor of ten. Where one connection sends many messages at once, they share one turn of the event loop, and the
figures of `docs/reference/benchmarks.md` hold. Where thousands of connections send one message now and then, each
message wakes the loop for itself. Heartbeats are of the second kind, and so is most of what a relay carries.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import msgspec
import tomlkit

from simulator.net.link import PACKET_OVERHEAD_BYTES
from teale_proto.contract import Duration, Instant, Value

SEGMENT_BYTES: Final = 1460
FRAME_BYTES: Final = 30
"""A WebSocket header of up to 8 bytes (RFC 6455, section 5.2) in a TLS 1.3 record, 22 bytes (RFC 8446, section 5.2)."""

FACTOR_MAX: Final = 1e3
"""Nothing takes as many times as long as usual: a quantile above is a mistake."""

MONTH_SECONDS: Final = 730 * 3600
GB: Final = 10**9
GIB: Final = 2**30


class ProfileError(Exception):
    """A file that holds no profile; the text says which and why."""


class Work(Value, forbid_unknown_fields=True):
    """What one thing costs of the processor: a fixed part and a part for each byte, or each entry of a list."""

    fixed_us: float
    each_ns: float = 0.0

    def us(self, count: float) -> float:
        """Return the microseconds that `count` bytes or entries cost."""
        return self.fixed_us + self.each_ns * count / 1000


class Wake(Value, forbid_unknown_fields=True):
    """What it costs a program to be woken after it has slept so long, besides what it then does.

    The longer it has slept, the less of its code and data the processor still has at hand, and the deeper the
    processor itself has slept.
    """

    idle_us: float
    cpu_us: float
    latency_us: float = 0.0
    """How long whoever is waiting waits besides: until the kernel lets the program run."""


NO_WAKE: Final = Wake(0.0, 0.0)


def woken(wakes: Sequence[Wake], idle_us: float) -> Wake:
    """Return what waking costs after so long: on straight lines between what was measured, and level outside."""
    if not wakes:
        return NO_WAKE
    place = bisect_right(wakes, idle_us, key=lambda wake: wake.idle_us)
    if place == 0 or place == len(wakes):
        return wakes[max(0, place - 1)]
    low, high = wakes[place - 1], wakes[place]
    part = (idle_us - low.idle_us) / (high.idle_us - low.idle_us)
    cpu_us = low.cpu_us + part * (high.cpu_us - low.cpu_us)
    return Wake(idle_us, cpu_us, low.latency_us + part * (high.latency_us - low.latency_us))


def check_wakes(wakes: Sequence[Wake]) -> None:
    """Raise ValueError unless they are in the order of how long the program has slept."""
    if any(low.idle_us >= high.idle_us for low, high in pairwise(wakes)):
        raise ValueError("`wakes` must be in the order of their `idle_us`, each greater than the one before")


def check_quantiles(quantiles: Sequence[float], name: str) -> None:
    """Raise ValueError unless there are none, or at least two, above nought and in their order."""
    is_wrong = len(quantiles) == 1 or any(not 0 < each <= FACTOR_MAX for each in quantiles)
    if is_wrong or any(low > high for low, high in pairwise(quantiles)):
        raise ValueError(f"`{name}` must be two quantiles or more, above 0, none less than the one before")


class ProgramProfile(Value, forbid_unknown_fields=True, kw_only=True):
    """What any program on one core of one machine has."""

    wakes: tuple[Wake, ...] = ()
    """What being woken for something costs besides, by how long the program slept before."""
    start_us: float = 0.0
    """From the start of the process until it can be reached: a relay listens, a node's API is up."""
    idle_us: float = 0.0
    """What a second costs in which nothing happens."""
    spread: tuple[float, ...] = ()
    """How many times as long as usual a message takes that comes alone: quantiles, from the least to the most, evenly
    spaced."""
    drift: tuple[float, ...] = ()
    """The same of a minute to a minute: by how much all things together take longer or shorter than usual."""

    def __post_init__(self) -> None:
        check_wakes(self.wakes)
        check_quantiles(self.spread, "spread")
        check_quantiles(self.drift, "drift")

    @property
    def alone_us(self) -> float:
        """How long it usually takes to be woken after the longest pause: most of a message that comes alone."""
        return self.wakes[-1].cpu_us + self.wakes[-1].latency_us if self.wakes else math.inf


class RelayProfile(ProgramProfile, forbid_unknown_fields=True):
    """One relay program on one core of one machine; where there are no `wakes`, it is `wake_us` whenever."""

    name: str
    source: str
    """Where the figures come from."""
    forward: Work
    """Passing one message on, among many of one connection; by bytes of the message."""
    wake_us: float
    """What a message costs besides when it comes by itself, on a relay that is busy with others."""
    discover: Work
    """Answering one `discover`; by entries listed. What it costs to be woken is not in it."""
    notice: Work
    """Sending one connection a message that is made once for all, such as a broadcast; by bytes."""
    registration_us: float
    """From TCP's handshake to `registerAck`, TLS's included where the relay that was measured has a certificate."""
    ping_us: float
    connection_kib: float
    """Resident memory of the process for a registered connection."""
    kernel_kib: float
    """What the kernel and TLS keep for it: not measured, an allowance."""
    base_mib: float
    """Resident memory of the process without connections."""
    control_us: float = 0.0
    """What a message in JSON, such as `relayOpen`, costs more than one that is passed on; `wakes` apart."""
    stun_us: float = 0.0
    """Answering one STUN request, on a busy relay."""

    def forward_us(self, size_bytes: float, *, alone: bool) -> float:
        """Return the processor time of passing on one message, which may have come by itself."""
        return self.forward.us(size_bytes) + (self.wake_us if alone else 0.0)

    def memory_bytes(self, connections: float) -> float:
        """Return the memory that so many registered connections take."""
        return self.base_mib * 2**20 + connections * (self.connection_kib + self.kernel_kib) * 1024


class Prices(Value, forbid_unknown_fields=True):
    """What a month costs, in dollars. These are round figures to be replaced by those of one's own provider.

    They are set so that the smallest machine comes to the 3 to 4 dollars that the deployed relay is said to cost;
    they are not any provider's list.
    """

    vcpu_month: float = 5.0
    gib_month: float = 5.0
    egress_gb: float = 0.02
    machine_min: float = 3.5
    """The least that a machine costs, its first core and memory included."""
    utilisation_max: float = 0.6
    """How busy a core may be on average at the busiest hour; beyond, waiting grows."""


class Bill(Value):
    """A month, in dollars."""

    machine: float
    egress: float

    @property
    def total(self) -> float:
        """Both together."""
        return self.machine + self.egress


def monthly(
    prices: Prices, *, cores: float, memory_bytes: float, egress_bytes_per_second: float, peak_factor: float
) -> Bill:
    """Return what a relay costs that is on average so busy, and `peak_factor` times as busy at the busiest hour."""
    machine = prices.vcpu_month * cores * peak_factor / prices.utilisation_max + prices.gib_month * memory_bytes / GIB
    egress = prices.egress_gb * egress_bytes_per_second * MONTH_SECONDS / GB
    return Bill(max(prices.machine_min, machine), egress)


def wire_bytes(size_bytes: Any) -> Any:
    """Return what a message of that size comes to on the wire, with the headers of TCP and IP but no acknowledgments.

    It takes a number or an array of them, and returns the same.
    """
    framed = size_bytes + FRAME_BYTES
    segments = (framed - 1) // SEGMENT_BYTES + 1
    return framed + segments * PACKET_OVERHEAD_BYTES


_BENCH: Final = "2026-11-21, 2 cores of an Intel Xeon; forward: docs/reference/benchmarks.md; "

OURS: Final = RelayProfile(
    name="teale-relay",
    source=_BENCH
    + "wake, discover, registration, ping and memory of a connection: docs/explanation/relay-cost.md; "
    + "notice, kernel_kib and base_mib: assumptions",
    # 2.1 µs at 117 bytes and 14.1 µs at 16 401: binary messages of 100 bytes and 16 KiB.
    forward=Work(2.0, 0.737),
    wake_us=35.0,
    discover=Work(40.0, 2000.0),
    notice=Work(10.0, 0.7),
    registration_us=425.0,
    ping_us=30.0,
    connection_kib=4.1,
    kernel_kib=8.0,
    base_mib=60.0,
)
OURS_JSON: Final = msgspec.structs.replace(
    OURS,
    name="teale-relay, JSON",
    # 4.01 µs at 386 bytes and 35.9 µs at 22 098: the deployed dialect.
    forward=Work(3.4, 1.47),
)
BUN: Final = RelayProfile(
    name="Bun, as deployed",
    source=_BENCH
    + "wake: docs/explanation/relay-cost.md; discover: making one listing into JSON, by itself, without a relay; "
    + "notice (a broadcast), registration, ping, connection_kib, kernel_kib and base_mib: assumptions",
    # 5.26 µs at 386 bytes and 26.6 µs at 22 098: JSON parsed and written again.
    forward=Work(4.9, 0.983),
    wake_us=5.0,
    discover=Work(10.0, 600.0),
    notice=Work(2.5, 0.5),
    registration_us=150.0,
    ping_us=8.0,
    connection_kib=2.1,
    kernel_kib=8.0,
    base_mib=60.0,
)

PROFILES: Final = {profile.name: profile for profile in (OURS, OURS_JSON, BUN)}


def save(profile: RelayProfile, path: Path) -> None:
    """Write a profile to a file: TOML, or JSON where its name ends in `.json`."""
    members = msgspec.to_builtins(profile)
    if path.suffix == ".json":
        path.write_bytes(msgspec.json.format(msgspec.json.encode(members)) + b"\n")
    else:
        path.write_text(tomlkit.dumps(members), encoding="utf-8")


def load(path: Path) -> RelayProfile:
    """Read a profile that `save` wrote, or somebody by hand; raises ProfileError where that is none."""
    try:
        data = path.read_bytes()
        decode = msgspec.json.decode if path.suffix == ".json" else msgspec.toml.decode
        return decode(data, type=RelayProfile)
    except (OSError, ValueError) as error:
        raise ProfileError(f"{path}: not the profile of a relay: {error}") from error


class CpuQueue:
    """One core that serves what comes, one after the other: how busy it is, and how long what comes waits."""

    __slots__ = ("_busy_ns", "_free_ns", "_waited_ns", "served", "since", "waited_max")

    def __init__(self, *, since: Instant = 0) -> None:
        self.since = since
        self.served = 0
        self.waited_max: Duration = 0
        self._busy_ns = 0
        self._waited_ns = 0
        self._free_ns = 0

    def serve(self, now: Instant, cost_us: float) -> Instant:
        """Take on work of so many microseconds; return when it is done. `now` never runs backwards."""
        now_ns, cost_ns = now * 1000, round(cost_us * 1000)
        wait_ns = max(0, self._free_ns - now_ns)
        self._free_ns = now_ns + wait_ns + cost_ns
        self._busy_ns += cost_ns
        self._waited_ns += wait_ns
        self.waited_max = max(self.waited_max, wait_ns // 1000)
        self.served += 1
        return -(-self._free_ns // 1000)

    @property
    def busy(self) -> Duration:
        """How long it has worked, or must still, for what it has taken on."""
        return self._busy_ns // 1000

    @property
    def wait_mean(self) -> float:
        """The mean time that work waited for its turn, in microseconds."""
        return self._waited_ns / self.served / 1000 if self.served else 0.0

    def utilisation(self, now: Instant) -> float:
        """Return how much of one core it has needed since it began; more than 1 where work piles up."""
        elapsed = now - self.since
        return self._busy_ns / elapsed / 1000 if elapsed > 0 else 0.0
