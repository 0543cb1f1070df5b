"""What is said to peers and heard of them: in one conversation, or numbered, in whichever is the best now."""

from collections.abc import Sequence
from typing import Final

from teale_proto.contract import Sink
from teale_proto.delivery import Delivery, DeliveryError, Said
from teale_proto.effects import ReportUnknown, SendData
from teale_proto.errors import LocalError
from teale_proto.link import Numbered, encoded
from teale_proto.peer import Conversation, Peer
from teale_proto.peer_news import PeersEffect, SendSession
from teale_proto.wire.cluster import DELIVERED, ClusterMessage, Received
from teale_proto.wire.codec import Flavour, Unknown

JOINED_BYTES_MAX: Final = 64 * 1024
"""Up to so much is handed to the driver in one piece; of more, the copy would cost more than the calls."""

UNKNOWN_KINDS_MAX: Final = 16
"""Kinds that are reported of one conversation, each once, so that nobody fills our log with novelties."""

Out = Sink[PeersEffect]


def say(conversation: Conversation, message: ClusterMessage, out: Out) -> bool:
    """Send a message over one conversation; return False, and doom it, where the message is too long for it."""
    pieces: list[bytes] = []
    if conversation.link.flavour is not Flavour.DOCUMENTED:
        message = conversation.translator.outgoing(message)
    try:
        conversation.link.send(message, pieces)
    except LocalError as error:
        # Only a peer that does not encrypt has a limit below what we let in ourselves. What was asked of it
        # must end, and ends with the conversation, as soon as the node is awake again.
        conversation.doom = str(error)
        return False
    put(conversation, pieces, out)
    return True


def put(conversation: Conversation, pieces: list[bytes], out: Out) -> None:
    """Turn what a link wants sent into effects, and empty `pieces`."""
    if not pieces:
        return
    handle = conversation.handle
    if isinstance(handle, str):
        for piece in pieces:
            out.append(SendSession(handle, piece))
    elif sum(map(len, pieces)) <= JOINED_BYTES_MAX:
        out.append(SendData(handle, b"".join(pieces)))
    else:
        for piece in pieces:
            out.append(SendData(handle, piece))
    pieces.clear()


def deliver(peer: Peer, message: ClusterMessage, out: Out) -> bool:
    """Say something that arrives once and in order; return False, and doom the peer, where it takes in too little."""
    delivery, payload = _delivery_of(peer), encoded(message)
    if peer.conversations:
        best = peer.best
        record = delivery.at_once(payload, best.handle)
        if record is not None:
            pieces: list[bytes] = []
            best.link.send_encoded(record, pieces)
            put(best, pieces, out)
            return True
    if not delivery.keep(payload):
        peer.doom = f"{delivery.unacknowledged} messages wait for it to acknowledge them"
        return False
    send_due(peer, out)
    return True


def send_due(peer: Peer, out: Out) -> None:
    """Send over the best conversation what is new, and what went out over one that is no good any more."""
    if peer.delivery is None or not peer.conversations:
        return
    best = peer.best
    pieces: list[bytes] = []
    for record in peer.delivery.due(best.handle):
        best.link.send_encoded(record, pieces)
    put(best, pieces, out)


def acknowledge(peer: Peer, conversation: Conversation, out: Out, *, at_once: bool) -> None:
    """Tell a peer what has arrived, where that is owed, over the conversation that has just been heard or used."""
    if peer.delivery is not None:
        up_to = peer.delivery.acknowledgement(at_once=at_once)
        if up_to is not None:
            say(conversation, Received(up_to), out)


def hear(peer: Peer, event: Numbered) -> Sequence[Said]:
    """Take a numbered message; return those whose turn has come. Raises DeliveryError for what cannot be right."""
    if type(event.message) not in DELIVERED and not isinstance(event.message, Unknown):
        raise DeliveryError("it numbers what has no number")
    return _delivery_of(peer).take(event.number, event.message, event.size_bytes)


def take_acknowledgement(peer: Peer, up_to: int, out: Out) -> None:
    """Forget what has arrived, and send what waited for that. Raises DeliveryError for what cannot be right."""
    _delivery_of(peer).acknowledged(up_to)
    send_due(peer, out)


def note_unknown(conversation: Conversation, kind: str, out: Out) -> None:
    """Report a kind of message that this version does not know, once for each conversation."""
    if kind not in conversation.unknown_kinds and len(conversation.unknown_kinds) < UNKNOWN_KINDS_MAX:
        conversation.unknown_kinds.add(kind)
        out.append(ReportUnknown(conversation.handle, kind))


def translated(conversation: Conversation, message: ClusterMessage) -> ClusterMessage:
    """Return what a message would be if one of ours had sent it."""
    return message if conversation.link.flavour is Flavour.DOCUMENTED else conversation.translator.incoming(message)


def _delivery_of(peer: Peer) -> Delivery:
    if peer.delivery is None:
        peer.delivery = Delivery()
    return peer.delivery
