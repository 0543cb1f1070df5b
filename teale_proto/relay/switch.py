"""What a relay does for the nodes that are registered: it lists them, introduces them and carries their sessions.

Nothing is passed on that names another sender than the node itself. A session belongs to the two nodes that
it was opened between: one opens it, the other takes it up, and only then does data pass.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from teale_proto.contract import Duration, Instant, Value
from teale_proto.inputs import NodeId
from teale_proto.relay.connection import Complaint, Out, Registration, Severity
from teale_proto.relay.directory import Directory
from teale_proto.relay.limits import RelayServerConfig
from teale_proto.relay.news import SessionId
from teale_proto.relay.sessions import Session, Sessions
from teale_proto.rng import Rng
from teale_proto.timers import Timers
from teale_proto.wire import relay as wire
from teale_proto.wire.fields import wire_date
from teale_proto.wire.relay import INVALID_MESSAGE, PEER_NOT_FOUND, RATE_LIMITED, SESSION_REFUSED


class SessionDue(Value):
    """A session should have been taken up, or used, by now."""

    session: SessionId


class Switch:
    """The relay's directory and sessions at work; shares both the timers and the generator with the server."""

    def __init__(
        self,
        config: RelayServerConfig,
        directory: Directory,
        timers: Timers[Any],
        rng: Rng,
        *,
        unix_time_at_zero: int,
    ) -> None:
        self._config = config
        self._directory = directory
        self._sessions = Sessions(total_max=config.sessions_max, per_node_max=config.sessions_per_node_max)
        self._timers = timers
        self._rng = rng
        self._unix_time_at_zero = unix_time_at_zero

    @property
    def session_count(self) -> int:
        """How many sessions there are, open or opening."""
        return len(self._sessions)

    def take(self, sender: Registration, message: wire.RelayMessage, now: Instant, out: Out) -> Complaint | None:
        """Do what a registered node asks for; return what is wrong with it, if anything."""
        claimed = _claimed_sender(message)
        if claimed is not None and claimed != sender.node:
            return Complaint(INVALID_MESSAGE, "the message names another node as its sender", Severity.OFFENCE)
        return self._ON[type(message)](self, sender, message, now, out)

    def node_gone(self, node: NodeId, out: Out) -> None:
        """End the sessions of a node that is no longer registered."""
        for session in self._sessions.of(node):
            self._end(session, (session.other(node),), out)

    def clear(self) -> None:
        """Forget every session without a word to anybody."""
        for session in self._sessions.all():
            self._end(session, (), [])

    def fired(self, key: SessionDue, now: Instant, out: Out) -> None:
        """Look whether a session has been idle for too long."""
        session = self._sessions.get(key.session)
        assert session is not None, "a session's timer goes with it"
        # Data moves no timer: the timer looks, when it fires, at when the last data came.
        ends_at = session.heard_at + self._patience(session)
        if ends_at > now:
            self._timers.set(key, ends_at)
        else:
            self._end(session, (session.initiator, session.target), out)

    def _patience(self, session: Session) -> Duration:
        return self._config.session_idle if session.is_open else self._config.session_opening

    def _end(self, session: Session, told: tuple[NodeId, ...], out: Out) -> None:
        self._sessions.remove(session)
        self._timers.cancel(SessionDue(session.id))
        for node in told:
            registration = self._directory.get(node)
            assert registration is not None, "a node's sessions go with it"
            registration.connection.send(wire.RelayClose(session.other(node), node, session.id), out)

    # What nodes ask for.

    def _on_discover(self, sender: Registration, message: wire.Discover, now: Instant, out: Out) -> Complaint | None:
        wait = sender.discovers.take(now)
        if wait:
            return Complaint(RATE_LIMITED, "discover comes too often", retry_after=wait)
        found = self._directory.sample(sender.node, message.filter, self._config.peers_max, self._rng)
        sender.connection.send(wire.DiscoverResponse(tuple(map(self._listing, found))), out)
        return None

    def _listing(self, registration: Registration) -> wire.PeerListing:
        register = registration.register
        return wire.PeerListing(
            node_id=register.node_id,
            public_key=register.public_key,
            display_name=register.display_name,
            capabilities=register.capabilities,
            last_seen=wire_date(self._unix_time_at_zero + registration.connection.heard_at),
            wg_public_key=register.wg_public_key,
        )

    def _on_signal(self, sender: Registration, message: wire.Signal, now: Instant, out: Out) -> Complaint | None:
        target = self._directory.get(message.to_node_id)
        if target is None:
            return _not_found(message.session_id)
        wait = sender.introductions.take(now)
        if wait:
            return _too_often(message.session_id, wait)
        target.connection.send(message, out)
        return None

    def _on_relay_open(self, sender: Registration, message: wire.RelayOpen, now: Instant, out: Out) -> Complaint | None:
        session_id = message.session_id
        if message.to_node_id == sender.node:
            return Complaint(INVALID_MESSAGE, "a session needs two nodes", Severity.OFFENCE, session_id)
        target = self._directory.get(message.to_node_id)
        if target is None:
            return _not_found(session_id)
        former = self._sessions.get(session_id)
        if former is not None and (former.initiator, former.target) != (sender.node, target.node):
            return Complaint(SESSION_REFUSED, "the session's id is taken", session=session_id)
        if former is None and not self._sessions.has_room_for(sender.node):
            return Complaint(SESSION_REFUSED, "too many sessions", session=session_id)
        wait = sender.introductions.take(now)
        if wait:
            return _too_often(session_id, wait)
        if former is not None:
            self._end(former, (), out)
        self._sessions.add(Session(session_id, sender.node, target.node, now))
        self._timers.set(SessionDue(session_id), now + self._config.session_opening)
        target.connection.send(message, out)
        return None

    def _on_relay_ready(
        self, sender: Registration, message: wire.RelayReady, now: Instant, out: Out
    ) -> Complaint | None:
        session = self._sessions.between(message.session_id, sender.node, message.to_node_id)
        if session is None:
            return _no_session(message.session_id)
        if session.initiator == sender.node:
            return Complaint(
                INVALID_MESSAGE, "only the other side can take a session up", Severity.OFFENCE, message.session_id
            )
        if not session.is_open:
            session.is_open = True
            session.heard_at = now
            self._pass(message, out)
        return None

    def _on_relay_data(self, sender: Registration, message: wire.RelayData, now: Instant, out: Out) -> Complaint | None:
        session = self._sessions.between(message.session_id, sender.node, message.to_node_id)
        if session is None or not session.is_open:
            return _no_session(message.session_id)
        session.heard_at = now
        self._pass(message, out)
        return None

    def _on_relay_close(
        self, sender: Registration, message: wire.RelayClose, now: Instant, out: Out
    ) -> Complaint | None:
        del now
        session = self._sessions.between(message.session_id, sender.node, message.to_node_id)
        if session is not None:
            self._end(session, (session.other(sender.node),), out)
        return None

    def _on_misdirected(
        self, sender: Registration, message: wire.RelayMessage, now: Instant, out: Out
    ) -> Complaint | None:
        del sender, message, now, out
        return Complaint(INVALID_MESSAGE, "only a relay sends that", Severity.OFFENCE)

    def _pass(self, message: wire.Passed, out: Out) -> None:
        target = self._directory.get(message.to_node_id)
        assert target is not None, "a node's sessions go with it"
        target.connection.send(message, out)

    _ON: ClassVar[Mapping[type[Any], Callable[["Switch", Registration, Any, Instant, Out], Complaint | None]]] = {
        wire.Discover: _on_discover,
        wire.Offer: _on_signal,
        wire.Answer: _on_signal,
        wire.IceCandidate: _on_signal,
        wire.RelayOpen: _on_relay_open,
        wire.RelayReady: _on_relay_ready,
        wire.RelayData: _on_relay_data,
        wire.RelayClose: _on_relay_close,
        wire.RegisterChallenge: _on_misdirected,
        wire.RegisterAck: _on_misdirected,
        wire.DiscoverResponse: _on_misdirected,
        wire.PeerJoined: _on_misdirected,
        wire.PeerLeft: _on_misdirected,
        wire.Error: _on_misdirected,
    }


def _claimed_sender(message: wire.RelayMessage) -> NodeId | None:
    if isinstance(message, wire.Discover):
        return message.requesting_node_id
    # All that is passed on has this field; what only a relay sends has not, and is refused for that.
    return getattr(message, "from_node_id", None)


def _not_found(session: SessionId) -> Complaint:
    return Complaint(PEER_NOT_FOUND, "that node is not registered here", session=session)


def _no_session(session: SessionId) -> Complaint:
    # No offence: the other side may have ended the session while this was on its way.
    return Complaint(INVALID_MESSAGE, "there is no such open session", session=session)


def _too_often(session: SessionId, wait: Duration) -> Complaint:
    return Complaint(RATE_LIMITED, "sessions and signals come too often", session=session, retry_after=wait)
