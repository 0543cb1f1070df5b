"""Real nodes and relays in small worlds."""

import msgspec

from simulator.backend import ANSWER_MARKER, CostModel
from simulator.checkers import NothingInPlain
from simulator.events import Crash
from simulator.net.link import Link
from simulator.report import Check, Report
from simulator.world import World
from teale_proto.contract import MILLISECOND, SECOND, Instant
from teale_proto.effects import PeerState, ReportPeer
from teale_proto.inputs import Ask, Task
from teale_proto.node import NodeConfig

MARK = "simulated-prompt-word"
BODY = msgspec.json.encode({"model": "m", "messages": [{"role": "user", "content": MARK}]})
LAN = Link(latency=MILLISECOND // 10)


def lan_world(*, encrypted: bool = True) -> World:
    """Two nodes on a LAN: `server` has the model, `asker` has not."""
    world = World(1)
    world.network.add_segment("lan", discovery=True)
    for number, name in enumerate(("server", "asker")):
        world.add_node(
            name,
            NodeConfig(display_name=name, lan_encrypted=encrypted),
            [("lan", f"192.168.0.{number + 1}", LAN)],
            models=("m",) if name == "server" else (),
            cost=CostModel(tokens_min=5, tokens_max=5),
        )
        world.start(name, at=0)
    world.check(NothingInPlain((MARK, ANSWER_MARKER)))
    return world


def ask(world: World, request: str, *, at: Instant) -> None:
    world.ask("asker", Ask(request, Task.CHAT, "m", BODY), at=at)


def finish(world: World, until: Instant) -> Report:
    world.run_until(until)
    return world.report("test", 0.0)


def failed(report: Report) -> list[Check]:
    return [check for check in report.checks if not check.passed]


def test_two_nodes_on_a_lan_answer_each_other_without_a_relay() -> None:
    world = lan_world()
    ask(world, "r1", at=5 * SECOND)
    report = finish(world, 20 * SECOND)
    assert failed(report) == []
    assert report.requests.served_by_path == {"lan": 1}


def test_with_encryption_off_the_checker_reads_prompt_and_answer() -> None:
    world = lan_world(encrypted=False)
    ask(world, "r1", at=5 * SECOND)
    report = finish(world, 20 * SECOND)
    assert report.requests.finished == 1
    (check,) = failed(report)
    assert check.rule == "nothing was readable on the way"
    said = {(violation.host, violation.what) for violation in check.violations}
    assert said == {
        ("asker", f"sent '{MARK}' to server in plain"),
        ("server", f"sent '{ANSWER_MARKER}' to asker in plain"),
    }


def test_a_node_that_lost_its_power_and_came_back_serves_again() -> None:
    world = lan_world()
    world.crash("server", Crash.VANISH, at=10 * SECOND)
    world.start("server", at=20 * SECOND)
    ask(world, "r1", at=60 * SECOND)
    report = finish(world, 90 * SECOND)
    assert failed(report) == []
    assert report.requests.finished == 1
    assert report.hosts_crashed == 1


def test_a_node_that_stops_says_good_bye_and_is_lost_at_once() -> None:
    world = lan_world()
    lost: list[Instant] = []
    world.trace.subscribe(
        lambda entry: (
            lost.append(entry.at)
            if isinstance(entry.value, ReportPeer) and entry.value.state is PeerState.LOST and entry.host == "asker"
            else None
        )
    )
    world.stop("server", at=10 * SECOND)
    assert failed(finish(world, 20 * SECOND)) == []
    assert len(lost) == 1
    assert lost[0] < 10 * SECOND + 10 * MILLISECOND


def test_a_request_at_a_node_that_dies_is_counted_as_such() -> None:
    world = lan_world()
    ask(world, "r1", at=5 * SECOND)
    world.crash("asker", Crash.RESET, at=5 * SECOND + MILLISECOND)
    report = finish(world, 20 * SECOND)
    assert failed(report) == []
    assert report.requests.outcomes == {"asker_lost": 1}


def test_one_more_node_on_another_segment_changes_nothing_for_the_others() -> None:
    def entries(*, crowded: bool) -> list[tuple[Instant, str, str]]:
        world = lan_world()
        if crowded:
            world.network.add_segment("elsewhere", discovery=True)
            for number in range(2):
                place = [("elsewhere", f"192.168.1.{number + 1}", LAN)]
                world.add_node(f"stranger-{number}", NodeConfig(display_name="stranger"), place)
                world.start(f"stranger-{number}", at=0)
        seen: list[tuple[Instant, str, str]] = []
        world.trace.subscribe(
            lambda entry: None if "stranger" in entry.host else seen.append((entry.at, entry.host, repr(entry.value)))
        )
        ask(world, "r1", at=5 * SECOND)
        world.run_until(20 * SECOND)
        return seen

    assert entries(crowded=True) == entries(crowded=False)
