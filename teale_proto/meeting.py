"""How two nodes meet: who is let in, what they say of themselves, what is believed of it, and whether they have met.

Decisions about one conversation that is not up yet, and the values that follow from them; `Peers` acts on them.
"""

from collections.abc import Iterable
from hashlib import sha256
from typing import Final

from msgspec.structs import replace

from teale_proto.contract import SECOND, Duration, Instant
from teale_proto.door import Door
from teale_proto.effects import Path
from teale_proto.errors import PeerError
from teale_proto.inputs import NodeId
from teale_proto.joining import Joining, PasscodeMessage, Unwelcome
from teale_proto.peer import Conversation, ConversationState
from teale_proto.rng import Rng
from teale_proto.secure.identity import is_node_id
from teale_proto.wire.cluster import ClusterMessage, DeviceInfo, Hello, HelloAck

SIMULTANEOUS: Final[Duration] = 10 * SECOND
"""Within this time of each other, two conversations that the two sides began are one meeting."""

REASON_MAX: Final = 128
"""Characters that are shown of the reason that another node gives."""


def receive(conversation: Conversation, node: NodeId, door: Door, *, own: NodeId, rng: Rng) -> None:
    """Decide, now that it is proved who is there, whether and how it may go on. Raises Unwelcome where it may not."""
    if not door.admits(conversation.path, node):
        raise Unwelcome(
            "it is not among the trusted_nodes, and only those may join", "this node talks only to paired nodes"
        )
    conversation.state = ConversationState.JOINING
    if conversation.path is Path.LAN:
        conversation.joining = Joining(
            door,
            dialler=conversation.initiator,
            own=own,
            peer=node,
            host=conversation.host,
            handshake_hash=conversation.link.handshake_hash,
            rng=rng,
        )


def first_step(conversation: Conversation, now: Instant) -> list[ClusterMessage]:
    """Return what a dialler says before its greeting."""
    messages: list[ClusterMessage] = []
    if conversation.joining is not None and conversation.initiator:
        conversation.joining.begin(now, messages)
    return messages


def next_step(conversation: Conversation, message: PasscodeMessage, now: Instant) -> list[ClusterMessage]:
    """Return what to say to a message of joining. Raises PeerError, Unwelcome among them, for one that is wrong."""
    if conversation.joining is None or conversation.state is not ConversationState.JOINING:
        raise PeerError("a passcode message out of turn")
    messages: list[ClusterMessage] = []
    conversation.joining.take(message, now, messages)
    return messages


def may_greet(conversation: Conversation) -> bool:
    """Whether nothing stands in the way of a greeting any more, as far as that is for us to know."""
    joining = conversation.joining
    return joining is None or (conversation.initiator and joining.may_greet)


def hello_with(greeting: Hello, epoch: int) -> Hello:
    """Return our greeting; where it is encrypted, `epoch` says that we number what we say."""
    return replace(greeting, delivery=epoch) if epoch else greeting


def ack_with(greeting: Hello, epoch: int) -> HelloAck:
    """Return the same as the answer to a greeting."""
    return HelloAck(
        device_info=greeting.device_info,
        protocol_version=greeting.protocol_version,
        loaded_models=greeting.loaded_models,
        max_concurrent_requests=greeting.max_concurrent_requests,
        delivery=epoch or None,
    )


def claimed_id(device: DeviceInfo) -> NodeId:
    """Return the node id that an unencrypted peer claims; a deployed one has a uuid instead, which is hashed to one."""
    claimed = device.id.lower()
    if is_node_id(claimed):
        return NodeId(claimed)
    return NodeId(sha256(device.id.encode()).hexdigest())


def printable(text: str) -> str:
    """Return a stranger's text so that it can be shown: one line, and not too long."""
    return "".join(character if character.isprintable() else " " for character in text[:REASON_MAX])


def identified(conversation: Conversation, hello: Hello | HelloAck, own: NodeId, door: Door) -> NodeId:
    """Return who greets: what the handshake proved, or without encryption what is claimed.

    Raises PeerError where it claims to be this node, or one that has proved itself.
    """
    if conversation.link.peer is not None:
        return conversation.link.peer
    # Through a relay it is the relay that claims it; what a deployed node says of itself there is a uuid.
    claimed = conversation.peer if conversation.path is Path.RELAY else claimed_id(hello.device_info)
    assert claimed is not None
    if claimed == own:
        raise PeerError("it claims to be this node")
    if door.has_proved(claimed):
        raise PeerError("it claims, without proof, to be a node that has proved itself")
    return claimed


def rival_of(conversation: Conversation, node: NodeId, others: Iterable[Conversation]) -> Conversation | None:
    """Return another conversation with the same node over the same path."""
    for other in others:
        # A conversation that the other side began and that is not up may be anybody's.
        counts = other.initiator or other.state is ConversationState.UP
        if counts and other is not conversation and other.peer == node and other.path is conversation.path:
            return other
    return None


def is_same_meeting(ours: Conversation, theirs: Conversation, *, own: NodeId, node: NodeId, now: Instant) -> bool:
    """Whether both sides dialled at once, and ours, begun by the lower node id, is the one to keep."""
    if not ours.initiator or own > node:
        return False
    if ours.state is not ConversationState.UP:
        return True
    return ours.instance == theirs.instance and now - ours.up_at < SIMULTANEOUS
