"""How long programs are busy with what comes in: the costs of a profile, put on single inputs.

A host in the simulator is as slow as its pace says. The same costs, put on the inputs of a real program's journal, say
how much processor time that program should have used. In both, what an input costs depends on how long the program
had nothing to do before it: see `Wake`. A host is not always as slow: how much things deviate from what they usually
take was measured too, and is drawn (`Scatter`).

Inputs are told apart by what can be seen from outside. What nodes say to each other under encryption is all alike, so a
handshake is put on the moment at which its conversation begins.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, Protocol, get_args

from simulator.costs import NodeProfile
from simulator.relay_cost import RelayProfile, Wake, woken
from simulator.turns import Busy, Over, Turn
from teale_proto.contract import Instant, Value
from teale_proto.effects import Connect, DirectTarget, NodeEffect, RelayEffect, WebSocketUrl
from teale_proto.inputs import (
    WAKE,
    Ask,
    ConnectionAccepted,
    ConnectionClosed,
    ConnectionId,
    ConnectionOpened,
    DatagramReceived,
    DataReceived,
    GenerationChunk,
    GenerationFinished,
    MessagesReceived,
    NetworkChanged,
    PingReceived,
    PongReceived,
    Started,
)
from teale_proto.rng import Rng
from teale_proto.wire.binary import DATA

REGISTRATION_BYTES: Final = 500
"""Of `register` and of `registerProof`, on average."""
REGISTRATION_MESSAGES: Final = 2

_TOLD_LATE: Final = (Started, NetworkChanged, ConnectionAccepted, ConnectionOpened)
"""Inputs of which a node's core hears when the work is done, or nearly so."""
_EFFECTS: Final = (*get_args(NodeEffect), *get_args(RelayEffect))
_JSON: Final = b"{"
_HEAD_BYTES: Final = 64
_PART_BITS: Final = 20


class Cost(NamedTuple):
    """What one input costs, in microseconds."""

    cpu_us: float
    latency_us: float = 0.0
    """What passes besides, until the program is allowed to run."""
    early_us: float = 0.0
    """How much of the processor time is spent before the core has the input: on waking, and on handshakes, of which it
    hears when they are done."""

    @property
    def us(self) -> float:
        """How long it takes in all."""
        return self.cpu_us + self.latency_us

    def busy(self, scatter: "Scatter | None" = None) -> Busy:
        """Return how long that keeps a host busy, by chance longer or shorter than usual where there is `scatter`."""
        factor = 1.0 if scatter is None else scatter.factor(self.us)
        early_us = self.early_us + self.latency_us
        return Busy(round(factor * early_us), round(factor * (self.cpu_us - self.early_us)))


class Scatter:
    """By how much things take longer or shorter than they usually do.

    What takes longer than what was measured is disturbed more often, and now one way, now the other: what takes a
    hundred times as long deviates by ten times as much time, which is a tenth of its own.
    """

    __slots__ = ("_form", "_measured_us", "_rng", "_spread")

    def __init__(
        self, rng: Rng, *, spread: Sequence[float], drift: Sequence[float], measured_us: float = math.inf
    ) -> None:
        """Draw from two sets of quantiles: `drift` once and for all, `spread` every time.

        `measured_us` is how long that usually took on which `spread` was measured.
        """
        self._rng: Final = rng
        self._spread: Final = spread
        self._measured_us: Final = measured_us
        self._form: Final = _drawn(rng, drift)

    def factor(self, us: float) -> float:
        """Return how many times as long as usual the next thing takes, which usually takes `us` microseconds."""
        drawn = _drawn(self._rng, self._spread)
        if us > self._measured_us:
            drawn = 1 + (drawn - 1) * math.sqrt(self._measured_us / us)
        return self._form * drawn


def _drawn(rng: Rng, quantiles: Sequence[float]) -> float:
    """Return a draw by evenly spaced quantiles, the straight line between two of them."""
    if not quantiles:
        return 1.0
    place, part = divmod(rng.randrange((len(quantiles) - 1) << _PART_BITS), 1 << _PART_BITS)
    return quantiles[place] + (quantiles[place + 1] - quantiles[place]) * part / (1 << _PART_BITS)


class Costed(Protocol):
    """What knows the cost of an input."""

    def cost(self, turn: Turn) -> Cost:
        """Return it; inputs are told in their order."""


class RelayPace:
    """The pace of a relay."""

    __slots__ = ("_last", "_profile", "_scatter")

    def __init__(self, profile: RelayProfile, scatter: Scatter | None = None) -> None:
        """Make the pace of a relay; without `scatter` it is always as slow as usual."""
        self._profile: Final = profile
        self._scatter: Final = scatter
        self._last: ConnectionId = 0

    def __call__(self, turn: Turn) -> Busy:
        """Return how long an input keeps it busy."""
        return self.cost(turn).busy(self._scatter)

    def cost(self, turn: Turn) -> Cost:
        """Return what an input costs."""
        profile, event = self._profile, turn.event
        wake = self._wake(turn)
        early_us = wake.cpu_us
        if isinstance(event, DataReceived):
            cpu_us = self._message_us(event.data)
        elif isinstance(event, MessagesReceived):
            cpu_us = sum(map(self._message_us, event.messages))
        elif isinstance(event, PingReceived):
            # Measured on a busy relay, which has to be woken too.
            cpu_us = max(0.0, profile.ping_us - profile.wake_us) if profile.wakes else profile.ping_us
        elif isinstance(event, ConnectionAccepted):
            cpu_us = self._registration_us()
            early_us += cpu_us
        elif isinstance(event, DatagramReceived):
            cpu_us = max(0.0, profile.stun_us - profile.wake_us)
        else:
            cpu_us = 0.0
        return Cost(cpu_us + wake.cpu_us, wake.latency_us, early_us)

    def _wake(self, turn: Turn) -> Wake:
        """Return what it costs to begin: messages of one connection that stand in line share one turn of the loop."""
        event, last = turn.event, self._last
        is_message = isinstance(event, DataReceived | MessagesReceived)
        if is_message:
            self._last = event.connection  # type: ignore[attr-defined]  # both kinds have one
            if turn.idle == 0 and event.connection == last and self._profile.wakes:  # type: ignore[attr-defined]
                return Wake(0.0, 0.0)
        if self._profile.wakes:
            return woken(self._profile.wakes, turn.idle)
        return Wake(0.0, self._profile.wake_us if is_message else 0.0)

    def _message_us(self, data: bytes) -> float:
        profile = self._profile
        cost_us = profile.forward.us(len(data))
        if not (profile.wakes and data.startswith(_JSON)):
            return cost_us
        if b'"discover"' in data[:_HEAD_BYTES]:
            # How many it lists is not to be seen here.
            return max(cost_us, profile.discover.fixed_us - profile.wake_us)
        return cost_us + profile.control_us

    def _registration_us(self) -> float:
        """Return what is to be charged at once; where every message is charged too, that is not all."""
        profile = self._profile
        if not profile.wakes:
            return profile.registration_us
        messages = profile.forward_us(REGISTRATION_BYTES, alone=True) + profile.control_us
        return max(0.0, profile.registration_us - REGISTRATION_MESSAGES * messages)


class NodePace:
    """The pace of a node."""

    __slots__ = ("_had_quic", "_had_tls", "_over_quic", "_piece_us", "_profile", "_scatter", "_served_us")

    def __init__(self, profile: NodeProfile, scatter: Scatter | None = None, *, has_upstream: bool = False) -> None:
        """Make the pace of a node; with `has_upstream` its model is behind an HTTP server.

        Without `scatter` it is always as slow as usual.
        """
        self._profile: Final = profile
        self._scatter: Final = scatter
        self._had_quic = False
        self._had_tls = False
        self._over_quic = False
        """Whether the last message came over QUIC: answers go where questions came from."""
        self._piece_us: Final = profile.upstream_piece_us if has_upstream else profile.piece_us
        self._served_us: Final = profile.upstream_served_us if has_upstream else profile.served_us

    def __call__(self, turn: Turn) -> Busy:
        """Return how long an input keeps it busy."""
        return self.cost(turn).busy(self._scatter)

    def cost(self, turn: Turn) -> Cost:
        """Return what an input costs."""
        wake = woken(self._profile.wakes, turn.idle) if turn.idle else Wake(0.0, 0.0)
        work_us = self._work_us(turn)
        early_us = wake.cpu_us + (work_us if isinstance(turn.event, _TOLD_LATE) else 0.0)
        return Cost(work_us + wake.cpu_us, wake.latency_us, early_us)

    def _work_us(self, turn: Turn) -> float:
        profile, event = self._profile, turn.event
        if isinstance(event, DataReceived):
            self._over_quic = turn.over is Over.QUIC
            return self._message_us(event.data) + (profile.quic_message_us if turn.over is Over.QUIC else 0.0)
        if isinstance(event, MessagesReceived):
            self._over_quic = False
            return sum(map(self._message_us, event.messages))
        if isinstance(event, ConnectionAccepted | ConnectionOpened):
            return self._connection_us(turn)
        if isinstance(event, Started):
            # A new life: nothing is loaded.
            self._had_quic = self._had_tls = False
            return profile.start_us
        if isinstance(event, NetworkChanged):
            return profile.network_us
        if isinstance(event, Ask):
            return profile.asked_us
        if isinstance(event, GenerationChunk):
            return self._piece_us + (profile.quic_piece_us if self._over_quic else 0.0)
        if isinstance(event, GenerationFinished):
            return self._served_us
        if event is WAKE or isinstance(event, DatagramReceived):
            # A heartbeat to send, or a probe to answer: about as much as a message.
            return profile.message.fixed_us
        return profile.message.fixed_us if isinstance(event, PingReceived | PongReceived | ConnectionClosed) else 0.0

    def _message_us(self, data: bytes) -> float:
        profile = self._profile
        cost_us = profile.message.us(len(data))
        if data.startswith(DATA):
            return cost_us + profile.relayed_us
        if data.startswith(_JSON):
            head = data[:_HEAD_BYTES]
            begins = b'"relayOpen"' in head or b'"relayReady"' in head
            return cost_us + profile.relayed_us + (profile.session_us if begins else 0.0)
        return cost_us

    def _connection_us(self, turn: Turn) -> float:
        profile, more_us = self._profile, 0.0
        if turn.over is Over.TLS:
            more_us = 0.0 if self._had_tls else profile.tls_first_us
            self._had_tls = True
        elif turn.over is Over.QUIC:
            more_us = profile.quic_us + (0.0 if self._had_quic else profile.quic_first_us)
            self._had_quic = True
        return profile.handshake_us + more_us


class Load(NamedTuple):
    """What a program should have used, and for how many messages."""

    cpu_us: float
    messages: int

    @property
    def message_us(self) -> float:
        """Processor time a message."""
        return self.cpu_us / self.messages if self.messages else 0.0


def load_of(pace: Costed, journal: Iterable[tuple[Instant, Value]], *, idle_us: float = 0.0) -> Load:
    """Return what the inputs of one life of a program, with their instants, come to by a profile.

    Effects among them cost nothing, but say which connections a node has opened over QUIC. `idle_us` is what every
    second from the first to the last costs besides. A message is what another program has sent as one, however many
    come at once.
    """
    cpu_us, messages = 0.0, 0
    first: Instant | None = None
    last = free_at = 0.0
    over: dict[ConnectionId, Over] = {}
    for at, event in journal:
        if isinstance(event, _EFFECTS):
            if isinstance(event, Connect) and isinstance(event.target, DirectTarget):
                over[event.connection] = Over.QUIC
            elif isinstance(event, Connect) and is_over_tls(event.target):
                over[event.connection] = Over.TLS
            continue
        if isinstance(event, ConnectionAccepted) and event.direct:
            over[event.connection] = Over.QUIC
        first = at if first is None else first
        idle = max(0, round(at - free_at))
        cost = pace.cost(Turn(event, idle, over.get(getattr(event, "connection", 0), Over.OTHER)))
        cpu_us += cost.cpu_us
        messages += _messages(event)
        free_at = max(free_at, at) + cost.cpu_us
        last = at
    return Load(cpu_us + idle_us * (last - (first or 0)) / 1e6, messages)


def is_over_tls(target: Value) -> bool:
    """Return whether a connection to there is one over TLS."""
    return isinstance(target, WebSocketUrl) and target.url.startswith("wss:")


def _messages(event: Value) -> int:
    if isinstance(event, MessagesReceived):
        return len(event.messages)
    return 1 if isinstance(event, DataReceived) else 0
