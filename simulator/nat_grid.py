"""Every kind of NAT against every other: what the planner predicts for a pair, and what then really happens.

Each cell is a little internet of its own: a STUN server with two addresses, a relay that carries signals, and two
hosts behind their NATs. They find out by themselves what they are behind, make their plan from that and carry it out
with the shipping cores; nothing here tells them. A path counts as open when a datagram has passed along it each way.
"""

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from itertools import count
from typing import Final, NamedTuple, TypeAlias

from simulator.engine import Engine
from simulator.net.datagrams import HOME, AnyCore, DatagramHost, Internet, Realm, Uplink
from simulator.net.nat import FIREWALL, Allocation, NatKind
from simulator.rng import SplitMix64, stream
from teale_proto.contract import MILLISECOND, NEVER, SECOND, Duration, Instant, Value
from teale_proto.effects import CloseSockets, OpenSockets, SendDatagram
from teale_proto.inputs import Address, DatagramReceived, SocketsOpened
from teale_proto.nat import kinds as nat_kinds
from teale_proto.nat.allocation import AllocationSampling, ReportAllocation, SamplingStarted
from teale_proto.nat.behaviour import BehaviourDiscovery, DiscoveryStarted, ReportBehaviour, Setting
from teale_proto.nat.kinds import Behaviour, Filtering
from teale_proto.nat.punch import Punch, PunchSetting
from teale_proto.nat.punch_messages import (
    Candidate,
    PunchStarted,
    ReportOpened,
    ReportRelayed,
    SendSignal,
    SignalReceived,
)
from teale_proto.nat.strategy import DEFAULT_EFFORT, CandidateKind, Effort, PlanKind, Side, plan
from teale_proto.nat.stun_server import StunServer

Stack: TypeAlias = tuple[NatKind, ...]
"""The NATs before a host, the outermost first; none for a public one."""

PRIMARY: Final = Address("192.0.2.1", 3478)
ALTERNATE: Final = Address("198.51.100.1", 3479)
PORT: Final = 40_000
FRESH_PORTS_FROM: Final = 41_000
CELL_TAKES_MAX: Final[Duration] = 600 * SECOND

_EIM, _ADM, _APDM = nat_kinds.Mapping
_RANDOM: Final = NatKind(allocation=Allocation.RANDOM)
_HARD: Final = NatKind(mapping=_APDM, allocation=Allocation.RANDOM)
_SEQUENTIAL: Final = NatKind(mapping=_APDM, allocation=Allocation.SEQUENTIAL)
_CARRIER: Final = NatKind(allocation=Allocation.RANDOM, filtering=Filtering.ENDPOINT_INDEPENDENT)

KINDS: Final[dict[str, Stack]] = {
    "public": (),
    "firewall": (FIREWALL,),
    "EIM+EIF": (NatKind(filtering=Filtering.ENDPOINT_INDEPENDENT),),
    "EIM+ADF": (NatKind(filtering=Filtering.ADDRESS_DEPENDENT),),
    "EIM+APDF": (NatKind(),),
    "EIM+APDF random": (_RANDOM,),
    "small table": (NatKind(sessions_max=64),),
    "ADM+ADF": (NatKind(mapping=_ADM, filtering=Filtering.ADDRESS_DEPENDENT, allocation=Allocation.RANDOM),),
    "APDM+APDF": (_HARD,),
    "APDM sequential": (_SEQUENTIAL,),
    "carrier over home": (_CARRIER, NatKind()),
    "UDP blocked": (NatKind(udp_blocked=True),),
}
"""The twelve kinds that the lab on real kernels is to have too."""

EIGHT: Final[dict[str, Stack]] = {
    name: KINDS[name]
    for name in (
        "public",
        "EIM+EIF",
        "EIM+ADF",
        "EIM+APDF",
        "APDM+APDF",
        "APDM sequential",
        "carrier over home",
        "UDP blocked",
    )
}
"""The eight of the usual grid."""


class Outcome(Enum):
    """How a pair ended up talking."""

    DIRECT = "direct"
    PUNCHED = "punched"
    PREDICTED = "predicted"
    BIRTHDAY = "birthday"
    RELAYED = "relayed"


_OUTCOMES: Final = {
    PlanKind.DIRECT: Outcome.DIRECT,
    PlanKind.PUNCH: Outcome.PUNCHED,
    PlanKind.PREDICTION: Outcome.PREDICTED,
    PlanKind.BIRTHDAY: Outcome.BIRTHDAY,
    PlanKind.RELAY: Outcome.RELAYED,
}


class Conditions(Value):
    """What all cells have in common."""

    seed: int = 1
    latency: Duration = 20 * MILLISECOND
    """One way, between a site and the middle of the internet; two sites are twice as far from each other."""
    loss: float = 0.0
    """The chance that a site's line loses a packet, each way."""
    relay_latency: Duration | None = None
    """What a signal takes from peer to peer; by default as long as a datagram."""
    birthday: bool = False
    """Whether both sides may guess ports."""
    effort: Effort = DEFAULT_EFFORT


class Cell(Value):
    """One ordered pair of kinds; `ours` is the initiator's."""

    ours: str
    theirs: str
    predicted: Outcome
    """What the plan was before anything was tried."""
    reason: str
    chance: float
    outcome: Outcome
    carries: bool
    """Whether a datagram passed along the open path each way; False for a relayed one."""
    attempts: int
    time_to_open: Duration | None
    """From the start until both sides had the path; None for a relayed one."""
    probes_sent: int
    """By both sides together, whatever came of them."""


class Grid(Value):
    """All cells, row by row."""

    kinds: tuple[str, ...]
    conditions: Conditions
    cells: tuple[Cell, ...]

    def cell(self, ours: str, theirs: str) -> Cell:
        """Return one cell; raises KeyError for a kind that is not in the grid."""
        for each in self.cells:
            if (each.ours, each.theirs) == (ours, theirs):
                return each
        raise KeyError((ours, theirs))

    @property
    def text(self) -> str:
        """The outcomes as a table; `!` marks what the plan did not predict, the number is milliseconds to open."""
        body = [[ours, *(_shown(self.cell(ours, theirs)) for theirs in self.kinds)] for ours in self.kinds]
        rows = [["", *self.kinds], *body]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        padded = (
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
        )
        return "\n".join(padded)


def run_grid(kinds: Mapping[str, Stack] = EIGHT, conditions: Conditions | None = None) -> Grid:
    """Let every kind meet every kind, itself included; everything follows from the seed."""
    conditions = conditions or Conditions()
    cells = tuple(run_cell((a, kinds[a]), (b, kinds[b]), conditions) for a in kinds for b in kinds)
    return Grid(tuple(kinds), conditions, cells)


def run_cell(ours: tuple[str, Stack], theirs: tuple[str, Stack], conditions: Conditions, *, shared: int = 0) -> Cell:
    """Let two hosts meet; the `shared` outermost NATs of the first are the second's too, in place of its own."""
    meeting = _Meeting(ours, theirs, conditions, shared)
    meeting.run(lambda: all(station.side for station in meeting.stations))
    first, second = meeting.stations
    assert first.side is not None, "a discovery always ends"
    assert second.side is not None, "a discovery always ends"
    expected = plan(first.side, second.side, effort=conditions.effort)
    started_at = meeting.engine.now
    meeting.meet()
    meeting.run(lambda: first.settled and second.settled)
    opened = [station.opened for station in meeting.stations]
    carries = all(opened) and meeting.carries()
    report = opened[0][1] if opened[0] else None
    last_at = max((entry[0] for entry in opened if entry), default=started_at)
    return Cell(
        ours[0],
        theirs[0],
        _OUTCOMES[expected.kind],
        expected.reason,
        expected.chance,
        _OUTCOMES[report.plan.kind] if report and all(opened) else Outcome.RELAYED,
        carries,
        report.attempt if report else first.attempts,
        last_at - started_at if all(opened) else None,
        sum(station.probes_sent for station in meeting.stations),
    )


# The hosts.


class Observe(Value):
    """Told to a station: find out what you are behind."""


class Meet(Value):
    """Told to a station: open a path to your peer."""

    initiator: bool
    secret: bytes


class Say(Value):
    """Told to a station: send this along the open path."""

    data: bytes


class Station:
    """A host's core made of the shipping ones: it observes, then punches; it does for them what a driver would do."""

    def __init__(self, local: Address, conditions: Conditions, outside: str, rng: SplitMix64) -> None:
        self.side: Side | None = None
        self.opened: tuple[Instant, ReportOpened] | None = None
        self.settled = False
        """Whether it is known how the peer is reached."""
        self.attempts = 0
        self.heard: list[bytes] = []
        self.tell: Callable[[SendSignal], None] = _tell_nobody
        self._local = local
        self._conditions = conditions
        self.outside: Final = outside
        """Where the relay sees it come from."""
        self._rng = rng
        self._fresh_ports = count(FRESH_PORTS_FROM, 2)
        self._ports: dict[int, None] = {local.port: None}
        self._core: AnyCore | None = None
        self._behaviour: Behaviour | None = None
        self._punch: Punch | None = None

    @property
    def deadline(self) -> Instant:
        """That of the core at work."""
        return self._core.deadline if self._core else NEVER

    @property
    def probes_sent(self) -> int:
        """How many datagrams its punch has sent to the peer."""
        return self._punch.sent if self._punch else 0

    def handle(self, event: Value, now: Instant) -> Sequence[SendDatagram]:
        """Pass an input on to the core at work, and carry out all but the datagrams."""
        out: list[SendDatagram] = []
        match event:
            case Observe():
                setting = Setting(self._local, PRIMARY)
                self._core = BehaviourDiscovery(setting, self._rng)
                self._run(DiscoveryStarted(), now, out)
            case Meet():
                self._meet(event, now, out)
            case Say():
                assert self.opened is not None, "there is a path to say it along"
                path = self.opened[1]
                out.append(SendDatagram(path.local, path.remote, event.data))
            case DatagramReceived() if event.local.port not in self._ports:
                pass
            case DatagramReceived() if self.opened and _ends(event) == _ends(self.opened[1]):
                self.heard.append(event.data)
            case _:
                self._run(event, now, out)
        return out

    def _run(self, event: Value, now: Instant, out: list[SendDatagram]) -> None:
        if self._core is None:
            return
        for effect in self._core.handle(event, now):
            if isinstance(effect, SendDatagram):
                assert effect.local.port in self._ports, "it sends through sockets that are open"
                out.append(effect)
            else:
                self._carry_out(effect, now, out)

    def _carry_out(self, effect: Value, now: Instant, out: list[SendDatagram]) -> None:
        match effect:
            case ReportBehaviour():
                self._behaviour = effect.behaviour
                if effect.behaviour.mapping_varies:
                    self._sample(now, out)
                else:
                    self._observed(None)
            case ReportAllocation():
                self._observed(effect)
            case SendSignal():
                self.tell(effect)
            case OpenSockets():
                self._run(SocketsOpened(effect.request, self._open(effect.count)), now, out)
            case CloseSockets():
                for port in effect.ports:
                    del self._ports[port]
            case ReportOpened():
                self.opened, self.settled = (now, effect), True
            case ReportRelayed():
                self.settled, self.attempts = True, effect.attempts

    def _open(self, number: int) -> tuple[int, ...]:
        ports = tuple(next(self._fresh_ports) for _ in range(number))
        self._ports.update(dict.fromkeys(ports))
        return ports

    def _sample(self, now: Instant, out: list[SendDatagram]) -> None:
        sockets = [Address(self._local.host, port) for port in self._open(2)]
        servers = StunServer(PRIMARY, ALTERNATE).endpoints[:3]
        self._core = AllocationSampling(sockets, servers, self._rng)
        self._run(SamplingStarted(), now, out)

    def _observed(self, sampled: ReportAllocation | None) -> None:
        assert self._behaviour is not None, "the behaviour is asked about first"
        self._core = None
        allocation = sampled.allocation if sampled else None
        allowed = self._conditions.birthday
        self.side = Side(self._behaviour, allocation, outside=self.outside, birthday_allowed=allowed)

    def _meet(self, event: Meet, now: Instant, out: list[SendDatagram]) -> None:
        assert self.side is not None, "what is around is known before"
        candidates = [Candidate(CandidateKind.HOST, self._local)]
        if self.side.behaviour.mapped is not None:
            candidates.append(Candidate(CandidateKind.REFLEXIVE, self.side.behaviour.mapped))
        setting = PunchSetting(
            event.initiator, (self._local,), self.side, tuple(candidates), PRIMARY, self._conditions.effort
        )
        self._core = self._punch = Punch(setting, event.secret, self._rng)
        if event.initiator:
            self._run(PunchStarted(), now, out)


# The little internet of one cell; all that is used of the simulated network is here.


class _Site(NamedTuple):
    """Where a host is: the realms around it from the outermost in, its address, and the one that the relay sees."""

    levels: tuple[Realm, ...]
    address: str
    outside: str


class _Meeting:
    def __init__(self, ours: tuple[str, Stack], theirs: tuple[str, Stack], conditions: Conditions, shared: int) -> None:
        self.engine = Engine()
        # A cell is the same whichever other kinds are in the grid.
        seed = stream(conditions.seed, f"{ours[0]} x {theirs[0]}", "cell").next64()
        self._internet = Internet(self.engine, seed=seed)
        self._line = Uplink(latency=conditions.latency, loss=conditions.loss)
        self._relay_latency = conditions.relay_latency
        if self._relay_latency is None:
            self._relay_latency = 2 * conditions.latency
        self._secret = stream(seed, "session", "secret").randbytes(32)
        self.stations: list[Station] = []
        self._hosts: list[DatagramHost] = []
        server = StunServer(PRIMARY, ALTERNATE)
        self._internet.add_host("stun", [PRIMARY.host, ALTERNATE.host], server, uplink=self._line)
        self._sites: list[_Site] = []
        for number, stack in enumerate((ours[1], theirs[1]), 1):
            behind = self._sites[0].levels[:shared] if number == 2 else ()
            site = self._add_site(number, stack[len(behind) :], behind)
            self._sites.append(site)
            self._add_station(conditions, site)
        self._join()
        for host in self._hosts:
            host.feed(Observe())

    def _add_site(self, number: int, stack: Stack, behind: Sequence[Realm]) -> "_Site":
        """Add a stack of NATs, inside levels that are there already."""
        levels = list(behind)
        outside = self._sites[0].outside if behind else f"203.0.113.{number}"
        # Whoever comes second to a level gets the next address in it.
        address = f"10.{len(behind) - 1}.1.3" if behind else outside
        for kind in stack:
            depth = len(levels)
            faces = (address,) if kind.translates else ()
            parent = levels[-1] if levels else None
            line = HOME if levels else self._line
            levels.append(self._internet.add_realm(f"site {number}.{depth}", kind, faces, behind=parent, uplink=line))
            if kind.translates:
                address = f"10.{depth}.{number}.2"
        return _Site(tuple(levels), address, outside)

    def _add_station(self, conditions: Conditions, site: "_Site") -> None:
        name = f"host {1 + len(self.stations)}"
        local = Address(site.address, PORT + 100 * len(self.stations))
        station = Station(local, conditions, site.outside, self._internet.entropy(name))
        realm, line = (site.levels[-1], HOME) if site.levels else (None, self._line)
        self.stations.append(station)
        self._hosts.append(self._internet.add_host(name, [site.address], station, realm=realm, uplink=line))

    def _join(self) -> None:
        """Let the relay carry signals between the two, and vouch for where they come from."""
        for number, station in enumerate(self.stations):
            station.tell = self._relay(self._hosts[1 - number], station)

    def _relay(self, to: DatagramHost, sender: Station) -> Callable[[SendSignal], None]:
        latency, engine, outside = self._relay_latency, self.engine, sender.outside
        assert latency is not None, "set when the cell is made"

        def tell(effect: SendSignal) -> None:
            engine.call_at(engine.now + latency, to.feed, SignalReceived(effect.signal, outside))

        return tell

    def meet(self) -> None:
        """Make the second host ready, and let the first one begin."""
        for number in (1, 0):
            self._hosts[number].feed(Meet(initiator=number == 0, secret=self._secret))

    def run(self, until: Callable[[], object]) -> None:
        """Let time pass until something holds; it is always reached in CELL_TAKES_MAX."""
        ends_at = self.engine.now + CELL_TAKES_MAX
        while not until():
            assert self.engine.now < ends_at, "whatever is begun here comes to an end"
            self.engine.run_until(self.engine.now + 100 * MILLISECOND)

    def carries(self) -> bool:
        """Return whether something comes through both ways, of ten datagrams each."""
        for _ in range(10):
            for host in self._hosts:
                host.feed(Say(b"data"))
            self.engine.run_until(self.engine.now + 50 * MILLISECOND)
        self.engine.run_until(self.engine.now + 5 * SECOND)
        return all(b"data" in station.heard for station in self.stations)


def _ends(of: DatagramReceived | ReportOpened) -> tuple[Address, Address]:
    return of.local, of.remote


def _tell_nobody(_effect: SendSignal) -> None:
    raise AssertionError("a station is joined to its peer before it speaks")


def _shown(cell: Cell) -> str:
    took = "" if cell.time_to_open is None else f" {cell.time_to_open // MILLISECOND}"
    return f"{cell.outcome.value}{took}{'' if cell.outcome is cell.predicted else ' !'}"
