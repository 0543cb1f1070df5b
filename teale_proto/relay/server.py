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

from teale_proto.contract import SECOND, Instant, Value
from teale_proto.effects import CloseConnection, RelayEffect, ReportRefusal
from teale_proto.errors import LocalError, PeerError
from teale_proto.inputs import (
    ConnectionAccepted,
    ConnectionClosed,
    ConnectionId,
    DataReceived,
    PingReceived,
    PongReceived,
    RelayInput,
    StopRequested,
    Woken,
)
from teale_proto.relay.admission import CHALLENGE_BYTES, is_signed, names_own_static_key, proves_key, refusal_of
from teale_proto.relay.connection import Complaint, Connection, Out, Registration, Severity
from teale_proto.relay.directory import Directory
from teale_proto.relay.limits import Rate, RelayServerConfig
from teale_proto.relay.snapshots import SHOWN_CHARACTERS, Health, Listing, MessageCounter, Metrics
from teale_proto.relay.switch import SessionDue, Switch
from teale_proto.rng import Rng
from teale_proto.timers import Timers
from teale_proto.wire.codec import Unknown
from teale_proto.wire.fields import wire_date
from teale_proto.wire.relay import (
    INVALID_JSON,
    INVALID_MESSAGE,
    INVALID_REGISTER,
    OVERLOADED,
    RELAY_CODEC,
    REPLACED,
    SHUTTING_DOWN,
    UNSUPPORTED_MESSAGE,
    Error,
    Register,
    RegisterAck,
    RegisterChallenge,
    RegisterProof,
    RelayMessage,
)

__all__ = ["Health", "Listing", "Metrics", "Rate", "RelayServer", "RelayServerConfig"]


class RegistrationDue(Value):
    """A stranger should have registered by now."""

    connection: ConnectionId


class SilenceDue(Value):
    """A registered node should have been heard by now."""

    connection: ConnectionId


RelayTimerKey: TypeAlias = RegistrationDue | SilenceDue | SessionDue


class RelayServer:
    """One relay; a `Core[RelayInput, RelayEffect]`.

    `unix_time_at_zero` is the Unix time in microseconds at Instant 0, for the dates on the wire.
    """

    def __init__(self, config: RelayServerConfig, rng: Rng, *, unix_time_at_zero: int) -> None:
        self._config = config
        self._rng = rng
        self._unix_time_at_zero = unix_time_at_zero
        self._timers: Timers[RelayTimerKey] = Timers()
        self._connections: dict[ConnectionId, Connection] = {}
        self._strangers: dict[ConnectionId, None] = {}
        self._directory = Directory()
        self._switch = Switch(config, self._directory, self._timers, rng, unix_time_at_zero=unix_time_at_zero)
        self._messages = MessageCounter()
        self._silence = min(config.silence, config.ttl)
        self._started_at: Instant | None = None
        self._now: Instant = 0
        self._is_stopping = False

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
            connection = self._connections.get(event.connection)
            if connection is not None:
                self._take(connection, event.data, now, out)
        elif isinstance(event, PingReceived | PongReceived):
            connection = self._connections.get(event.connection)
            if connection is not None:
                connection.heard_at = now
        elif isinstance(event, ConnectionAccepted):
            self._accept(event, now, out)
        elif isinstance(event, ConnectionClosed):
            connection = self._connections.get(event.connection)
            if connection is not None:
                self._forget(connection, out)
        elif isinstance(event, Woken):
            self._fire_due(now, out)
        elif isinstance(event, StopRequested):
            self._stop(out)
        else:
            assert_never(event)
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
            messages=self._messages.total,
            messages_last_minute=self._messages.last_minute(now),
            uptime=0 if self._started_at is None else now - self._started_at,
        )

    # Connections come and go.

    def _accept(self, event: ConnectionAccepted, now: Instant, out: Out) -> None:
        if event.connection in self._connections:
            raise LocalError(f"connection {event.connection} is open already")
        if self._is_stopping:
            out.append(CloseConnection(event.connection, "the relay is stopping"))
            return
        if len(self._strangers) >= self._config.strangers_max:
            # The oldest has had the longest chance; an honest node registers within a round trip.
            oldest = self._connections[next(iter(self._strangers))]
            self._dismiss(oldest, OVERLOADED, "too many connections that have not registered", out)
        self._connections[event.connection] = Connection(event, now, self._config)
        self._strangers[event.connection] = None
        self._timers.set(RegistrationDue(event.connection), now + self._config.registration_timeout)

    def _dismiss(self, connection: Connection, code: str, reason: str, out: Out) -> None:
        """Close a connection for what its other side did, and tell both it and the operator why."""
        connection.send(Error(code, reason), out)
        out.append(ReportRefusal(connection.id, reason))
        self._close(connection, reason, out)

    def _close(self, connection: Connection, reason: str, out: Out) -> None:
        out.append(CloseConnection(connection.id, reason))
        self._forget(connection, out)

    def _forget(self, connection: Connection, out: Out) -> None:
        del self._connections[connection.id]
        self._strangers.pop(connection.id, None)
        self._timers.cancel(RegistrationDue(connection.id))
        self._timers.cancel(SilenceDue(connection.id))
        if connection.registration is not None:
            self._switch.node_gone(connection.registration.node, out)
            self._directory.remove(connection.registration)

    def _stop(self, out: Out) -> None:
        self._is_stopping = True
        # Nobody needs to hear of the end of each session when everybody is told of the end of all.
        self._switch.clear()
        reason = "the relay is stopping"
        for connection in tuple(self._connections.values()):
            connection.send(Error(SHUTTING_DOWN, reason), out)
            self._close(connection, reason, out)

    def _fire_due(self, now: Instant, out: Out) -> None:
        while (key := self._timers.pop_due(now)) is not None:
            if isinstance(key, SessionDue):
                self._switch.fired(key, now, out)
            elif isinstance(key, SilenceDue):
                self._check_silence(self._connections[key.connection], key, now, out)
            else:
                connection = self._connections[key.connection]
                self._dismiss(connection, INVALID_REGISTER, "no registration in time", out)

    def _check_silence(self, connection: Connection, key: SilenceDue, now: Instant, out: Out) -> None:
        # Hearing a node moves no timer: the timer looks, when it fires, at when the node was last heard.
        lost_at = connection.heard_at + self._silence
        if lost_at > now:
            self._timers.set(key, lost_at)
        else:
            self._close(connection, f"silent for {self._silence // SECOND} s", out)

    # Messages come in.

    def _take(self, connection: Connection, data: bytes, now: Instant, out: Out) -> None:
        connection.heard_at = now
        self._messages.count(now)
        complaint = self._judge(connection, data, now, out)
        if complaint is None:
            return
        if complaint.severity is Severity.DISMISSAL:
            self._dismiss(connection, complaint.code, complaint.message, out)
            return
        retry_after_seconds = None if complaint.retry_after is None else complaint.retry_after / SECOND
        connection.send(Error(complaint.code, complaint.message, retry_after_seconds, complaint.session), out)
        if complaint.severity is Severity.OFFENCE and connection.offences.take(now):
            reason = f"too many offences, the last one: {complaint.message}"
            out.append(ReportRefusal(connection.id, reason))
            self._close(connection, reason, out)

    def _judge(self, connection: Connection, data: bytes, now: Instant, out: Out) -> Complaint | None:
        """Do what a message asks for; return what is wrong with it, if anything."""
        registration = connection.registration
        size_max = self._config.register_bytes_max if registration is None else self._config.message_bytes_max
        if len(data) > size_max:
            text = f"message of {len(data)} bytes where {size_max} are allowed"
            return Complaint(INVALID_MESSAGE, text, Severity.DISMISSAL)
        try:
            message, flavour = RELAY_CODEC.decode(data)
        except PeerError as error:
            return Complaint(INVALID_MESSAGE if _is_json(data) else INVALID_JSON, error.reason, Severity.OFFENCE)
        if connection.flavour is None:
            connection.flavour = flavour
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
        return self._switch.take(registration, message, now, out)

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
        return (former is None or not former.proved) and is_signed(register)

    def _on_proof(self, connection: Connection, proof: RegisterProof, now: Instant, out: Out) -> Complaint | None:
        register, connection.pending = connection.pending, None
        registration = connection.registration
        if register is None:
            return Complaint(INVALID_REGISTER, "no challenge is open", Severity.OFFENCE)
        if now - connection.challenged_at > self._config.registration_timeout:
            return Complaint(INVALID_REGISTER, "the challenge has expired", Severity.OFFENCE)
        if proof.node_id != register.node_id or not proves_key(
            register.node_id, connection.host, connection.challenge, proof.signature
        ):
            return Complaint(INVALID_REGISTER, "the signature does not prove the key", Severity.DISMISSAL)
        if registration is None:
            if not names_own_static_key(register):
                return _WRONG_STATIC_KEY
            return self._enter(connection, register, now, out, proved=True)
        # What the node said last counts: it may have registered anew since the challenge.
        if not names_own_static_key(registration.register):
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
            former.connection.send(Error(REPLACED, "the same node registered on another connection"), out)
            self._close(former.connection, "replaced by a newer connection", out)
        elif len(self._directory) >= self._config.registrations_max:
            return Complaint(OVERLOADED, "the relay holds as many nodes as it may", Severity.DISMISSAL)
        self._directory.add(registration)
        connection.registration = registration
        del self._strangers[connection.id]
        self._timers.cancel(RegistrationDue(connection.id))
        self._timers.set(SilenceDue(connection.id), now + self._silence)
        self._acknowledge(registration, out)
        return None

    def _update(self, registration: Registration, register: Register, out: Out) -> Complaint | None:
        if register.node_id != registration.node:
            return Complaint(INVALID_REGISTER, "another node is registered on this connection", Severity.OFFENCE)
        if registration.proved and not names_own_static_key(register):
            return _WRONG_STATIC_KEY
        self._directory.update(registration, register)
        self._acknowledge(registration, out)
        return None

    def _acknowledge(self, registration: Registration, out: Out) -> None:
        registered_at = wire_date(self._unix_time_at_zero + registration.registered_at)
        ack = RegisterAck(registration.node, registered_at, self._config.ttl // SECOND)
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
_ANYTHING: Final = msgspec.json.Decoder()


def _is_json(data: bytes) -> bool:
    try:
        _ANYTHING.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return True
