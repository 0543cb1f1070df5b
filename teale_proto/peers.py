"""All conversations with other nodes: from the first byte to the good-bye, on the LAN, directly and through the relay.

A conversation is set up in the same steps on every path: connect, handshake, joining (may it, and on the LAN
with which passcode), greeting (`hello` by the side that connected, `helloAck` by the other). Only then does it
count: the peer is in the pool, and its messages are passed up. Two nodes that dial each other at once keep the
conversation that the lower node id began.

Where both say so in their greetings, requests and answers do not hang on one conversation: they are numbered
(see `delivery`), go over the best path there is, move when it ends or falls silent, and wait a while when it was the
last. A node that starts anew, says good-bye, or has given up what it knew of the other's numbers is not waited for.
"""

from collections.abc import Iterator
from typing import Final

from teale_proto import meeting, speaking
from teale_proto.absence import GRACE, Absence
from teale_proto.contract import SECOND, Duration, Instant
from teale_proto.delivery import DeliveryError
from teale_proto.door import Door
from teale_proto.effects import CloseConnection, Path, PeerState, ReportPeer, ReportRefusal
from teale_proto.errors import PeerError
from teale_proto.inputs import Address, ConnectionId, Handle, NodeId, PeerHandle, Whom
from teale_proto.joining import Unwelcome
from teale_proto.link import Established, Heard, Link, Links, Numbered
from teale_proto.liveness import Liveness
from teale_proto.peer import Conversation, ConversationState, Peer
from teale_proto.peer_news import (
    CloseSession,
    ConversationEnded,
    GraceDue,
    HeartbeatWanted,
    LivenessDue,
    News,
    PeerAway,
    PeerGone,
    PeerUp,
    SetupDue,
    Told,
)
from teale_proto.pulse import doubted, hasten, suspect
from teale_proto.rng import Rng
from teale_proto.secure.suite import NOISE, Keys, Suite
from teale_proto.speaking import Out
from teale_proto.timers import Timers
from teale_proto.wire.cluster import (
    DELIVERED,
    ClusterMessage,
    Goodbye,
    Heartbeat,
    HeartbeatAck,
    Hello,
    HelloAck,
    PasscodeConfirm,
    PasscodeStart,
    Received,
)
from teale_proto.wire.codec import Unknown

PEERS_MAX: Final = 256
STRANGERS_MAX: Final = 64
"""Conversations that others began, on the LAN or directly, and that have not come to the greeting."""

SETUP_TIMEOUT: Final[Duration] = 10 * SECOND
"""From the first byte to the greeting."""


class Peers:
    """The conversations by handle, and the peers that have come up by node id."""

    __slots__ = (
        "_allow_plaintext",
        "_away",
        "_conversations",
        "_door",
        "_interval",
        "_links",
        "_node_id",
        "_peers",
        "_rng",
        "_strangers",
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
        self._node_id = identity.node_id
        self._links = Links(identity, rng=rng, fast_aes=fast_aes, suite=suite)
        self._interval = heartbeat
        self._allow_plaintext = allow_plaintext
        self._door = door
        self._timers = timers
        self._rng = rng
        self._conversations: dict[Handle, Conversation] = {}
        self._peers: dict[NodeId, Peer] = {}
        self._away = Absence(timers)
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
        return any(c.peer == node and path in (None, c.path) for c in self._conversations.values())

    @property
    def dialling(self) -> int:
        """How many conversations we have begun on the LAN that have not come up."""
        return sum(
            c.initiator and c.path is Path.LAN and c.state is not ConversationState.UP
            for c in self._conversations.values()
        )

    def is_superseded(self, handle: Handle) -> bool:
        """Whether the same peer is up on the LAN, which makes every other path needless."""
        conversation, peer = self._find(handle)
        return conversation is not None and peer is not None and Path.LAN is peer.best.path is not conversation.path

    def carried_by(self, handle: Handle) -> Whom:
        """Return whose requests are disturbed when a conversation ends: those of its peer where it carries them."""
        conversation, peer = self._find(handle)
        return handle if peer is None or peer.handle is None or peer.best is not conversation else peer.handle

    def _find(self, handle: Handle) -> tuple[Conversation | None, Peer | None]:
        """Return a conversation, and the peer that it is with if that is up over this or another one."""
        conversation = self._conversations.get(handle)
        node = None if conversation is None else conversation.peer
        return conversation, None if node is None else self._peers.get(node)

    # How fast their hearts beat.

    def set_active(self, handle: PeerHandle, active: bool) -> None:
        """Take whether requests are under way with a peer, which decides over the heartbeats on a direct path."""
        peer = self._known(handle)
        if peer is not None:
            # Somebody waits for the end of an answer that is finished here as well.
            peer.is_active = active or (peer.delivery is not None and peer.delivery.unacknowledged > 0)
            hasten(peer, self._interval, self._timers)

    def keep_alive(self, handle: Handle, interval: Duration) -> None:
        """Set how far apart the heartbeats on an idle direct path may be, so that the NATs on it keep it open."""
        conversation, peer = self._find(handle)
        if conversation is not None:
            conversation.keep_alive = interval
        if peer is not None:
            hasten(peer, self._interval, self._timers)

    def network_changed(self, now: Instant) -> None:
        """Find out soon which conversations have outlived a change of network."""
        suspect(self._conversations.values(), now, self._timers)

    # How conversations begin.

    def dialled(
        self, connection: ConnectionId, node: NodeId, address: Address, now: Instant, *, path: Path = Path.LAN
    ) -> bytes:
        """Note that we are connecting to `node`, on the LAN or directly; return what a direct stream begins with."""
        plaintext = self._allow_plaintext and path is Path.LAN
        link = Link.plaintext() if plaintext else self._links.dial(node)
        conversation = Conversation(connection, path, link, initiator=True, peer=node, remote=address)
        conversation.state = ConversationState.CONNECTING
        self._add(conversation, now)
        return link.opening() if path is Path.DIRECT else b""

    def opened(self, connection: ConnectionId, out: Out) -> None:
        """Begin to talk on a connection that we dialled."""
        conversation = self._conversations.get(connection)
        if conversation is not None and conversation.state is ConversationState.CONNECTING:
            self._begin(conversation, out)

    def accepted(
        self, connection: ConnectionId, remote: Address, now: Instant, out: Out, *, path: Path = Path.LAN
    ) -> list[News]:
        """Let a stranger introduce itself; where too many are at it, the oldest has had its chance."""
        ended: list[News] = []
        if self._strangers >= STRANGERS_MAX:
            oldest = next(c for c in self._conversations.values() if c.is_stranger)
            reason = "too many connections that have not introduced themselves"
            out.append(ReportRefusal(oldest.handle, reason))
            ended = self._end(oldest, reason, now, out, close=True)
        link = self._links.accept(allow_plaintext=self._allow_plaintext and path is Path.LAN)
        conversation = Conversation(connection, path, link, initiator=False, peer=None, remote=remote)
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
        out: Out,
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
                allowed = plaintext and not has_key
                link = self._links.relayed(session, peer, initiator=initiator, allow_plaintext=allowed)
        except PeerError as error:
            out.append(CloseSession(session))
            out.append(ReportRefusal(session, error.reason))
            return
        conversation = Conversation(session, Path.RELAY, link, initiator=initiator, peer=peer)
        self._add(conversation, now)
        if initiator:
            self._begin(conversation, out)

    # What happens to them.

    def send(self, whom: Whom, message: ClusterMessage, out: Out) -> None:
        """Send a message over a conversation that is up, or to a peer; to any other it is dropped."""
        if isinstance(whom, PeerHandle):
            self._send_to_peer(whom, message, out)
            return
        conversation, peer = self._find(whom)
        if conversation is not None and peer is not None and conversation.state is ConversationState.UP:
            self._say(conversation, message, out)
            if isinstance(message, Heartbeat | HeartbeatAck):
                speaking.acknowledge(peer, conversation, out, at_once=True)

    def _send_to_peer(self, handle: PeerHandle, message: ClusterMessage, out: Out) -> None:
        peer = self._known(handle)
        if peer is None or peer.doom:
            return
        if type(message) not in DELIVERED:
            if peer.conversations:
                self._say(peer.best, message, out)
            return
        if not peer.is_active:
            self.set_active(handle, True)
        if not speaking.deliver(peer, message, out):
            self._timers.set(GraceDue(handle), 0)

    def _known(self, handle: PeerHandle) -> Peer | None:
        """Return the start of a peer that a handle names, if it is up or may come back."""
        peer = self._peers.get(handle.node) or self._away.get(handle.node)
        return peer if peer is not None and peer.handle == handle else None

    def received(self, handle: Handle, data: bytes, now: Instant, out: Out) -> Iterator[News]:
        """Take what came over a conversation and yield what it means; the caller exhausts the iterator."""
        conversation = self._conversations.get(handle)
        if conversation is None:
            return
        pieces: list[bytes] = []
        try:
            for event in conversation.link.receive(data, pieces):
                speaking.put(conversation, pieces, out)
                if type(event) is Numbered and conversation.state is ConversationState.UP:
                    yield from self._hear_numbered(conversation, event, now, out)
                else:
                    yield from self._understand(conversation, event, now, out)
                if self._conversations.get(handle) is not conversation:
                    return
            speaking.put(conversation, pieces, out)
        except PeerError as error:
            if isinstance(error, Unwelcome):
                self._say(conversation, Goodbye(error.told), out)
            out.append(ReportRefusal(handle, error.reason))
            # What it said of numbers, it said as the peer itself: another conversation would not mend it.
            final = isinstance(error, DeliveryError)
            yield from self._end(conversation, error.reason, now, out, close=True, refused=True, final=final)

    def closed(self, handle: Handle, reason: str, now: Instant, out: Out) -> list[News]:
        """Note that the other side, or the network, ended a conversation."""
        conversation = self._conversations.get(handle)
        return [] if conversation is None else self._end(conversation, reason, now, out, close=False, blamed=True)

    def close(self, handle: Handle, reason: str, now: Instant, out: Out) -> list[News]:
        """End a conversation from our side, with a good-bye where one can be said."""
        conversation = self._conversations.get(handle)
        if conversation is None:
            return []
        if conversation.state is ConversationState.UP:
            self._say(conversation, Goodbye(reason, stays=conversation.link.peer is not None), out)
        return self._end(conversation, reason, now, out, close=True)

    def close_all(self, reason: str, now: Instant, out: Out) -> list[News]:
        """End all conversations for good."""
        news: list[News] = []
        for conversation in list(self._conversations.values()):
            if conversation.state is ConversationState.UP:
                self._say(conversation, Goodbye(reason), out)
        for conversation in list(self._conversations.values()):
            # The first one of a peer takes the others with it.
            if conversation.handle in self._conversations:
                news += self._end(conversation, reason, now, out, close=True, final=True)
        for peer in self._away:
            news += self._forget(peer, reason, now, out)
        return news

    def fired(self, key: SetupDue | LivenessDue | GraceDue, now: Instant, out: Out) -> list[News]:
        """Do what was due for one conversation or peer."""
        if isinstance(key, GraceDue):
            return self._grace_ended(key.peer, now, out)
        conversation = self._conversations[key.handle]
        if isinstance(key, SetupDue):
            return self._give_up(conversation, now, out)
        liveness = conversation.liveness
        assert liveness is not None
        assert conversation.peer is not None
        peer = self._peers[conversation.peer]
        liveness.pace(peer.pace_of(conversation, self._interval), now)
        due = liveness.fired(now)
        if due.change is PeerState.LOST:
            final = len(peer.conversations) == 1 and liveness.silence(now) >= GRACE
            return self._end(conversation, "three heartbeats missed", now, out, close=True, final=final)
        if due.change is not None:
            self._note_change(conversation, due.change, "a heartbeat was missed", out)
            if peer.best is not conversation:
                self._move(peer, conversation, out)
        if due.send_heartbeat:
            liveness.heartbeat_sent(now)
        self._timers.set(LivenessDue(key.handle), liveness.due_at)
        if not due.send_heartbeat:
            return []
        return [HeartbeatWanted(key.handle, peer.handle if conversation.path is Path.DIRECT else None)]

    def _move(self, peer: Peer, conversation: Conversation, out: Out) -> None:
        """Say again over a better conversation what may have been lost in one that ended or fell silent."""
        if peer.delivery is not None:
            peer.delivery.went_silent(conversation.handle)
            speaking.send_due(peer, out)
        hasten(peer, self._interval, self._timers)

    # How they come up.

    def _add(self, conversation: Conversation, now: Instant) -> None:
        assert conversation.handle not in self._conversations
        self._conversations[conversation.handle] = conversation
        self._strangers += conversation.is_stranger
        self._timers.set(SetupDue(conversation.handle), now + SETUP_TIMEOUT)

    def _give_up(self, conversation: Conversation, now: Instant, out: Out) -> list[News]:
        reason = conversation.doom or "took too long to introduce itself"
        if not conversation.initiator or conversation.doom:
            out.append(ReportRefusal(conversation.handle, reason))
        return self._end(conversation, reason, now, out, close=True, blamed=True)

    def _begin(self, conversation: Conversation, out: Out) -> None:
        conversation.state = ConversationState.HANDSHAKING
        if conversation.link.established:
            self._greet(conversation, out)
            return
        pieces: list[bytes] = []
        conversation.link.start(pieces)
        speaking.put(conversation, pieces, out)

    def _greet(self, conversation: Conversation, out: Out) -> None:
        conversation.state = ConversationState.GREETING
        if conversation.initiator:
            self._announce(conversation)
            self._say(conversation, meeting.hello_with(self.greeting, conversation.epoch), out)

    def _announce(self, conversation: Conversation) -> None:
        node = conversation.link.peer
        if node is not None:
            conversation.epoch = self._away.epoch_of(node, self._peers.get(node), self._conversations.values())

    def _understand(self, conversation: Conversation, event: Heard, now: Instant, out: Out) -> Iterator[News]:
        if isinstance(event, Established):
            conversation.peer, conversation.instance = event.peer, event.instance
            meeting.receive(conversation, event.peer, self._door, own=self._node_id, rng=self._rng)
            self._join(conversation, meeting.first_step(conversation, now), out)
        elif isinstance(event, Unknown):
            speaking.note_unknown(conversation, event.kind, out)
        elif conversation.state is ConversationState.UP:
            assert not isinstance(event, Numbered)
            yield from self._talk(conversation, speaking.translated(conversation, event), now, out)
        elif isinstance(event, Goodbye):
            raise PeerError(f"it refused this node: {meeting.printable(event.reason)}")
        elif isinstance(event, PasscodeStart | PasscodeConfirm):
            self._join(conversation, meeting.next_step(conversation, event, now), out)
        elif isinstance(event, HelloAck if conversation.initiator else Hello):
            assert isinstance(event, Hello | HelloAck)
            yield from self._meet(conversation, event, now, out)
        else:
            raise PeerError("a message before the greeting")

    def _join(self, conversation: Conversation, messages: list[ClusterMessage], out: Out) -> None:
        """Say what joining asks for next, and greet where that was all."""
        for each in messages:
            self._say(conversation, each, out)
        if meeting.may_greet(conversation):
            self._greet(conversation, out)

    def _meet(self, conversation: Conversation, hello: Hello | HelloAck, now: Instant, out: Out) -> Iterator[News]:
        """Take a greeting: from here on the peer counts, unless we are already talking."""
        if conversation.joining is not None:
            conversation.joining.check_greeting()
        own = self._node_id
        node = meeting.identified(conversation, hello, own, self._door)
        rival = meeting.rival_of(conversation, node, self._conversations.values())
        if rival is not None:
            if not conversation.initiator and meeting.is_same_meeting(rival, conversation, own=own, node=node, now=now):
                yield from self._end(conversation, "we are talking already", now, out, close=True)
                return
            yield from self._end(rival, "replaced by a newer connection", now, out, close=True)
        if node not in self._peers and len(self._peers) >= PEERS_MAX:
            raise PeerError("too many peers")
        if conversation.link.peer is not None:
            self._door.proved(node)
            yield from self._end_former(conversation, node, hello.delivery, now, out)
        self._strangers -= conversation.is_stranger
        conversation.peer, conversation.state, conversation.up_at = node, ConversationState.UP, now
        self._timers.cancel(SetupDue(conversation.handle))
        if not conversation.initiator:
            self._announce(conversation)
            self._say(conversation, meeting.ack_with(self.greeting, conversation.epoch), out)
        peer = self._peers[node] = self._peers.get(node) or self._away.returned(node) or Peer(node)
        peer.instance = conversation.instance
        if peer.handle is None and hello.delivery is not None and conversation.epoch:
            peer.handle = PeerHandle(node, conversation.instance)
            peer.epochs = (conversation.epoch, hello.delivery)
        peer.conversations[conversation.path] = conversation
        liveness = conversation.liveness = Liveness(peer.pace_of(conversation, self._interval), now)
        self._timers.set(LivenessDue(conversation.handle), liveness.due_at)
        peer.greeted(hello)
        self.changed[node] = None
        out.append(ReportPeer(node, PeerState.CONNECTED, peer.best.path))
        speaking.send_due(peer, out)
        yield PeerUp(node, conversation.path)

    def _end_former(
        self, conversation: Conversation, node: NodeId, epoch: int | None, now: Instant, out: Out
    ) -> Iterator[News]:
        """End what was under way in the name of a node that had not proved it, or has begun anew since."""
        former = self._peers.get(node) or self._away.get(node)
        if former is None or (former.instance, former.epochs[1]) == (conversation.instance, epoch):
            return
        reason = "it has given this node up"
        if former.instance != conversation.instance:
            reason = "it has started anew" if former.instance else "it has proved itself on another connection"
        self._away.returned(node)
        handle, former.handle, former.delivery = former.handle, None, None
        for each in list(former.conversations.values()):
            yield from self._end(each, reason, now, out, close=True)
        if handle is not None:
            yield PeerGone(handle, reason)

    def _talk(self, conversation: Conversation, message: ClusterMessage, now: Instant, out: Out) -> Iterator[News]:
        peer = self._note_life(conversation, now, out)
        if isinstance(message, Hello | HelloAck | PasscodeStart | PasscodeConfirm):
            raise PeerError("a second greeting")
        if peer.handle is not None and type(message) in DELIVERED:
            raise DeliveryError("it does not number what it has said it would")
        if isinstance(message, Goodbye):
            yield from self._end(conversation, "it said good-bye", now, out, close=True, final=not message.stays)
            return
        if isinstance(message, Received):
            speaking.take_acknowledgement(peer, message.up_to, out)
            return
        if isinstance(message, Heartbeat | HeartbeatAck) and peer.beat(message):
            self.changed[peer.node] = None
        if isinstance(message, HeartbeatAck):
            assert conversation.liveness is not None
            conversation.liveness.heartbeat_answered(now)
        yield Told(peer.node, conversation.handle, conversation.handle, message)

    def _hear_numbered(self, conversation: Conversation, event: Numbered, now: Instant, out: Out) -> Iterator[News]:
        if conversation.state is not ConversationState.UP:
            raise PeerError("a message before the greeting")
        peer = self._note_life(conversation, now, out)
        handle = peer.handle
        if handle is None:
            raise PeerError("a numbered message where that was not agreed")
        if not peer.is_active:
            self.set_active(handle, True)
        best = doubted(peer, conversation, now, self._timers)
        if best is not None:
            self._note_change(best, PeerState.DEGRADED, "the peer prefers another path", out)
            self._move(peer, best, out)
        for message in speaking.hear(peer, event):
            if isinstance(message, Unknown):
                speaking.note_unknown(conversation, message.kind, out)
            else:
                yield Told(peer.node, handle, conversation.handle, message)
        speaking.acknowledge(peer, conversation, out, at_once=False)

    def _note_life(self, conversation: Conversation, now: Instant, out: Out) -> Peer:
        """Note that something came over a conversation that is up; return whose it is."""
        assert conversation.peer is not None
        assert conversation.liveness is not None
        change = conversation.liveness.heard(now)
        if change is not None:
            self._note_change(conversation, change, "", out)
        return self._peers[conversation.peer]

    def _note_change(self, conversation: Conversation, state: PeerState, reason: str, out: Out) -> None:
        assert conversation.peer is not None
        self.changed[conversation.peer] = None
        out.append(ReportPeer(conversation.peer, state, conversation.path, reason))

    # How they end.

    def _end(
        self,
        conversation: Conversation,
        reason: str,
        now: Instant,
        out: Out,
        *,
        close: bool,
        blamed: bool = False,
        refused: bool = False,
        final: bool = False,
    ) -> list[News]:
        """End it; `blamed` or `refused`, by what it said, the other side was the cause.

        `final` ends everything with a peer that could otherwise go on in another conversation.
        """
        handle = conversation.handle
        was_up = conversation.state is ConversationState.UP
        del self._conversations[handle]
        self._timers.cancel(SetupDue(handle))
        self._timers.cancel(LivenessDue(handle))
        self._strangers -= conversation.is_stranger
        if conversation.joining is not None and not (blamed or refused):
            conversation.joining.break_off()
        if close:
            out.append(CloseSession(handle) if isinstance(handle, str) else CloseConnection(handle, reason))
        refused = refused and not was_up and conversation.link.peer is not None
        ended = ConversationEnded(
            handle, conversation.path, conversation.peer, conversation.initiator, was_up, reason, refused
        )
        return [ended, *self._leave(conversation, reason, now, out, final=final)] if was_up else [ended]

    def _leave(self, conversation: Conversation, reason: str, now: Instant, out: Out, *, final: bool) -> list[News]:
        assert conversation.peer is not None
        peer = self._peers[conversation.peer]
        del peer.conversations[conversation.path]
        self.changed[peer.node] = None
        if peer.conversations:
            if final and peer.handle is not None:
                another = next(iter(peer.conversations.values()))
                return self._end(another, reason, now, out, close=True, final=True)
            out.append(ReportPeer(peer.node, PeerState.CONNECTED, peer.best.path, reason))
            self._move(peer, conversation, out)
            return []
        del self._peers[peer.node]
        out.append(ReportPeer(peer.node, PeerState.LOST, conversation.path, reason))
        if peer.handle is None:
            return []
        if final or peer.doom:
            return self._forget(peer, peer.doom or reason, now, out)
        return self._let_go(peer, peer.handle, conversation, now, out)

    def _let_go(self, peer: Peer, handle: PeerHandle, conversation: Conversation, now: Instant, out: Out) -> list[News]:
        """Let a peer that has no conversation left come back within GRACE."""
        first = self._away.leave(peer, handle, now)
        news = [] if first is None else self._forget(first, "too many others have left since", now, out)
        if peer.delivery is not None:
            peer.delivery.went_silent(conversation.handle)
            peer.delivery.rest()
            news.append(PeerAway(handle))
        return news

    def _grace_ended(self, handle: PeerHandle, now: Instant, out: Out) -> list[News]:
        peer = self._known(handle)
        if peer is None:
            return []
        if not peer.conversations:
            return self._forget(peer, "it has not come back", now, out)
        return self._end(peer.best, peer.doom, now, out, close=True, final=True) if peer.doom else []

    def _forget(self, peer: Peer, reason: str, now: Instant, out: Out) -> list[News]:
        """Give up what was under way with a peer without conversations; it will hear of that when it comes back."""
        assert peer.handle is not None
        self._away.give_up(peer.node)
        news: list[News] = []
        for other in list(self._conversations.values()):
            if other.epoch and other.peer == peer.node:
                # It has announced that we remember.
                news += self._end(other, reason, now, out, close=True)
        return [*news, PeerGone(peer.handle, reason)]

    def _say(self, conversation: Conversation, message: ClusterMessage, out: Out) -> None:
        if not speaking.say(conversation, message, out):
            self._timers.set(SetupDue(conversation.handle), 0)
