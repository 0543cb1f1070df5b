"""Our side of the relay: stay registered, ask for peers, and talk to them through it.

A child of the node: what must be sent goes down through `out`, what happened comes up as `RelayNews`. The
relay is believed as little as any peer: it can refuse, delay and drop, but neither crash us nor make us keep
more than we meant to. A relay that does not ask for proof of our key (the deployed one) is used all the same.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final, TypeAlias

from teale_proto.backoff import Backoff
from teale_proto.contract import SECOND, Duration, Instant, Sink
from teale_proto.effects import (
    CloseConnection,
    Connect,
    RelayState,
    ReportRefusal,
    ReportRelay,
    SendData,
    SendPing,
    SendText,
    WebSocketUrl,
)
from teale_proto.errors import LocalError, PeerError
from teale_proto.inputs import ConnectionId, NodeId
from teale_proto.relay.client_sessions import ClientSessions, News
from teale_proto.relay.client_states import (
    DATA_BYTES_MAX,
    NEXT_STATE,
    RECEIVED_BYTES_MAX,
    RelayClientConfig,
    RelayTimer,
    RelayTrigger,
    SessionTimer,
    relay_url,
)
from teale_proto.relay.limits import RateLimit
from teale_proto.relay.listings import believable, printable, salvaged
from teale_proto.relay.news import (
    AddressVouched,
    PeersListed,
    Refused,
    Registered,
    RelayNews,
    SessionClosed,
    SessionData,
    SessionId,
    SessionOpened,
    SignalReceived,
)
from teale_proto.rng import Rng
from teale_proto.secure.suite import Keys
from teale_proto.timers import Timers
from teale_proto.wire import relay as wire
from teale_proto.wire.binary import decode_binary, encode_binary, has_handle, is_binary
from teale_proto.wire.codec import Flavour, Unknown
from teale_proto.wire.relay import (
    INVALID_REGISTER,
    OVERLOADED,
    RATE_LIMITED,
    RELAY_CODEC,
    REPLACED,
    SHUTTING_DOWN,
    Capabilities,
    DiscoverFilter,
    PeerListing,
    legacy_registration,
    registration_proof,
)

__all__ = [
    "AddressVouched",
    "DATA_BYTES_MAX",
    "PeersListed",
    "Refused",
    "Registered",
    "RelayClient",
    "RelayClientConfig",
    "RelayNews",
    "RelayTimer",
    "SessionClosed",
    "SessionData",
    "SessionId",
    "SessionOpened",
    "SessionTimer",
    "SignalReceived",
]

RelayClientEffect: TypeAlias = CloseConnection | Connect | ReportRefusal | ReportRelay | SendData | SendPing | SendText
Out: TypeAlias = Sink[RelayClientEffect]

_REGISTERED_STATES: Final = frozenset({RelayState.REGISTERING, RelayState.CONNECTED})
_WAITS_ON: Final = frozenset({OVERLOADED, RATE_LIMITED, SHUTTING_DOWN})
"""Errors that say when to come back."""
_LAST_WORDS: Final = frozenset({INVALID_REGISTER, OVERLOADED, REPLACED, SHUTTING_DOWN})
"""Errors after which a relay closes the connection."""


class _Messages:
    """Where messages for the relay go: into effects, in the dialect that it speaks."""

    __slots__ = ("_binary", "_connection", "_flavour", "_out")

    def __init__(self, connection: ConnectionId, flavour: Flavour, out: Out, *, binary: bool) -> None:
        self._connection = connection
        self._flavour = flavour
        self._out = out
        self._binary = binary

    def append(self, message: wire.RelayMessage, /) -> None:
        if self._binary and isinstance(message, wire.RelayData) and has_handle(message.session_id):
            self._out.append(SendData(self._connection, encode_binary(message.session_id, message.data)))
            return
        self._out.append(SendText(self._connection, RELAY_CODEC.encode(message, self._flavour)))


class RelayClient:
    """The connection to one relay, and the sessions through it.

    `host` is the host of `url` as the relay will see it, for it is part of what we sign. `timers` are the
    parent's: it hands the keys that are ours (`RelayTimer`, `SessionTimer`) to `fired`.
    """

    def __init__(
        self,
        identity: Keys,
        *,
        url: str,
        host: str,
        display_name: str,
        capabilities: Capabilities,
        timers: Timers[Any],
        rng: Rng,
        connection_ids: Iterator[ConnectionId],
        config: RelayClientConfig | None = None,
    ) -> None:
        self.state = RelayState.OFF
        self.reason = ""
        """Why the relay is not connected; "" when it is, or was not asked for."""
        self.connection: ConnectionId | None = None
        self._identity = identity
        self._target = WebSocketUrl(relay_url(url, identity.node_id))
        self._host = host
        self._display_name = display_name
        self._capabilities = capabilities
        self._timers = timers
        self._connection_ids = connection_ids
        self._config = config or RelayClientConfig()
        self._rng = rng
        self._backoff = Backoff(rng)
        self._sessions = ClientSessions(identity.node_id, self._config, timers, rng)
        self._signature = identity.sign(legacy_registration(identity.node_id)).hex()
        self._flavour = Flavour.DOCUMENTED
        self._forget_connection()

    def _forget_connection(self) -> None:
        self.connection = None
        self._heard_flavour = False
        self._heard_at: Instant = 0
        self._offences = RateLimit(self._config.offences)
        self._binary = False
        """Whether the relay reads binary messages, which we have offered to read ourselves."""
        self._confirms_addresses = False
        self._checked_at: Instant = 0
        self._challenges = 0
        self._awaits_listing = False
        # A relay counts by registration, and a new connection is a new one.
        self._discovers = RateLimit(self._config.discover)
        self._discover_at: Instant = 0
        self._registered: Capabilities | None = None
        self._last_words = ""
        self._return_at: Instant = 0

    # The connection.

    def start(self, now: Instant, out: Out) -> None:
        """Connect, and stay connected until `stop`; raises LocalError when that was said already."""
        self._connect(self._next(RelayTrigger.START), now, out)

    def stop(self, now: Instant, out: Out) -> News:
        """Say good-bye; return the sessions that this ended. Does nothing when there is nothing to stop."""
        del now
        if self.state is RelayState.OFF:
            return ()
        state = self._next(RelayTrigger.STOP)
        if self.connection is not None:
            self._sessions.close_all(self._messages(out))
            out.append(CloseConnection(self.connection, "stopping"))
        news = self._drop("stopped here")
        self._enter(state, out)
        return news

    def opened(self, now: Instant, out: Out) -> None:
        """Take note that the connection is open."""
        state = self._next(RelayTrigger.OPENED)
        self._heard_at = now
        self._timers.cancel(RelayTimer.CONNECT)
        self._timers.set(RelayTimer.REGISTER, now + self._config.register_timeout)
        self._timers.set(RelayTimer.PING, now + self._config.ping_interval)
        self._timers.set(RelayTimer.SILENCE, now + self._config.silence)
        self._enter(state, out)
        self._register(out)

    def failed(self, reason: str, now: Instant, out: Out) -> None:
        """Take note that the connection could not be opened."""
        self._lose(reason, now, out)

    def closed(self, reason: str, now: Instant, out: Out) -> News:
        """Take note that the connection ended."""
        return self._lose(reason, now, out)

    def ponged(self, now: Instant) -> None:
        """Take note of a pong."""
        self._heard_at = now

    def network_changed(self, now: Instant, out: Out) -> None:
        """Find out at once whether the connection has outlived a change of network, or make one without waiting."""
        if self.state in _REGISTERED_STATES:
            assert self.connection is not None
            self._checked_at = now
            out.append(SendPing(self.connection))
            self._timers.set(RelayTimer.CHECK, now + self._config.check_timeout)
        elif self.state is RelayState.WAITING:
            self._timers.set(RelayTimer.RETRY, now + 1)

    def fired(self, key: RelayTimer | SessionTimer, now: Instant, out: Out) -> News:
        """Do what was put off until now."""
        match key:
            case RelayTimer.RETRY:
                self._connect(self._next(RelayTrigger.RETRY), now, out)
            case RelayTimer.CONNECT:
                return self._give_up("the relay does not answer", now, out)
            case RelayTimer.REGISTER:
                if not self._heard_flavour:
                    # A relay that knows only the other dialect may have kept silent for that reason.
                    was_documented = self._flavour is Flavour.DOCUMENTED
                    self._flavour = Flavour.DEPLOYED if was_documented else Flavour.DOCUMENTED
                return self._give_up("the relay did not acknowledge our registration", now, out)
            case RelayTimer.SETTLE:
                self._backoff.reset()
            case RelayTimer.PING:
                assert self.connection is not None
                out.append(SendPing(self.connection))
                self._timers.set(key, now + self._config.ping_interval)
            case RelayTimer.SILENCE:
                return self._check_silence(now, out)
            case RelayTimer.CHECK:
                if self._heard_at <= self._checked_at:
                    return self._give_up("the relay does not answer since the network changed", now, out)
            case SessionTimer():
                return self._sessions.overdue(key, self._messages(out))
        return ()

    def _next(self, trigger: RelayTrigger) -> RelayState:
        state = NEXT_STATE.get((self.state, trigger))
        if state is None:
            raise LocalError(f"{trigger.value} makes no sense to a relay client that is {self.state.value}")
        return state

    def _enter(self, state: RelayState, out: Out, reason: str = "", retry_in: Duration | None = None) -> None:
        self.state = state
        if reason or state in (RelayState.CONNECTED, RelayState.OFF):
            self.reason = reason
        out.append(ReportRelay(state, reason, retry_in))

    def _connect(self, state: RelayState, now: Instant, out: Out) -> None:
        self.connection = next(self._connection_ids)
        self._enter(state, out)
        out.append(Connect(self.connection, self._target))
        self._timers.set(RelayTimer.CONNECT, now + self._config.connect_timeout)

    def _check_silence(self, now: Instant, out: Out) -> News:
        # Hearing the relay moves no timer: the timer looks, when it fires, at when that last was.
        lost_at = self._heard_at + self._config.silence
        if lost_at > now:
            self._timers.set(RelayTimer.SILENCE, lost_at)
            return ()
        return self._give_up("the relay has fallen silent", now, out)

    def _give_up(self, reason: str, now: Instant, out: Out) -> News:
        assert self.connection is not None
        out.append(CloseConnection(self.connection, reason))
        return self._lose(reason, now, out)

    def _lose(self, reason: str, now: Instant, out: Out) -> News:
        state = self._next(RelayTrigger.LOST)
        # What the relay said for a good-bye tells people more than that the connection ended.
        reason = self._last_words or reason
        asked = self._return_at - now
        news = self._drop("the relay connection was lost")
        delay = self._backoff.next_delay()
        if asked > 0:
            # All the nodes of a relay that restarts are told the same, and must not come back in the same instant.
            delay = max(delay, asked + int(self._rng.random() * asked))
        self._timers.set(RelayTimer.RETRY, now + delay)
        self._enter(state, out, reason, delay)
        return news

    def _drop(self, reason: str) -> News:
        for timer in RelayTimer:
            self._timers.cancel(timer)
        self._forget_connection()
        return self._sessions.clear(reason)

    # What the node wants.

    def set_capabilities(self, capabilities: Capabilities, now: Instant, out: Out) -> None:
        """Offer something else from now on."""
        del now
        self._capabilities = capabilities
        if self.state is RelayState.CONNECTED and self._registered != capabilities:
            self._register(out)

    @property
    def discover_at(self) -> Instant:
        """When `discover` is allowed next."""
        return self._discover_at

    def discover(self, wanted: DiscoverFilter | None, now: Instant, out: Out) -> bool:
        """Ask for peers; return False, having done nothing, when the relay would not answer now."""
        if self.state is not RelayState.CONNECTED or now < self._discover_at:
            return False
        wait = self._discovers.take(now)
        if wait:
            self._discover_at = now + wait
            return False
        self._awaits_listing = True
        self._messages(out).append(wire.Discover(self._identity.node_id, wanted))
        return True

    def open_session(self, peer: NodeId, now: Instant, out: Out) -> SessionId:
        """Ask `peer` for a session; SessionOpened or SessionClosed follows. Raises LocalError when not connected."""
        if self.state is not RelayState.CONNECTED:
            raise LocalError("the relay is not connected")
        if peer == self._identity.node_id:
            raise LocalError("a session needs two nodes")
        return self._sessions.open(peer, now, self._messages(out))

    def send(self, session: SessionId, data: bytes, now: Instant, out: Out) -> bool:
        """Send bytes in a session; return False, having done nothing, when it is not open.

        That is no error: when the relay is lost, many sessions end at once and are told of one after the other.
        Raises LocalError where `data` is longer than DATA_BYTES_MAX.
        """
        del now
        if len(data) > DATA_BYTES_MAX:
            raise LocalError(f"{len(data)} bytes where {DATA_BYTES_MAX} fit into one message")
        return self.state is RelayState.CONNECTED and self._sessions.send(session, data, self._messages(out))

    def close_session(self, session: SessionId, now: Instant, out: Out) -> None:
        """End a session; unknown and ended ones are ignored."""
        del now
        if self.state is RelayState.CONNECTED:
            self._sessions.close(session, self._messages(out))

    def confirm_address(self, session: SessionId, host: str, out: Out) -> bool:
        """Ask whether the other side of a session comes from `host`; return False where this relay would not say."""
        if self.state is not RelayState.CONNECTED or not self._confirms_addresses:
            return False
        self._messages(out).append(wire.ConfirmAddress(session, host))
        return True

    def _messages(self, out: Out) -> "_Messages":
        assert self.connection is not None
        return _Messages(self.connection, self._flavour, out, binary=self._binary)

    def _register(self, out: Out) -> None:
        self._registered = self._capabilities
        register = wire.Register(
            node_id=self._identity.node_id,
            public_key=self._identity.node_id,
            display_name=self._display_name,
            capabilities=self._capabilities,
            signature=self._signature,
            wg_public_key=self._identity.static_public.hex(),
            binary=True,
        )
        self._messages(out).append(register)

    # What the relay says.

    def received(self, data: bytes, now: Instant, out: Out) -> News:
        """Take one message of the relay; nothing that it says raises."""
        if self.state not in _REGISTERED_STATES:
            return ()
        self._heard_at = now
        if len(data) > RECEIVED_BYTES_MAX:
            return self._object("message too long", now, out)
        try:
            if self._binary and is_binary(data):
                return self._sessions.take_binary(decode_binary(data))
            message, flavour = RELAY_CODEC.decode(data)
        except PeerError as error:
            listed = salvaged(data)
            if listed is not None:
                return self._take_listing(listed)
            return self._object(error.reason, now, out) if self._offences.take(now) else ()
        if not self._heard_flavour:
            self._heard_flavour = True
            was, self._flavour = self._flavour, flavour
            if was is not flavour and isinstance(message, wire.Error) and self.state is RelayState.REGISTERING:
                # It did not understand the dialect we began with; now we know which one it speaks.
                self._register(out)
                return ()
        handler = None if isinstance(message, Unknown) else self._ON.get(type(message))
        return () if handler is None else handler(self, message, now, out)

    def _object(self, reason: str, now: Instant, out: Out) -> News:
        assert self.connection is not None
        out.append(ReportRefusal(self.connection, reason))
        return self._give_up(f"the relay misbehaves: {reason}", now, out)

    def _on_challenge(self, message: wire.RegisterChallenge, now: Instant, out: Out) -> News:
        del now
        if self._challenges < self._config.challenges_max:
            self._challenges += 1
            node = self._identity.node_id
            proof = registration_proof(node, self._host, bytes.fromhex(message.challenge))
            self._messages(out).append(wire.RegisterProof(node, self._identity.sign(proof).hex()))
        return ()

    def _on_ack(self, message: wire.RegisterAck, now: Instant, out: Out) -> News:
        if message.node_id != self._identity.node_id or self.state is not RelayState.REGISTERING:
            return ()
        self._binary = message.binary
        state = self._next(RelayTrigger.ACKNOWLEDGED)
        self._timers.cancel(RelayTimer.REGISTER)
        self._timers.set(RelayTimer.SETTLE, now + self._config.settle_time)
        self._enter(state, out)
        # The node may have changed its mind while we were waiting.
        if self._registered != self._capabilities:
            self._register(out)
        self._confirms_addresses = message.observed_host is not None
        return (Registered(message.observed_host),)

    def _on_peers(self, message: wire.DiscoverResponse, now: Instant, out: Out) -> News:
        del now, out
        return self._take_listing(message.peers)

    def _take_listing(self, peers: Sequence[PeerListing]) -> News:
        if not self._awaits_listing:
            return ()
        self._awaits_listing = False
        return (PeersListed(believable(peers, self._identity.node_id, self._config.listings_max)),)

    def _on_error(self, message: wire.Error, now: Instant, out: Out) -> News:
        del out
        if message.session_id is not None:
            return self._sessions.refused(message.session_id, printable(message.code))
        code, text = printable(message.code), printable(message.message)
        if code == RATE_LIMITED:
            self._awaits_listing = False
            seconds = message.retry_after_seconds or 0.0
            wait = int(min(seconds * SECOND, self._config.discover_wait_max))
            self._discover_at = max(self._discover_at, now + wait)
        if code in _WAITS_ON and message.retry_after_seconds is not None:
            self._return_at = now + int(min(message.retry_after_seconds * SECOND, self._config.return_wait_max))
        if self.state is RelayState.REGISTERING or code in _LAST_WORDS:
            self._last_words = f"the relay says: {text or code}"
        return (Refused(code, text),)

    def _on_confirmed(self, message: wire.AddressConfirmed, now: Instant, out: Out) -> News:
        del now, out
        return (AddressVouched(message.session_id, message.host, message.is_seen),)

    def _on_passed(self, message: wire.Passed, now: Instant, out: Out) -> News:
        del now
        if self.state is not RelayState.CONNECTED:
            return ()
        return self._sessions.take(message, self._messages(out))

    _ON: ClassVar[Mapping[type[Any], Callable[["RelayClient", Any, Instant, Out], News]]] = {
        wire.RegisterChallenge: _on_challenge,
        wire.RegisterAck: _on_ack,
        wire.DiscoverResponse: _on_peers,
        wire.Error: _on_error,
        wire.AddressConfirmed: _on_confirmed,
        wire.Offer: _on_passed,
        wire.Answer: _on_passed,
        wire.IceCandidate: _on_passed,
        wire.RelayOpen: _on_passed,
        wire.RelayReady: _on_passed,
        wire.RelayData: _on_passed,
        wire.RelayClose: _on_passed,
    }
    """What a relay may say; all else is ignored, `peerJoined` and `peerLeft` of the deployed relay among it."""
