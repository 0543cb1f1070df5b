"""Small cores and a small world to try the simulator on."""

from collections.abc import Callable, Sequence

from simulator.backend import CostModel
from simulator.engine import Engine
from simulator.host import Host
from simulator.net.link import Link
from simulator.net.network import Network
from simulator.rng import SplitMix64
from simulator.trace import Trace
from teale_proto.contract import MILLISECOND, NEVER, Instant, Value
from teale_proto.inputs import DataReceived

Answer = Callable[[Value, Instant], Sequence[Value]]

QUIET = Link(latency=10 * MILLISECOND)
"""10 ms to the middle: 20 ms one way, 40 ms there and back."""

ONE_WAY = 20 * MILLISECOND


def silence(event: Value, now: Instant) -> Sequence[Value]:
    """Answer nothing."""
    return ()


class Diary:
    """A core that writes down what it hears and answers by a function."""

    def __init__(self, answer: Answer = silence) -> None:
        self.heard: list[tuple[Instant, Value]] = []
        self.deadline: Instant = NEVER
        self._answer = answer

    def handle(self, event: Value, now: Instant) -> Sequence[Value]:
        self.heard.append((now, event))
        return self._answer(event, now)

    def of(self, kind: type[Value]) -> list[tuple[Instant, Value]]:
        """What it heard of one kind."""
        return [(at, event) for at, event in self.heard if isinstance(event, kind)]

    @property
    def data(self) -> bytes:
        """Everything that it received, joined."""
        return b"".join(event.data for _, event in self.heard if isinstance(event, DataReceived))


class Town:
    """An engine, a network with one segment `town`, and hosts with diaries."""

    def __init__(self, seed: int = 1, *, cut_chance: float = 0.0, discovery: bool = True) -> None:
        self.seed = seed
        self.engine = Engine()
        self.network = Network(self.engine, seed=seed, cut_chance=cut_chance)
        self.network.add_segment("town", discovery=discovery)
        self.trace = Trace()
        self.hosts: dict[str, Host] = {}

    def order(self, name: str, *effects: Value) -> None:
        """Have the core of a host, which must `obey`, ask for something now."""
        self.hosts[name].feed(Order(effects))

    def add(
        self,
        name: str,
        address: str,
        answer: Answer = silence,
        *,
        link: Link = QUIET,
        ports: tuple[int, ...] = (),
        birth: tuple[Value, ...] = (),
        cost: CostModel | None = None,
        models: tuple[str, ...] = (),
        segment: str = "town",
    ) -> tuple[Host, Diary]:
        """Add a host that lives from now on, and its diary."""
        diary = Diary(answer)

        def core(rng: SplitMix64, now: Instant) -> Diary:
            return diary

        host = Host(
            name,
            self.engine,
            self.network,
            self.trace,
            core,
            seed=self.seed,
            birth=birth,
            ports=ports,
            cost=cost,
            models=models,
            journal=True,
        )
        self.hosts[name] = host
        self.network.attach(host.machine, segment, address, link)
        host.start()
        return host, diary


class Order(Value):
    """Tells a diary that answers with it to have something done."""

    effects: tuple[Value, ...]


def obey(event: Value, now: Instant) -> Sequence[Value]:
    """Answer an order with its effects."""
    return event.effects if isinstance(event, Order) else ()
