"""One attempt after another to open a direct path to one peer, while the relay carries what has to be said.

The initiator proposes, the responder accepts, and both know both sides: each makes the same plan. The initiator
then sends the sync message and both begin half a round trip later, that is at the same time. An attempt that runs
out is followed by one with another plan, until they run out. Then the path stays relayed, and a late answer
still upgrades it.
"""

from collections.abc import Callable, Sequence
from enum import Enum
from typing import ClassVar, Final

from msgspec.structs import replace

from teale_proto.contract import MILLISECOND, SECOND, Duration, Instant, Sink, Value
from teale_proto.effects import CloseSockets, OpenSockets
from teale_proto.errors import LocalError, PeerError
from teale_proto.inputs import Address, DatagramReceived, SocketsOpened
from teale_proto.nat.birthday import PORT_MAX, PORT_MIN, Guesses
from teale_proto.nat.foretelling import Foretelling
from teale_proto.nat.probe import SECRET_BYTES, ProbeKeys
from teale_proto.nat.punch_messages import (
    ATTEMPTS_MAX,
    CANDIDATES_MAX,
    PORTS_FORETOLD,
    Accept,
    Begin,
    Candidate,
    Opened,
    PeerVouched,
    Propose,
    PunchCancelled,
    PunchEffect,
    PunchInput,
    PunchStarted,
    ReportOpened,
    ReportRelayed,
    SendSignal,
    Signal,
    SignalReceived,
    checked,
    is_usable,
)
from teale_proto.nat.punch_states import ON, PunchState, Trigger
from teale_proto.nat.race import Pair, Proven, Race
from teale_proto.nat.strategy import DEFAULT_EFFORT, CandidateKind, Effort, Part, Plan, PlanKind, Side, nature, plan
from teale_proto.rng import Rng
from teale_proto.timers import Timers

IPV6: Final = 6

ROUND: Final[Duration] = 100 * MILLISECOND
ATTEMPT_MIN: Final[Duration] = 2 * SECOND
ROUND_TRIP_MIN: Final[Duration] = MILLISECOND
ROUND_TRIP_MAX: Final[Duration] = 5 * SECOND
SIGNAL_WAIT: Final[Duration] = 10 * SECOND
"""How long to wait for what the peer is to say next."""


class PunchSetting(Value):
    """Who we are; `locals` are our sockets, at most one of each IP version, and `server` answers STUN."""

    initiator: bool
    locals: tuple[Address, ...]
    side: Side
    candidates: tuple[Candidate, ...] = ()
    server: Address | None = None
    effort: Effort = DEFAULT_EFFORT


class Wait(Enum):
    """What a wake-up is for."""

    ASK_AGAIN = "ask the STUN server again"
    PEER = "the peer has said nothing"
    BEGIN = "half a round trip has passed"
    ROUND = "probe every pair"
    PACE = "the next of many probes"
    END = "the attempt has had its time"


class Punch:
    """A core that opens a path, or finds out that there is none; what it reports last is how it stands.

    `secret` is shared with this peer and no one else. Raises LocalError for too many of our own candidates.
    """

    __slots__ = (
        "_attempt",
        "_foretelling",
        "_guesses",
        "_now",
        "_opened",
        "_pace",
        "_paced",
        "_plan",
        "_proposed_at",
        "_race",
        "_ready",
        "_request",
        "_rng",
        "_round_trip",
        "_setting",
        "_their_ports",
        "_their_side",
        "_theirs",
        "_timers",
        "_vouched",
        "state",
    )

    def __init__(self, setting: PunchSetting, secret: bytes, rng: Rng) -> None:
        if len(setting.candidates) > CANDIDATES_MAX:
            raise LocalError(f"a peer takes at most {CANDIDATES_MAX} candidates")
        if not setting.locals:
            raise LocalError("nothing is probed without a socket")
        self._setting: Final = setting
        self._rng = rng
        self._race = Race(ProbeKeys(secret, rng.randbytes(SECRET_BYTES), initiator=setting.initiator))
        self._timers: Timers[Wait] = Timers()
        self._now: Instant = 0
        self.state = PunchState.IDLE
        self._attempt = 0
        self._request = 0
        self._opened: tuple[int, ...] = ()
        """The ports of the sockets that were opened for this attempt."""
        self._foretelling: Foretelling | None = None
        self._their_side: Side | None = None
        self._theirs: tuple[Candidate, ...] = ()
        self._their_ports: tuple[int, ...] = ()
        self._vouched: str | None = None
        self._plan: Plan | None = None
        self._proposed_at: Instant = 0
        self._round_trip: Duration = ROUND_TRIP_MIN
        self._guesses: Guesses | None = None
        self._pace: Duration = SECOND // setting.effort.probes_per_second
        self._paced = 0
        self._ready = False
        """Whether our half has been told and the sync message has not come."""

    @property
    def deadline(self) -> Instant:
        """When something is to be sent, or given up."""
        return self._timers.deadline

    @property
    def sent(self) -> int:
        """How many datagrams have been sent to the peer."""
        return self._race.sent

    def handle(self, event: PunchInput, now: Instant) -> Sequence[PunchEffect]:
        """Take one input; raises LocalError for a PunchStarted that is not the initiator's first."""
        if now < self._now:
            raise LocalError(f"time ran backwards, from {self._now} to {now}")
        if isinstance(event, PunchStarted) and (not self._setting.initiator or self.state is not PunchState.IDLE):
            raise LocalError("only the initiator starts, and once")
        self._now = now
        out: list[PunchEffect] = []
        match event:
            case DatagramReceived():
                self._received(event, now, out)
            case SignalReceived():
                self._signalled(event, now, out)
            case SocketsOpened():
                self._sockets(event, now, out)
            case PunchStarted():
                self._next_attempt(now, out)
            case PeerVouched():
                self._vouched = self._race.vouched = event.host
            case PunchCancelled():
                self._cancel(out)
            case _:
                while (wait := self._timers.pop_due(now)) is not None:
                    self._ON_WAIT[wait](self, now, out)
        return out

    def _change(self, trigger: Trigger) -> None:
        self.state = ON[self.state, trigger]

    # Before an attempt: our half of the proposal.

    def _next_attempt(self, now: Instant, out: Sink[PunchEffect]) -> None:
        self._attempt += 1
        self._prepare(now, out)

    def _prepare(self, now: Instant, out: Sink[PunchEffect]) -> None:
        self._change(Trigger.ASKED)
        self._end_attempt(out)
        side = self._setting.side
        if nature(side).easy or side.allocation is None or not side.allocation.predictable:
            self._prepared(now, out)
        else:
            self._open_sockets(1, out)
            self._timers.set(Wait.PEER, now + SIGNAL_WAIT)

    def _foretell(self, port: int, now: Instant, out: Sink[PunchEffect]) -> None:
        allocation = self._setting.side.allocation
        assert allocation is not None, "only where it is known a socket is opened for this"
        local = Address(self._main.host, port)
        self._foretelling = Foretelling(local, self._setting.server, allocation, PORTS_FORETOLD, self._rng)
        self._ask(now, out)

    def _ask(self, now: Instant, out: Sink[PunchEffect]) -> None:
        assert self._foretelling is not None, "the timer is set for it alone"
        wait = self._foretelling.ask(out)
        if wait is None:
            self._prepared(now, out)
        else:
            self._timers.set(Wait.ASK_AGAIN, now + wait)

    def _prepared(self, now: Instant, out: Sink[PunchEffect]) -> None:
        self._change(Trigger.PREPARED)
        self._timers.cancel(Wait.ASK_AGAIN)
        self._timers.set(Wait.PEER, now + SIGNAL_WAIT)
        kind = Propose if self._setting.initiator else Accept
        ports = (self._foretelling.ports or ()) if self._foretelling else ()
        out.append(SendSignal(kind(self._attempt, self._setting.side, self._setting.candidates, ports)))
        self._proposed_at = now
        self._ready = True
        if not self._setting.initiator:
            self._make_plan(out)

    # What the peer says.

    def _signalled(self, event: SignalReceived, now: Instant, out: Sink[PunchEffect]) -> None:
        try:
            signal = checked(event.signal)
        except PeerError:
            return
        if self._setting.initiator == isinstance(signal, Accept):
            self._vouched = self._race.vouched = event.vouched or self._vouched
            self._ON_SIGNAL[type(signal)](self, signal, now, out)

    def _proposed(self, proposal: Propose, now: Instant, out: Sink[PunchEffect]) -> None:
        waits = self.state in (PunchState.IDLE, PunchState.WAITING, PunchState.RUNNING, PunchState.PREPARING)
        if not waits or proposal.attempt <= self._attempt:
            return
        self._attempt = proposal.attempt
        self._learn(proposal)
        self._prepare(now, out)

    def _accepted(self, answer: Accept, now: Instant, out: Sink[PunchEffect]) -> None:
        if self.state is not PunchState.WAITING or answer.attempt != self._attempt or not self._ready:
            return
        self._learn(answer)
        self._round_trip = _bounded(now - self._proposed_at)
        self._make_plan(out)
        if self.state is PunchState.WAITING:
            self._change(Trigger.SYNC_SENT)
            self._timers.cancel(Wait.PEER)
            self._timers.set(Wait.BEGIN, now + self._round_trip // 2)
            out.append(SendSignal(Begin(self._attempt, self._round_trip)))

    def _told_to_begin(self, sync: Begin, now: Instant, out: Sink[PunchEffect]) -> None:
        if self.state is PunchState.WAITING and sync.attempt == self._attempt and self._ready:
            self._round_trip = _bounded(sync.round_trip)
            self._begin(now, out)

    def _settled(self, opened: Opened, _now: Instant, out: Sink[PunchEffect]) -> None:
        pair = self._race.find(opened.token)
        if pair is not None:
            self._open(pair, out)

    def _learn(self, said: Propose | Accept) -> None:
        self._their_side = said.side
        self._theirs = tuple(each for each in said.candidates if is_usable(each.address))
        self._their_ports = said.ports

    def _make_plan(self, out: Sink[PunchEffect]) -> None:
        assert self._their_side is not None, "a plan needs two sides"
        effort = replace(self._setting.effort, round_trip=self._round_trip)
        made = plan(self._setting.side, self._their_side, failures=self._attempt - 1, effort=effort)
        self._plan = made
        if made.kind is PlanKind.RELAY:
            # What failed before is better known than what would have been tried next.
            self._give_up(self._attempt - 1, out)
            return
        named = {candidate.address.host: None for candidate in self._theirs}
        self._race.begin((*named, *((self._vouched,) if self._vouched else ())))
        for pair in self._pairs(made):
            self._race.add(pair)
        if made.kind is PlanKind.PUNCH and self._attempt == 1 and made.ours is Part.SENDS:
            # Some routers punish these; the next attempt goes without.
            self._race.open_nat(out)

    def _pairs(self, made: Plan) -> list[Pair]:
        """Return what to probe every round, in the order in which a NAT that counts has to see it."""
        if made.ours is Part.SENDS:
            ranked = sorted(self._theirs, key=lambda each: each.kind)
            return [
                Pair(local, each.address)
                for each in ranked
                if each.kind in made.candidates and (local := self._local_for(each.address, ipv6=made.ipv6))
            ]
        if made.ours in (Part.FORETELLS, Part.FOLLOWS):
            local = self._foretelling.local if self._foretelling and made.ours is Part.FORETELLS else self._main
            there = self._reflexive
            if there is None:
                return []
            ports = self._their_ports if made.theirs is Part.FORETELLS else (there.port,)
            return [Pair(local, Address(there.host, port)) for port in ports]
        return []

    # An attempt.

    def _begin(self, now: Instant, out: Sink[PunchEffect]) -> None:
        assert self._plan is not None, "what begins has been planned"
        self._change(Trigger.BEGUN)
        self._ready = False
        self._timers.cancel(Wait.PEER)
        effort = self._setting.effort
        lasts = max(ATTEMPT_MIN, 4 * self._round_trip)
        if self._plan.kind is PlanKind.BIRTHDAY:
            lasts += effort.birthday_for + effort.sockets * self._pace
            self._begin_birthday(self._plan, now, out)
        self._timers.set(Wait.END, now + lasts)
        self._round(now, out)

    def _begin_birthday(self, made: Plan, now: Instant, out: Sink[PunchEffect]) -> None:
        # Nothing is sent in bulk to an address but that from which the relay sees the peer come.
        if self._reflexive is None or self._reflexive.host != self._vouched:
            return
        if made.ours is Part.OPENS_SOCKETS:
            self._close_sockets(out)
            self._open_sockets(self._setting.effort.sockets, out)
            return
        allocation = self._their_side.allocation if self._their_side else None
        low, high = (allocation.port_min, allocation.port_max) if allocation else (PORT_MIN, PORT_MAX)
        known = 0 < low <= high <= PORT_MAX
        self._guesses = Guesses(self._rng, low=low if known else PORT_MIN, high=high if known else PORT_MAX)
        self._next_of_many(now, out)

    def _round(self, now: Instant, out: Sink[PunchEffect]) -> None:
        self._race.round(out)
        self._timers.set(Wait.ROUND, now + ROUND)

    def _next_of_many(self, now: Instant, out: Sink[PunchEffect]) -> None:
        """Send the next guess, or the next packet from one of many sockets."""
        there = self._reflexive
        assert there is not None, "checked before the first"
        at, self._paced = self._paced, self._paced + 1
        if self._guesses is not None:
            port = self._guesses.next() if at < self._setting.effort.guesses else None
            if port is None:
                return
            self._race.probe(Pair(self._main, Address(there.host, port)), out)
        else:
            pair = Pair(Address(self._main.host, self._opened[at % len(self._opened)]), there)
            # The first packet of each only makes its mapping; later ones keep it, and may get through themselves.
            (self._race.opener if at < len(self._opened) else self._race.probe)(pair, out)
        self._timers.set(Wait.PACE, now + self._pace)

    def _run_out(self, now: Instant, out: Sink[PunchEffect]) -> None:
        if self._attempt == ATTEMPTS_MAX:
            self._give_up(self._attempt, out)
        elif self._setting.initiator:
            self._next_attempt(now, out)
        else:
            self._change(Trigger.RAN_OUT)
            self._race.stop()
            self._timers.cancel(Wait.ROUND)
            self._timers.cancel(Wait.PACE)
            self._timers.set(Wait.PEER, now + SIGNAL_WAIT)

    def _peer_is_silent(self, _now: Instant, out: Sink[PunchEffect]) -> None:
        self._give_up(self._attempt, out)

    # Sockets.

    def _open_sockets(self, count: int, out: Sink[PunchEffect]) -> None:
        self._request += 1
        out.append(OpenSockets(self._request, self._main.host, count))

    def _sockets(self, event: SocketsOpened, now: Instant, out: Sink[PunchEffect]) -> None:
        awaited = event.request == self._request and self.state in (PunchState.PREPARING, PunchState.RUNNING)
        if not awaited or self._opened:
            if event.ports:
                out.append(CloseSockets(self._main.host, event.ports))
            return
        self._opened = event.ports
        if self.state is PunchState.PREPARING:
            if event.ports:
                self._foretell(event.ports[0], now, out)
            else:
                self._prepared(now, out)
        elif event.ports:
            self._next_of_many(now, out)

    def _close_sockets(self, out: Sink[PunchEffect], keep: int | None = None) -> None:
        closing = tuple(port for port in self._opened if port != keep)
        self._opened = ()
        if closing:
            out.append(CloseSockets(self._main.host, closing))

    # Datagrams.

    def _received(self, event: DatagramReceived, now: Instant, out: Sink[PunchEffect]) -> None:
        if self.state is PunchState.PREPARING and self._foretelling and self._foretelling.received(event):
            self._prepared(now, out)
            return
        if self.state in (PunchState.IDLE, PunchState.OPEN, PunchState.CANCELLED) or not self._is_ours(event.local):
            return
        proven = self._race.received(event, out)
        if proven is not None:
            self._proven(proven, out)

    def _proven(self, proven: Proven, out: Sink[PunchEffect]) -> None:
        if self._setting.initiator:
            if self._can_open:
                self._race.confirm(proven, out)
                # The same again through the relay, which loses nothing.
                out.append(SendSignal(Opened(proven.token)))
                self._open(proven.pair, out)
        elif proven.by_peer:
            self._open(proven.pair, out)
        else:
            self._race.confirm(proven, out)

    @property
    def _can_open(self) -> bool:
        return self._plan is not None and (self.state, Trigger.SETTLED) in ON

    # Ends.

    def _open(self, pair: Pair, out: Sink[PunchEffect]) -> None:
        if not self._can_open:
            return
        assert self._plan is not None, "nothing opens without one"
        self._change(Trigger.SETTLED)
        self._end_attempt(out, keep=pair.local.port)
        out.append(ReportOpened(pair.local, pair.remote, self._plan, self._attempt))

    def _give_up(self, attempts: int, out: Sink[PunchEffect]) -> None:
        self._change(Trigger.GAVE_UP)
        self._end_attempt(out)
        out.append(ReportRelayed(self._plan, attempts))

    def _cancel(self, out: Sink[PunchEffect]) -> None:
        if self.state is not PunchState.CANCELLED:
            self._change(Trigger.STOPPED)
            self._end_attempt(out)

    def _end_attempt(self, out: Sink[PunchEffect], keep: int | None = None) -> None:
        """Stop sending and close what was opened for an attempt, but for the socket at port `keep`."""
        for wait in Wait:
            self._timers.cancel(wait)
        self._race.stop()
        self._guesses = self._foretelling = None
        self._paced = 0
        self._ready = False
        self._close_sockets(out, keep)

    # What it goes by.

    @property
    def _main(self) -> Address:
        """The socket whose reflexive address the peer knows."""
        return self._setting.locals[0]

    @property
    def _reflexive(self) -> Address | None:
        """Where the peer was seen by a STUN server, in the IP version of our main socket."""
        return next(
            (
                each.address
                for each in self._theirs
                if each.kind is CandidateKind.REFLEXIVE and _version(each.address) == _version(self._main)
            ),
            None,
        )

    def _local_for(self, remote: Address, *, ipv6: bool) -> Address | None:
        version = _version(remote)
        if ipv6 != (version == IPV6):
            return None
        return next((local for local in self._setting.locals if _version(local) == version), None)

    def _is_ours(self, local: Address) -> bool:
        return local in self._setting.locals or (local.host == self._main.host and local.port in self._opened)

    _ON_WAIT: ClassVar[dict[Wait, Callable[["Punch", Instant, Sink[PunchEffect]], None]]] = {
        Wait.ASK_AGAIN: _ask,
        Wait.PEER: _peer_is_silent,
        Wait.BEGIN: _begin,
        Wait.ROUND: _round,
        Wait.PACE: _next_of_many,
        Wait.END: _run_out,
    }
    _ON_SIGNAL: ClassVar[dict[type[Signal], Callable[..., None]]] = {
        Propose: _proposed,
        Accept: _accepted,
        Begin: _told_to_begin,
        Opened: _settled,
    }


def _bounded(round_trip: Duration) -> Duration:
    return min(max(round_trip, ROUND_TRIP_MIN), ROUND_TRIP_MAX)


def _version(address: Address) -> int:
    return IPV6 if ":" in address.host else 4
