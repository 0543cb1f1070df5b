"""Whether a peer is alive, told by its heartbeats.

Both sides send a heartbeat every interval and answer the other's at once, so silence has two chances to be
broken in each, and either side may choose an interval of its own, and another one at any time. A heartbeat that has
not come half an interval after it was due is missed: the peer is degraded. After three intervals of silence it is
lost, for good; the connection is then closed.
"""

from enum import Enum
from typing import Final

from teale_proto.contract import NEVER, SECOND, Duration, Instant, Value
from teale_proto.effects import PeerState

INTERVALS: Final = (5 * SECOND, 15 * SECOND, 30 * SECOND)
ACTIVE: Final[Duration] = 3 * SECOND
"""The interval on a direct path while requests are under way: whoever waits is moved to another path within two."""

KEEP_ALIVE: Final[Duration] = 15 * SECOND
"""The interval on an idle direct path: half the shortest time after which NATs have been seen to forget one."""

STANDBY_INTERVALS: Final = 4
"""How many times rarer the heartbeats of a relayed conversation are while a direct one carries everything."""

ANSWER_WITHIN: Final[Duration] = 3 * SECOND
"""How long a heartbeat that was sent out of turn may take to be answered."""
SUSPECT_FOR: Final[Duration] = 5 * SECOND
"""How long a conversation has to give a sign of life after a change of network."""
LOST_AFTER: Final = 3
"""Intervals of silence after which a peer is lost."""


class Trigger(Enum):
    """What changes the state of a peer."""

    HEARD = "heard"
    HEARTBEAT_MISSED = "heartbeat missed"
    SILENT_TOO_LONG = "silent too long"


ON: Final = {
    (PeerState.CONNECTED, Trigger.HEARTBEAT_MISSED): PeerState.DEGRADED,
    (PeerState.CONNECTED, Trigger.SILENT_TOO_LONG): PeerState.LOST,
    (PeerState.DEGRADED, Trigger.HEARD): PeerState.CONNECTED,
    (PeerState.DEGRADED, Trigger.SILENT_TOO_LONG): PeerState.LOST,
}
"""The state table; what is not in it changes nothing."""


class Due(Value):
    """What a wake-up of `Liveness` asks for."""

    send_heartbeat: bool
    change: PeerState | None
    """The state that the peer has just come to, or None."""


class Liveness:
    """The heartbeats of one conversation."""

    __slots__ = ("_answer_by", "_beat_at", "_counted_at", "_heard_at", "_interval", "_sent_at", "round_trip", "state")

    def __init__(self, interval: Duration, now: Instant) -> None:
        self._interval = interval
        self._heard_at = now
        self._counted_at = now
        """What silence there was before counts for nothing: less was asked then."""
        self._beat_at = now + interval
        self._answer_by: Instant = NEVER
        """When it is lost unless it is heard by then; NEVER where nothing makes that suspicious."""
        self._sent_at: Instant | None = None
        self.round_trip: Duration | None = None
        self.state = PeerState.CONNECTED

    @property
    def due_at(self) -> Instant:
        """When `fired` must be called next; NEVER once the peer is lost."""
        if self.state is PeerState.LOST:
            return NEVER
        verdict_at = self._lost_at if self.state is PeerState.DEGRADED else min(self._missed_at, self._lost_at)
        return min(self._beat_at, verdict_at)

    @property
    def interval(self) -> Duration:
        """How far apart the heartbeats are."""
        return self._interval

    def pace(self, interval: Duration, now: Instant) -> None:
        """Change the interval. A shorter one begins with a heartbeat at once, a longer one after the next.

        Of the silence before, all counts but the last `ANSWER_WITHIN` of a shorter interval.
        """
        if interval < self._interval:
            self._beat_at = now
            self._counted_at = now - max(0, interval - ANSWER_WITHIN)
        self._interval = interval

    def silence(self, now: Instant) -> Duration:
        """Return how long nothing has been heard."""
        return now - self._heard_at

    def heard(self, now: Instant) -> PeerState | None:
        """Note that the peer said something; return its new state if that changed it."""
        self._heard_at = now
        self._answer_by = NEVER
        return self._change(Trigger.HEARD)

    def doubt(self, now: Instant) -> PeerState | None:
        """Take it for degraded until it is heard again, and ask at once; return its new state if that changed it."""
        self._beat_at = now
        return self._change(Trigger.HEARTBEAT_MISSED)

    def suspect(self, now: Instant) -> None:
        """Ask at once, and take it for lost unless it is heard within `SUSPECT_FOR`."""
        self._beat_at = now
        self._answer_by = now + SUSPECT_FOR

    def heartbeat_sent(self, now: Instant) -> None:
        """Note that a heartbeat went out; the next one is due an interval later."""
        self._beat_at = now + self._interval
        self._sent_at = now

    def heartbeat_answered(self, now: Instant) -> None:
        """Note the answer to the last heartbeat, which measures the round trip."""
        if self._sent_at is not None:
            self.round_trip = now - self._sent_at
            self._sent_at = None

    def fired(self, now: Instant) -> Due:
        """Return what is due at `now`; the caller sends the heartbeat that this asks for."""
        change = None
        if now >= self._lost_at:
            change = self._change(Trigger.SILENT_TOO_LONG)
        elif now >= self._missed_at:
            change = self._change(Trigger.HEARTBEAT_MISSED)
        return Due(now >= self._beat_at and self.state is not PeerState.LOST, change)

    @property
    def _missed_at(self) -> Instant:
        return max(self._heard_at, self._counted_at) + self._interval + self._interval // 2

    @property
    def _lost_at(self) -> Instant:
        return min(max(self._heard_at, self._counted_at) + LOST_AFTER * self._interval, self._answer_by)

    def _change(self, trigger: Trigger) -> PeerState | None:
        state = ON.get((self.state, trigger))
        if state is not None:
            self.state = state
        return state
