"""The relay: nodes prove who they are, find each other, and talk through it when they cannot reach each other.

It believes a node id only after the key's owner answered a fresh challenge, passes on nothing that names
another sender than the connection's own node, tells nobody of anybody's coming and going, and keeps no
message. What it forwards is encoded again in the envelope that the receiver speaks; the bytes inside
`relayData` are the nodes' own secret.

A registration lives as long as its connection, and that as long as it is heard.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final, TypeAlias, assert_never

import msgspec

from teale_proto.contract import SECOND, Duration, Instant, Value
from teale_proto.effects import CloseConnection, RelayEffect, ReportConnection, ReportRefusal
from teale_proto.errors import LocalError, PeerError
from teale_proto.inputs import (
    ConnectionAccepted,
    ConnectionClosed,
    ConnectionId,
    DataReceived,
    DrainRequested,
    MessagesReceived,
    PingReceived,
    PongReceived,
    RelayInput,
    StopRequested,
    Woken,
)
from teale_proto.relay.admission import CHALLENGE_BYTES, is_signed, names_own_static_key, proves_key, refusal_of
from teale_proto.relay.connection import Complaint, Connection, Out, Registration, Severity
from teale_proto.relay.directory import Directory
from teale_proto.relay.forwarding import Forwarding
from teale_proto.relay.limits import Flow, Rate, RelayServerConfig, Traffic
from teale_proto.relay.snapshots import SHOWN_CHARACTERS, Health, Listing, Metrics
from teale_proto.relay.switch import SessionDue, Switch
from teale_proto.relay.traffic import Excess, Gate, Scope
from teale_proto.rng import Rng
from teale_proto.secure.suite import NOISE, Suite
from teale_proto.timers import Timers
from teale_proto.wire.binary import decode_binary, is_binary
from teale_proto.wire.codec import Flavour, Unknown
from teale_proto.wire.fields import wire_date
from teale_proto.wire.relay import (
    INVALID_JSON,
    INVALID_MESSAGE,
    INVALID_REGISTER,
    OVERLOADED,
    RATE_LIMITED,
    RELAY_CODEC,
    REPLACED,
    SHUTTING_DOWN,
    UNSUPPORTED_MESSAGE,
    Error,
    Register,
    RegisterAck,
    RegisterChallenge,
    RegisterProof,
    RelayData,
    RelayMessage,
)

__all__ = ["Flow", "Health", "Listing", "Metrics", "Rate", "RelayServer", "RelayServerConfig", "Traffic"]

# RFC 6455, section 7.4.1, and the registry of close codes that it founded.
GOING_AWAY: Final = 1001
POLICY_VIOLATION: Final = 1008
SERVICE_RESTART: Final = 1012
TRY_AGAIN_LATER: Final = 1013

STOPPING: Final = "the relay is stopping"


class RegistrationDue(Value):
    """A stranger should have registered by now."""

    connection: ConnectionId


class SilenceDue(Value):
    """A registered node should have been heard by now."""

    connection: ConnectionId


class DrainDue(Value):
    """What is still under way has had its time."""


RelayTimerKey: TypeAlias = RegistrationDue | SilenceDue | SessionDue | DrainDue


class RelayServer:
    """One relay; a `Core[RelayInput, RelayEffect]`.

    `unix_time_at_zero` is the Unix time in microseconds at Instant 0, for the dates on the wire.
    """

    def __init__(self, config: RelayServerConfig, rng: Rng, *, unix_time_at_zero: int, suite: Suite = NOISE) -> None:
        self._config = config
        self._suite = suite
        self._rng = rng
        self._unix_time_at_zero = unix_time_at_zero
        self._timers: Timers[RelayTimerKey] = Timers()
        self._connections: dict[ConnectionId, Connection] = {}
        self._strangers: dict[ConnectionId, None] = {}
        self._directory = Directory()
        self._switch = Switch(config, self._directory, self._timers, rng, unix_time_at_zero=unix_time_at_zero)
        self._gate = Gate(config)
        self._forwarding = Forwarding(message_bytes_max=config.message_bytes_max)
        self._errors: dict[str, int] = {}
        self._accepted = 0
        self._registered = 0
        self._silence = min(config.silence, config.ttl)
        self._started_at: Instant | None = None
        self._now: Instant = 0
        self._is_stopping = False
        self._is_draining = False

    @property
    def deadline(self) -> Instant:
        """When to feed WAKE, or NEVER."""
        return self._timers.deadline

    def handle(self, event: RelayInput, now: Instant) -> Sequence[RelayEffect]:
        """Take one input at `now`; return what must now be done, in order.

        Raises LocalError for a connection id that is taken, and when time runs backwards.
        """
        if now < self._now:
            raise LocalError(f"time ran backwards, from {self._now} to {now}")
        out: Out = []
        if isinstance(event, DataReceived):
            self._take_all(event.connection, (event.data,), now, out)
        elif isinstance(event, MessagesReceived):
            self._take_all(event.connection, event.messages, now, out)
        elif isinstance(event, PingReceived | PongReceived):
            connection = self._connections.get(event.connection)
            if connection is not None:
                self._take_ping(connection, now, out)
        elif isinstance(event, ConnectionAccepted):
            self._accept(event, now, out)
        elif isinstance(event, ConnectionClosed):
            connection = self._connections.get(event.connection)
            if connection is not None:
                self._forget(connection, event.reason, now, out)
        elif isinstance(event, Woken):
            self._fire_due(now, out)
        elif isinstance(event, StopRequested):
            self._stop(GOING_AWAY, now, out)
        elif isinstance(event, DrainRequested):
            self._drain(event.patience, now, out)
        else:
            assert_never(event)
        if self._is_draining:
            self._release(now, out)
        self._now = now
        if self._started_at is None:
            self._started_at = now
        return out

    # What the public may know.

    def health(self) -> Health:
        """Return whether all is well."""
        return Health(peers=len(self._directory))

    def listings(self) -> tuple[Listing, ...]:
        """Return the registered nodes, the longest registered first."""
        return tuple(
            Listing(
                node_id=registration.node[:SHOWN_CHARACTERS],
                display_name=registration.register.display_name,
                loaded_models=registration.register.capabilities.loaded_models,
                is_available=registration.register.capabilities.is_available,
                proved=registration.proved,
            )
            for registration in self._directory
        )

    def metrics(self, now: Instant) -> Metrics:
        """Return the counters as of `now`."""
        return Metrics(
            peers=len(self._directory),
            sessions=self._switch.session_count,
            messages=self._gate.messages,
            messages_last_minute=self._gate.messages_last_minute(now),
            uptime=0 if self._started_at is None else now - self._started_at,
            strangers=len(self._strangers),
            is_draining=self._is_draining,
            size_bytes=self._gate.size_bytes,
            connections=self._accepted,
            registrations=self._registered,
            sessions_opened=self._switch.sessions_opened,
            excesses=tuple((scope.value, count) for scope, count in self._gate.excesses.items()),
            errors=tuple(sorted(self._errors.items())),
        )

    # Connections come and go.

    def _accept(self, event: ConnectionAccepted, now: Instant, out: Out) -> None:
        if event.connection in self._connections:
            raise LocalError(f"connection {event.connection} is open already")
        self._accepted += 1
        if self._is_stopping:
            self._turn_away(event, STOPPING, SERVICE_RESTART, out)
            return
        source = self._gate.enter(event.remote.host, now)
        if source is None:
            self._turn_away(event, "too many connections from one address", TRY_AGAIN_LATER, out)
            return
        if len(self._strangers) >= self._config.strangers_max:
            # The oldest has had the longest chance; an honest node registers within a round trip.
            oldest = self._connections[next(iter(self._strangers))]
            self._dismiss(oldest, OVERLOADED, "too many connections that have not registered", now, out)
        self._connections[event.connection] = Connection(event, source, now, self._config)
        self._strangers[event.connection] = None
        self._timers.set(RegistrationDue(event.connection), now + self._config.registration_timeout)

    def _turn_away(self, event: ConnectionAccepted, reason: str, code: int, out: Out) -> None:
        out.append(CloseConnection(event.connection, reason, code))
        out.append(ReportConnection(event.connection, event.remote.host, "", 0, 0, 0, reason))

    def _dismiss(
        self,
        connection: Connection,
        code: str,
        reason: str,
        now: Instant,
        out: Out,
        *,
        retry_after: Duration | None = None,
    ) -> None:
        """Close a connection for what its other side did, and tell both it and the operator why."""
        self._complain(connection, Complaint(code, reason, retry_after=retry_after), out)
        out.append(ReportRefusal(connection.id, reason))
        closing = TRY_AGAIN_LATER if code in (OVERLOADED, RATE_LIMITED) else POLICY_VIOLATION
        self._close(connection, reason, closing, now, out)

    def _complain(self, connection: Connection, complaint: Complaint, out: Out) -> None:
        self._errors[complaint.code] = self._errors.get(complaint.code, 0) + 1
        retry_after_seconds = None if complaint.retry_after is None else complaint.retry_after / SECOND
        error = Error(complaint.code, complaint.message, retry_after_seconds, complaint.session)
        connection.send(error, out, bulk=complaint.bulk)

    def _close(self, connection: Connection, reason: str, code: int, now: Instant, out: Out) -> None:
        out.append(CloseConnection(connection.id, reason, code))
        self._forget(connection, reason, now, out)

    def _forget(self, connection: Connection, reason: str, now: Instant, out: Out) -> None:
        registration, source = connection.registration, connection.source
        out.append(
            ReportConnection(
                connection.id,
                connection.remote,
                "" if registration is None else registration.node[:SHOWN_CHARACTERS],
                now - connection.accepted_at,
                source.messages,
                source.size_bytes,
                reason,
            )
        )
        self._gate.leave(source, now)
        del self._connections[connection.id]
        self._strangers.pop(connection.id, None)
        self._timers.cancel(RegistrationDue(connection.id))
        self._timers.cancel(SilenceDue(connection.id))
        if registration is not None:
            self._switch.node_gone(registration.node, out)
            self._directory.remove(registration)

    def _stop(self, code: int, now: Instant, out: Out) -> None:
        self._is_stopping = True
        was_draining, self._is_draining = self._is_draining, False
        self._timers.cancel(DrainDue())
        # Nobody needs to hear of the end of each session when everybody is told of the end of all.
        self._switch.clear()
        for connection in tuple(self._connections.values()):
            if not was_draining:
                self._announce_end(connection, out)
            self._close(connection, STOPPING, code, now, out)

    def _announce_end(self, connection: Connection, out: Out) -> None:
        connection.send(Error(SHUTTING_DOWN, STOPPING, self._config.restart_pause / SECOND), out)

    def _drain(self, patience: Duration, now: Instant, out: Out) -> None:
        """Tell everybody, and let go at once of all that have no session."""
        if self._is_stopping:
            return
        self._is_stopping = self._is_draining = True
        self._timers.set(DrainDue(), now + max(patience, 1))
        self._switch.drain()
        for connection in tuple(self._connections.values()):
            self._announce_end(connection, out)
            registration = connection.registration
            if registration is None or not self._switch.has_sessions(registration.node):
                self._close(connection, STOPPING, SERVICE_RESTART, now, out)

    def _release(self, now: Instant, out: Out) -> None:
        """Let go of those whose last session has ended since."""
        while released := self._switch.take_released():
            for node in released:
                registration = self._directory.get(node)
                if registration is not None:
                    self._close(registration.connection, STOPPING, SERVICE_RESTART, now, out)

    def _fire_due(self, now: Instant, out: Out) -> None:
        while (key := self._timers.pop_due(now)) is not None:
            if isinstance(key, SessionDue):
                self._switch.fired(key, now, out)
            elif isinstance(key, SilenceDue):
                self._check_silence(self._connections[key.connection], key, now, out)
            elif isinstance(key, DrainDue):
                self._stop(SERVICE_RESTART, now, out)
            else:
                connection = self._connections[key.connection]
                self._dismiss(connection, INVALID_REGISTER, "no registration in time", now, out)

    def _check_silence(self, connection: Connection, key: SilenceDue, now: Instant, out: Out) -> None:
        # Hearing a node moves no timer: the timer looks, when it fires, at when the node was last heard.
        lost_at = connection.heard_at + self._silence
        if lost_at > now:
            self._timers.set(key, lost_at)
        else:
            self._close(connection, f"silent for {self._silence // SECOND} s", POLICY_VIOLATION, now, out)

    # Messages come in.

    def _take_all(self, id: ConnectionId, messages: Sequence[bytes], now: Instant, out: Out) -> None:  # noqa: A002
        """Take messages in order, as long as they do not end their connection; runs of data go the short way."""
        taken, fits = 0, True
        while taken < len(messages) and (connection := self._connections.get(id)) is not None:
            if fits and (run := self._forwarding.run(connection, messages, taken, self._switch, now)).effects:
                # Where all of it is too much, one by one some may pass, and each of the others is accounted for.
                fits = self._gate.admit(connection.source, len(run.effects), run.size_bytes, now) is None
                if fits:
                    connection.heard_at = now
                    out += run.effects
                    taken += len(run.effects)
                    continue
            self._take(connection, messages[taken], now, out)
            taken += 1

    def _take(self, connection: Connection, data: bytes, now: Instant, out: Out) -> None:
        connection.heard_at = now
        complaint = self._judge(connection, data, now, out)
        if complaint is not None:
            self._reproach(connection, complaint, now, out)

    def _take_ping(self, connection: Connection, now: Instant, out: Out) -> None:
        connection.heard_at = now
        excess = self._gate.admit(connection.source, 1, 0, now)
        complaint = None if excess is None else self._refuse_excess(connection, None, excess, now, out)
        if complaint is not None:
            self._reproach(connection, complaint, now, out)

    def _reproach(self, connection: Connection, complaint: Complaint, now: Instant, out: Out) -> None:
        if complaint.severity is Severity.DISMISSAL:
            self._dismiss(connection, complaint.code, complaint.message, now, out, retry_after=complaint.retry_after)
            return
        self._complain(connection, complaint, out)
        if complaint.severity is Severity.OFFENCE and connection.offences.take(now):
            reason = f"too many offences, the last one: {complaint.message}"
            out.append(ReportRefusal(connection.id, reason))
            self._close(connection, reason, POLICY_VIOLATION, now, out)

    def _judge(self, connection: Connection, data: bytes, now: Instant, out: Out) -> Complaint | None:
        """Do what a message asks for; return what is wrong with it, if anything."""
        registration = connection.registration
        size_max = self._config.register_bytes_max if registration is None else self._config.message_bytes_max
        if len(data) > size_max:
            text = f"message of {len(data)} bytes where {size_max} are allowed"
            return Complaint(INVALID_MESSAGE, text, Severity.DISMISSAL)
        excess = self._gate.admit(connection.source, 1, len(data), now)
        try:
            message, flavour = self._decode(connection, data)
        except PeerError as error:
            return Complaint(INVALID_MESSAGE if _is_json(data) else INVALID_JSON, error.reason, Severity.OFFENCE)
        if connection.flavour is None:
            connection.flavour = flavour
        if excess is not None:
            return self._refuse_excess(connection, message, excess, now, out)
        if isinstance(message, Unknown):
            return Complaint(UNSUPPORTED_MESSAGE, "this relay does not know that kind of message")
        handler = self._ON.get(type(message))
        if handler is not None:
            # A registration goes into other nodes' listings, so it stays small however much its node may send.
            if len(data) > self._config.register_bytes_max:
                return Complaint(INVALID_REGISTER, "the registration is too long", Severity.OFFENCE)
            return handler(self, connection, message, now, out)
        if registration is None:
            return Complaint(INVALID_MESSAGE, "register first", Severity.OFFENCE)
        complaint = self._switch.take(registration, message, now, out)
        if complaint is None and isinstance(message, RelayData) and not is_binary(data):
            self._forwarding.learn(message, flavour)
        return complaint

    def _decode(self, connection: Connection, data: bytes) -> tuple[RelayMessage | Unknown, Flavour]:
        registration = connection.registration
        if registration is None or not registration.reads_binary or not is_binary(data):
            return RELAY_CODEC.decode(data)
        session_id, content = decode_binary(data)
        # Where there is no such session, it would be one with itself, which there is not either.
        partner = self._switch.partner(registration.node, session_id) or registration.node
        return RelayData(registration.node, partner, session_id, content), Flavour.DOCUMENTED

    def _refuse_excess(
        self, connection: Connection, message: RelayMessage | Unknown | None, excess: Excess, now: Instant, out: Out
    ) -> Complaint | None:
        """Do nothing of what came too fast; say so for each session that it ends, else at most once a second."""
        source, registration = connection.source, connection.registration
        self._gate.count_refused(excess)
        complaint = Complaint(
            RATE_LIMITED,
            f"messages come too fast: the limit of {_WHOSE[excess.scope]}",
            session=getattr(message, "session_id", None),
            retry_after=excess.wait,
        )
        is_cut = (
            isinstance(message, RelayData) and registration is not None and self._switch.cut(registration, message, out)
        )
        if now < source.told_until:
            return complaint if is_cut else None
        source.told_until = now + max(excess.wait, SECOND)
        # Nobody is closed for what all the others do.
        if excess.scope is not Scope.TOTAL and source.excesses.take(now):
            pause = self._config.excess_pause
            return Complaint(RATE_LIMITED, "messages kept coming too fast", Severity.DISMISSAL, retry_after=pause)
        return complaint

    # Registration.

    def _on_register(self, connection: Connection, register: Register, now: Instant, out: Out) -> Complaint | None:
        if register.public_key != register.node_id:
            return Complaint(INVALID_REGISTER, "publicKey differs from nodeID", Severity.OFFENCE)
        if connection.registration is not None:
            return self._update(connection.registration, register, out)
        if not connection.is_ours:
            return Complaint(INVALID_REGISTER, refusal_of(connection.host), Severity.DISMISSAL)
        if connection.challenges == self._config.challenges_max:
            return Complaint(INVALID_REGISTER, "too many attempts to register", Severity.DISMISSAL)
        if self._config.allow_legacy_register and self._may_enter_unproved(register):
            complaint = self._enter(connection, register, now, out, proved=False)
            if complaint is not None:
                return complaint
        # A deployed node does not know what this is; one of ours answers, and is believed from then on.
        connection.challenges += 1
        connection.pending = register
        connection.challenge = self._rng.randbytes(CHALLENGE_BYTES)
        connection.challenged_at = now
        connection.send(RegisterChallenge(connection.challenge.hex()), out)
        return None

    def _may_enter_unproved(self, register: Register) -> bool:
        former = self._directory.get(register.node_id)
        return (former is None or not former.proved) and is_signed(register, suite=self._suite)

    def _on_proof(self, connection: Connection, proof: RegisterProof, now: Instant, out: Out) -> Complaint | None:
        register, connection.pending = connection.pending, None
        registration = connection.registration
        if register is None:
            return Complaint(INVALID_REGISTER, "no challenge is open", Severity.OFFENCE)
        if now - connection.challenged_at > self._config.registration_timeout:
            return Complaint(INVALID_REGISTER, "the challenge has expired", Severity.OFFENCE)
        if proof.node_id != register.node_id or not proves_key(
            register.node_id, connection.host, connection.challenge, proof.signature, suite=self._suite
        ):
            return Complaint(INVALID_REGISTER, "the signature does not prove the key", Severity.DISMISSAL)
        if registration is None:
            if not names_own_static_key(register, suite=self._suite):
                return _WRONG_STATIC_KEY
            return self._enter(connection, register, now, out, proved=True)
        # What the node said last counts: it may have registered anew since the challenge.
        if not names_own_static_key(registration.register, suite=self._suite):
            return _WRONG_STATIC_KEY
        registration.proved = True
        self._acknowledge(registration, out)
        return None

    def _enter(
        self, connection: Connection, register: Register, now: Instant, out: Out, *, proved: bool
    ) -> Complaint | None:
        registration = Registration(register, connection, now, self._config, proved=proved)
        former = self._directory.get(register.node_id)
        if former is not None:
            registration.inherit(former)
            connection.source.inherit(former.connection.source)
            former.connection.send(Error(REPLACED, "the same node registered on another connection"), out)
            self._close(former.connection, "replaced by a newer connection", POLICY_VIOLATION, now, out)
        elif len(self._directory) >= self._config.registrations_max:
            return Complaint(OVERLOADED, "the relay holds as many nodes as it may", Severity.DISMISSAL)
        self._directory.add(registration)
        self._registered += 1
        connection.registration = registration
        del self._strangers[connection.id]
        self._timers.cancel(RegistrationDue(connection.id))
        self._timers.set(SilenceDue(connection.id), now + self._silence)
        self._acknowledge(registration, out)
        return None

    def _update(self, registration: Registration, register: Register, out: Out) -> Complaint | None:
        if register.node_id != registration.node:
            return Complaint(INVALID_REGISTER, "another node is registered on this connection", Severity.OFFENCE)
        if registration.proved and not names_own_static_key(register, suite=self._suite):
            return _WRONG_STATIC_KEY
        self._directory.update(registration, register)
        self._acknowledge(registration, out)
        return None

    def _acknowledge(self, registration: Registration, out: Out) -> None:
        registered_at = wire_date(self._unix_time_at_zero + registration.registered_at)
        ours = registration.reads_binary
        observed = registration.connection.remote if ours else None
        ack = RegisterAck(registration.node, registered_at, self._config.ttl // SECOND, ours, observed)
        registration.connection.send(ack, out)

    _ON: ClassVar[
        Mapping[type[RelayMessage], Callable[["RelayServer", Connection, Any, Instant, Out], Complaint | None]]
    ] = {
        Register: _on_register,
        RegisterProof: _on_proof,
    }
    """What strangers may send; everything else is for the switch."""


_WRONG_STATIC_KEY: Final = Complaint(
    INVALID_REGISTER, "wgPublicKey is not the key that follows from nodeID", Severity.DISMISSAL
)
_WHOSE: Final = {
    Scope.CLIENT: "one connection",
    Scope.ADDRESS: "one address",
    Scope.TOTAL: "this relay, for all together",
}
_ANYTHING: Final = msgspec.json.Decoder()


def _is_json(data: bytes) -> bool:
    try:
        _ANYTHING.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return True
