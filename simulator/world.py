"""A world: one engine, one network, its hosts, and everybody who watches them.

A scenario fills a world; the world knows how nodes and relays are made from the seed, how to ask and how to
break things, and sums up at the end.
"""

from collections.abc import Callable, Iterable
from typing import Final

from simulator.backend import CostModel
from simulator.checkers import Checker, ConnectionsEndOnce, ContractKept, EveryAskEndsOnce, TimeNeverRunsBackwards
from simulator.engine import Engine
from simulator.host import CoreFactory, Crash, Host
from simulator.net.link import Link
from simulator.net.network import INTERNET, Network
from simulator.report import Report, Statistics, judged
from simulator.rng import SplitMix64, stream
from simulator.trace import Trace
from teale_proto.contract import SECOND, Instant, Value
from teale_proto.inputs import Ask, LoadedModelsChanged, NodeId, RequestId, Started
from teale_proto.node import Node, NodeConfig
from teale_proto.relay.server import RelayServer, RelayServerConfig
from teale_proto.secure.identity import Identity

EPOCH: Final = 1_767_225_600 * SECOND
"""The Unix time at which every simulation begins: 2026-01-01T00:00:00Z."""

LAN_PORT: Final = 11_436
RELAY_PORT: Final = 8_080

Place = tuple[str, str, Link]
"""Where a host is attached: a segment, an address on it, and the link."""


class World:
    """Everything that exists in one run. With `journal`, hosts keep what their cores were fed and answered."""

    def __init__(self, seed: int, *, journal: bool = False, cut_chance: float = 0.25) -> None:
        self.seed: Final = seed
        self.engine: Final = Engine()
        self.trace: Final = Trace()
        self.network: Final = Network(self.engine, seed=seed, cut_chance=cut_chance)
        self.hosts: Final[dict[str, Host]] = {}
        self.node_ids: Final[dict[str, NodeId]] = {}
        """The node id of each host that is a node, by the host's name."""
        self._journal = journal
        self._checkers: list[Checker] = []
        self._statistics = Statistics()
        self.trace.subscribe(self._statistics.observe)
        for checker in (EveryAskEndsOnce(), TimeNeverRunsBackwards(), ConnectionsEndOnce(), ContractKept()):
            self.check(checker)

    def rng(self, purpose: str) -> SplitMix64:
        """Return the scenario's own random stream for `purpose`."""
        return stream(self.seed, "scenario", purpose)

    def check(self, checker: Checker) -> None:
        """Have a rule watched from now on."""
        self._checkers.append(checker)
        self.trace.subscribe(checker.observe)
        if type(checker).observe_traffic is not Checker.observe_traffic:
            self.network.taps.append(checker.observe_traffic)

    # What there is.

    def add_host(
        self,
        name: str,
        core: CoreFactory,
        places: Iterable[Place],
        *,
        birth: Iterable[Value] = (),
        cost: CostModel | None = None,
        models: tuple[str, ...] = (),
        ports: tuple[int, ...] = (),
    ) -> Host:
        """Add a host that is not running yet; see `Host` for the arguments."""
        assert name not in self.hosts, f"there is a host {name!r} already"
        host = self.hosts[name] = Host(
            name,
            self.engine,
            self.network,
            self.trace,
            core,
            seed=self.seed,
            birth=birth,
            cost=cost,
            models=models,
            ports=ports,
            journal=self._journal,
        )
        for segment, address, link in places:
            self.network.attach(host.machine, segment, address, link)
        return host

    def add_node(
        self,
        name: str,
        config: NodeConfig,
        places: Iterable[Place],
        *,
        models: tuple[str, ...] = (),
        cost: CostModel | None = None,
    ) -> Host:
        """Add a node; its keys follow from the seed and its name and survive its crashes."""
        identity = Identity.from_seed(stream(self.seed, name, "identity").randbytes(32))
        self.node_ids[name] = identity.node_id

        def core(rng: SplitMix64, _: Instant) -> Node:
            return Node(config, identity, rng, unix_time_at_zero=EPOCH)

        lan_port = LAN_PORT if config.lan_enabled else None
        return self.add_host(
            name,
            core,
            places,
            birth=(Started(lan_port), LoadedModelsChanged(models)),
            cost=cost,
            models=models,
            ports=() if lan_port is None else (lan_port,),
        )

    def add_relay(self, name: str, address: str, link: Link, config: RelayServerConfig) -> Host:
        """Add a relay on the internet, reachable as `ws://name:RELAY_PORT/ws`."""

        def core(rng: SplitMix64, _: Instant) -> RelayServer:
            return RelayServer(config, rng, unix_time_at_zero=EPOCH)

        self.network.add_name(name, address)
        return self.add_host(name, core, [(INTERNET, address, link)], ports=(RELAY_PORT,))

    # What happens.

    def start(self, name: str, *, at: Instant) -> None:
        """Switch a host on, later."""
        self.engine.call_at(at, self.hosts[name].start)

    def ask(self, name: str, ask: Ask, *, at: Instant) -> None:
        """Have the local application of a node ask for something; a node that is dead by then is not asked."""
        self.engine.call_at(at, self.hosts[name].feed, ask)

    def crash(self, name: str, how: Crash, *, at: Instant) -> None:
        """Kill a host, later; one that is dead by then stays it."""
        self.engine.call_at(at, _if_alive, self.hosts[name], lambda host: host.crash(how))

    def stop(self, name: str, *, at: Instant) -> None:
        """End a host properly, later."""
        self.engine.call_at(at, _if_alive, self.hosts[name], Host.stop)

    def run_until(self, at: Instant) -> None:
        """Let everything happen up to and including `at`."""
        self.engine.run_until(at)

    def report(self, scenario: str, wall_seconds: float) -> Report:
        """End the run: have every checker judge it, and sum up."""
        for checker in self._checkers:
            checker.finish(self.engine.now)
        checks = judged(self._checkers)
        return Report(
            scenario=scenario,
            seed=self.seed,
            passed=all(check.passed for check in checks),
            digest=self.trace.digest,
            requests=self._statistics.requests(),
            hosts_crashed=self._statistics.hosts_crashed,
            peers_lost=self._statistics.peers_lost,
            checks=checks,
            simulated_seconds=self.engine.now / SECOND,
            events=self.engine.events,
            trace_entries=self.trace.count,
            wall_seconds=round(wall_seconds, 3),
        )


def request_ids(prefix: str, count: int) -> list[RequestId]:
    """Return `count` request ids that sort as they are numbered."""
    width = len(str(count - 1))
    return [f"{prefix}-{number:0{width}}" for number in range(count)]


def _if_alive(host: Host, act: Callable[[Host], None]) -> None:
    if host.alive:
        act(host)
