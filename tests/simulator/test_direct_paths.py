"""Direct paths in whole worlds: who gets one, and what becomes of requests when it, or what is around it, changes."""

import msgspec
import pytest

from simulator import scenario
from simulator.events import Crash as Death
from simulator.fidelity import Fidelity
from simulator.report import Report
from simulator.results.calibrating import calibrated
from simulator.spec.access import Mixture
from simulator.spec.build import build, scenario_of
from simulator.spec.faults import BadWeather, Crash, Fault, NatReboot, Partition, Roam
from simulator.spec.load import AskSpec
from simulator.spec.population import Population
from simulator.spec.world_spec import RelaySpec, StunSpec, WorldSpec
from simulator.trace import Entry
from simulator.world import World
from teale_proto.contract import SECOND
from teale_proto.effects import Path, ReportFinished, ReportPeer
from teale_proto.inputs import Address, NetworkChanged

EASY = Mixture(nats={"eim-apdf": 1.0}, lines={"good-wifi": 1.0})
HARD = Mixture(nats={"apdm-apdf": 1.0}, lines={"good-wifi": 1.0})
EUROPE = {"europe-west": 1.0}
ASKS = tuple(AskSpec(40.0 + at, "asker-0", timeout=60.0) for at in range(60))


def single(name: str, *, holders: float, access: Mixture = EASY) -> Population:
    return Population(
        name=name,
        count=1,
        access=access,
        holders=holders,
        regions=EUROPE,
        direct=True,
        starts_within=1.0,
        slots=50,
    )


COUPLE = WorldSpec(
    name="couple", lasts=200.0, populations=(single("asker", holders=0.0), single("server", holders=1.0)), asks=ASKS
)


def run(spec: WorldSpec, seed: int = 1) -> tuple[Report, list[Entry]]:
    entries: list[Entry] = []
    report = scenario.run(scenario_of(spec), seed, subscribe=entries.append)
    assert [check for check in report.checks if not check.passed] == []
    return report, entries


def share(easy: int, hard: int, *, birthday: bool, lasts: float = 200.0) -> float:
    """Return how many of the pairs among so many nodes end up direct, in percent."""
    populations = [
        Population(
            name=name,
            count=count,
            access=access,
            direct=True,
            birthday=birthday,
            peers_max=easy + hard,
            starts_within=lasts / 3,
            heartbeat=30.0,
        )
        for name, count, access in (("easy", easy, EASY), ("hard", hard, HARD))
    ]
    spec = WorldSpec(name="x", lasts=lasts, fidelity=Fidelity.MESSAGE, populations=tuple(populations))
    report, _ = run(spec)
    assert report.peers_direct + report.peers_relayed >= 0.98 * (easy + hard) * (easy + hard - 1)
    assert report.share_direct is not None
    return 100 * report.share_direct


def test_where_a_sixth_is_hard_seventy_percent_of_all_pairs_punch_through() -> None:
    # Of 25 nodes 4 are hard: 210 of 300 pairs are of two easy ones.
    assert share(21, 4, birthday=False) == pytest.approx(70, abs=1)


def test_with_birthday_attempts_only_pairs_of_two_hard_sides_stay_relayed() -> None:
    # Of 13 nodes 2 are hard: 1 of 78 pairs is of two hard ones, so at most 98.7 % can be direct.
    assert share(11, 2, birthday=True) >= 97


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize(
    "fault",
    [
        NatReboot("asker-0", 60.0),
        NatReboot("server-0", 60.0),
        NatReboot("asker-0", 60.0, rebind=True),
        NatReboot("server-0", 60.0, rebind=True),
        Crash("relay-0", 60.0, back_after=20.0),
        Crash("relay-0", 60.0, how=Death.RESET, back_after=20.0),
        Partition(("asker-0",), ("server-0",), 60.0, 80.0),
        Partition(("asker-0",), ("server-0",), 60.0, 80.0, both_ways=False),
        BadWeather("asker-0", 60.0, 80.0, loss=0.15, duplication=0.1, reordering=0.1),
        Roam("asker-0", 60.0),
        Roam("server-0", 60.0),
    ],
    ids=[
        "reboot",
        "reboot there",
        "rebind",
        "rebind there",
        "relay dies",
        "relay resets",
        "cut",
        "half cut",
        "weather",
        "roam",
        "roam there",
    ],
)
def test_every_request_is_answered_once_whatever_happens_to_the_path(fault: Fault, seed: int) -> None:
    report, entries = run(msgspec.structs.replace(COUPLE, faults=(fault,)), seed)
    assert report.requests.outcomes == {"finished": len(ASKS)}
    assert report.requests.retried == 0
    paths = {entry.value.path for entry in entries if isinstance(entry.value, ReportFinished)}
    assert Path.DIRECT in paths
    if not isinstance(fault, Roam):  # whose cellular network may have a NAT that cannot be opened
        assert (report.peers_direct, report.peers_relayed) == (2, 0), "in the end, the path is direct again"


def test_two_hard_sides_stay_on_the_relay_and_are_served() -> None:
    populations = (single("asker", holders=0.0, access=HARD), single("server", holders=1.0, access=HARD))
    report, _ = run(msgspec.structs.replace(COUPLE, populations=populations, asks=ASKS[:3]))
    assert report.requests.served_by_path == {"relay": 3}
    assert report.share_direct == 0


@pytest.mark.parametrize("fidelity", list(Fidelity))
def test_the_same_seed_is_the_same_run_with_direct_paths_too(fidelity: Fidelity) -> None:
    spec = msgspec.structs.replace(COUPLE, fidelity=fidelity, asks=ASKS[:5], lasts=80.0)
    first, second = (run(spec, 3)[0] for _ in range(2))
    assert first.digest == second.digest != run(spec, 4)[0].digest
    assert first.requests.served_by_path == {"direct": 5}


# What nodes are told.


def told(world: World, name: str, *, until: int) -> list[tuple[int, NetworkChanged]]:
    found: list[tuple[int, NetworkChanged]] = []

    def note(entry: Entry) -> None:
        if entry.host == name and isinstance(entry.value, NetworkChanged):
            found.append((entry.at, entry.value))

    world.trace.subscribe(note)
    world.run_until(until)
    return found


def test_a_node_is_told_of_its_network_when_it_starts_and_a_second_after_it_moved() -> None:
    world = World(1)
    build(msgspec.structs.replace(COUPLE, asks=(), faults=(Roam("asker-0", 30.0),)), world)
    first, second = told(world, "asker-0", until=40 * SECOND)
    stun = (Address("198.51.100.1", 3478), Address("198.51.100.2", 3478))
    assert first[1] == NetworkChanged((Address("10.0.0.2", 7475),), stun)
    assert second[0] == 31 * SECOND
    assert second[1].stun == stun


def test_a_nat_that_gets_another_address_is_nothing_that_a_system_notices() -> None:
    world = World(1)
    build(msgspec.structs.replace(COUPLE, asks=(), faults=(NatReboot("asker-0", 30.0, rebind=True),)), world)
    assert len(told(world, "asker-0", until=100 * SECOND)) == 1


@pytest.mark.parametrize("change", [{"stun": 0}, {"populations": (Population(count=2),)}])
def test_without_stun_or_without_the_wish_nobody_is_told_anything(change: dict[str, object]) -> None:
    world = World(1)
    build(msgspec.structs.replace(COUPLE, **{"asks": (), **change}), world)
    name = next(iter(world.node_ids))
    assert told(world, name, until=20 * SECOND) == []


def test_a_gateway_that_opens_ports_is_known_by_its_address() -> None:
    access = Mixture(nats={"eim-apdf": 1.0}, lines={"fibre": 1.0}, port_mapping=1.0)
    world = World(1)
    build(msgspec.structs.replace(COUPLE, asks=(), populations=(single("asker", holders=1.0, access=access),)), world)
    ((_, network),) = told(world, "asker-0", until=20 * SECOND)
    assert network.gateway == Address("10.0.0.1", 5351)


def test_relays_may_answer_stun_and_servers_may_have_one_address() -> None:
    spec = msgspec.structs.replace(
        COUPLE, relays=(RelaySpec(answers_stun=True),), stun=(StunSpec(has_one_address=True),), asks=ASKS[:3]
    )
    world = World(1)
    build(spec, world)
    ((_, network),) = told(world, "asker-0", until=20 * SECOND)
    assert network.stun == (Address("192.0.2.1", 3478), Address("198.51.100.1", 3478))
    report, _ = run(spec)
    # Nobody can tell how the NATs filter, and they meet all the same.
    assert report.requests.served_by_path == {"direct": 3}


def test_what_is_really_carried_stands_beside_what_was_published() -> None:
    population = Population(count=24, access=EASY, direct=True, peers_max=24, regions=EUROPE)
    world = World(1, fidelity=Fidelity.MESSAGE)
    spec = WorldSpec(name="x", lasts=60.0, fidelity=Fidelity.MESSAGE, populations=(population,))
    scenario.run(scenario_of(spec), 1, world=world)
    figures = {each.figure: each.measured for each in calibrated(world)}
    assert figures["connections end up direct"] > 95


def test_a_peer_with_a_direct_path_is_met_over_the_relay_first() -> None:
    _, entries = run(msgspec.structs.replace(COUPLE, asks=ASKS[:1], lasts=60.0))
    paths = [entry.value.path for entry in entries if entry.host == "asker-0" and isinstance(entry.value, ReportPeer)]
    assert paths == [Path.RELAY, Path.DIRECT]
