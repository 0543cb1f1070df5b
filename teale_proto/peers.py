"""All conversations with other nodes: from the first byte to the good-bye, over the LAN and through the relay.

A conversation is set up in the same steps on every path: connect, handshake, joining (may it, and on the LAN
with which passcode), greeting (`hello` by the side that connected, `helloAck` by the other). Only then does it
count: the peer is in the pool, and its messages are passed up. Two nodes that dial each other at once keep the
conversation that the lower node id began.
"""

from collections.abc import Iterator
from hashlib import sha256
from typing import Final

from teale_proto.contract import SECOND, Duration, Instant, Sink
from teale_proto.door import Door
from teale_proto.effects import (
    CloseConnection,
    Path,
    PeerState,
    ReportPeer,
    ReportRefusal,
    ReportUnknown,
    SendData,
)
from teale_proto.errors import LocalError, PeerError
from teale_proto.inputs import Address, ConnectionId, Handle, NodeId
from teale_proto.joining import Joining, PasscodeMessage, Unwelcome
from teale_proto.link import Established, Link
from teale_proto.liveness import Liveness
from teale_proto.peer import Conversation, ConversationState, Peer
from teale_proto.peer_news import (
    CloseSession,
    ConversationEnded,
    HeartbeatWanted,
    LivenessDue,
    News,
    PeersEffect,
    PeerUp,
    SendSession,
    SetupDue,
    Told,
)
from teale_proto.rng import Rng
from teale_proto.secure.identity import is_node_id
from teale_proto.secure.suite import NOISE, Keys, Suite
from teale_proto.timers import Timers
from teale_proto.wire.cluster import (
    ClusterMessage,
    DeviceInfo,
    Goodbye,
    Heartbeat,
    HeartbeatAck,
    Hello,
    HelloAck,
    PasscodeConfirm,
    PasscodeStart,
)
from teale_proto.wire.codec import Flavour, Unknown

__all__ = [
    "CloseSession",
    "ConversationEnded",
    "HeartbeatWanted",
    "LivenessDue",
    "News",
    "PeerUp",
    "Peers",
    "PeersEffect",
    "SendSession",
    "SetupDue",
    "Told",
]

PEERS_MAX: Final = 256
STRANGERS_MAX: Final = 64
"""Conversations that others began on the LAN and that have not come to the greeting."""

UNKNOWN_KINDS_MAX: Final = 16
"""Kinds that are reported of one conversation, each once, so that nobody fills our log with novelties."""

REASON_MAX: Final = 128
"""Characters that are shown of the reason that another node gives."""

JOINED_BYTES_MAX: Final = 64 * 1024
"""Up to so much is handed to the driver in one piece; of more, the copy would cost more than the calls."""

SETUP_TIMEOUT: Final[Duration] = 10 * SECOND
"""From the first byte to the greeting."""

SIMULTANEOUS: Final[Duration] = 10 * SECOND
"""Within this time of each other, two conversations that the two sides began are one meeting."""


class Peers:
    """The conversations by handle, and the peers that have come up by node id."""

    __slots__ = (
        "_allow_plaintext",
        "_conversations",
        "_door",
        "_fast_aes",
        "_identity",
        "_instance",
        "_interval",
        "_peers",
        "_rng",
        "_strangers",
        "_suite",
        "_timers",
        "changed",
        "greeting",
    )

    def __init__(
        self,
        identity: Keys,
        *,
        greeting: Hello,
        heartbeat: Duration,
        allow_plaintext: bool,
        door: Door,
        timers: Timers[object],
        rng: Rng,
        fast_aes: bool = False,
        suite: Suite = NOISE,
    ) -> None:
        """Raise LocalError for an identity that is not of the suite."""
        suite.check(identity)
        self._identity = identity
        self._suite = suite
        self._fast_aes = fast_aes
        self._interval = heartbeat
        self._allow_plaintext = allow_plaintext
        self._door = door
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

    @property
    def dialling(self) -> int:
        """How many conversations we have begun on the LAN that have not come up."""
        return sum(
            c.initiator and c.path is Path.LAN and c.state is not ConversationState.UP
            for c in self._conversations.values()
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
            link = Link.dial(
                self._identity,
                expected=node,
                instance=self._instance,
                rng=self._rng,
                fast_aes=self._fast_aes,
                suite=self._suite,
            )
        conversation = Conversation(connection, Path.LAN, link, initiator=True, peer=node, remote=address)
        conversation.state = ConversationState.CONNECTING
        self._add(conversation, now)

    def opened(self, connection: ConnectionId, out: Sink[PeersEffect]) -> None:
        """Begin to talk on a connection that we dialled."""
        conversation = self._conversations.get(connection)
        if conversation is not None and conversation.state is ConversationState.CONNECTING:
            self._begin(conversation, out)

    def accepted(
        self, connection: ConnectionId, remote: Address, now: Instant, out: Sink[PeersEffect]
    ) -> ConversationEnded | None:
        """Let a stranger on the LAN introduce itself; where too many are at it, the oldest has had its chance."""
        ended = None
        if self._strangers >= STRANGERS_MAX:
            oldest = next(filter(_is_stranger, self._conversations.values()))
            reason = "too many connections that have not introduced themselves"
            out.append(ReportRefusal(oldest.handle, reason))
            ended = self._end(oldest, reason, out, close=True)
        link = Link.accept(
            self._identity,
            instance=self._instance,
            rng=self._rng,
            allow_plaintext=self._allow_plaintext,
            fast_aes=self._fast_aes,
            suite=self._suite,
        )
        conversation = Conversation(connection, Path.LAN, link, initiator=False, peer=None, remote=remote)
        self._add(conversation, now)
        return ended

    def session_opened(
        self,
        session: str,
        peer: NodeId,
        *,
        initiator: bool,
        has_key: bool | None = None,
        now: Instant,
        out: Sink[PeersEffect],
    ) -> None:
        """Begin to talk over a relay session, unless the relay names a peer that cannot be one.

        `has_key` says whether the relay lists the peer with a key to encrypt to, or None where it is not listed. One
        that has none is a deployed program; where that is allowed, we talk to it as it is.
        """
        plaintext = self._door.admits_plaintext(Path.RELAY, peer)
        try:
            if plaintext and initiator and has_key is False:
                link = Link.relayed_plaintext()
            else:
                link = Link.relayed(
                    self._identity,
                    initiator=initiator,
                    peer=peer,
                    session=session,
                    instance=self._instance,
                    rng=self._rng,
                    allow_plaintext=plaintext and not has_key,
                    fast_aes=self._fast_aes,
                    suite=self._suite,
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
            if isinstance(error, Unwelcome):
                self._say(conversation, Goodbye(error.told), out)
            out.append(ReportRefusal(handle, error.reason))
            yield self._end(conversation, error.reason, out, close=True, refused=True)

    def closed(self, handle: Handle, reason: str, out: Sink[PeersEffect]) -> ConversationEnded | None:
        """Note that the other side, or the network, ended a conversation."""
        conversation = self._conversations.get(handle)
        return None if conversation is None else self._end(conversation, reason, out, close=False, blamed=True)

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
            return self._give_up(conversation, out)
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
        self._strangers += _is_stranger(conversation)
        self._timers.set(SetupDue(conversation.handle), now + SETUP_TIMEOUT)

    def _give_up(self, conversation: Conversation, out: Sink[PeersEffect]) -> ConversationEnded:
        reason = conversation.doom or "took too long to introduce itself"
        if not conversation.initiator or conversation.doom:
            out.append(ReportRefusal(conversation.handle, reason))
        return self._end(conversation, reason, out, close=True, blamed=True)

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
            self._receive(conversation, event.peer, now, out)
        elif isinstance(event, Unknown):
            if event.kind not in conversation.unknown_kinds and len(conversation.unknown_kinds) < UNKNOWN_KINDS_MAX:
                conversation.unknown_kinds.add(event.kind)
                out.append(ReportUnknown(conversation.handle, event.kind))
        elif conversation.state is ConversationState.UP:
            yield from self._talk(conversation, _translated(conversation, event), now, out)
        elif isinstance(event, Goodbye):
            raise PeerError(f"it refused this node: {_printable(event.reason)}")
        elif isinstance(event, PasscodeStart | PasscodeConfirm):
            self._join(conversation, event, now, out)
        elif isinstance(event, HelloAck if conversation.initiator else Hello):
            assert isinstance(event, Hello | HelloAck)
            yield from self._meet(conversation, event, now, out)
        else:
            raise PeerError("a message before the greeting")

    def _receive(self, conversation: Conversation, node: NodeId, now: Instant, out: Sink[PeersEffect]) -> None:
        """Decide, now that it is proved who is there, whether and how it may go on."""
        if not self._door.admits(conversation.path, node):
            raise Unwelcome(
                "it is not among the trusted_nodes, and only those may join", "this node talks only to paired nodes"
            )
        if conversation.path is not Path.LAN:
            self._greet(conversation, out)
            return
        conversation.state = ConversationState.JOINING
        conversation.joining = Joining(
            self._door,
            dialler=conversation.initiator,
            own=self._identity.node_id,
            peer=node,
            host=conversation.host,
            handshake_hash=conversation.link.handshake_hash,
            rng=self._rng,
        )
        if conversation.initiator:
            self._join(conversation, None, now, out)

    def _join(
        self, conversation: Conversation, message: PasscodeMessage | None, now: Instant, out: Sink[PeersEffect]
    ) -> None:
        """Take the next step of joining, the first one where there is no message; a dialler then greets."""
        joining = conversation.joining
        if joining is None or conversation.state is not ConversationState.JOINING:
            raise PeerError("a passcode message out of turn")
        messages: list[ClusterMessage] = []
        if message is None:
            joining.begin(now, messages)
        else:
            joining.take(message, now, messages)
        for each in messages:
            self._say(conversation, each, out)
        if conversation.initiator and joining.may_greet:
            self._greet(conversation, out)

    def _meet(
        self, conversation: Conversation, hello: Hello | HelloAck, now: Instant, out: Sink[PeersEffect]
    ) -> Iterator[News]:
        """Take a greeting: from here on the peer counts, unless we are already talking."""
        if conversation.joining is not None:
            conversation.joining.check_greeting()
        node = self._identify(conversation, hello)
        rival = self._rival(conversation, node)
        if rival is not None:
            if not conversation.initiator and self._is_same_meeting(rival, conversation, node, now):
                yield self._end(conversation, "we are talking already", out, close=True)
                return
            yield self._end(rival, "replaced by a newer connection", out, close=True)
        if node not in self._peers and len(self._peers) >= PEERS_MAX:
            raise PeerError("too many peers")
        if conversation.link.peer is not None:
            self._door.proved(node)
            for other in self._unproved(node):
                yield self._end(other, "it has proved itself on another connection", out, close=True)
        self._strangers -= _is_stranger(conversation)
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
        # Through a relay it is the relay that claims it; what a deployed node says of itself there is a uuid.
        claimed = conversation.peer if conversation.path is Path.RELAY else _claimed_id(hello.device_info)
        assert claimed is not None
        if claimed == self._identity.node_id:
            raise PeerError("it claims to be this node")
        if self._door.has_proved(claimed):
            raise PeerError("it claims, without proof, to be a node that has proved itself")
        return claimed

    def _unproved(self, node: NodeId) -> list[Conversation]:
        """Return the conversations that are up in the name of `node` without proof."""
        peer = self._peers.get(node)
        return [] if peer is None else [c for c in peer.conversations.values() if c.link.peer is None]

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
        if isinstance(message, Hello | HelloAck | PasscodeStart | PasscodeConfirm):
            raise PeerError("a second greeting")
        if isinstance(message, Goodbye):
            yield self._end(conversation, "it said good-bye", out, close=True)
            return
        if isinstance(message, Heartbeat | HeartbeatAck) and peer.beat(message):
            self.changed[peer.node] = None
        if isinstance(message, HeartbeatAck):
            conversation.liveness.heartbeat_answered(now)
        yield Told(peer.node, conversation.handle, message)

    # How they end.

    def _end(
        self,
        conversation: Conversation,
        reason: str,
        out: Sink[PeersEffect],
        *,
        close: bool,
        blamed: bool = False,
        refused: bool = False,
    ) -> ConversationEnded:
        """End it; `blamed` or `refused`, by what it said, the other side was the cause."""
        handle = conversation.handle
        was_up = conversation.state is ConversationState.UP
        del self._conversations[handle]
        self._timers.cancel(SetupDue(handle))
        self._timers.cancel(LivenessDue(handle))
        self._strangers -= _is_stranger(conversation)
        if conversation.joining is not None and not (blamed or refused):
            conversation.joining.break_off()
        if close:
            out.append(CloseSession(handle) if isinstance(handle, str) else CloseConnection(handle, reason))
        if was_up:
            self._leave(conversation, reason, out)
        refused = refused and not was_up and conversation.link.peer is not None
        return ConversationEnded(
            handle, conversation.path, conversation.peer, conversation.initiator, was_up, reason, refused
        )

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
        if conversation.link.flavour is not Flavour.DOCUMENTED:
            message = conversation.translator.outgoing(message)
        try:
            conversation.link.send(message, pieces)
        except LocalError as error:
            # Only a peer that does not encrypt has a limit below what we let in ourselves. What was asked of it
            # must end, and ends with the conversation, as soon as the node is awake again.
            conversation.doom = str(error)
            self._timers.set(SetupDue(conversation.handle), 0)
            return
        self._put(conversation, pieces, out)

    def _put(self, conversation: Conversation, pieces: list[bytes], out: Sink[PeersEffect]) -> None:
        """Turn what the link wants sent into effects, and empty `pieces`."""
        handle = conversation.handle
        if isinstance(handle, str):
            for piece in pieces:
                out.append(SendSession(handle, piece))
        elif sum(map(len, pieces)) <= JOINED_BYTES_MAX:
            if pieces:
                out.append(SendData(handle, b"".join(pieces)))
        else:
            for piece in pieces:
                out.append(SendData(handle, piece))
        pieces.clear()


def _is_stranger(conversation: Conversation) -> bool:
    """Whether it takes up one of STRANGERS_MAX places; the relay client bounds those that come through the relay."""
    return (
        conversation.path is Path.LAN and not conversation.initiator and conversation.state is not ConversationState.UP
    )


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
    if is_node_id(claimed):
        return NodeId(claimed)
    return NodeId(sha256(device.id.encode()).hexdigest())


def _translated(conversation: Conversation, message: ClusterMessage) -> ClusterMessage:
    return message if conversation.link.flavour is Flavour.DOCUMENTED else conversation.translator.incoming(message)


def _printable(text: str) -> str:
    """Return a stranger's text so that it can be shown: one line, and not too long."""
    return "".join(character if character.isprintable() else " " for character in text[:REASON_MAX])
