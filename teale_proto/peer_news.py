"""What the peers want done beside a node's own effects, and what they report: values that the node translates."""

from typing import TypeAlias

from teale_proto.contract import Value
from teale_proto.effects import NodeEffect, Path
from teale_proto.inputs import Handle, NodeId
from teale_proto.wire.cluster import ClusterMessage


class SetupDue(Value):
    """A conversation has taken too long to come up."""

    handle: Handle


class LivenessDue(Value):
    """A heartbeat, or a verdict about its absence, is due."""

    handle: Handle


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
    handle: Handle
    message: ClusterMessage


class HeartbeatWanted(Value):
    """It is time to send a heartbeat."""

    handle: Handle


class ConversationEnded(Value):
    """A conversation is over; everything that hung on it fails or moves."""

    handle: Handle
    path: Path
    peer: NodeId | None
    dialled: bool
    """Whether we had begun it."""
    was_up: bool
    reason: str
    refused: bool = False
    """Whether it was because of what the other side, who had proved its name, said before it was up."""


News: TypeAlias = PeerUp | Told | HeartbeatWanted | ConversationEnded
