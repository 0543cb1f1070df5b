"""A host: the simulator's driver for one core.

It knows the core by `handle` and `deadline` and by nothing else: it feeds inputs, performs effects in order,
and keeps one wake-up armed. What the real drivers do with sockets and clocks, this does with a network and an
engine that exist in virtual time, and it may also crash and come back with a new core.
"""

from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, ClassVar, Final, NamedTuple, TypeAlias

from simulator.backend import CostModel, SimulatedBackend
from simulator.engine import Engine
from simulator.net.connection import End, Kind, Machine, State
from simulator.net.network import Network
from simulator.rng import SplitMix64, stream
from simulator.trace import Trace
from teale_proto.contract import NEVER, Core, Instant, Value
from teale_proto.effects import (
    Advertise,
    CancelGeneration,
    CloseConnection,
    Connect,
    SendData,
    SendPing,
    SendText,
    StartGeneration,
)
from teale_proto.inputs import (
    WAKE,
    Address,
    ConnectFailed,
    ConnectionAccepted,
    ConnectionClosed,
    ConnectionId,
    ConnectionOpened,
    DataReceived,
    PingReceived,
    PongReceived,
    ServiceFound,
    ServiceLost,
    ServiceRecord,
    StopRequested,
)

AnyCore: TypeAlias = Core[Any, Value]
"""A node or a relay. What it can be fed differs, and only scenarios, which know which it is, choose inputs."""

CoreFactory: TypeAlias = Callable[[SplitMix64, Instant], AnyCore]
"""Makes the core of one life of a host, from its entropy and the instant at which that life begins."""


class Crash(Enum):
    """How a host dies."""

    RESET = "reset"
    """The process is gone: its connections are reset, new ones refused."""
    VANISH = "vanish"
    """The power is gone: nobody is told, and nothing is answered."""


class HostStarted(Value):
    """A host began to live, for the `life`-th time."""

    life: int


class HostCrashed(Value):
    """A host died."""

    how: Crash


class HostStopped(Value):
    """A host ended properly."""


class CoreMisused(Value):
    """A core broke the contract with its driver."""

    what: str


class Step(NamedTuple):
    """One line of a journal: what a core was fed, and what it answered."""

    now: Instant
    event: Value
    effects: tuple[Value, ...]


class CoreError(Exception):
    """A core raised where the laws say that it never does; the cause is what it raised."""


class Host:
    """One machine with one core on it.

    `birth` are the inputs that a core is fed at the start of each life. With `journal`, everything that goes
    in and out is kept in `steps`, one list a life.
    """

    def __init__(
        self,
        name: str,
        engine: Engine,
        network: Network,
        trace: Trace,
        core: CoreFactory,
        *,
        seed: int,
        birth: Iterable[Value] = (),
        cost: CostModel | None = None,
        models: tuple[str, ...] = (),
        ports: tuple[int, ...] = (),
        journal: bool = False,
    ) -> None:
        self.name: Final = name
        self.machine: Final = Machine(name)
        self.machine.owner = self
        self.lives = 0
        self.steps: list[list[Step]] = []
        self._engine = engine
        self._network = network
        self._trace = trace
        self._make_core = core
        self._seed = seed
        self._birth = tuple(birth)
        self._ports = ports
        self._journal = journal
        self._core: AnyCore | None = None
        self._armed_at: Instant = NEVER
        self._ends: dict[ConnectionId, End] = {}
        self._accepted: ConnectionId = 0
        self._backend = SimulatedBackend(engine, stream(seed, name, "backend"), cost or CostModel(), self.feed)
        self._backend.models = models

    @property
    def alive(self) -> bool:
        """Whether a core is being driven."""
        return self._core is not None

    def new_core(self, life: int, now: Instant) -> AnyCore:
        """Return a core as the given life has or had it at its beginning, `now`; `replay` can feed it a journal."""
        return self._make_core(self.entropy(life), now)

    def entropy(self, life: int) -> SplitMix64:
        """Return the random stream that the core of the given life is made with."""
        return stream(self._seed, self.name, f"core {life}")

    def start(self) -> None:
        """Begin a life: a new core, new entropy, nothing remembered."""
        assert self._core is None, f"{self.name} is alive"
        self.lives += 1
        self._accepted = 0
        self.steps.append([])
        self._record(HostStarted(self.lives))
        self._core = self.new_core(self.lives, self._engine.now)
        self._network.start(self.machine)
        for port in self._ports:
            self._network.listen(self.machine, port)
        for event in self._birth:
            self.feed(event)
        self._arm()

    def feed(self, event: Value) -> None:
        """Give the core one input now and perform what it answers; a dead host hears nothing.

        Raises CoreError, with the core's error as its cause, when the core raises.
        """
        core = self._core
        if core is None:
            return
        now = self._engine.now
        self._record(event)
        try:
            effects = core.handle(event, now)
        except Exception as error:
            raise CoreError(
                f"the core of {self.name} raised at {now} µs on {type(event).__name__}: {error!r}"
            ) from error
        if self._journal:
            self.steps[-1].append(Step(now, event, tuple(effects)))
        for effect in effects:
            self._record(effect)
            self._perform(effect)
        self._arm()

    def crash(self, how: Crash) -> None:
        """Die at once: the core is dropped, whatever it was doing."""
        assert self._core is not None, f"{self.name} is dead already"
        self._record(HostCrashed(how))
        self._end_life()
        self._network.crash(self.machine, silently=how is Crash.VANISH)

    def stop(self) -> None:
        """End properly: the core says good-bye, then the process closes what is still open."""
        assert self._core is not None, f"{self.name} is dead already"
        self.feed(StopRequested())
        self._record(HostStopped())
        self._end_life()
        self._network.stop(self.machine)

    # What the network tells, made into inputs.

    def accepted(self, end: End, remote: Address, local: Address, host: str) -> None:
        """Number an accepted connection with the next even id."""
        self._accepted += 2
        end.id = self._accepted
        self._ends[end.id] = end
        self.feed(ConnectionAccepted(end.id, remote, local, host))

    def opened(self, end: End) -> None:
        """Pass on that a connection is open."""
        self.feed(ConnectionOpened(end.id))

    def failed(self, end: End, reason: str) -> None:
        """Pass on that a connection could not be opened."""
        del self._ends[end.id]
        self.feed(ConnectFailed(end.id, reason))

    def received(self, end: End, data: bytes) -> None:
        """Pass on what came in."""
        self.feed(DataReceived(end.id, data))

    def pinged(self, end: End) -> None:
        """Pass on a ping."""
        self.feed(PingReceived(end.id))

    def ponged(self, end: End) -> None:
        """Pass on a pong."""
        self.feed(PongReceived(end.id))

    def closed(self, end: End, reason: str) -> None:
        """Pass on that a connection ended."""
        del self._ends[end.id]
        self.feed(ConnectionClosed(end.id, reason))

    def found(self, name: str, record: ServiceRecord, addresses: tuple[Address, ...]) -> None:
        """Pass on an advertisement."""
        self.feed(ServiceFound(name, record, addresses))

    def lost(self, name: str) -> None:
        """Pass on that an advertisement is gone."""
        self.feed(ServiceLost(name))

    # What the core wants done.

    def _perform(self, effect: Value) -> None:
        perform = self._PERFORMERS.get(type(effect))
        if perform is not None:
            perform(self, effect)
        elif not type(effect).__name__.startswith("Report"):
            self._misused(f"no driver performs {type(effect).__name__}")

    def _connect(self, effect: Connect) -> None:
        if effect.connection % 2 == 0 or effect.connection in self._ends:
            self._misused(f"connection {effect.connection} is not a free odd number")
            return
        self._ends[effect.connection] = self._network.connect(self.machine, effect.connection, effect.target)

    def _send(self, effect: SendData | SendText) -> None:
        end = self._open_end(effect)
        if end is None:
            return
        if isinstance(effect, SendText) and end.connection.kind is Kind.STREAM:
            self._misused(f"SendText on connection {effect.connection}, which is a stream")
        else:
            end.send(effect.data)

    def _ping(self, effect: SendPing) -> None:
        end = self._open_end(effect)
        if end is None:
            return
        if end.connection.kind is Kind.STREAM:
            self._misused(f"SendPing on connection {effect.connection}, which is a stream")
        else:
            end.ping()

    def _close(self, effect: CloseConnection) -> None:
        end = self._ends.pop(effect.connection, None)
        if end is None:
            self._misused(f"CloseConnection on connection {effect.connection}, which does not exist")
        else:
            end.close(effect.reason)

    def _advertise(self, effect: Advertise) -> None:
        self._network.advertise(self.machine, effect.record)

    def _start_generation(self, effect: StartGeneration) -> None:
        self._backend.start(effect)

    def _cancel_generation(self, effect: CancelGeneration) -> None:
        self._backend.cancel(effect.job)

    _PERFORMERS: ClassVar[dict[type[Value], Callable[[Any, Any], None]]] = {
        Connect: _connect,
        SendData: _send,
        SendText: _send,
        SendPing: _ping,
        CloseConnection: _close,
        Advertise: _advertise,
        StartGeneration: _start_generation,
        CancelGeneration: _cancel_generation,
    }

    def _open_end(self, effect: SendData | SendText | SendPing) -> End | None:
        end = self._ends.get(effect.connection)
        if end is None or end.state is not State.OPEN:
            self._misused(f"{type(effect).__name__} on connection {effect.connection}, which is not open")
            return None
        return end

    # Waking, and the end.

    def _arm(self) -> None:
        core = self._core
        if core is None:
            return
        deadline = core.deadline
        if deadline < self._armed_at:
            self._armed_at = max(deadline, self._engine.now)
            self._engine.call_at(self._armed_at, self._wake, self.lives)

    def _wake(self, life: int) -> None:
        core, now = self._core, self._engine.now
        # An alarm that was overtaken by an earlier one finds another instant armed, and does nothing.
        if core is None or life != self.lives or now != self._armed_at:
            return
        self._armed_at = NEVER
        if core.deadline <= now:
            self.feed(WAKE)
            if core.deadline <= now:
                raise CoreError(f"the core of {self.name} asks at {now} µs to be woken again at once")
        self._arm()

    def _end_life(self) -> None:
        self._core = None
        self._armed_at = NEVER
        self._ends.clear()
        self._backend.clear()

    def _misused(self, what: str) -> None:
        self._record(CoreMisused(what))

    def _record(self, value: Value) -> None:
        self._trace.record(self._engine.now, self.name, value)


def replay(steps: Iterable[Step], core: AnyCore) -> list[str]:
    """Feed a journal to a new core and return how its answers differ; an empty list means law 7 holds."""
    differences = []
    for number, step in enumerate(steps):
        effects = tuple(core.handle(step.event, step.now))
        if effects != step.effects:
            differences.append(
                f"step {number} at {step.now} µs, {type(step.event).__name__}: {effects} != {step.effects}"
            )
    return differences
