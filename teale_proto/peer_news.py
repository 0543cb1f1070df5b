"""What the peers want done beside a node's own effects, and what they report: values that the node translates."""

from typing import TypeAlias

from teale_proto.contract import Value
from teale_proto.effects import NodeEffect, Path
from teale_proto.inputs import Handle, NodeId, PeerHandle, Whom
from teale_proto.wire.cluster import ClusterMessage


class SetupDue(Value):
    """A conversation has taken too long to come up."""

    handle: Handle


class LivenessDue(Value):
    """A heartbeat, or a verdict about its absence, is due."""

    handle: Handle


class GraceDue(Value):
    """A peer that had no conversation left has not come back; or it has to end for another reason."""

    peer: PeerHandle


class SendSession(Value):
    """Send bytes over a relay session; the node has its relay client do it."""

    session: str
    data: bytes


class CloseSession(Value):
    """Close a relay session."""

    session: str


PeersEffect: TypeAlias = NodeEffect | SendSession | CloseSession


class PeerUp(Value):
    """A peer can be asked."""

    node: NodeId
    path: Path


class Told(Value):
    """A peer said something that is for others to understand."""

    node: NodeId
    whom: Whom
    """Whom to answer: the peer where the message was numbered, and otherwise the conversation."""
    handle: Handle
    """The conversation that it came over, or the last piece of what it waited for."""
    message: ClusterMessage


class HeartbeatWanted(Value):
    """It is time to send a heartbeat."""

    handle: Handle
    peer: PeerHandle | None = None
    """Where it goes over a direct path: of whom `Peers.set_active` wants to know whether requests are under way."""


class PeerAway(Value):
    """A peer has no conversation left, and may come back: what is under way goes on, for a while."""

    peer: PeerHandle


class PeerGone(Value):
    """What was under way with a peer will not come."""

    peer: PeerHandle
    reason: str


class ConversationEnded(Value):
    """A conversation is over; everything that hung on it, and not on its peer, fails or moves."""

    handle: Handle
    path: Path
    peer: NodeId | None
    dialled: bool
    """Whether we had begun it."""
    was_up: bool
    reason: str
    refused: bool = False
    """Whether it was because of what the other side, who had proved its name, said before it was up."""


News: TypeAlias = PeerUp | Told | HeartbeatWanted | PeerAway | PeerGone | ConversationEnded
