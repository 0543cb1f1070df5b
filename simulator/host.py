"""A host: the simulator's driver for one core.

It knows the core by `handle` and `deadline` and by nothing else: it feeds inputs, performs effects in order,
and keeps one wake-up armed. What the real drivers do with sockets and clocks, this does with a network and an
engine that exist in virtual time, and it may also crash and come back with a new core. A host may have a wrong clock,
by which its core then lives, and be slow: inputs then wait in line (`simulator.turns`). The trace has them when they
are served.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, ClassVar, Final, TypeAlias

from simulator.backend import CostModel, SimulatedBackend
from simulator.clock import TRUE_CLOCK, Clock
from simulator.engine import Engine
from simulator.events import CoreMisused, Crash, HostCrashed, HostMoved, HostStarted, HostStopped
from simulator.journal import AnyCore, Step
from simulator.net.connection import EndOfConnection, Kind, State
from simulator.net.link import Link
from simulator.net.machine import HostPort, Machine
from simulator.net.network import Network
from simulator.net.quic_end import QuicEnd
from simulator.net.quic_packets import QUIC_BIT
from simulator.net.site import Site
from simulator.net.sockets import UdpSockets
from simulator.rng import SplitMix64, stream
from simulator.trace import Trace
from simulator.turns import Line, Over, Pace
from simulator.upnp import UpnpClient
from teale_proto.contract import NEVER, SECOND, Duration, Instant, Value
from teale_proto.effects import (
    Advertise,
    CancelGeneration,
    CloseConnection,
    CloseSockets,
    Connect,
    DirectTarget,
    ExpectPeer,
    MapPort,
    OpenSockets,
    SendData,
    SendDatagram,
    SendPing,
    SendText,
    StartGeneration,
    UnmapPort,
)
from teale_proto.inputs import (
    WAKE,
    Address,
    ConnectFailed,
    ConnectionAccepted,
    ConnectionClosed,
    ConnectionId,
    ConnectionOpened,
    DatagramReceived,
    DataReceived,
    NetworkChanged,
    PingReceived,
    PongReceived,
    ServiceFound,
    ServiceLost,
    ServiceRecord,
    SocketsOpened,
    StopRequested,
)

CoreFactory: TypeAlias = Callable[[SplitMix64, Instant], AnyCore]
"""Makes the core of one life of a host, from its entropy and the instant, by its own clock, at which that begins."""


Surroundings: TypeAlias = Callable[[Machine], NetworkChanged | None]
"""What the system of a host says about the network that it is in; None where there is nothing to say."""

NETWORK_NOTICED: Final[Duration] = SECOND
"""How long after a change of its own address a host tells its core; of what NATs do, it hears nothing at all."""


class CoreError(Exception):
    """A core raised where the laws say that it never does; the cause is what it raised."""


_NO_STEPS: Final[list[list[Step]]] = []


class Host:
    """One machine with one core on it.

    `birth` are the inputs that a core is fed at the start of each life; it listens at `ports`. With `journal`,
    everything that goes in and out is kept in `steps`, one list a life.
    Without a trace nothing is recorded. With `sockets` it hears only what comes to these, and speaks QUIC on them;
    with `surroundings`, its core is told about its network at the start of each life and after each move.
    """

    __slots__ = (
        "_accepted",
        "_armed_at",
        "_backend",
        "_birth",
        "_clock",
        "_core",
        "_cost",
        "_ends",
        "_engine",
        "_line",
        "_models",
        "_network",
        "_only",
        "_ports",
        "_seed",
        "_surroundings",
        "_trace",
        "_upnp",
        "_wrap",
        "lives",
        "machine",
        "make_core",
        "steps",
    )

    def __init__(
        self,
        name: str,
        engine: Engine,
        network: Network,
        trace: Trace | None,
        core: CoreFactory,
        *,
        seed: int,
        birth: Iterable[Value] = (),
        cost: CostModel | None = None,
        models: tuple[str, ...] = (),
        ports: tuple[int, ...] = (),
        journal: bool = False,
        clock: Clock = TRUE_CLOCK,
        pace: Pace | None = None,
        sockets: UdpSockets | None = None,
        surroundings: Surroundings | None = None,
    ) -> None:
        self.machine = Machine(name)
        self.machine.owner = self
        self.machine.sockets = sockets
        self._surroundings = surroundings
        self.lives = 0
        self.steps: list[list[Step]] = [] if journal else _NO_STEPS
        self._engine = engine
        self._network = network
        self._trace = trace
        self.make_core = core
        """Makes the core of each life."""
        self._wrap: Callable[[AnyCore], AnyCore] | None = None
        self._seed = seed
        self._birth = tuple(birth)
        self._ports = ports
        self._clock = None if clock == TRUE_CLOCK else clock
        self._line: Line | None = None
        self.pace = pace
        self._core: AnyCore | None = None
        self._armed_at: Instant = NEVER
        # Most hosts have one connection, which needs no dict.
        self._only: EndOfConnection | None = None
        self._ends: dict[ConnectionId, EndOfConnection] | None = None
        self._accepted: ConnectionId = 0
        self._backend: SimulatedBackend | None = None
        self._upnp: UpnpClient | None = None
        self._cost = cost
        self._models = models

    @property
    def name(self) -> str:
        """What it is called, in the trace and by scenarios."""
        return self.machine.name

    @property
    def alive(self) -> bool:
        """Whether a core is being driven."""
        return self._core is not None

    @property
    def core(self) -> AnyCore | None:
        """The core of this life, to be read and never written, or None while the host is dead."""
        return self._core

    @property
    def addresses(self) -> tuple[str, ...]:
        """All its addresses, in the order of its attachments."""
        return tuple(address for port in self.machine.ports for address in port.addresses)

    @property
    def site(self) -> Site | None:
        """The site that it is in, or None where it is attached to a root."""
        return next((port.site for port in self.machine.ports if port.site.parent is not None), None)

    @property
    def clock(self) -> Clock:
        """Its own clock."""
        return self._clock or TRUE_CLOCK

    def new_core(self, life: int, now: Instant) -> AnyCore:
        """Return a core as the given life has or had it at its beginning, `now`; `replay` can feed it a journal."""
        core = self.make_core(self.entropy(life), now)
        return core if self._wrap is None else self._wrap(core)

    def wrap_cores(self, wrap: Callable[[AnyCore], AnyCore]) -> None:
        """Have the core of every later life be what `wrap` makes of it: for tests that plant a bug."""
        self._wrap = wrap

    def entropy(self, life: int) -> SplitMix64:
        """Return the random stream that the core of the given life is made with."""
        return stream(self._seed, self.name, f"core {life}")

    def start(self) -> None:
        """Begin a life: a new core, new entropy, nothing remembered."""
        assert self._core is None, f"{self.name} is alive"
        self.lives += 1
        self._accepted = 0
        if self.steps is not _NO_STEPS:
            self.steps.append([])
        self._record(HostStarted(self.lives))
        self._core = self.new_core(self.lives, self._now())
        self._network.start(self.machine)
        if self.machine.sockets is not None:
            self.machine.sockets.reset()
        for port in self._ports:
            self._network.listen(self.machine, port)
        for event in self._birth:
            self.feed(event)
        self._tell_network(self.lives, self.machine.ports)
        self._arm()

    def feed(self, event: Value) -> None:
        """Give the core one input, now or when its turn comes, and perform what it answers; a dead host hears nothing.

        Raises CoreError, with the core's error as its cause, when the core raises.
        """
        self._hear(None, event)

    def crash(self, how: Crash) -> None:
        """Die at once: the core is dropped, whatever it was doing."""
        assert self._core is not None, f"{self.name} is dead already"
        self._record(HostCrashed(how))
        self._end_life()
        self._network.crash(self.machine, silently=how is Crash.VANISH)

    def stop(self) -> None:
        """End properly: the core says good-bye, however much is waiting, then the process closes what is still open."""
        assert self._core is not None, f"{self.name} is dead already"
        self._serve(None, StopRequested())
        self._record(HostStopped())
        self._end_life()
        self._network.stop(self.machine)

    def move(self, site: Site, addresses: tuple[str, ...], link: Link) -> None:
        """Be attached to a site, and to nothing else, from now on; a core that cares for networks is told soon."""
        self._network.move(self.machine, site, addresses, link)
        self._record(HostMoved(site.name, addresses))
        at = self._engine.now + NETWORK_NOTICED
        if self._surroundings is not None:
            self._engine.call_at(at, self._tell_network, self.lives, self.machine.ports)

    def _tell_network(self, life: int, ports: tuple[HostPort, ...]) -> None:
        """Tell the core about the network, unless it has begun another life or gone elsewhere since."""
        if self._surroundings is not None and life == self.lives and ports is self.machine.ports:
            changed = self._surroundings(self.machine)
            if changed is not None:
                self.feed(changed)

    def drift(self, rate_ppm: int) -> None:
        """Have the clock run at another rate from now on."""
        self._clock = self.clock.drifting(rate_ppm, self._engine.now)
        if self._armed_at:
            # The alarm that is set may ring at another time than the core meant.
            self._armed_at = NEVER
        self._arm()

    @property
    def pace(self) -> Pace | None:
        """How long inputs keep it busy; None is no time at all."""
        return None if self._line is None else self._line.pace

    @pace.setter
    def pace(self, pace: Pace | None) -> None:
        """Be slow from now on, or, with None, quick again once what is waiting has been served."""
        if self._line is None and pace is not None:
            self._line = Line(self._engine, self)
        if self._line is not None:
            self._line.pace = pace

    # What the network tells, made into inputs.

    def accepted(
        self, end: EndOfConnection, remote: Address, local: Address, host: str, *, direct: bool = False
    ) -> None:
        """Number an accepted connection with the next even id."""
        self._accepted += 2
        end.id = self._accepted
        self._keep(end)
        self._hear(end, ConnectionAccepted(end.id, remote, local, host, direct))

    def opened(self, end: EndOfConnection) -> None:
        """Pass on that a connection is open."""
        self._hear(end, ConnectionOpened(end.id))

    def failed(self, end: EndOfConnection, reason: str) -> None:
        """Pass on that a connection could not be opened."""
        self._hear(end, ConnectFailed(end.id, reason))

    def received(self, end: EndOfConnection, data: bytes) -> None:
        """Pass on what came in."""
        self._hear(end, DataReceived(end.id, data))

    def pinged(self, end: EndOfConnection) -> None:
        """Pass on a ping."""
        self._hear(end, PingReceived(end.id))

    def ponged(self, end: EndOfConnection) -> None:
        """Pass on a pong."""
        self._hear(end, PongReceived(end.id))

    def closed(self, end: EndOfConnection, reason: str) -> None:
        """Pass on that a connection ended."""
        self._hear(end, ConnectionClosed(end.id, reason))

    def datagram(self, local: Address, remote: Address, data: bytes) -> None:
        """Pass on a datagram; QUIC's are for the host itself, and what is for no socket is dropped."""
        sockets = self.machine.sockets
        if sockets is not None:
            if local.port not in sockets:
                return
            if data and data[0] & QUIC_BIT:
                self._network.receive_quic(self.machine, local, remote, data)
                return
        self._hear(None, DatagramReceived(local, remote, data))

    def found(self, name: str, record: ServiceRecord, addresses: tuple[Address, ...]) -> None:
        """Pass on an advertisement."""
        self._hear(None, ServiceFound(name, record, addresses))

    def lost(self, name: str) -> None:
        """Pass on that an advertisement is gone."""
        self._hear(None, ServiceLost(name))

    # One input after the other.

    def _hear(self, end: EndOfConnection | None, event: Value) -> None:
        """Serve an input, of a connection or not, at once or after those that wait."""
        if end is not None and end.id < 0:
            self._upnp_client.hear(end, event)
        elif self._line is None or not self._waits(self._line):
            self._serve(end, event)
        elif self._core is not None:
            self._wait(end, event)

    def _waits(self, line: Line) -> bool:
        """Return whether what comes in is to wait in line for its turn; a line that has come to its end is given up."""
        if line.pace is None and line.is_idle:
            self._line = None
        return self._line is not None

    def _wait(self, end: EndOfConnection | None, event: Value) -> None:
        assert self._line is not None, "who does not take time serves at once"
        over = Over.QUIC if isinstance(end, QuicEnd) else Over.OTHER
        if end is not None and end.kind is Kind.SECURE_WEBSOCKET:
            over = Over.TLS
        self._line.wait(end, event, over)

    def serve(self, by: EndOfConnection | None, event: Value) -> None:
        """Give the core an input whose turn has come."""
        core = self._core
        assert core is not None, "what waits is dropped with the life that it waits for"
        if event is not WAKE:
            self._serve(by, event)
            return
        self._armed_at = NEVER
        if core.deadline <= self._now():
            self._serve(None, WAKE)
            self._let_time_go_on(core)
        self._arm()

    def _serve(self, end: EndOfConnection | None, event: Value) -> None:
        """Give the core one input now, and perform what it answers."""
        core = self._core
        if core is None:
            return
        if end is not None and self._end(end.id) is not end:
            # The core has closed it while this was waiting.
            return
        if isinstance(event, ConnectFailed | ConnectionClosed):
            self._drop(event.connection)
        self._feed(core, event)

    def _feed(self, core: AnyCore, event: Value) -> None:
        now = self._now()
        self._record(event)
        try:
            effects = core.handle(event, now)
        except Exception as error:
            raise CoreError(
                f"the core of {self.name} raised at {now} µs on {type(event).__name__}: {error!r}"
            ) from error
        if self.steps is not _NO_STEPS:
            self.steps[-1].append(Step(now, event, tuple(effects)))
        if self._line is not None:
            for effect in effects:
                self._record(effect)
            self._line.take(effects)
        else:
            for effect in effects:
                self._record(effect)
                self._perform(effect)
        self._arm()

    # What the core wants done.

    def perform(self, effects: Iterable[Value]) -> None:
        """Perform what the core answered to an input."""
        for effect in effects:
            self._perform(effect)

    def _perform(self, effect: Value) -> None:
        perform = self._PERFORMERS.get(type(effect))
        if perform is not None:
            perform(self, effect)
        elif not type(effect).__name__.startswith("Report"):
            self._misused(f"no driver performs {type(effect).__name__}")

    def _connect(self, effect: Connect) -> None:
        if effect.connection % 2 == 0 or self._end(effect.connection) is not None:
            self._misused(f"connection {effect.connection} is not a free odd number")
            return
        if isinstance(effect.target, DirectTarget) and not self._has_socket(effect.target.local.port):
            self._misused(f"Connect from port {effect.target.local.port}, where no UDP socket is open")
            return
        self._keep(self._network.connect(self.machine, effect.connection, effect.target))

    def _send(self, effect: SendData | SendText) -> None:
        end = self._open_end(effect)
        if end is None:
            return
        if isinstance(effect, SendText) and end.kind is Kind.STREAM:
            self._misused(f"SendText on connection {effect.connection}, which is a stream")
        else:
            end.send(effect.data)

    def _ping(self, effect: SendPing) -> None:
        end = self._open_end(effect)
        if end is None:
            return
        if end.kind is Kind.STREAM:
            self._misused(f"SendPing on connection {effect.connection}, which is a stream")
        else:
            end.ping()

    def _close(self, effect: CloseConnection) -> None:
        end = self._end(effect.connection)
        if end is None:
            self._misused(f"CloseConnection on connection {effect.connection}, which does not exist")
            return
        self._drop(effect.connection)
        if end.state is not State.CLOSED:
            end.close(effect.reason)

    def _datagram(self, effect: SendDatagram) -> None:
        port = self.machine.port_of(effect.local.host)
        if not self._has_socket(effect.local.port):
            self._misused(f"SendDatagram from port {effect.local.port}, where no UDP socket is open")
        elif port is not None:
            hop_limit = effect.hop_limit
            self._network.send_datagram(port, effect.local, effect.remote, effect.data, hop_limit=hop_limit)
        elif effect.local.host not in self.machine.former:
            self._misused(f"SendDatagram from {effect.local.host}, which is no address of this host")

    def _has_socket(self, port: int) -> bool:
        sockets = self.machine.sockets
        return sockets is None or port in sockets

    def _open_sockets(self, effect: OpenSockets) -> None:
        sockets = self.machine.sockets
        ports = () if sockets is None else sockets.open(effect.count)
        opened = SocketsOpened(effect.request, ports)
        # As an input of its own, and never from inside the call that asked for it.
        self._engine.call_at(self._engine.now, self._feed_in, self.lives, opened)

    def _feed_in(self, life: int, event: Value) -> None:
        if life == self.lives:
            self.feed(event)

    def _close_sockets(self, effect: CloseSockets) -> None:
        sockets = self.machine.sockets
        for port in effect.ports:
            if sockets is None or port in sockets.lasting or not sockets.close(port):
                self._misused(f"CloseSockets of port {port}, which was not opened on request")

    @property
    def _upnp_client(self) -> UpnpClient:
        if self._upnp is None:
            feed = partial(self._feed_in, self.lives)
            self._upnp = UpnpClient(self._engine, self._network, self.machine, feed)
        return self._upnp

    def _map_port(self, effect: MapPort) -> None:
        self._upnp_client.map(effect)

    def _unmap_port(self, effect: UnmapPort) -> None:
        self._upnp_client.unmap(effect)

    def _expect_peer(self, effect: ExpectPeer) -> None:
        """Do nothing: here nobody who opens QUIC has to show where he is."""

    def _advertise(self, effect: Advertise) -> None:
        self._network.advertise(self.machine, effect.record)

    def _start_generation(self, effect: StartGeneration) -> None:
        if self._backend is None:
            rng = stream(self._seed, self.name, "backend")
            self._backend = SimulatedBackend(self._engine, rng, self._cost or CostModel(), self.feed)
            self._backend.models = self._models
        self._backend.start(effect)

    def _cancel_generation(self, effect: CancelGeneration) -> None:
        if self._backend is not None:
            self._backend.cancel(effect.job)

    _PERFORMERS: ClassVar[dict[type[Value], Callable[[Any, Any], None]]] = {
        Connect: _connect,
        SendData: _send,
        SendText: _send,
        SendPing: _ping,
        CloseConnection: _close,
        SendDatagram: _datagram,
        OpenSockets: _open_sockets,
        CloseSockets: _close_sockets,
        MapPort: _map_port,
        UnmapPort: _unmap_port,
        ExpectPeer: _expect_peer,
        Advertise: _advertise,
        StartGeneration: _start_generation,
        CancelGeneration: _cancel_generation,
    }

    def _open_end(self, effect: SendData | SendText | SendPing) -> EndOfConnection | None:
        end = self._end(effect.connection)
        if end is None or end.state is State.CONNECTING:
            self._misused(f"{type(effect).__name__} on connection {effect.connection}, which is not open")
            return None
        # Where it has ended already and the core is yet to hear of it, what it sends is lost.
        return end if end.state is State.OPEN else None

    def _end(self, connection: ConnectionId) -> EndOfConnection | None:
        if self._ends is not None:
            return self._ends.get(connection)
        only = self._only
        return only if only is not None and only.id == connection else None

    def _keep(self, end: EndOfConnection) -> None:
        if self._ends is not None:
            self._ends[end.id] = end
        elif self._only is None:
            self._only = end
        else:
            self._ends = {self._only.id: self._only, end.id: end}
            self._only = None

    def _drop(self, connection: ConnectionId) -> None:
        if self._ends is not None:
            self._ends.pop(connection, None)
        elif self._only is not None and self._only.id == connection:
            self._only = None

    # Waking, and the end.

    def _now(self) -> Instant:
        now = self._engine.now
        return now if self._clock is None else self._clock.local(now)

    def _arm(self) -> None:
        core = self._core
        if core is None:
            return
        deadline = core.deadline
        if self._clock is not None:
            deadline = self._clock.true(deadline)
        if deadline < self._armed_at:
            self._armed_at = max(deadline, self._engine.now)
            self._engine.call_at(self._armed_at, Host._wake, self, self.lives)

    def _wake(self, life: int) -> None:
        core, now = self._core, self._engine.now
        # An alarm that was overtaken by an earlier one finds another instant armed, and does nothing.
        if core is None or life != self.lives or now != self._armed_at:
            return
        self._armed_at = NEVER
        if core.deadline > self._now():
            self._arm()
        elif self._line is None or not self._waits(self._line):
            self._serve(None, WAKE)
            self._let_time_go_on(core)
        else:
            # Nothing is earlier than this: one such input waits at a time.
            self._armed_at = 0
            self._wait(None, WAKE)

    def _let_time_go_on(self, core: AnyCore) -> None:
        now = self._now()
        if core is self._core and core.deadline <= now:
            raise CoreError(f"the core of {self.name} asks at {now} µs to be woken again at once")

    def _end_life(self) -> None:
        self._core = None
        self._armed_at = NEVER
        self._only = self._ends = None
        self._upnp = None
        if self._line is not None:
            self._line.drop()
        if self._backend is not None:
            self._backend.clear()

    def _misused(self, what: str) -> None:
        self._record(CoreMisused(what))

    def _record(self, value: Value) -> None:
        if self._trace is not None:
            self._trace.record(self._engine.now, self.machine.name, value)
