"""What a relay grants: sizes, numbers, times and rates, and the one counter that enforces a rate."""

from collections.abc import Sequence

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


class RelayServerConfig(Value):
    """How a relay is run; the defaults suit a public one on one core."""

    names: frozenset[str] | Sequence[str] = frozenset()
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
    """For each node: `relayOpen` and signals, which reach people who did not ask for them."""
    offences: Rate = Rate(burst=10, interval=60 * SECOND)
    """For each connection: malformed messages, forged senders and the like; beyond it is closed."""

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
