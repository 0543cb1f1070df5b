"""A node: the switchboard between its children, which never meet each other.

`Contacts` knows whom one could talk to, `Dialling` calls those on the LAN, `Peers` talks, `RelayClient` keeps the way
through the relay open, `Seeking` asks it for nodes, `DirectPaths` looks for a way without it, and `Exchange` holds the
requests of this machine and its work for all. What one of them reports, the node translates into what another must
do. It decides nothing that a child or a pure function could decide.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import count
from typing import Any, ClassVar, Final, get_args
from urllib.parse import urlsplit

from msgspec.structs import replace

from teale_proto.asking import AskDue, Asked, AskState, PatienceDue
from teale_proto.contacts import Contacts
from teale_proto.contract import SECOND, Instant
from teale_proto.dialling import DialDue, Dialling
from teale_proto.direct_paths import DirectPaths
from teale_proto.effects import Advertise, NodeEffect, Path, RelayState, ReportRefusal
from teale_proto.errors import LocalError, PeerError
from teale_proto.exchange import Exchange, SendMessage
from teale_proto.inputs import (
    Ask,
    CancelAsk,
    ConnectFailed,
    ConnectionAccepted,
    ConnectionClosed,
    ConnectionOpened,
    DataReceived,
    GenerationChunk,
    GenerationFailed,
    GenerationFinished,
    Handle,
    LoadedModelsChanged,
    NetworkChanged,
    NodeId,
    NodeInput,
    PeerWanted,
    PingReceived,
    PongReceived,
    ServiceFound,
    ServiceLost,
    Started,
    StopRequested,
    UdpInput,
    Woken,
)
from teale_proto.node_config import NodeConfig, capabilities_of, check, door_of, greeting_of, record_of, status_of
from teale_proto.node_out import NodeOut
from teale_proto.peer_news import (
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
from teale_proto.peers import Peers
from teale_proto.relay.client import (
    AddressVouched,
    PeersListed,
    Refused,
    Registered,
    RelayClient,
    RelayNews,
    RelayTimer,
    SessionClosed,
    SessionData,
    SessionOpened,
    SessionTimer,
    SignalReceived,
)
from teale_proto.rng import Rng
from teale_proto.secure.suite import NOISE, Keys, Suite
from teale_proto.seeking import DiscoverDue, Seeking
from teale_proto.serving import JobDue
from teale_proto.status import Explanation, ListedPeer, NodeStatus, PeerStatus
from teale_proto.timers import Timers
from teale_proto.wire.cluster import Heartbeat, HeartbeatAck, PathSignal
from teale_proto.wire.relay import PEER_NOT_FOUND, SHUTTING_DOWN

__all__ = ["Node", "NodeConfig"]

OPENINGS_MAX: Final = 2
"""Sessions that are opened at once on behalf of one request."""


class Node:
    """A node without its sockets, its clock and its model."""

    def __init__(
        self, config: NodeConfig, identity: Keys, rng: Rng, *, unix_time_at_zero: int, suite: Suite = NOISE
    ) -> None:
        """Raise LocalError for a configuration that cannot be kept, and for an identity that is not of the suite."""
        check(config)
        self._door = door_of(config)
        self._config = config
        self._identity = identity
        self._rng = rng
        self._unix_time_at_zero = unix_time_at_zero
        self._now: Instant = 0
        self._started = self._stopping = False
        self._lan_port: int | None = None
        self._timers: Timers[Any] = Timers()
        self._connection_ids = count(1, 2)
        self._contacts = Contacts(identity.node_id, rng)
        self._exchange = Exchange(
            identity.node_id,
            config.display_name,
            running_max=config.max_concurrent_requests,
            queue_max=config.queue_max,
            timers=self._timers,
            rng=rng,
        )
        self._peers = Peers(
            identity,
            greeting=greeting_of(config, identity.node_id),
            heartbeat=config.heartbeat,
            allow_plaintext=not config.lan_encrypted,
            door=self._door,
            timers=self._timers,
            rng=rng,
            fast_aes=config.fast_aes,
            suite=suite,
        )
        self._dialling = Dialling(
            identity.node_id, self._contacts, self._peers, self._door, self._timers, self._connection_ids
        )
        self._relay = self._make_relay_client() if config.wan_enabled else None
        self._seeking = None if self._relay is None else Seeking(self._relay, self._timers, rng)
        has_direct = config.wan_enabled and config.wan_direct
        self._direct = DirectPaths(self._peers, rng, is_enabled=has_direct, birthday_allowed=config.wan_birthday)

    @property
    def node_id(self) -> NodeId:
        """The id of this node."""
        return self._identity.node_id

    @property
    def deadline(self) -> Instant:
        """When to feed WAKE, or NEVER."""
        return min(self._timers.deadline, self._direct.deadline)

    def handle(self, event: NodeInput, now: Instant) -> Sequence[NodeEffect]:
        """Take one input at `now`; return what must now be done, in order.

        Raises LocalError, before anything has changed, for a command that is not allowed now.
        """
        if now < self._now:
            raise LocalError(f"time ran backwards, from {self._now} to {now}")
        self._now = now
        out = NodeOut(self._peers, self._relay, self._connection_ids, now)
        self._ON[type(event)](self, event, now, out)
        self._settle(now, out)
        while isinstance(event, Woken) and self.deadline <= now:
            # What was settled may itself have made something due.
            self._on_woken(event, now, out)
            self._settle(now, out)
        return out.effects

    # What is known, for people and programs.

    def status(self) -> NodeStatus:
        """Return the node at a glance."""
        relay = self._relay
        return status_of(
            self._config,
            self.node_id,
            self._door,
            loaded_models=self._exchange.models,
            direct_addresses=self._direct.addresses,
            wan=RelayState.OFF if relay is None else relay.state,
            wan_reason="" if relay is None else relay.reason,
            nat_type=self._direct.nat_type,
            peers_connected=len(self._peers),
            peers_listed=len(self.listed_peers()),
            queue_depth=self._exchange.serving.queue_depth,
            running=self._exchange.serving.running,
            asked=len(self._exchange.asking),
        )

    def peers(self) -> tuple[PeerStatus, ...]:
        """Return the connected peers, by node id."""
        in_flight = self._exchange.asking.in_flight
        statuses = [peer.status(in_flight=in_flight.get(peer.node, 0), now=self._now) for peer in self._peers]
        explained = [replace(status, path_reason=self._direct.reason(status)) for status in statuses]
        return tuple(sorted(explained, key=lambda status: status.node_id))

    def listed_peers(self) -> tuple[ListedPeer, ...]:
        """Return the nodes that the relay names and that are not connected."""
        return tuple(listed for listed in self._contacts.listings() if self._peers.get(listed.node_id) is None)

    def explain(self, model: str, rng: Rng) -> Explanation:
        """Return how a request for `model` would be routed now; `rng` is the caller's, so that nothing here changes."""
        return self._exchange.explain(model, rng)

    # Life.

    def _on_started(self, event: Started, now: Instant, out: NodeOut) -> None:
        if self._started:
            raise LocalError("a node starts once")
        self._started = True
        self._lan_port = event.lan_port
        self._advertise(out)
        if self._relay is not None:
            self._relay.start(now, out)

    def _on_stop_requested(self, _: StopRequested, now: Instant, out: NodeOut) -> None:
        self._direct.leave(now, out)
        self._stopping = True
        self._exchange.stop("this node is stopping", now, out)
        self._hear(self._peers.close_all("this node is stopping", now, out), now, out)
        if self._relay is not None:
            self._relay.stop(now, out)

    def _on_woken(self, _: Woken, now: Instant, out: NodeOut) -> None:
        while (key := self._timers.pop_due(now)) is not None:
            self._ON_TIMER[type(key)](self, key, now, out)
        self._direct.woken(now, out)

    @property
    def _is_running(self) -> bool:
        return self._started and not self._stopping

    def _require_running(self) -> None:
        if not self._is_running:
            raise LocalError("this node is stopping" if self._stopping else "this node has not started")

    # Connections.

    def _on_connection_accepted(self, event: ConnectionAccepted, now: Instant, out: NodeOut) -> None:
        path = Path.DIRECT if event.direct else Path.LAN
        self._hear(self._peers.accepted(event.connection, event.remote, now, out, path=path), now, out)

    def _on_connection_opened(self, event: ConnectionOpened, now: Instant, out: NodeOut) -> None:
        if self._is_relay(event.connection):
            self._relay_client.opened(now, out)
        else:
            self._peers.opened(event.connection, out)

    def _on_connect_failed(self, event: ConnectFailed, now: Instant, out: NodeOut) -> None:
        if self._is_relay(event.connection):
            self._relay_client.failed(event.reason, now, out)
            self._exchange.unsettled = True
        else:
            self._hear(self._peers.closed(event.connection, event.reason, now, out), now, out)

    def _on_connection_closed(self, event: ConnectionClosed, now: Instant, out: NodeOut) -> None:
        if self._is_relay(event.connection):
            self._relay_seeking.no_listing()
            self._hear_relay(self._relay_client.closed(event.reason, now, out), now, out)
            self._exchange.unsettled = True
        else:
            self._hear(self._peers.closed(event.connection, event.reason, now, out), now, out)

    def _on_data_received(self, event: DataReceived, now: Instant, out: NodeOut) -> None:
        if self._is_relay(event.connection):
            self._hear_relay(self._relay_client.received(event.data, now, out), now, out)
        else:
            self._hear(self._peers.received(event.connection, event.data, now, out), now, out)

    def _on_pong_received(self, event: PongReceived, now: Instant, out: NodeOut) -> None:
        if self._is_relay(event.connection):
            self._relay_client.ponged(now)

    def _is_relay(self, connection: Handle) -> bool:
        return self._relay is not None and connection == self._relay.connection

    @property
    def _is_relayed(self) -> bool:
        return self._relay is not None and self._relay.state is RelayState.CONNECTED

    @property
    def _relay_seeking(self) -> Seeking:
        assert self._seeking is not None
        return self._seeking

    @property
    def _relay_client(self) -> RelayClient:
        assert self._relay is not None
        return self._relay

    # The LAN.

    def _on_service_found(self, event: ServiceFound, now: Instant, out: NodeOut) -> None:
        if self._contacts.advertises_another(event):
            self._dialling.lost(ServiceLost(event.name))
        if self._config.lan_enabled and self._is_running:
            self._dialling.found(event, now, out)

    def _on_service_lost(self, event: ServiceLost, now: Instant, out: NodeOut) -> None:
        self._dialling.lost(event)

    def _on_dial_due(self, due: DialDue, now: Instant, out: NodeOut) -> None:
        if not self._stopping:
            self._dialling.fired(due, now, out)

    def _advertise(self, out: NodeOut) -> None:
        if self._config.lan_enabled and self._lan_port is not None and not self._stopping:
            out.append(Advertise(record_of(self._config, self.node_id, self._lan_port, self._exchange.models)))

    # Conversations.

    def _hear(self, news: Iterable[News], now: Instant, out: NodeOut) -> None:
        for item in news:
            self._ON_NEWS[type(item)](self, item, now, out)

    def _on_peer_up(self, news: PeerUp, now: Instant, out: NodeOut) -> None:
        self._contacts.succeeded(news.node, news.path)
        self._direct.peer_up(news, now, out)
        self._exchange.unsettled = True

    def _on_heartbeat_wanted(self, news: HeartbeatWanted, now: Instant, out: NodeOut) -> None:
        if self._peers.is_superseded(news.handle) and not self._exchange.is_busy(news.handle):
            self._hear(self._peers.close(news.handle, "there is a better path", now, out), now, out)
        else:
            if news.peer is not None:
                self._peers.set_active(news.peer, self._exchange.is_busy(news.peer))
            out.append(SendMessage(news.handle, self._exchange.beat(Heartbeat, self._unix_time_at_zero + now)))

    def _on_conversation_ended(self, news: ConversationEnded, now: Instant, out: NodeOut) -> None:
        self._exchange.conversation_ended(news.handle, news.reason, now, out)
        if not self._stopping:
            self._direct.ended(news, now, out)
        if news.peer is not None and news.path is not Path.DIRECT and not self._stopping:
            delay = SECOND
            if not news.was_up and (news.dialled or news.refused):
                # Whoever was refused is not dialled at once either: the two would take turns for ever.
                delay = self._contacts.failed(news.peer, news.path, now)
            if news.path is Path.LAN:
                self._dialling.again(news.peer, delay, now)
        self._exchange.unsettled = True

    def _on_peers_timer(self, key: SetupDue | LivenessDue | GraceDue, now: Instant, out: NodeOut) -> None:
        self._hear(self._peers.fired(key, now, out), now, out)

    def _on_peer_away(self, news: PeerAway, now: Instant, out: NodeOut) -> None:
        self._exchange.peer_away(news.peer)
        self._look_for_missing(now, out)

    def _look_for_missing(self, now: Instant, out: NodeOut) -> None:
        """Open sessions with the nodes whose last conversation ended while requests were under way."""
        if not self._is_relayed or self._stopping:
            return
        for peer in self._exchange.missing():
            if self._door.admits(Path.RELAY, peer.node) and not self._is_approached(peer.node):
                self._relay_seeking.open(peer.node, now, out)

    def _on_peer_gone(self, news: PeerGone, now: Instant, out: NodeOut) -> None:
        self._exchange.conversation_ended(news.peer, news.reason, now, out)

    def _on_told(self, told: Told, now: Instant, out: NodeOut) -> None:
        if isinstance(told.message, PathSignal):
            self._on_path_signal(told, told.message, now, out)
            return
        if isinstance(told.message, Heartbeat):
            out.append(SendMessage(told.handle, self._exchange.beat(HeartbeatAck, self._unix_time_at_zero + now)))
        if isinstance(told.message, Heartbeat | HeartbeatAck):
            # It may have brought news of models.
            self._exchange.unsettled = True
        else:
            self._exchange.told(told.node, told.whom, told.message, now, out)

    # The relay.

    def _make_relay_client(self) -> RelayClient:
        config = self._config
        return RelayClient(
            self._identity,
            url=config.wan_relay_url,
            host=urlsplit(config.wan_relay_url).hostname or "",
            display_name=config.display_name,
            capabilities=capabilities_of(config, self._exchange.models),
            timers=self._timers,
            rng=self._rng,
            connection_ids=self._connection_ids,
        )

    def _hear_relay(self, news: Iterable[RelayNews], now: Instant, out: NodeOut) -> None:
        for item in news:
            self._ON_RELAY_NEWS[type(item)](self, item, now, out)

    def _on_relay_timer(self, key: RelayTimer | SessionTimer, now: Instant, out: NodeOut) -> None:
        self._hear_relay(self._relay_client.fired(key, now, out), now, out)

    def _on_registered(self, news: Registered, now: Instant, out: NodeOut) -> None:
        self._direct.observed(news.observed_host)
        self._relay_seeking.registered(now, out)

    def _on_discover_due(self, _: DiscoverDue, now: Instant, out: NodeOut) -> None:
        if not self._stopping:
            self._relay_seeking.ask(now, out)

    def _on_peers_listed(self, news: PeersListed, now: Instant, out: NodeOut) -> None:
        self._relay_seeking.listed()
        self._contacts.listed(news.peers, now)
        self._look_for_missing(now, out)
        if not self._stopping:
            held = sum(Path.RELAY in peer.conversations for peer in self._peers) + self._relay_seeking.openings
            room = self._config.wan_peers_max - held
            wanted = [n for n in self._providers(None, now) if not self._is_approached(n)] if room > 0 else ()
            for node in wanted[:room]:
                self._relay_seeking.open(node, now, out)
        self._exchange.unsettled = True

    def _providers(self, model: str | None, now: Instant) -> list[NodeId]:
        return [node for node in self._contacts.providers(model, now) if self._door.admits(Path.RELAY, node)]

    def _is_approached(self, node: NodeId) -> bool:
        # A direct path does not count: the relay stands by for when it ends.
        on_way = self._peers.is_reaching(node, Path.RELAY) or self._peers.is_reaching(node, Path.LAN)
        return on_way or self._relay_seeking.is_opening(node)

    def _on_session_opened(self, news: SessionOpened, now: Instant, out: NodeOut) -> None:
        self._relay_seeking.settled(news.session)
        has_key = self._contacts.has_key(news.peer)
        self._peers.session_opened(news.session, news.peer, initiator=news.initiator, has_key=has_key, now=now, out=out)

    def _on_session_data(self, news: SessionData, now: Instant, out: NodeOut) -> None:
        self._hear(self._peers.received(news.session, news.data, now, out), now, out)

    def _on_session_closed(self, news: SessionClosed, now: Instant, out: NodeOut) -> None:
        if self._relay_seeking.settled(news.session):
            if news.reason == PEER_NOT_FOUND:
                # It may register in a moment, after all of us have lost the relay; the next listing will tell.
                self._contacts.unlisted(news.peer)
            else:
                self._contacts.failed(news.peer, Path.RELAY, now)
            self._exchange.unsettled = True
        self._hear(self._peers.closed(news.session, news.reason, now, out), now, out)

    def _on_refused(self, news: Refused, now: Instant, out: NodeOut) -> None:
        self._relay_seeking.no_listing()
        self._exchange.unsettled = True
        if news.code == SHUTTING_DOWN:
            # A relay that drains waits for its sessions; those that carry nothing need not be waited for.
            sessions = [handle for handle in self._peers.handles() if isinstance(handle, str)]
            for handle in sessions:
                if self._exchange.is_busy(self._peers.carried_by(handle)):
                    continue
                self._hear(self._peers.close(handle, "the relay is stopping", now, out), now, out)

    def _ignore(self, event: PingReceived | SignalReceived, now: Instant, out: NodeOut) -> None:
        """Do nothing: the driver answers pings, and to signals that the relay can read nobody is answered."""

    # Direct paths.

    def _on_udp(self, event: UdpInput, now: Instant, out: NodeOut) -> None:
        if self._is_running:
            self._direct.udp(event, now, out)
        if self._is_running and isinstance(event, NetworkChanged) and event.sockets:
            self._peers.network_changed(now)
            if self._relay is not None:
                self._relay.network_changed(now, out)

    def _on_path_signal(self, told: Told, message: PathSignal, now: Instant, out: NodeOut) -> None:
        try:
            self._direct.told(told.node, message, now, out)
        except PeerError as error:
            out.append(ReportRefusal(told.handle, error.reason))
            self._hear(self._peers.close(told.handle, error.reason, now, out), now, out)

    def _on_address_vouched(self, news: AddressVouched, now: Instant, out: NodeOut) -> None:
        self._direct.vouched(news, now, out)

    def _on_peer_wanted(self, event: PeerWanted, now: Instant, out: NodeOut) -> None:
        self._require_running()
        self._door.check_wanted(event.node, self.node_id)
        self._direct.want(event.node, event.addresses, out)
        if self._is_relayed and not self._is_approached(event.node):
            self._relay_seeking.open(event.node, now, out)

    # Requests of this machine, and work for others.

    def _on_ask(self, ask: Ask, now: Instant, out: NodeOut) -> None:
        self._require_running()
        self._exchange.begin(ask, now)

    def _on_cancel_ask(self, event: CancelAsk, now: Instant, out: NodeOut) -> None:
        self._exchange.cancel(event.request, now, out)

    def _on_patience_due(self, due: PatienceDue, now: Instant, out: NodeOut) -> None:
        asked = self._exchange.asking.get(due.request)
        if asked is not None and asked.state is AskState.WAITING:
            self._give_up(asked, out)

    def _on_request_timer(self, key: AskDue | JobDue, now: Instant, out: NodeOut) -> None:
        self._exchange.fired(key, now, out)

    def _on_generation(
        self, event: GenerationChunk | GenerationFinished | GenerationFailed, now: Instant, out: NodeOut
    ) -> None:
        self._exchange.generated(event, now, out)

    def _settle(self, now: Instant, out: NodeOut) -> None:
        """Give each waiting request to the best node, or let it wait while there is hope, or end it.

        That is done when everything that an input changed has changed: of ten sessions that a dying relay takes with
        it, none is a place for the requests of the others.
        """
        if not self._exchange.unsettled:
            return
        self._exchange.unsettled = False
        for node in self._peers.changed:
            peer = self._peers.get(node)
            self._exchange.node_changed(node, None if peer is None else peer.standing())
        self._peers.changed.clear()
        self._exchange.leave_missing(out)
        for asked in self._exchange.waiting():
            if not self._exchange.place(asked, now, out) and not self._may_turn_up(asked, now, out):
                self._give_up(asked, out)

    def _give_up(self, asked: Asked, out: NodeOut) -> None:
        model, relay, excuse = asked.ask.model, self._relay, ""
        if self._contacts.knows(model):
            excuse = "nodes that do are known, and none of them can be reached now"
        elif relay is not None and relay.state is not RelayState.CONNECTED:
            excuse = f"the relay is not connected ({relay.reason or relay.state.value})"
        self._exchange.give_up(asked, excuse, out)

    def _may_turn_up(self, asked: Asked, now: Instant, out: NodeOut) -> bool:
        """Look for nodes that could take a request; return whether one may still come."""
        model, relay = asked.ask.model, self._relay
        hopeful = any(
            model in record.models and record.node not in asked.tried and self._is_expected(record.node, now)
            for record in self._contacts.lan_records()
        )
        if relay is None:
            return hopeful
        if self._relay_seeking.may_bring_news:
            return True
        untried = [node for node in self._providers(model, now) if node not in asked.tried]
        for node in untried[:OPENINGS_MAX] if relay.state is RelayState.CONNECTED else ():
            if not self._is_approached(node):
                self._relay_seeking.open(node, now, out)
        if any(self._is_approached(node) for node in untried):
            return True
        return self._relay_seeking.ask_for(asked, now, out) or hopeful

    def _is_expected(self, node: NodeId, now: Instant) -> bool:
        """Whether a connection to `node` is being made, or about to be for the first time."""
        if self._peers.get(node) is not None or self._contacts.is_failing(node, Path.LAN):
            return False
        return self._peers.is_reaching(node) or self._dialling.is_due(node, now)

    # What we say of ourselves.

    def _on_loaded_models_changed(self, event: LoadedModelsChanged, now: Instant, out: NodeOut) -> None:
        self._exchange.models = event.models
        self._peers.greeting = greeting_of(self._config, self.node_id, event.models)
        for handle in self._peers.handles():
            out.append(SendMessage(handle, self._exchange.beat(Heartbeat, self._unix_time_at_zero + now)))
        self._advertise(out)
        if self._relay is not None:
            self._relay.set_capabilities(capabilities_of(self._config, event.models), now, out)
        self._exchange.unsettled = True

    # The tables; a test holds each against its union.

    _ON: ClassVar[dict[type[Any], Callable[..., None]]] = {
        Woken: _on_woken,
        Started: _on_started,
        StopRequested: _on_stop_requested,
        ConnectionAccepted: _on_connection_accepted,
        ConnectionOpened: _on_connection_opened,
        ConnectFailed: _on_connect_failed,
        ConnectionClosed: _on_connection_closed,
        DataReceived: _on_data_received,
        PingReceived: _ignore,
        PongReceived: _on_pong_received,
        ServiceFound: _on_service_found,
        ServiceLost: _on_service_lost,
        **dict.fromkeys(get_args(UdpInput), _on_udp),
        PeerWanted: _on_peer_wanted,
        Ask: _on_ask,
        CancelAsk: _on_cancel_ask,
        LoadedModelsChanged: _on_loaded_models_changed,
        GenerationChunk: _on_generation,
        GenerationFinished: _on_generation,
        GenerationFailed: _on_generation,
    }
    _ON_TIMER: ClassVar[dict[type[Any], Callable[..., None]]] = {
        AskDue: _on_request_timer,
        PatienceDue: _on_patience_due,
        JobDue: _on_request_timer,
        SetupDue: _on_peers_timer,
        LivenessDue: _on_peers_timer,
        GraceDue: _on_peers_timer,
        DialDue: _on_dial_due,
        DiscoverDue: _on_discover_due,
        RelayTimer: _on_relay_timer,
        SessionTimer: _on_relay_timer,
    }
    _ON_NEWS: ClassVar[dict[type[Any], Callable[..., None]]] = {
        PeerUp: _on_peer_up,
        Told: _on_told,
        HeartbeatWanted: _on_heartbeat_wanted,
        PeerAway: _on_peer_away,
        PeerGone: _on_peer_gone,
        ConversationEnded: _on_conversation_ended,
    }
    _ON_RELAY_NEWS: ClassVar[dict[type[Any], Callable[..., None]]] = {
        Registered: _on_registered,
        AddressVouched: _on_address_vouched,
        PeersListed: _on_peers_listed,
        SessionOpened: _on_session_opened,
        SessionData: _on_session_data,
        SessionClosed: _on_session_closed,
        Refused: _on_refused,
        SignalReceived: _ignore,
    }
