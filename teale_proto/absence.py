"""Peers that have no conversation left and may come back, and what is announced so that both sides agree on that.

What is numbered between two nodes goes on only where both remember it. So each announces in its greetings how often
it has given anybody up until it began to number what it says to the other: the same count as before means that it
remembers, any other that it does not. In all greetings that are under way with one node at once the count is the same.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from teale_proto.contract import SECOND, Duration, Instant
from teale_proto.inputs import NodeId, PeerHandle
from teale_proto.peer import Conversation, Peer
from teale_proto.peer_news import GraceDue
from teale_proto.timers import Timers

AWAY_MAX: Final = 256
"""Peers without a conversation that may come back; with one more, the one that left first is given up."""

GRACE: Final[Duration] = 10 * SECOND
"""How long a peer may have no conversation before its requests are given up; one that was silent so long is lost."""


class Absence:
    """The peers that are away, and our count of those that we have given up."""

    __slots__ = ("_away", "_epoch", "_timers")

    def __init__(self, timers: Timers[object]) -> None:
        self._timers = timers
        self._away: dict[NodeId, Peer] = {}
        """Those that left first come first."""
        self._epoch = 1

    def __iter__(self) -> Iterator[Peer]:
        return iter(list(self._away.values()))

    def get(self, node: NodeId) -> Peer | None:
        """Return a peer that is away."""
        return self._away.get(node)

    def leave(self, peer: Peer, handle: PeerHandle, now: Instant) -> Peer | None:
        """Let a peer come back within GRACE; return one that must be given up for it."""
        first = next(iter(self._away.values())) if len(self._away) >= AWAY_MAX else None
        self._away[peer.node] = peer
        self._timers.set(GraceDue(handle), now + GRACE)
        return first

    def returned(self, node: NodeId) -> Peer | None:
        """Return a peer that has come back, and is away no more."""
        peer = self._away.pop(node, None)
        if peer is not None and peer.handle is not None:
            self._timers.cancel(GraceDue(peer.handle))
        return peer

    def give_up(self, node: NodeId) -> None:
        """Forget a peer, away or not, so that from now on we announce something else to it."""
        self.returned(node)
        self._epoch += 1

    def epoch_of(self, node: NodeId, peer: Peer | None, greeting: Iterable[Conversation]) -> int:
        """Return what to announce to a node; `peer` is what we know of it, and `greeting` may include it."""
        known = peer or self._away.get(node)
        if known is not None and known.handle is not None:
            return known.epochs[0]
        return next((other.epoch for other in greeting if other.epoch and other.peer == node), self._epoch)
