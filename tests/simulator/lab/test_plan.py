"""A plan is the same world as the simulated one: who is where, behind what, who asks what, and what befalls whom."""

from collections import Counter

import pytest
from msgspec.structs import replace

from simulator import scenario
from simulator.backend import CostModel
from simulator.events import (
    Crash as How,
)
from simulator.events import (
    HostCrashed,
    HostMoved,
    HostStarted,
    HostStopped,
    NatRebooted,
    NatRebound,
    PartitionBegan,
    PartitionEnded,
    WeatherChanged,
)
from simulator.lab.plan import MODEL_PORT, TINY, WORDS_MAX, Begin, Plan, Role, Served, Unsupported, plan_of
from simulator.spec.access import Mixture
from simulator.spec.build import build, scenario_of
from simulator.spec.faults import BadWeather, ClockSkew, Crash, NatReboot, Partition, RandomFaults, Roam, SlowNode
from simulator.spec.load import AskSpec, Models, Requests
from simulator.spec.population import Churn, Population
from simulator.spec.world_spec import Planted, RelaySpec, WorldSpec
from simulator.trace import Entry
from simulator.world import World
from teale_proto.contract import SECOND, Value
from teale_proto.inputs import Ask
from tests.simulator.lab.puppets import Theatre

HOMES = Population(name="home", count=6, site_size=2, access="home", starts_within=3.0, direct=True)
PHONES = Population(
    name="phone",
    count=3,
    access="cellular",
    holders=0.0,
    churn=Churn(session_median=15.0, session_sigma=0.4, gap_median=8.0, leaves_properly=0.5),
)
FAULTS = (
    Crash("home-0", 20.0, back_after=5.0, keeps_identity=False),
    Crash("home-1", 22.0, How.VANISH, back_after=4.0),
    Crash("relay-0", 30.0, How.VANISH, back_after=3.0),
    Crash("home-5", 33.0),
    Partition(("home-2", "phone"), ("relay-0",), 35.0, 40.0),
    Partition(("home-2",), ("home-3",), 36.0, 41.0, both_ways=False),
    NatReboot("home-2", 42.0),
    NatReboot("home-4", 43.0, rebind=True),
    NatReboot("relay-0", 43.5),
    BadWeather("home-1", 44.0, 50.0, loss=0.1, corruption=0.01, duplication=0.02, reordering=0.03),
    BadWeather("home-0", 46.0, 52.0, loss=0.2),
    Roam("home-3", 53.0),
    Crash("home-3", 54.0, back_after=2.0),
    # Dead already, and not there at all.
    Crash("home-5", 55.0),
)
SPEC = WorldSpec(
    name="x",
    lasts=60.0,
    populations=(HOMES, PHONES),
    requests=Requests(per_node_hour=300.0, since=5.0, until=55.0),
    faults=FAULTS,
)
HAPPENS = (
    *(HostStarted, HostCrashed, HostStopped, HostMoved, NatRebooted, NatRebound),
    *(PartitionBegan, PartitionEnded, WeatherChanged),
)


def world_of(spec: WorldSpec, seed: int) -> World:
    world = World(seed, fidelity=spec.fidelity)
    build(spec, world)
    return world


@pytest.mark.parametrize("seed", range(4))
def test_everybody_is_where_he_is_in_the_simulation(seed: int) -> None:
    world, plan = world_of(SPEC, seed), plan_of(SPEC, seed)
    sites = {site.name: site for site in plan.sites}
    for node in plan.nodes:
        there = world.hosts[node.name].site
        assert there is not None
        here = sites[node.site]
        assert here.name == there.name
        assert (here.line, here.region, here.has_lan) == (there.link, there.region, there.discovery)
        stack = tuple(site.kind for site in world.stack(there.name) if site.kind is not None)
        assert here.access.nats == stack
        assert here.access.only_tcp_443 == there.only_tcp_443
    assert {node.name for node in plan.nodes} == set(world.node_ids)
    for server in plan.servers:
        assert server.addresses == world.hosts[server.name].addresses


@pytest.mark.parametrize("seed", range(3))
def test_everything_happens_to_whom_and_when_it_does_in_the_simulation(seed: int) -> None:
    entries: list[Entry] = []
    scenario.run(scenario_of(SPEC), seed, subscribe=entries.append)
    played = Theatre(plan_of(SPEC, seed)).play()
    expected = Counter(_shown(entry) for entry in entries if isinstance(entry.value, HAPPENS))
    # A gateway that opens ports is a host in a simulation, and a part of the router in a lab.
    expected = Counter({what: many for what, many in expected.items() if "gateway" not in what[1]})
    assert Counter(map(_shown, played.entries)) == expected
    asked = [(entry.at, entry.host) for entry in entries if isinstance(entry.value, Ask)]
    assert [(at, host) for at, host, is_alive in played.ordered if is_alive] == asked


def _shown(entry: Entry) -> tuple[int, str, str, object]:
    value: Value = entry.value
    # Addresses are drawn by whoever makes the internet.
    what: object = value.site if isinstance(value, HostMoved) else None if isinstance(value, NatRebound) else value
    return (entry.at, entry.host, type(value).__name__, what)


def test_power_fails_before_a_process_can_say_good_bye_and_is_back_before_it_starts() -> None:
    played = Theatre(plan_of(SPEC, 1)).play()
    calls = [call for call in played.calls if call[2] == "home-1"]
    assert calls == [(22 * SECOND, "cut", "home-1"), (26 * SECOND, "mend", "home-1")]
    assert played.puppets["home-0"].identities == 2
    assert played.puppets["home-1"].identities == 1


def test_what_is_drawn_of_faults_and_requests_is_in_the_plan() -> None:
    spec = WorldSpec(name="x", populations=(HOMES,), random_faults=RandomFaults(count=3, weights={"crash": 1.0}))
    assert sum(not isinstance(act, Begin) for act in plan_of(spec, 3).acts) >= 3
    assert plan_of(spec, 3) == plan_of(spec, 3) != plan_of(spec, 4)


# Settings.


def settings(plan: Plan, name: str) -> dict[str, object]:
    return dict(next(node.settings for node in plan.nodes if node.name == name))


def test_a_node_is_told_what_the_description_says() -> None:
    population = replace(HOMES, heartbeat=5.0, slots=3, peers_max=7, birthday=True)
    asks = (AskSpec(20.0, "home-0", timeout=12.5), AskSpec(21.0, "home-0", timeout=3.0))
    relays = (RelaySpec(), RelaySpec(answers_stun=True))
    plan = plan_of(WorldSpec(name="x", populations=(population,), relays=relays, asks=asks, stun=1), 1)
    found = settings(plan, "home-0")
    assert (found["heartbeat_seconds"], found["max_concurrent_requests"], found["wan_peers_max"]) == (5, 3, 7)
    assert (found["wan_direct"], found["wan_birthday"], found["lan_enabled"]) == (True, True, True)
    assert found["wan_relay_url"] == "wss://192.0.2.1:443/ws"
    assert found["wan_stun"] == ["192.0.2.2:3478", "198.51.100.1:3478"]
    assert found["request_timeout_seconds"] == 13
    assert found["builtin_model"] is True
    assert any("longest time" in note for note in plan.notes)


def test_stun_servers_have_two_addresses_or_one_and_relays_answer_stun_only_where_they_are_to() -> None:
    plan = plan_of(WorldSpec(name="x", populations=(HOMES,), stun=1), 1)
    relay, stun = plan.servers
    assert (relay.role, stun.role) == (Role.RELAY, Role.STUN)
    assert "--no-stun" in relay.options
    assert stun.addresses == ("198.51.100.1", "198.51.101.1")
    assert stun.options[-2:] == ("--stun-alternate", "198.51.101.1:3479")


# Models.


def test_prompts_are_cut_to_what_the_builtin_model_reads() -> None:
    asks = (AskSpec(20.0, "home-0", words=500), AskSpec(21.0, "home-0", words=2))
    plan = plan_of(WorldSpec(name="x", populations=(HOMES,), asks=asks), 1)
    assert plan.served is Served.BUILTIN
    assert [order.ask.words for order in plan.orders] == [WORDS_MAX, 2]
    assert plan.orders[0].body["model"] == TINY
    assert plan.orders[0].body["user"] == plan.orders[0].request == "ask-home-0-20000000"
    assert any("1 of 2 prompts are cut" in note for note in plan.notes)


def test_whoever_says_how_long_inference_takes_gets_model_servers_that_take_it() -> None:
    slow = replace(HOMES, inference=CostModel(tokens_per_second=5.0))
    asks = (AskSpec(20.0, "home-0", words=500),)
    plan = plan_of(WorldSpec(name="x", populations=(slow,), asks=asks), 1)
    assert plan.served is Served.DESCRIBED
    assert plan.orders[0].body["model"] == "model-1"
    assert plan.orders[0].ask.words == 500
    assert plan.nodes[0].inference == slow.inference
    assert settings(plan, "home-0")["openai_urls"] == [f"http://127.0.0.1:{MODEL_PORT}/v1"]
    several = WorldSpec(name="x", populations=(HOMES,), models=Models(count=2))
    assert plan_of(several, 1).served is Served.DESCRIBED
    with pytest.raises(Unsupported, match="2 models"):
        plan_of(several, 1, served=Served.BUILTIN)


# What cannot be.


def test_everything_that_a_lab_cannot_do_is_told_at_once() -> None:
    spec = replace(
        SPEC,
        populations=(replace(HOMES, clock_error_ppm=50.0), PHONES),
        planted=Planted.DELIVERS_TWICE,
        faults=(SlowNode("home-0", 5.0, 6.0), ClockSkew("home-1", 100.0)),
    )
    with pytest.raises(Unsupported) as caught:
        plan_of(spec, 1)
    assert len(caught.value.reasons) == 4
    assert [
        word for word in ("planted", "slow node", "clock skew", "clock_error_ppm") if word not in str(caught.value)
    ] == []


def test_what_can_be_left_out_is_left_out_on_request_and_named() -> None:
    roam = Roam("home-3", 8.0)
    spec = replace(SPEC, faults=(SlowNode("home-0", 5.0, 6.0), roam), requests=None)
    plan = plan_of(spec, 1, ignore_unsupported=True)
    assert plan.spec.faults == (roam,)
    assert [note for note in plan.notes if "slow node" in note]
    # What is drawn for a fault goes by its number in the description.
    assert (8 * SECOND, "move", "home-3", "roam 1") in Theatre(plan).play().calls


def test_a_planted_bug_cannot_be_left_out() -> None:
    with pytest.raises(Unsupported, match="planted"):
        plan_of(replace(SPEC, planted=Planted.FORGETS_HEARTBEATS), 1, ignore_unsupported=True)


@pytest.mark.parametrize("name", ["home_network", "lab_first"])
def test_ready_made_scenarios_can_be_planned(name: str) -> None:
    spec = scenario.load(name).spec
    assert spec is not None
    assert plan_of(spec, 1).nodes


def test_nothing_is_planned_for_those_who_are_left_out() -> None:
    spec = WorldSpec(name="x", populations=(replace(HOMES, absent=(0, 1)),), faults=(Crash("home-0", 5.0),), lasts=9.0)
    plan = plan_of(spec, 1)
    assert [node.name for node in plan.nodes] == ["home-2", "home-3", "home-4", "home-5"]
    assert all(isinstance(act, Begin) for act in plan.acts)


def test_port_mapping_and_strict_firewalls_are_part_of_the_plan() -> None:
    strict = Mixture(nats={"eim-apdf": 1.0}, lines={"fibre": 1.0}, only_tcp_443=1.0, port_mapping=1.0)
    [site] = plan_of(WorldSpec(name="x", populations=(replace(HOMES, count=1, access=strict),)), 1).sites
    assert (site.access.only_tcp_443, site.access.offers_port_mapping) == (True, True)
