"""What a relay does for the nodes that are registered: it lists them, introduces them and carries their sessions.

Nothing is passed on that names another sender than the node itself. A session belongs to the two nodes that
it was opened between: one opens it, the other takes it up, and only then does data pass.

A session never loses a message in its middle: what cannot be carried ends it, and both sides are told. Its data, and
the end that must not overtake it, are sent as bulk; everything else goes first.
"""

from collections.abc import Callable, Mapping, Sequence
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
from teale_proto.wire.codec import Flavour
from teale_proto.wire.fields import wire_date
from teale_proto.wire.relay import INVALID_MESSAGE, PEER_NOT_FOUND, RATE_LIMITED, SESSION_REFUSED, SHUTTING_DOWN


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
        self._is_draining = False
        self._released: list[NodeId] = []
        self.sessions_opened = 0
        """How many sessions have been taken up so far."""

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

    def drain(self) -> None:
        """Open no sessions any more, and remember who has none left."""
        self._is_draining = True

    def has_sessions(self, node: NodeId) -> bool:
        """Return whether `node` takes part in any session."""
        return self._sessions.has(node)

    def take_released(self) -> Sequence[NodeId]:
        """Return the nodes whose last session ended since the last call, while draining."""
        released, self._released = self._released, []
        return released

    def partner(self, node: NodeId, session_id: SessionId) -> NodeId | None:
        """Return with whom a node has a session, None where there is no such session."""
        session = self._sessions.get(session_id)
        return session.other(node) if session is not None and node in (session.initiator, session.target) else None

    def may_pass(self, sender: NodeId, to: NodeId, session_id: SessionId, now: Instant) -> Registration | None:
        """Return where data of an open session goes, having noted that it is in use; None where it may not pass."""
        session = self._sessions.between(session_id, sender, to)
        if session is None or not session.is_open:
            return None
        session.heard_at = now
        target = self._directory.get(to)
        assert target is not None, "a node's sessions go with it"
        return target

    def cut(self, sender: Registration, message: wire.RelayData, out: Out) -> bool:
        """End the session of data that cannot be carried; return whether there was one.

        The caller complains to the sender, naming the session: deployed nodes do not read that, and get `relayClose`.
        """
        session = self._sessions.between(message.session_id, sender.node, message.to_node_id)
        if session is None:
            return False
        knows_our_errors = sender.connection.flavour is Flavour.DOCUMENTED
        self._end(
            session, (session.other(sender.node),) if knows_our_errors else (sender.node, message.to_node_id), out
        )
        return True

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
            registration.connection.send(wire.RelayClose(session.other(node), node, session.id), out, bulk=True)
        if self._is_draining:
            self._released += [node for node in (session.initiator, session.target) if not self._sessions.has(node)]

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
        if self._is_draining:
            return Complaint(SHUTTING_DOWN, "the relay is stopping", session=session_id)
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
        session = Session(session_id, sender.node, target.node, now)
        if former is not None:
            session.is_reopened = former.is_open or former.is_reopened
            self._end(former, (), out)
        self._sessions.add(session)
        self._timers.set(SessionDue(session_id), now + self._config.session_opening)
        target.connection.send(message, out, bulk=session.is_reopened)
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
            self.sessions_opened += 1
            target = self._directory.get(message.to_node_id)
            assert target is not None, "a node's sessions go with it"
            target.connection.send(message, out, bulk=session.is_reopened)
        return None

    def _on_relay_data(self, sender: Registration, message: wire.RelayData, now: Instant, out: Out) -> Complaint | None:
        target = self.may_pass(sender.node, message.to_node_id, message.session_id, now)
        if target is None:
            return _no_session(message.session_id)
        target.connection.send(message, out, bulk=True)
        return None

    def _on_relay_close(
        self, sender: Registration, message: wire.RelayClose, now: Instant, out: Out
    ) -> Complaint | None:
        del now
        session = self._sessions.between(message.session_id, sender.node, message.to_node_id)
        if session is not None:
            self._end(session, (session.other(sender.node),), out)
        return None

    def _on_confirm_address(
        self, sender: Registration, message: wire.ConfirmAddress, now: Instant, out: Out
    ) -> Complaint | None:
        wait = sender.introductions.take(now)
        if wait:
            return _too_often(message.session_id, wait)
        partner = self.partner(sender.node, message.session_id)
        other = None if partner is None else self._directory.get(partner)
        is_seen = other is not None and other.connection.remote == message.host
        sender.connection.send(wire.AddressConfirmed(message.session_id, message.host, is_seen), out)
        return None

    def _on_misdirected(
        self, sender: Registration, message: wire.RelayMessage, now: Instant, out: Out
    ) -> Complaint | None:
        del sender, message, now, out
        return Complaint(INVALID_MESSAGE, "only a relay sends that", Severity.OFFENCE)

    _ON: ClassVar[Mapping[type[Any], Callable[["Switch", Registration, Any, Instant, Out], Complaint | None]]] = {
        wire.Discover: _on_discover,
        wire.Offer: _on_signal,
        wire.Answer: _on_signal,
        wire.IceCandidate: _on_signal,
        wire.RelayOpen: _on_relay_open,
        wire.RelayReady: _on_relay_ready,
        wire.RelayData: _on_relay_data,
        wire.RelayClose: _on_relay_close,
        wire.ConfirmAddress: _on_confirm_address,
        wire.AddressConfirmed: _on_misdirected,
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
    return Complaint(INVALID_MESSAGE, "there is no such open session", session=session, bulk=True)


def _too_often(session: SessionId, wait: Duration) -> Complaint:
    return Complaint(RATE_LIMITED, "sessions and signals come too often", session=session, retry_after=wait)
