"""What a relay grants: sizes, numbers, times and rates, and the counters that enforce rates.

A rate is kept as one integer, the instant at which all of it is back; nothing has to tick.
"""

from collections.abc import Collection
from typing import Final

from teale_proto.contract import MILLISECOND, SECOND, Duration, Instant, Value


class Rate(Value):
    """So many at once, and one more after each `interval`."""

    burst: int
    interval: Duration


class RateLimit:
    """How much of a rate is left, as one integer: the instant at which the whole burst is back."""

    __slots__ = ("_full_at", "_rate")

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._full_at: Instant = 0

    def take(self, now: Instant) -> Duration:
        """Take one and return 0, or take none and return how long to wait for it."""
        full_at = max(self._full_at, now) + self._rate.interval
        wait = full_at - now - self._rate.burst * self._rate.interval
        if wait > 0:
            return wait
        self._full_at = full_at
        return 0


class Flow(Value):
    """So many a second, and up to `burst` at once."""

    per_second: int
    burst: int


class FlowLimit:
    """How much of a flow is left; takes any amount at a time, and its arithmetic is exact at any rate."""

    __slots__ = ("_burst", "_full_at", "_per_second")

    def __init__(self, flow: Flow) -> None:
        self._per_second = flow.per_second
        self._burst = flow.burst * SECOND
        # In microseconds times `per_second`, so that a rate of more than one a microsecond stays an integer.
        self._full_at = 0

    def wait(self, amount: int, now: Instant) -> Duration:
        """Return 0 where `amount` is there now, else how long to wait for that.

        An `amount` that is larger than the burst never is, whatever is returned.
        """
        owed = self._full_at - now * self._per_second
        over = (owed if owed > 0 else 0) + amount * SECOND - self._burst
        return -(-over // self._per_second) if over > 0 else 0

    def take(self, amount: int, now: Instant) -> bool:
        """Take `amount` and return True, or take nothing and return False."""
        # Every message of a relay comes through here several times, hence no calls.
        floor = now * self._per_second
        full_at = self._full_at
        full_at = (full_at if full_at > floor else floor) + amount * SECOND
        if full_at - floor > self._burst:
            return False
        self._full_at = full_at
        return True

    def give_back(self, amount: int) -> None:
        """Undo the last `take`."""
        self._full_at -= amount * SECOND

    def is_full(self, now: Instant) -> bool:
        """Return whether the whole burst is there."""
        return self._full_at <= now * self._per_second


class Traffic(Value):
    """What may come in: messages and bytes; None is no limit."""

    messages: Flow | None = None
    size_bytes: Flow | None = None


MIB: Final = 1 << 20


class RelayServerConfig(Value):
    """How a relay is run; the defaults suit a public one on one core."""

    names: Collection[str] = ()
    """The host names and addresses under which nodes reach it, beside the addresses of its own interfaces."""
    allow_legacy_register: bool = False
    """Accept the deployed programs' bare signature, which whoever has seen it once can replay."""

    ttl: Duration = 300 * SECOND
    silence: Duration = 60 * SECOND
    """A connection that says nothing for this long is dropped; nodes ping every 25 s. Never more than `ttl`."""
    registration_timeout: Duration = 10 * SECOND
    """How long a stranger has to register, and how long a challenge may be answered."""
    session_opening: Duration = 15 * SECOND
    """How long a session waits for `relayReady`."""
    session_idle: Duration = 120 * SECOND
    """How long an open session lives without data."""

    discover: Rate = Rate(burst=2, interval=10 * SECOND)
    """For each node; the second one at once forgives a clock that runs a little fast."""
    introductions: Rate = Rate(burst=200, interval=100 * MILLISECOND)
    """For each node: `relayOpen` and signals, which reach people who did not ask for them, and `confirmAddress`."""
    offences: Rate = Rate(burst=10, interval=60 * SECOND)
    """For each connection: malformed messages, forged senders and the like; beyond it is closed."""

    client_traffic: Traffic = Traffic(Flow(5_000, burst=20_000), Flow(32 * MIB, burst=64 * MIB))
    """For each connection; a node that replaces its own connection goes on with what is left."""
    address_traffic: Traffic = Traffic(Flow(20_000, burst=80_000), Flow(64 * MIB, burst=128 * MIB))
    """For each address: an IPv4 address, or the /64 of an IPv6 address."""
    total_traffic: Traffic = Traffic(Flow(200_000, burst=800_000), Flow(512 * MIB, burst=1024 * MIB))
    excesses: Rate = Rate(burst=10, interval=60 * SECOND)
    """For each connection: how often, at most once a second, it is told that it is too fast; beyond is closed."""
    excess_pause: Duration = 60 * SECOND
    """How long to stay away for whoever was closed for being too fast."""
    restart_pause: Duration = 5 * SECOND
    """What a relay that stops tells its nodes to wait before they come back."""

    connections_per_address_max: int = 256
    idle_addresses_max: int = 4096
    """Addresses without a connection whose traffic is remembered, so that to reconnect gains nothing."""
    peers_max: int = 50
    """Listings in one answer to `discover`."""
    message_bytes_max: int = 1 << 20
    register_bytes_max: int = 16 << 10
    """The size of `register`, and of any message of a stranger: a listing of 50 nodes stays below a message."""
    strangers_max: int = 1024
    """Connections that have not registered; one more drops the oldest of them."""
    challenges_max: int = 8
    """Challenges that one connection gets."""
    registrations_max: int = 20_000
    sessions_max: int = 40_000
    sessions_per_node_max: int = 128
    """Sessions that one node has opened."""
