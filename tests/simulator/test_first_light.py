"""The first scenario, with the real cores."""

import os
import subprocess
import sys

import msgspec
import pytest

from scenarios.first_light import ASKS, HEARTBEAT, LOST, SCENARIO
from simulator import scenario
from simulator.checkers import LostNodesLeavePools
from simulator.journal import replay
from simulator.report import Report
from simulator.world import World


@pytest.fixture(scope="module")
def report() -> Report:
    return scenario.run(SCENARIO, 1)


@pytest.mark.parametrize("seed", [2, 2**40])
def test_another_seed_is_another_run_and_every_check_passes(report: Report, seed: int) -> None:
    other = scenario.run(SCENARIO, seed)
    assert other.digest != report.digest
    assert [check for check in other.checks if not check.passed] == []


def test_a_hundred_requests_are_asked_and_each_has_one_outcome(report: Report) -> None:
    assert report.passed
    assert report.requests.asked == ASKS == sum(report.requests.outcomes.values())
    assert report.requests.finished == sum(report.requests.served_by_path.values())
    assert report.hosts_crashed == LOST


def test_the_same_seed_gives_the_same_digest_under_any_hash_seed(report: Report) -> None:
    command = [sys.executable, "-m", "simulator.cli", "run", "first_light", "--seed", "1", "--json"]
    outputs = []
    for hash_seed in ("0", "4242"):
        environment = os.environ | {"PYTHONHASHSEED": hash_seed}
        done = subprocess.run(command, env=environment, capture_output=True, check=True, timeout=60)
        outputs.append(msgspec.json.decode(done.stdout))
    for output in (*outputs, msgspec.json.decode(report.json())):
        del output["wall_seconds"]
        assert output == outputs[0]
    assert outputs[0]["digest"] == report.digest


def test_the_journal_of_every_core_replays_to_equal_effects_and_keeping_it_changes_nothing(report: Report) -> None:
    world = World(1, journal=True)
    assert scenario.run(SCENARIO, 1, world=world).digest == report.digest
    for host in world.hosts.values():
        (steps,) = host.steps
        assert len(steps) > 50
        assert replay(steps, host.new_core(1, steps[0].now)) == []


def test_the_watch_over_pools_would_notice_heartbeats_that_are_judged_too_late() -> None:
    # The nodes lose a silent peer after three of their own heartbeats; to a checker that expects them to be three
    # times as quick, they are late.
    def build(world: World) -> None:
        SCENARIO.build(world)
        hosts = {node: name for name, node in world.node_ids.items()}
        world.check(LostNodesLeavePools(hosts, heartbeat=HEARTBEAT // 3))

    report = scenario.run(SCENARIO._replace(build=build), 1)
    (failed,) = [check for check in report.checks if not check.passed]
    assert failed.rule == LostNodesLeavePools.rule
    assert failed.violation_count > LOST
