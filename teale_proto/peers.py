"""All conversations with other nodes: from the first byte to the good-bye, over the LAN and through the relay.

A conversation is set up in the same steps on every path: connect, handshake, greeting (`hello` by the side
that connected, `helloAck` by the other). Only then does it count: the peer is in the pool, and its messages
are passed up. Two nodes that dial each other at once keep the conversation that the lower node id began.
"""

from collections.abc import Iterator
from hashlib import sha256
from typing import Final, TypeAlias

from teale_proto.contract import SECOND, Duration, Instant, Sink, Value
from teale_proto.effects import (
    CloseConnection,
    NodeEffect,
    Path,
    PeerState,
    ReportPeer,
    ReportRefusal,
    ReportUnknown,
    SendData,
)
from teale_proto.errors import PeerError
from teale_proto.inputs import Address, ConnectionId, Handle, NodeId
from teale_proto.link import Established, Link
from teale_proto.liveness import Liveness
from teale_proto.peer import Conversation, ConversationState, Peer
from teale_proto.rng import Rng
from teale_proto.secure.identity import Identity
from teale_proto.timers import Timers
from teale_proto.wire.cluster import (
    ClusterMessage,
    DeviceInfo,
    Goodbye,
    Heartbeat,
    HeartbeatAck,
    Hello,
    HelloAck,
)
from teale_proto.wire.codec import Unknown

PEERS_MAX: Final = 256
STRANGERS_MAX: Final = 64
"""Conversations that others began and that have not come to the greeting."""

UNKNOWN_KINDS_MAX: Final = 16
"""Kinds that are reported of one conversation, each once, so that nobody fills our log with novelties."""

SETUP_TIMEOUT: Final[Duration] = 10 * SECOND
"""From the first byte to the greeting."""

SIMULTANEOUS: Final[Duration] = 10 * SECOND
"""Within this time of each other, two conversations that the two sides began are one meeting."""


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


News: TypeAlias = PeerUp | Told | HeartbeatWanted | ConversationEnded


class Peers:
    """The conversations by handle, and the peers that have come up by node id."""

    __slots__ = (
        "_allow_plaintext",
        "_conversations",
        "_identity",
        "_instance",
        "_interval",
        "_peers",
        "_rng",
        "_strangers",
        "_timers",
        "changed",
        "greeting",
    )

    def __init__(
        self,
        identity: Identity,
        *,
        greeting: Hello,
        heartbeat: Duration,
        allow_plaintext: bool,
        timers: Timers[object],
        rng: Rng,
    ) -> None:
        self._identity = identity
        self._interval = heartbeat
        self._allow_plaintext = allow_plaintext
        self._timers = timers
        self._rng = rng
        self._instance = rng.randbytes(8)
        self._conversations: dict[Handle, Conversation] = {}
        self._peers: dict[NodeId, Peer] = {}
        self._strangers = 0
        self.changed: dict[NodeId, None] = {}
        """Nodes whose standing has changed, or that are gone; whoever takes note of one removes it."""
        self.greeting = greeting
        """What we say of ourselves; the owner keeps it true."""

    def __iter__(self) -> Iterator[Peer]:
        return iter(list(self._peers.values()))

    def __len__(self) -> int:
        return len(self._peers)

    def get(self, node: NodeId) -> Peer | None:
        """Return a peer that is up."""
        return self._peers.get(node)

    def handles(self) -> list[Handle]:
        """Return the conversations that are up."""
        return [c.handle for c in self._conversations.values() if c.state is ConversationState.UP]

    def is_reaching(self, node: NodeId, path: Path | None = None) -> bool:
        """Whether a conversation with `node` (over `path`) exists, up or not."""
        return any(
            conversation.peer == node and path in (None, conversation.path)
            for conversation in self._conversations.values()
        )

    def is_superseded(self, handle: Handle) -> bool:
        """Whether the same peer is up over a better path."""
        conversation = self._conversations.get(handle)
        if conversation is None or conversation.path is Path.LAN or conversation.peer is None:
            return False
        peer = self._peers.get(conversation.peer)
        return peer is not None and Path.LAN in peer.conversations

    # How conversations begin.

    def dialled(self, connection: ConnectionId, node: NodeId, address: Address, now: Instant) -> None:
        """Note that we are connecting to `node` on the LAN."""
        if self._allow_plaintext:
            link = Link.plaintext()
        else:
            link = Link.dial(self._identity, expected=node, instance=self._instance, rng=self._rng)
        conversation = Conversation(connection, Path.LAN, link, initiator=True, peer=node, address=_text(address))
        conversation.state = ConversationState.CONNECTING
        self._add(conversation, now)

    def opened(self, connection: ConnectionId, out: Sink[PeersEffect]) -> None:
        """Begin to talk on a connection that we dialled."""
        conversation = self._conversations.get(connection)
        if conversation is not None and conversation.state is ConversationState.CONNECTING:
            self._begin(conversation, out)

    def accepted(self, connection: ConnectionId, remote: Address, now: Instant, out: Sink[PeersEffect]) -> None:
        """Let a stranger on the LAN introduce itself, unless too many are at it."""
        if self._strangers >= STRANGERS_MAX:
            reason = "too many connections that have not introduced themselves"
            out.append(CloseConnection(connection, reason))
            out.append(ReportRefusal(connection, reason))
            return
        link = Link.accept(
            self._identity, instance=self._instance, rng=self._rng, allow_plaintext=self._allow_plaintext
        )
        conversation = Conversation(connection, Path.LAN, link, initiator=False, peer=None, address=_text(remote))
        self._add(conversation, now)

    def session_opened(
        self, session: str, peer: NodeId, *, initiator: bool, now: Instant, out: Sink[PeersEffect]
    ) -> None:
        """Begin to talk over a relay session, unless the relay names a peer that cannot be one."""
        try:
            link = Link.relayed(
                self._identity, initiator=initiator, peer=peer, session=session, instance=self._instance, rng=self._rng
            )
        except PeerError as error:
            out.append(CloseSession(session))
            out.append(ReportRefusal(session, error.reason))
            return
        conversation = Conversation(session, Path.RELAY, link, initiator=initiator, peer=peer)
        self._add(conversation, now)
        if initiator:
            self._begin(conversation, out)

    # What happens to them.

    def send(self, handle: Handle, message: ClusterMessage, out: Sink[PeersEffect]) -> None:
        """Send a message over a conversation that is up; over any other it is dropped."""
        conversation = self._conversations.get(handle)
        if conversation is not None and conversation.state is ConversationState.UP:
            self._say(conversation, message, out)

    def received(self, handle: Handle, data: bytes, now: Instant, out: Sink[PeersEffect]) -> Iterator[News]:
        """Take what came over a conversation and yield what it means; the caller exhausts the iterator."""
        conversation = self._conversations.get(handle)
        if conversation is None:
            return
        pieces: list[bytes] = []
        try:
            for event in conversation.link.receive(data, pieces):
                self._put(conversation, pieces, out)
                yield from self._understand(conversation, event, now, out)
                if self._conversations.get(handle) is not conversation:
                    return
            self._put(conversation, pieces, out)
        except PeerError as error:
            out.append(ReportRefusal(handle, error.reason))
            yield self._end(conversation, error.reason, out, close=True)

    def closed(self, handle: Handle, reason: str, out: Sink[PeersEffect]) -> ConversationEnded | None:
        """Note that the other side, or the network, ended a conversation."""
        conversation = self._conversations.get(handle)
        return None if conversation is None else self._end(conversation, reason, out, close=False)

    def close(self, handle: Handle, reason: str, out: Sink[PeersEffect]) -> ConversationEnded | None:
        """End a conversation from our side, with a good-bye where one can be said."""
        conversation = self._conversations.get(handle)
        if conversation is None:
            return None
        if conversation.state is ConversationState.UP:
            self._say(conversation, Goodbye(reason), out)
        return self._end(conversation, reason, out, close=True)

    def close_all(self, reason: str, out: Sink[PeersEffect]) -> list[ConversationEnded]:
        """End all conversations."""
        ended = [self.close(handle, reason, out) for handle in list(self._conversations)]
        return [news for news in ended if news is not None]

    def fired(self, key: SetupDue | LivenessDue, now: Instant, out: Sink[PeersEffect]) -> News | None:
        """Do what was due for one conversation."""
        conversation = self._conversations[key.handle]
        if isinstance(key, SetupDue):
            return self._end(conversation, "took too long to introduce itself", out, close=True)
        liveness = conversation.liveness
        assert liveness is not None
        assert conversation.peer is not None
        due = liveness.fired(now)
        if due.change is PeerState.LOST:
            return self._end(conversation, "three heartbeats missed", out, close=True)
        if due.change is not None:
            self.changed[conversation.peer] = None
            out.append(ReportPeer(conversation.peer, due.change, conversation.path, "a heartbeat was missed"))
        if due.send_heartbeat:
            liveness.heartbeat_sent(now)
        self._timers.set(LivenessDue(key.handle), liveness.due_at)
        return HeartbeatWanted(key.handle) if due.send_heartbeat else None

    # How they come up.

    def _add(self, conversation: Conversation, now: Instant) -> None:
        assert conversation.handle not in self._conversations
        self._conversations[conversation.handle] = conversation
        self._strangers += not conversation.initiator
        self._timers.set(SetupDue(conversation.handle), now + SETUP_TIMEOUT)

    def _begin(self, conversation: Conversation, out: Sink[PeersEffect]) -> None:
        conversation.state = ConversationState.HANDSHAKING
        if conversation.link.established:
            self._greet(conversation, out)
            return
        pieces: list[bytes] = []
        conversation.link.start(pieces)
        self._put(conversation, pieces, out)

    def _greet(self, conversation: Conversation, out: Sink[PeersEffect]) -> None:
        conversation.state = ConversationState.GREETING
        if conversation.initiator:
            self._say(conversation, self.greeting, out)

    def _understand(
        self,
        conversation: Conversation,
        event: Established | ClusterMessage | Unknown,
        now: Instant,
        out: Sink[PeersEffect],
    ) -> Iterator[News]:
        if isinstance(event, Established):
            conversation.peer, conversation.instance = event.peer, event.instance
            self._greet(conversation, out)
        elif isinstance(event, Unknown):
            if event.kind not in conversation.unknown_kinds and len(conversation.unknown_kinds) < UNKNOWN_KINDS_MAX:
                conversation.unknown_kinds.add(event.kind)
                out.append(ReportUnknown(conversation.handle, event.kind))
        elif conversation.state is ConversationState.UP:
            yield from self._talk(conversation, event, now, out)
        elif isinstance(event, HelloAck if conversation.initiator else Hello):
            assert isinstance(event, Hello | HelloAck)
            yield from self._meet(conversation, event, now, out)
        else:
            raise PeerError("a message before the greeting")

    def _meet(
        self, conversation: Conversation, hello: Hello | HelloAck, now: Instant, out: Sink[PeersEffect]
    ) -> Iterator[News]:
        """Take a greeting: from here on the peer counts, unless we are already talking."""
        node = self._identify(conversation, hello)
        rival = self._rival(conversation, node)
        if rival is not None:
            if not conversation.initiator and self._is_same_meeting(rival, conversation, node, now):
                yield self._end(conversation, "we are talking already", out, close=True)
                return
            yield self._end(rival, "replaced by a newer connection", out, close=True)
        if node not in self._peers and len(self._peers) >= PEERS_MAX:
            raise PeerError("too many peers")
        self._strangers -= not conversation.initiator
        conversation.peer, conversation.state, conversation.up_at = node, ConversationState.UP, now
        liveness = conversation.liveness = Liveness(self._interval, now)
        self._timers.cancel(SetupDue(conversation.handle))
        self._timers.set(LivenessDue(conversation.handle), liveness.due_at)
        if not conversation.initiator:
            self._say(conversation, _as_ack(self.greeting), out)
        peer = self._peers.setdefault(node, Peer(node))
        peer.conversations[conversation.path] = conversation
        peer.greeted(hello)
        self.changed[node] = None
        out.append(ReportPeer(node, PeerState.CONNECTED, conversation.path))
        yield PeerUp(node, conversation.path)

    def _identify(self, conversation: Conversation, hello: Hello | HelloAck) -> NodeId:
        """Return who is speaking: what the handshake proved, or without encryption what is claimed."""
        if conversation.link.peer is not None:
            return conversation.link.peer
        claimed = _claimed_id(hello.device_info)
        if claimed == self._identity.node_id:
            raise PeerError("it claims to be this node")
        peer = self._peers.get(claimed)
        if peer is not None and any(c.link.peer is not None for c in peer.conversations.values()):
            raise PeerError("it claims, without proof, to be a node that has proved itself")
        return claimed

    def _rival(self, conversation: Conversation, node: NodeId) -> Conversation | None:
        """Return another conversation with the same node over the same path."""
        for other in self._conversations.values():
            # A conversation that the other side began and that is not up may be anybody's.
            counts = other.initiator or other.state is ConversationState.UP
            if counts and other is not conversation and other.peer == node and other.path is conversation.path:
                return other
        return None

    def _is_same_meeting(self, ours: Conversation, theirs: Conversation, node: NodeId, now: Instant) -> bool:
        """Whether both sides dialled at once, and ours, begun by the lower node id, is the one to keep."""
        if not ours.initiator or self._identity.node_id > node:
            return False
        if ours.state is not ConversationState.UP:
            return True
        return ours.instance == theirs.instance and now - ours.up_at < SIMULTANEOUS

    def _talk(
        self, conversation: Conversation, message: ClusterMessage, now: Instant, out: Sink[PeersEffect]
    ) -> Iterator[News]:
        assert conversation.peer is not None
        assert conversation.liveness is not None
        peer = self._peers[conversation.peer]
        change = conversation.liveness.heard(now)
        if change is not None:
            self.changed[peer.node] = None
            out.append(ReportPeer(peer.node, change, conversation.path))
        if isinstance(message, Hello | HelloAck):
            raise PeerError("a second greeting")
        if isinstance(message, Goodbye):
            yield self._end(conversation, "it said good-bye", out, close=True)
            return
        if isinstance(message, Heartbeat | HeartbeatAck):
            peer.beat(message)
            self.changed[peer.node] = None
        if isinstance(message, HeartbeatAck):
            conversation.liveness.heartbeat_answered(now)
        yield Told(peer.node, conversation.handle, message)

    # How they end.

    def _end(
        self, conversation: Conversation, reason: str, out: Sink[PeersEffect], *, close: bool
    ) -> ConversationEnded:
        handle = conversation.handle
        was_up = conversation.state is ConversationState.UP
        del self._conversations[handle]
        self._timers.cancel(SetupDue(handle))
        self._timers.cancel(LivenessDue(handle))
        self._strangers -= not conversation.initiator and not was_up
        if close:
            out.append(CloseSession(handle) if isinstance(handle, str) else CloseConnection(handle, reason))
        if was_up:
            self._leave(conversation, reason, out)
        return ConversationEnded(handle, conversation.path, conversation.peer, conversation.initiator, was_up, reason)

    def _leave(self, conversation: Conversation, reason: str, out: Sink[PeersEffect]) -> None:
        assert conversation.peer is not None
        peer = self._peers[conversation.peer]
        del peer.conversations[conversation.path]
        self.changed[peer.node] = None
        if peer.conversations:
            out.append(ReportPeer(peer.node, PeerState.CONNECTED, peer.best.path, reason))
        else:
            del self._peers[peer.node]
            out.append(ReportPeer(peer.node, PeerState.LOST, conversation.path, reason))

    # How they speak.

    def _say(self, conversation: Conversation, message: ClusterMessage, out: Sink[PeersEffect]) -> None:
        pieces: list[bytes] = []
        conversation.link.send(message, pieces)
        self._put(conversation, pieces, out)

    def _put(self, conversation: Conversation, pieces: list[bytes], out: Sink[PeersEffect]) -> None:
        """Turn what the link wants sent into effects, and empty `pieces`."""
        handle = conversation.handle
        if isinstance(handle, str):
            for piece in pieces:
                out.append(SendSession(handle, piece))
        elif pieces:
            out.append(SendData(handle, b"".join(pieces)))
        pieces.clear()


def _as_ack(hello: Hello) -> HelloAck:
    return HelloAck(
        device_info=hello.device_info,
        protocol_version=hello.protocol_version,
        loaded_models=hello.loaded_models,
        max_concurrent_requests=hello.max_concurrent_requests,
    )


def _claimed_id(device: DeviceInfo) -> NodeId:
    """Return the node id that an unencrypted peer claims; a deployed one has a uuid instead, which is hashed to one."""
    claimed = device.id.lower()
    if len(claimed) == 64 and all(character in "0123456789abcdef" for character in claimed):
        return NodeId(claimed)
    return NodeId(sha256(device.id.encode()).hexdigest())


def _text(address: Address) -> str:
    return f"[{address.host}]:{address.port}" if ":" in address.host else f"{address.host}:{address.port}"
