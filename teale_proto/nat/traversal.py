"""The direct paths of a node: what is around it, and a round of attempts for every peer that only the relay reaches.

A round begins when a relayed session with a peer is up, and our side is known: whoever began the session proposes,
the other side answers, and both punch. One that fails is followed by another, later, while that may be worth it. A
path that has opened is told to the node, which talks QUIC over it; if it ends, a new round begins.
"""

from collections.abc import Callable
from enum import Enum
from typing import ClassVar, Final, NamedTuple, TypeAlias

from teale_proto.contract import NEVER, SECOND, Duration, Instant, Sink, Value
from teale_proto.effects import CloseSockets, ExpectPeer, MapPort, OpenSockets, SendDatagram, UnmapPort
from teale_proto.inputs import (
    WAKE,
    Address,
    DatagramReceived,
    NetworkChanged,
    NodeId,
    PortMapFailed,
    PortMapped,
    SocketsOpened,
    UdpInput,
    Woken,
)
from teale_proto.nat.probe import SECRET_BYTES
from teale_proto.nat.punch import Punch, PunchSetting
from teale_proto.nat.punch_messages import (
    Accept,
    PeerVouched,
    Propose,
    PunchCancelled,
    PunchEffect,
    PunchInput,
    PunchStarted,
    ReportOpened,
    ReportRelayed,
    SendSignal,
    SignalReceived,
)
from teale_proto.nat.signals import ROUND_BYTES, RoundSignal, decode_signal, encode_signal
from teale_proto.nat.strategy import DEFAULT_EFFORT, Effort, Plan, PlanKind
from teale_proto.nat.surroundings import SAMPLING, Surroundings
from teale_proto.rng import Rng
from teale_proto.timers import Timers
from teale_proto.wire.cluster import PathSignal

SessionId: TypeAlias = str
"""The handle of a conversation through the relay."""

UPGRADE_EVERY: Final[Duration] = 60 * SECOND
ROUNDS_MAX: Final = 5
"""After so many rounds without a path, another one has to wait for something new."""

AGAIN_AFTER: Final[Duration] = SECOND
"""When to try again after a path that has carried something was lost."""

ROUND_GAP: Final[Duration] = 2 * SECOND
"""A peer that proposes more often than this is not listened to: each round has us send packets."""

HELD_SIGNALS_MAX: Final = 4
"""Signals that wait until we know our own side."""

CHANCE_MIN: Final = 0.05
"""A plan with less is not tried over and over."""

OPENING_MAX: Final[Duration] = 15 * SECOND
"""How long a connection on an open path may take to come up."""

VOUCH_WAIT: Final[Duration] = 2 * SECOND
"""How long the relay has to say whether it sees the peer where the peer says that it is."""


class TellPeer(Value):
    """Say this to a peer over its relayed session."""

    handle: SessionId
    message: PathSignal


class AskRelay(Value):
    """Ask the relay whether it sees the other side of a session come from `host`."""

    session: SessionId
    host: str


class DialPeer(Value):
    """A path has opened between these endpoints, and it is for us to open a QUIC connection on it."""

    node: NodeId
    local: Address
    remote: Address


TraversalEffect: TypeAlias = (
    SendDatagram | OpenSockets | CloseSockets | MapPort | UnmapPort | ExpectPeer | TellPeer | AskRelay | DialPeer
)
Out: TypeAlias = Sink[TraversalEffect]


class Stage(Enum):
    """How far the attempts for one peer have come."""

    WAITING = "our own network is still being explored"
    PUNCHING = "a direct path is being tried"
    OPENING = "a path has opened, and a connection is being made on it"
    OPEN = "direct"
    RESTING = "the next attempt comes later"


class _Owner(NamedTuple):
    """Who asked for sockets, and by which number."""

    node: NodeId
    request: int


class _Round:
    """The attempts for one peer that has a relayed session."""

    __slots__ = (
        "asked_relay",
        "begun_at",
        "count",
        "held",
        "initiator",
        "is_relayed",
        "name",
        "node",
        "opened",
        "plan",
        "punch",
        "secret",
        "session",
        "stage",
        "vouched",
    )

    def __init__(self, node: NodeId, session: SessionId, *, initiator: bool) -> None:
        self.node = node
        self.session = session
        self.initiator = initiator
        self.is_relayed = True
        """Whether signals can be sent: what has a path goes on without."""
        self.stage = Stage.WAITING
        self.name = ""
        self.secret = b""
        self.punch: Punch | None = None
        self.held: list[RoundSignal] = []
        self.plan: Plan | None = None
        """What the last attempt tried."""
        self.opened: Address | None = None
        """The socket that the path goes through."""
        self.count = 0
        self.begun_at: Instant | None = None
        self.vouched: str | None = None
        self.asked_relay = ""


class Due(Enum):
    """What a wake-up is for."""

    REST = "another round"
    OPENING = "nobody has made a connection on the path"
    VOUCH = "the relay has not answered"


Key: TypeAlias = tuple[Due, NodeId]


class Traversal:
    """All of that for one node; `now` never runs backwards, and whoever owns it wakes it at `deadline`."""

    __slots__ = ("_deadline", "_effort", "_owners", "_requests", "_rng", "_rounds", "_surroundings", "_timers")

    def __init__(self, rng: Rng, *, birthday_allowed: bool = False, effort: Effort = DEFAULT_EFFORT) -> None:
        self._rng = rng
        self._effort = effort
        self._surroundings = Surroundings(rng, birthday_allowed=birthday_allowed)
        self._timers: Timers[Key] = Timers()
        self._rounds: dict[NodeId, _Round] = {}
        self._requests = SAMPLING
        self._owners: dict[int, _Owner] = {}
        self._deadline: Instant | None = NEVER
        """None where it has to be computed: it is asked for far more often than it changes."""

    @property
    def deadline(self) -> Instant:
        """When to call `fired`, or NEVER."""
        if self._deadline is None:
            punches = (each.punch.deadline for each in self._rounds.values() if each.punch is not None)
            self._deadline = min(self._surroundings.deadline, self._timers.deadline, *punches, NEVER)
        return self._deadline

    @property
    def surroundings(self) -> Surroundings:
        """What is known of our own network."""
        return self._surroundings

    def keep_alive(self, node: NodeId) -> Duration | None:
        """Return how often a direct path must carry something so that no NAT on it forgets it; None is not known."""
        round_ = self._rounds.get(node)
        return None if round_ is None or round_.plan is None else round_.plan.keep_alive

    def explain(self, node: NodeId) -> str:
        """Return why a peer is reached as it is, in words; "" where nothing was tried."""
        round_ = self._rounds.get(node)
        if round_ is None:
            return ""
        plan = round_.plan
        if plan is not None and round_.stage is Stage.RESTING and plan.kind is not PlanKind.RELAY:
            return f"relayed: no path has opened yet, although it could be; the last plan was: {plan.reason}"
        if plan is not None and round_.stage in (Stage.OPEN, Stage.RESTING):
            return plan.reason
        return round_.stage.value

    # The network.

    def handle(self, event: UdpInput | Woken, now: Instant, out: Out) -> None:
        """Take what happened to our sockets and ports, or do what is due."""
        self._deadline = None
        match event:
            case NetworkChanged():
                self._network_changed(event, now, out)
            case DatagramReceived():
                self._received(event, now, out)
            case SocketsOpened():
                self._sockets_opened(event, now, out)
            case PortMapped() | PortMapFailed():
                self._surroundings.port_answered(event, now, out)
            case Woken():
                self._fired(now, out)
        self._go_on(now, out)

    def _network_changed(self, event: NetworkChanged, now: Instant, out: Out) -> None:
        for each in self._rounds.values():
            self._stop(each, now, out)
            self._close_socket(each, out)
            each.stage, each.count, each.plan = Stage.WAITING, 0, None
        self._surroundings.network_changed(event, now, out)

    def leave(self, now: Instant, out: Out) -> None:
        """Stop everything, and give back what the gateway has given."""
        self._deadline = None
        for node in tuple(self._rounds):
            self.unrelayed(node, now, out)
        self._surroundings.leave(now, out)

    def _received(self, event: DatagramReceived, now: Instant, out: Out) -> None:
        # Each core knows its own.
        self._surroundings.received(event, now, out)
        for each in [each for each in self._rounds.values() if each.punch is not None]:
            self._feed(each, event, now, out)

    def _sockets_opened(self, event: SocketsOpened, now: Instant, out: Out) -> None:
        if event.request == SAMPLING:
            self._surroundings.sockets_opened(event, now, out)
            return
        owner = self._owners.pop(event.request, None)
        round_ = None if owner is None else self._rounds.get(owner.node)
        if owner is not None and round_ is not None and round_.punch is not None:
            self._feed(round_, SocketsOpened(owner.request, event.ports), now, out)
        elif event.ports and self._surroundings.sockets:
            out.append(CloseSockets(self._surroundings.sockets[0].host, event.ports))

    def _fired(self, now: Instant, out: Out) -> None:
        self._surroundings.fired(now, out)
        for each in tuple(self._rounds.values()):
            if each.punch is not None and each.punch.deadline <= now:
                self._feed(each, WAKE, now, out)
        while (key := self._timers.pop_due(now)) is not None:
            self._ON_DUE[key[0]](self, self._rounds[key[1]], now, out)

    # Peers.

    def relayed(self, node: NodeId, session: SessionId, *, initiator: bool, now: Instant, out: Out) -> None:
        """Begin to look for a direct path to a peer, whose relayed session has come up."""
        self._deadline = None
        former = self._rounds.get(node)
        if former is not None:
            if former.stage in (Stage.OPENING, Stage.OPEN):
                former.session, former.initiator, former.is_relayed = session, initiator, True
                return
            self._forget(former, now, out)
        self._rounds[node] = _Round(node, session, initiator=initiator)
        self._go_on(now, out)

    def unrelayed(self, node: NodeId, now: Instant, out: Out) -> None:
        """Stop looking: the relayed session has ended, or a better path is there."""
        self._deadline = None
        round_ = self._rounds.get(node)
        if round_ is not None:
            round_.is_relayed = False
            if round_.stage not in (Stage.OPENING, Stage.OPEN):
                self._forget(round_, now, out)

    def told(self, node: NodeId, message: PathSignal, now: Instant, out: Out) -> None:
        """Take a signal of a peer; raises PeerError for what is none."""
        self._deadline = None
        said = decode_signal(message)
        round_ = self._rounds.get(node)
        if round_ is None:
            return
        if isinstance(said.signal, Propose) and said.name != round_.name and not round_.initiator:
            too_soon = round_.begun_at is not None and now - round_.begun_at < ROUND_GAP
            if too_soon or len(said.secret) != SECRET_BYTES:
                return
            self._stop(round_, now, out)
            round_.name, round_.secret, round_.begun_at = said.name, said.secret, now
            round_.stage = Stage.WAITING
        if said.name != round_.name:
            return
        if round_.punch is None or self._is_to_be_vouched_for(round_, said, now, out):
            if len(round_.held) < HELD_SIGNALS_MAX:
                round_.held.append(said)
            self._go_on(now, out)
        else:
            self._feed(round_, SignalReceived(said.signal, round_.vouched), now, out)

    def vouched(self, session: SessionId, host: str, *, is_seen: bool, now: Instant, out: Out) -> None:
        """Take what the relay says about the address of the other side of a session."""
        self._deadline = None
        for each in tuple(self._rounds.values()):
            if each.session == session and each.asked_relay == host:
                each.vouched = host if is_seen else None
                self._timers.cancel((Due.VOUCH, each.node))
                if is_seen and each.punch is not None:
                    self._feed(each, PeerVouched(host), now, out)
                self._release(each, now, out)

    def direct_up(self, node: NodeId, now: Instant, out: Out) -> None:
        """Note that a connection on a direct path has come up, whoever opened it."""
        self._deadline = None
        round_ = self._rounds.get(node)
        if round_ is not None:
            self._timers.cancel((Due.OPENING, node))
            if round_.stage is not Stage.OPENING:
                # It was not by this round: what it still tries is not needed.
                self._stop(round_, now, out)
            round_.stage, round_.count = Stage.OPEN, 0
            # Whatever its sockets still hear is QUIC's.
            round_.punch = None

    def direct_lost(self, node: NodeId, *, was_up: bool, now: Instant, out: Out) -> None:
        """Note that a direct path has ended, or did not carry a connection; try again where the relay reaches it."""
        self._deadline = None
        round_ = self._rounds.get(node)
        if round_ is None:
            return
        self._timers.cancel((Due.OPENING, node))
        self._close_socket(round_, out)
        if round_.is_relayed:
            self._rest(round_, AGAIN_AFTER if was_up else UPGRADE_EVERY, now)
        else:
            self._forget(round_, now, out)

    # Rounds.

    def _go_on(self, now: Instant, out: Out) -> None:
        """Begin whatever waits for our own side to be known."""
        waiting = [each for each in self._rounds.values() if each.stage is Stage.WAITING]
        wanted = [each for each in waiting if each.initiator or each.name]
        if not wanted or self._surroundings.side is None or self._surroundings.refresh(now, out):
            return
        for each in wanted:
            self._begin(each, now, out)

    def _begin(self, round_: _Round, now: Instant, out: Out) -> None:
        side, around = self._surroundings.side, self._surroundings
        assert side is not None
        if round_.initiator:
            round_.name = self._rng.randbytes(ROUND_BYTES).hex()
            round_.secret = self._rng.randbytes(SECRET_BYTES)
            round_.begun_at = now
        round_.stage = Stage.PUNCHING
        round_.count += 1
        setting = PunchSetting(round_.initiator, around.sockets, side, around.candidates, around.server, self._effort)
        round_.punch = Punch(setting, round_.secret, self._rng)
        if round_.initiator:
            self._feed(round_, PunchStarted(), now, out)
        held, round_.held = round_.held, []
        for said in held:
            if self._is_to_be_vouched_for(round_, said, now, out):
                round_.held.append(said)
            else:
                self._feed(round_, SignalReceived(said.signal, round_.vouched), now, out)

    def _is_to_be_vouched_for(self, round_: _Round, said: RoundSignal, now: Instant, out: Out) -> bool:
        """Ask the relay whether the peer is where it says that it is; return whether the signal has to wait for that.

        It matters to who may send in bulk, so nobody else waits for it.
        """
        signal, side = said.signal, self._surroundings.side
        if round_.held and round_.asked_relay:
            return True  # after those before it
        host = signal.side.outside if isinstance(signal, Propose | Accept) else None
        if not isinstance(signal, Propose | Accept) or host is None or host == round_.asked_relay:
            return False
        round_.asked_relay, round_.vouched = host, None
        out.append(AskRelay(round_.session, host))
        if side is None or not side.birthday_allowed or not signal.side.birthday_allowed:
            return False
        self._timers.set((Due.VOUCH, round_.node), now + VOUCH_WAIT)
        return True

    def _release(self, round_: _Round, now: Instant, out: Out) -> None:
        held, round_.held = round_.held, []
        for said in held:
            if round_.punch is not None:
                self._feed(round_, SignalReceived(said.signal, round_.vouched), now, out)

    def _feed(self, round_: _Round, event: PunchInput, now: Instant, out: Out) -> None:
        punch = round_.punch
        assert punch is not None
        for effect in punch.handle(event, now):
            self._carry_out(round_, effect, now, out)

    def _carry_out(self, round_: _Round, effect: PunchEffect, now: Instant, out: Out) -> None:
        match effect:
            case SendSignal(signal):
                is_first = isinstance(signal, Propose)
                said = RoundSignal(round_.name, signal, round_.secret if is_first else b"")
                out.append(TellPeer(round_.session, encode_signal(said)))
            case OpenSockets():
                self._requests += 1
                self._owners[self._requests] = _Owner(round_.node, effect.request)
                out.append(OpenSockets(self._requests, effect.host, effect.count))
            case ReportOpened():
                self._opened(round_, effect, now, out)
            case ReportRelayed():
                if effect.plan is not None:
                    round_.plan = effect.plan
                self._rest(round_, UPGRADE_EVERY, now)
            case SendDatagram() | CloseSockets():
                out.append(effect)

    def _opened(self, round_: _Round, report: ReportOpened, now: Instant, out: Out) -> None:
        self._timers.cancel((Due.REST, round_.node))
        self._timers.set((Due.OPENING, round_.node), now + OPENING_MAX)
        self._close_socket(round_, out)
        round_.stage, round_.plan, round_.opened = Stage.OPENING, report.plan, report.local
        if round_.initiator:
            out.append(DialPeer(round_.node, report.local, report.remote))
        else:
            out.append(ExpectPeer(report.local, report.remote))

    def _rest(self, round_: _Round, wait: Duration, now: Instant) -> None:
        round_.stage = Stage.RESTING
        plan = round_.plan
        hopeless = plan is not None and (plan.kind is PlanKind.RELAY or plan.chance < CHANCE_MIN)
        if round_.initiator and round_.count < ROUNDS_MAX and not hopeless:
            self._timers.set((Due.REST, round_.node), now + wait)

    def _rested(self, round_: _Round, now: Instant, out: Out) -> None:
        self._stop(round_, now, out)
        round_.stage = Stage.WAITING

    def _not_opened(self, round_: _Round, now: Instant, out: Out) -> None:
        self.direct_lost(round_.node, was_up=False, now=now, out=out)

    def _not_vouched(self, round_: _Round, now: Instant, out: Out) -> None:
        self._release(round_, now, out)

    def _stop(self, round_: _Round, now: Instant, out: Out) -> None:
        """End what is being tried, and keep the peer."""
        if round_.punch is not None:
            self._feed(round_, PunchCancelled(), now, out)
        round_.punch, round_.name, round_.held = None, "", []
        round_.asked_relay, round_.vouched = "", None
        for due in Due:
            self._timers.cancel((due, round_.node))

    def _forget(self, round_: _Round, now: Instant, out: Out) -> None:
        self._stop(round_, now, out)
        self._close_socket(round_, out)
        del self._rounds[round_.node]

    def _close_socket(self, round_: _Round, out: Out) -> None:
        """Close the socket of a path that has ended, where it was opened for that path."""
        socket, round_.opened = round_.opened, None
        if socket is not None and socket not in self._surroundings.sockets:
            out.append(CloseSockets(socket.host, (socket.port,)))

    _ON_DUE: ClassVar[dict[Due, Callable[["Traversal", _Round, Instant, Out], None]]] = {
        Due.REST: _rested,
        Due.OPENING: _not_opened,
        Due.VOUCH: _not_vouched,
    }
