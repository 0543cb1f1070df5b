"""What a fault disturbs, and when it is well again: told as entries, and in a whole world."""

from collections.abc import Iterable

import pytest
from msgspec.structs import replace

from simulator.comparing.measured import Figure, Measure
from simulator.comparing.measuring import Measuring
from simulator.comparing.simulating import simulated
from simulator.events import Crash, HostCrashed, HostMoved, HostStarted, NatRebooted, NatRebound, PartitionBegan
from simulator.scenario import load
from simulator.spec.world_spec import WorldSpec
from simulator.trace import Entry
from teale_proto.contract import SECOND, Value
from teale_proto.effects import (
    Path,
    PeerState,
    RelayState,
    ReportAttempt,
    ReportChunk,
    ReportFailed,
    ReportFinished,
    ReportPeer,
    ReportRelay,
    SendText,
)
from teale_proto.inputs import Ask, Failure, NodeId, Started, Task
from tests.simulator.comparing.worlds import couple

ASKER, SERVER = NodeId("a" * 64), NodeId("b" * 64)
TEXT = b'{"choices":[{"delta":{"content":"word"}}]}'


def registered(node: NodeId) -> SendText:
    return SendText(1, b'{"type":"register","payload":{"nodeID":"' + node.encode() + b'"}}')


def asked(request: str) -> Ask:
    return Ask(request, Task.CHAT, "model-1", b"{}")


def beginning(path: Path) -> list[tuple[float, str, Value]]:
    """Both are there and reach each other, and a long request is under way from the third second on."""
    return [
        (0.0, "asker-0", Started(None)),
        (0.0, "server-0", Started(None)),
        (0.5, "asker-0", registered(ASKER)),
        (0.5, "server-0", registered(SERVER)),
        (1.0, "asker-0", ReportRelay(RelayState.CONNECTED)),
        (1.0, "server-0", ReportRelay(RelayState.CONNECTED)),
        (2.0, "asker-0", ReportPeer(SERVER, PeerState.CONNECTED, path)),
        (2.0, "server-0", ReportPeer(ASKER, PeerState.CONNECTED, path)),
        (3.0, "asker-0", asked("long")),
        (3.0, "asker-0", ReportAttempt("long", SERVER, path)),
        (3.5, "asker-0", ReportChunk("long", TEXT)),
        (4.5, "asker-0", ReportChunk("long", TEXT)),
    ]


def measures(entries: Iterable[tuple[float, str, Value]], spec: WorldSpec | None = None) -> dict[Figure, list[float]]:
    """Return what recovered, in seconds."""
    measuring = Measuring(spec or couple())
    for at, host, value in entries:
        measuring.observe(Entry(round(at * SECOND), host, value))
    recoveries = {
        Measure.INTERRUPTED,
        Measure.SILENCE,
        Measure.ANSWERED,
        Measure.PATH_BACK,
        Measure.RELAY_BACK,
    }
    samples = measuring.measured(1).samples
    return {
        Figure(each.measure, each.what): [value / SECOND for value in each.values]
        for each in samples
        if each.measure in recoveries
    }


def finished(request: str, path: Path) -> ReportFinished:
    return ReportFinished(request, SERVER, path, 1, 1, 1)


def test_a_relay_that_comes_back_is_told_with_the_answer_that_went_on_and_the_path() -> None:
    found = measures(
        [
            *beginning(Path.RELAY),
            (5.0, "relay-0", HostCrashed(Crash.RESET)),
            (5.1, "asker-0", ReportRelay(RelayState.WAITING, "connection reset")),
            (5.1, "asker-0", ReportPeer(SERVER, PeerState.LOST, Path.RELAY, "the relay was lost")),
            (5.2, "server-0", ReportRelay(RelayState.WAITING, "connection reset")),
            (8.0, "asker-0", ReportRelay(RelayState.CONNECTED)),
            (8.5, "server-0", ReportRelay(RelayState.CONNECTED)),
            (9.0, "asker-0", ReportPeer(SERVER, PeerState.CONNECTED, Path.RELAY)),
            (9.5, "asker-0", ReportChunk("long", TEXT)),
            (9.8, "asker-0", asked("short")),
            (10.0, "asker-0", finished("long", Path.RELAY)),
            (11.0, "asker-0", finished("short", Path.RELAY)),
        ]
    )
    assert found == {
        (Measure.RELAY_BACK, "relay-0 killed"): [3.0, 3.5],
        (Measure.PATH_BACK, "relay-0 killed, relay"): [4.0],
        (Measure.SILENCE, "relay-0 killed"): [5.0],
        (Measure.INTERRUPTED, "relay-0 killed"): [5.0],
        (Measure.ANSWERED, "relay-0 killed"): [6.0],
    }


def test_an_answer_that_is_lost_with_its_server_is_told_apart_from_one_that_came_to_its_end() -> None:
    found = measures(
        [
            *beginning(Path.DIRECT),
            (5.0, "server-0", HostCrashed(Crash.VANISH)),
            (9.0, "asker-0", ReportFailed("long", Failure.PEER_LOST, "it is gone", 1)),
        ]
    )
    assert found == {(Measure.INTERRUPTED, "server without power, failed"): [4.0]}


def test_a_fault_disturbs_nobody_who_has_nothing_to_do_with_it() -> None:
    found = measures(
        [
            *beginning(Path.DIRECT),
            (5.0, "relay-0", HostCrashed(Crash.RESET)),
            (6.0, "asker-0", finished("long", Path.DIRECT)),
        ]
    )
    assert Measure.INTERRUPTED not in {figure.measure for figure in found}


def test_a_path_that_moved_to_the_relay_is_back_when_it_is_direct_and_healthy_again() -> None:
    found = measures(
        [
            *beginning(Path.DIRECT),
            (3.0, "asker-0", ReportPeer(SERVER, PeerState.CONNECTED, Path.RELAY)),
            (5.0, "asker site 0", NatRebooted()),
            (6.0, "asker-0", ReportPeer(SERVER, PeerState.DEGRADED, Path.DIRECT, "a heartbeat was missed")),
            (9.0, "asker-0", ReportPeer(SERVER, PeerState.CONNECTED, Path.DIRECT)),
            (9.5, "asker-0", ReportPeer(SERVER, PeerState.DEGRADED, Path.DIRECT, "a heartbeat was missed")),
            (9.7, "asker-0", ReportPeer(SERVER, PeerState.CONNECTED, Path.DIRECT)),
        ]
    )
    assert found == {(Measure.PATH_BACK, "NAT of asker forgets, direct"): [4.0]}


@pytest.mark.parametrize(
    ("host", "fault", "label"),
    [
        ("asker site 0", NatRebound(("60.0.0.9",)), "NAT of asker renumbered"),
        ("asker-0", HostMoved("elsewhere", ("60.0.0.9",)), "asker moved"),
        ("", PartitionBegan(("asker",), ("server-0",)), "cut from asker to server"),
    ],
)
def test_every_fault_has_a_name_that_is_the_same_whichever_of_a_population_it_hits(
    host: str, fault: Value, label: str
) -> None:
    found = measures([*beginning(Path.DIRECT), (5.0, host, fault), (7.0, "asker-0", finished("long", Path.DIRECT))])
    assert found[Figure(Measure.INTERRUPTED, label)] == [2.0]


def test_the_asker_who_dies_himself_waits_for_nothing() -> None:
    found = measures(
        [
            *beginning(Path.DIRECT),
            (5.0, "asker-0", HostCrashed(Crash.RESET)),
            (6.0, "asker-0", HostStarted(2)),
        ]
    )
    assert found == {}


def test_the_recovery_scenario_measures_each_of_its_four_faults() -> None:
    spec = load("recovery").spec
    assert spec is not None
    run = simulated(spec, 1)
    found = {(each.measure, each.what): each.values for each in run.samples}
    assert run.broken == ()
    # A relay that is back within ten seconds costs no answer, and neither does a NAT that forgets.
    assert found[Measure.INTERRUPTED, "relay-0 killed"][0] < 12 * SECOND
    assert found[Measure.SILENCE, "NAT of flushed-asker forgets"][0] < 3 * SECOND
    # A server that dies takes its answer with it, honestly, and another one answers the next request.
    for server, patience in (("killed-server killed", 30), ("dark-server without power", 60)):
        assert 0 < found[Measure.INTERRUPTED, f"{server}, failed"][0] < patience * SECOND
        assert found[Measure.ANSWERED, server][0] < 10 * SECOND
    assert found[Measure.OUTCOMES, "doubled"] == found[Measure.OUTCOMES, "open at the end"] == (0,)
    shorter = simulated(replace(spec, faults=()), 1)
    assert not [each for each in shorter.samples if each.measure is Measure.INTERRUPTED]
