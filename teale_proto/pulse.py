"""How fast the hearts of a peer's conversations beat, and which of them deserve doubt."""

from collections.abc import Iterable
from typing import Any, Final

from teale_proto.contract import MILLISECOND, SECOND, Duration, Instant
from teale_proto.liveness import ACTIVE
from teale_proto.peer import Conversation, Peer
from teale_proto.peer_news import LivenessDue
from teale_proto.timers import Timers

SETTLED_AFTER: Final[Duration] = 3 * SECOND
"""Until a conversation has been up for so long, the other side may not know of it, and take another for that reason."""

QUIET_AFTER: Final[Duration] = ACTIVE // 2
"""A conversation that was heard since is not doubted: what came over another may have been on its way for long."""

SOON: Final[Duration] = MILLISECOND


def hasten(peer: Peer, interval: Duration, timers: Timers[Any]) -> None:
    """See to it that conversations whose heartbeats are too far apart have one as soon as the node is awake."""
    for conversation in peer.conversations.values():
        liveness = conversation.liveness
        assert liveness is not None
        if liveness.interval > peer.pace_of(conversation, interval):
            timers.set(LivenessDue(conversation.handle), 0)


def doubted(peer: Peer, heard: Conversation, now: Instant, timers: Timers[Any]) -> Conversation | None:
    """Return a conversation that has become doubtful because the peer prefers to speak over a worse one.

    It finds out before us when only one direction is cut, or when it is the first to say something after a cut; to
    wait until we have found out as well would double the time that an answer takes.
    """
    best, liveness = peer.best, peer.best.liveness
    if best is heard or liveness is None or now - best.up_at < SETTLED_AFTER or liveness.silence(now) < QUIET_AFTER:
        return None
    if liveness.doubt(now) is None:
        return None
    timers.set(LivenessDue(best.handle), liveness.due_at)
    return best


def suspect(conversations: Iterable[Conversation], now: Instant, timers: Timers[Any]) -> None:
    """Have every conversation give a sign of life soon, or end: the network is another one."""
    for conversation in conversations:
        if conversation.liveness is not None:
            conversation.liveness.suspect(now)
            timers.set(LivenessDue(conversation.handle), now + SOON)
