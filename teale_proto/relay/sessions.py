"""The conversations that a relay carries: who opened each, with whom, and whether it was taken up."""

from collections.abc import Sequence

from teale_proto.contract import Instant
from teale_proto.inputs import NodeId
from teale_proto.relay.news import SessionId


class Session:
    """One conversation between two registered nodes."""

    __slots__ = ("heard_at", "id", "initiator", "is_open", "is_reopened", "target")

    def __init__(self, id: SessionId, initiator: NodeId, target: NodeId, now: Instant) -> None:  # noqa: A002
        self.id = id
        self.initiator = initiator
        self.target = target
        self.is_open = False
        self.is_reopened = False
        """Whether a session of the same id was open before, whose data may still be under way."""
        self.heard_at = now

    def other(self, node: NodeId) -> NodeId:
        """Return the side that `node` is not."""
        return self.target if node == self.initiator else self.initiator


class Sessions:
    """All sessions of a relay, found by id and by node."""

    __slots__ = ("_by_id", "_by_node", "_opened", "_per_node_max", "_total_max")

    def __init__(self, *, total_max: int, per_node_max: int) -> None:
        self._total_max = total_max
        self._per_node_max = per_node_max
        self._by_id: dict[SessionId, Session] = {}
        self._by_node: dict[NodeId, dict[SessionId, Session]] = {}
        # Only what a node opened itself counts against it: otherwise strangers could use up its share.
        self._opened: dict[NodeId, int] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def get(self, session_id: SessionId) -> Session | None:
        """Return the session, or None."""
        return self._by_id.get(session_id)

    def between(self, session_id: SessionId, one: NodeId, other: NodeId) -> Session | None:
        """Return the session if it is one between exactly these two."""
        session = self._by_id.get(session_id)
        if session is None or (session.initiator, session.target) not in ((one, other), (other, one)):
            return None
        return session

    def all(self) -> Sequence[Session]:
        """Return every session, the oldest first."""
        return tuple(self._by_id.values())

    def has(self, node: NodeId) -> bool:
        """Return whether `node` takes part in any session."""
        return node in self._by_node

    def of(self, node: NodeId) -> Sequence[Session]:
        """Return the sessions that `node` takes part in, the oldest first."""
        return tuple(self._by_node.get(node, {}).values())

    def has_room_for(self, initiator: NodeId) -> bool:
        """Return whether `initiator` may open one more."""
        return len(self._by_id) < self._total_max and self._opened.get(initiator, 0) < self._per_node_max

    def add(self, session: Session) -> None:
        """Enter a session whose id is free."""
        assert session.id not in self._by_id
        self._by_id[session.id] = session
        for node in (session.initiator, session.target):
            self._by_node.setdefault(node, {})[session.id] = session
        self._opened[session.initiator] = self._opened.get(session.initiator, 0) + 1

    def remove(self, session: Session) -> None:
        """Forget a session that was entered."""
        del self._by_id[session.id]
        for node in (session.initiator, session.target):
            sessions = self._by_node[node]
            del sessions[session.id]
            if not sessions:
                del self._by_node[node]
        self._opened[session.initiator] -= 1
        if not self._opened[session.initiator]:
            del self._opened[session.initiator]
