"""The sessions that a relay client has with other nodes.

A session that we open waits for `relayReady`; one that a peer opens is open as soon as we answer. Whatever
the relay says of a session that we do not have, or names a wrong peer for, changes nothing: at most we say,
once, that there is no such session.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final, TypeAlias

from teale_proto.contract import Instant, Sink
from teale_proto.inputs import NodeId
from teale_proto.relay.client_states import RelayClientConfig, SessionTimer
from teale_proto.relay.news import RelayNews, SessionClosed, SessionData, SessionId, SessionOpened, SignalReceived
from teale_proto.rng import Rng
from teale_proto.timers import Timers
from teale_proto.wire.binary import BinaryData
from teale_proto.wire.relay import (
    Answer,
    IceCandidate,
    Offer,
    Passed,
    RelayClose,
    RelayData,
    RelayMessage,
    RelayOpen,
    RelayReady,
    Signal,
)

DISMISSED_MAX: Final = 256
"""How many sessions that are over, or that we would not have, are remembered, so as not to answer twice."""

Messages: TypeAlias = Sink[RelayMessage]
News: TypeAlias = Sequence[RelayNews]


class _Session:
    """One conversation with one peer."""

    __slots__ = ("id", "initiator", "is_open", "peer")

    def __init__(self, id: SessionId, peer: NodeId, *, initiator: bool) -> None:  # noqa: A002
        self.id = id
        self.peer = peer
        self.initiator = initiator
        self.is_open = not initiator


class ClientSessions:
    """Our sessions; a child of the client, to which it hands the messages that must be sent."""

    __slots__ = ("_config", "_dismissed", "_own", "_rng", "_sessions", "_timers")

    def __init__(self, own: NodeId, config: RelayClientConfig, timers: Timers[Any], rng: Rng) -> None:
        self._own = own
        self._config = config
        self._timers = timers
        self._rng = rng
        self._sessions: dict[SessionId, _Session] = {}
        self._dismissed: dict[SessionId, None] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    # What the node wants.

    def open(self, peer: NodeId, now: Instant, messages: Messages) -> SessionId:
        """Begin a session with `peer`."""
        session = _Session(self._rng.randbytes(16).hex(), peer, initiator=True)
        self._add(session)
        self._timers.set(SessionTimer(session.id), now + self._config.session_timeout)
        messages.append(RelayOpen(self._own, peer, session.id))
        return session.id

    def send(self, session_id: SessionId, data: bytes, messages: Messages) -> bool:
        """Send bytes; return False, having done nothing, when the session is not open."""
        session = self._sessions.get(session_id)
        if session is None or not session.is_open:
            return False
        messages.append(RelayData(self._own, session.peer, session_id, data))
        return True

    def close(self, session_id: SessionId, messages: Messages) -> None:
        """End a session; unknown and ended ones are ignored."""
        session = self._sessions.get(session_id)
        if session is not None:
            messages.append(self._close_of(session))
            self._end(session, "closed here")

    def close_all(self, messages: Messages) -> None:
        """Say of every session that it is over; `clear` then forgets them."""
        for session in self._sessions.values():
            messages.append(self._close_of(session))

    def clear(self, reason: str) -> News:
        """Forget every session: the relay is gone."""
        news = [self._end(session, reason) for session in tuple(self._sessions.values())]
        self._dismissed.clear()
        return news

    def overdue(self, key: SessionTimer, messages: Messages) -> News:
        """Give up a session that nobody took up in time."""
        session = self._sessions[key.session]
        messages.append(self._close_of(session))
        return (self._end(session, "the peer does not answer"),)

    # What the relay says.

    def refused(self, session_id: SessionId, code: str) -> News:
        """End a session that the relay will not carry; the reason is its error code."""
        session = self._sessions.get(session_id)
        return () if session is None else (self._end(session, code),)

    def take(self, message: Passed, messages: Messages) -> News:
        """Take what another node sent, if the relay is right, and return what it means."""
        if message.to_node_id != self._own or message.from_node_id == self._own:
            return ()
        return self._ON[type(message)](self, message, messages)

    def take_binary(self, message: BinaryData) -> News:
        """Take data that names its session and nothing else; the sender is whom we have that session with."""
        session = self._sessions.get(message.session_id)
        if session is None or not session.is_open:
            return ()
        return (SessionData(session.id, session.peer, message.data),)

    def _on_signal(self, message: Signal, messages: Messages) -> News:
        del messages
        return (SignalReceived(message),)

    def _on_open(self, message: RelayOpen, messages: Messages) -> News:
        peer, session_id = message.from_node_id, message.session_id
        news: list[RelayNews] = []
        former = self._sessions.get(session_id)
        if former is not None:
            if former.initiator or former.peer != peer:
                return ()
            news.append(self._end(former, "the peer opened it anew"))
        session = _Session(session_id, peer, initiator=False)
        if not self._has_room_for(peer):
            self._dismiss(session, messages)
            return news
        self._add(session)
        messages.append(RelayReady(self._own, peer, session_id))
        news.append(SessionOpened(session_id, peer, initiator=False))
        return news

    def _on_ready(self, message: RelayReady, messages: Messages) -> News:
        del messages
        session = self._sessions.get(message.session_id)
        if session is None or session.peer != message.from_node_id or session.is_open:
            return ()
        session.is_open = True
        self._timers.cancel(SessionTimer(session.id))
        return (SessionOpened(session.id, session.peer, initiator=True),)

    def _on_data(self, message: RelayData, messages: Messages) -> News:
        session = self._sessions.get(message.session_id)
        if session is None:
            self._dismiss(_Session(message.session_id, message.from_node_id, initiator=False), messages)
            return ()
        if session.peer != message.from_node_id or not session.is_open:
            return ()
        return (SessionData(session.id, session.peer, message.data),)

    def _on_close(self, message: RelayClose, messages: Messages) -> News:
        del messages
        session = self._sessions.get(message.session_id)
        if session is None or session.peer != message.from_node_id:
            return ()
        return (self._end(session, "the other side closed it"),)

    _ON: ClassVar[Mapping[type[Any], Callable[["ClientSessions", Any, Messages], News]]] = {
        Offer: _on_signal,
        Answer: _on_signal,
        IceCandidate: _on_signal,
        RelayOpen: _on_open,
        RelayReady: _on_ready,
        RelayData: _on_data,
        RelayClose: _on_close,
    }

    def _has_room_for(self, peer: NodeId) -> bool:
        # What we open ourselves is not counted: strangers must not be able to keep us from our friends.
        theirs = [session.peer for session in self._sessions.values() if not session.initiator]
        return len(theirs) < self._config.sessions_max and theirs.count(peer) < self._config.sessions_per_peer_max

    def _add(self, session: _Session) -> None:
        assert session.id not in self._sessions
        self._dismissed.pop(session.id, None)
        self._sessions[session.id] = session

    def _end(self, session: _Session, reason: str) -> SessionClosed:
        del self._sessions[session.id]
        self._timers.cancel(SessionTimer(session.id))
        self._remember(session.id)
        return SessionClosed(session.id, session.peer, reason)

    def _dismiss(self, session: _Session, messages: Messages) -> None:
        """Say, unless it was said, that we do not have a session."""
        if session.id not in self._dismissed:
            self._remember(session.id)
            messages.append(self._close_of(session))

    def _remember(self, session_id: SessionId) -> None:
        self._dismissed[session_id] = None
        if len(self._dismissed) > DISMISSED_MAX:
            del self._dismissed[next(iter(self._dismissed))]

    def _close_of(self, session: _Session) -> RelayClose:
        return RelayClose(self._own, session.peer, session.id)
