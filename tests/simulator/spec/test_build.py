"""Worlds built from descriptions: who is where, what happens to them, and what comes of it."""

from collections import Counter

import msgspec
import pytest
from msgspec.structs import replace

from simulator import scenario
from simulator.costs import MachineProfile
from simulator.events import HostCrashed, HostStarted, HostStopped
from simulator.fidelity import Fidelity
from simulator.report import Report
from simulator.spec.access import Mixture
from simulator.spec.build import build, scenario_of
from simulator.spec.faults import BadWeather, ClockSkew, Crash, Fault, NatReboot, Partition, Roam, SlowNode
from simulator.spec.load import AskSpec, Models, Requests
from simulator.spec.population import Churn, Population
from simulator.spec.world_spec import RelaySpec, WorldSpec
from simulator.trace import Entry
from simulator.world import World
from teale_proto.contract import SECOND
from teale_proto.effects import Path, PeerState, RelayState, ReportFinished, ReportPeer, ReportRelay
from teale_proto.node import Node
from teale_proto.wire.relay import Hardware
from tests.simulator.spec.test_costs_file import HARDWARE, PROFILE

HOMES = Population(count=6, access="public", regions={"europe-west": 1.0})
ASKS = (AskSpec(30.0, "node-0"), AskSpec(40.0, "node-1", words=300, streaming=False))


def run(spec: WorldSpec, seed: int = 1) -> tuple[Report, list[Entry]]:
    entries: list[Entry] = []
    report = scenario.run(scenario_of(spec), seed, subscribe=entries.append)
    assert report.passed, report.checks
    return report, entries


def world_of(spec: WorldSpec, seed: int = 1) -> World:
    world = World(seed, fidelity=spec.fidelity)
    build(spec, world)
    return world


def test_nodes_of_one_site_share_a_lan_and_those_of_others_the_relay() -> None:
    population = Population(count=4, site_size=2, access="home")
    asks = tuple(AskSpec(30.0 + number, "node-0", model="model-2") for number in range(3))
    spec = WorldSpec(name="x", lasts=90.0, populations=(population,), models=Models(count=2, exponent=0.0), asks=asks)
    _, entries = run(spec)
    paths = Counter(entry.value.path for entry in entries if isinstance(entry.value, ReportPeer))
    assert paths[Path.LAN] > 0
    assert paths[Path.RELAY] > 0


@pytest.mark.parametrize("fidelity", list(Fidelity))
def test_the_same_description_and_seed_give_the_same_digest(fidelity: Fidelity) -> None:
    spec = WorldSpec(
        name="x",
        lasts=80.0,
        fidelity=fidelity,
        populations=(Population(count=8, site_size=2, churn=Churn(session_median=30, gap_median=10)),),
        requests=Requests(per_node_hour=120.0),
    )
    assert run(spec, 5)[0].digest == run(spec, 5)[0].digest != run(spec, 6)[0].digest


def test_whoever_is_left_out_changes_nothing_for_the_others() -> None:
    whole = world_of(WorldSpec(name="x", populations=(Population(count=6),)))
    fewer = world_of(WorldSpec(name="x", populations=(Population(count=6, absent=(2, 3)),)))
    assert [name for name in whole.hosts if name not in fewer.hosts and "gateway" not in name] == ["node-2", "node-3"]
    for name in ("node-0", "node-5"):
        mine, other = whole.hosts[name].site, fewer.hosts[name].site
        assert mine is not None
        assert other is not None
        assert (mine.link, mine.kind, whole.node_ids[name]) == (other.link, other.kind, fewer.node_ids[name])


def test_where_only_tcp_443_leaves_the_relay_is_reached_all_the_same() -> None:
    strict = Mixture(nats={"eim-apdf": 1.0}, lines={"fibre": 1.0}, only_tcp_443=1.0)
    population = msgspec.structs.replace(HOMES, access=strict)
    _, entries = run(WorldSpec(name="x", lasts=60.0, populations=(population,), asks=ASKS[:1]))
    connected = {
        entry.host
        for entry in entries
        if isinstance(entry.value, ReportRelay) and entry.value.state is RelayState.CONNECTED
    }
    assert len(connected) == 6


def test_the_processor_of_a_relay_takes_its_time() -> None:
    def first_token(*, has_cost: bool) -> float:
        askers = Population(name="asker", count=1, holders=0.0, access="public", regions={"europe-west": 1.0})
        spec = WorldSpec(
            name="x",
            lasts=90.0,
            relays=(RelaySpec(has_cost=has_cost),),
            populations=(HOMES, askers),
            asks=(AskSpec(30.0, "asker-0"),),
        )
        found = run(spec)[0].requests.first_token_p50_ms
        assert found is not None
        return found

    assert first_token(has_cost=False) < first_token(has_cost=True) < first_token(has_cost=False) + 5


@pytest.mark.parametrize("costs", [None, PROFILE], ids=["without a profile", "with one"])
def test_nodes_say_that_they_compute_with_what_was_measured(costs: MachineProfile | None) -> None:
    spec = WorldSpec(name="x", lasts=20.0, populations=(replace(HOMES, count=1),), costs=costs)
    world = world_of(spec)
    world.engine.run_until(20 * SECOND)
    node = world.hosts["node-0"].core
    assert isinstance(node, Node)
    told = node.status().hardware
    assert told == (Hardware("", "simulated", 16.0, tier=2) if costs is None else HARDWARE.told())


def test_nodes_come_and_go() -> None:
    churn = Churn(session_median=20, session_sigma=0.3, gap_median=10, gap_sigma=0.3, leaves_properly=0.5)
    population = msgspec.structs.replace(HOMES, churn=churn)
    _, entries = run(WorldSpec(name="x", lasts=120.0, populations=(population,)))
    kinds = Counter(type(entry.value) for entry in entries if entry.host.startswith("node"))
    assert kinds[HostStarted] > 12
    assert kinds[HostStopped] > 0
    assert kinds[HostCrashed] > 0


def test_what_has_no_nat_only_restarts() -> None:
    fault = NatReboot("node-1", 35.0, rebind=True)
    run(WorldSpec(name="x", lasts=60.0, populations=(HOMES,), faults=(fault, NatReboot("relay-0", 36.0))))


@pytest.mark.parametrize(
    "fault",
    [
        Crash("node-1", 35.0, back_after=10.0),
        Crash("node-1", 35.0, back_after=10.0, keeps_identity=False),
        Crash("relay-0", 35.0, back_after=5.0),
        Partition(("node-1", "node-2"), ("relay-0",), 35.0, 50.0),
        Partition(("node",), ("relay-0",), 35.0, 40.0, both_ways=False),
        NatReboot("node-1", 35.0),
        NatReboot("node-1", 35.0, rebind=True),
        BadWeather("node-1", 35.0, 60.0, loss=0.3, corruption=0.1, duplication=0.1, reordering=0.2),
        SlowNode("node-1", 35.0, 60.0, 0.4),
        ClockSkew("node-1", -300.0),
        Roam("node-1", 35.0),
    ],
    ids=lambda fault: type(fault).__name__,
)
def test_every_fault_passes_and_everybody_is_served_again(fault: Fault) -> None:
    population = Population(count=6, access=Mixture(nats={"eim-apdf": 1.0}, lines={"fibre": 1.0}))
    askers = Population(name="asker", count=2, holders=0.0, access="public")
    asks = tuple(AskSpec(at, "asker-0") for at in (30.0, 36.0, 150.0, 151.0))
    spec = WorldSpec(name="x", lasts=230.0, populations=(population, askers), asks=asks, faults=(fault,))
    report, entries = run(spec)
    assert report.requests.asked == 4
    late = [entry for entry in entries if isinstance(entry.value, ReportFinished) and entry.at > 150_000_000]
    assert len(late) == 2
    # In the end everybody knows six nodes with models: all, or all others.
    pools: dict[str, set[str]] = {}
    for entry in entries:
        if isinstance(entry.value, ReportPeer):
            pool = pools.setdefault(entry.host, set())
            if entry.value.state is PeerState.LOST:
                pool.discard(entry.value.node)
            else:
                pool.add(entry.value.node)
        elif isinstance(entry.value, HostStarted):
            pools.pop(entry.host, None)
    assert len(pools["asker-1"]) >= 6
