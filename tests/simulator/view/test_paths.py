from simulator.results.traces import Line
from simulator.view.lines import Nothing, Peer
from simulator.view.model import Between, PathChange
from simulator.view.paths import Paths, thinned

NODES = {"A": "ann", "B": "bob"}
SIDED = 4


def told(at: int, host: str, node: str, state: str, path: str, reason: str = "") -> Line:
    return Line(at, host, "ReportPeer", Peer(node, state, path, reason))


def changes(*lines: Line) -> list[tuple[int, int]]:
    paths = Paths({"ann": 0, "bob": 1}, NODES)
    for line in lines:
        paths.observe(line)
    return [(change.at, change.between) for change in paths.changes]


def test_a_pair_is_one_sided_until_the_other_has_met_it_too() -> None:
    seen = changes(told(1, "ann", "B", "connected", "relay"), told(2, "bob", "A", "connected", "relay"))
    assert seen == [(1, Between.RELAY + SIDED), (2, Between.RELAY)]


def test_the_better_of_two_paths_counts_and_what_is_left_when_it_is_gone() -> None:
    seen = changes(
        told(1, "ann", "B", "connected", "relay"),
        told(2, "ann", "B", "connected", "direct"),
        told(3, "ann", "B", "connected", "relay"),
        told(4, "ann", "B", "connected", "relay", "the direct path is silent"),
        told(5, "ann", "B", "lost", "relay", "silent"),
    )
    assert [between % SIDED for _, between in seen] == [3, 2, 3, 0]
    assert [at for at, _ in seen] == [1, 2, 4, 5]


def test_a_path_that_is_unwell_is_not_preferred() -> None:
    seen = changes(
        told(1, "ann", "B", "connected", "relay"),
        told(2, "ann", "B", "connected", "direct"),
        told(3, "ann", "B", "degraded", "direct"),
    )
    assert [between % SIDED for _, between in seen] == [3, 2, 3]


def test_the_dead_know_nobody() -> None:
    seen = changes(
        told(1, "ann", "B", "connected", "lan"),
        told(1, "bob", "A", "connected", "lan"),
        Line(2, "bob", "HostCrashed", Nothing()),
        told(3, "ann", "B", "lost", "lan", "silent"),
    )
    assert seen == [(1, 1 + SIDED), (1, 1), (2, 1 + SIDED), (3, 0)]


def test_nodes_and_hosts_that_nobody_knows_are_passed_over() -> None:
    assert changes(told(1, "ann", "C", "connected", "lan"), told(1, "carl", "A", "connected", "lan")) == []
    assert changes(told(1, "ann", "A", "connected", "lan"), told(1, "ann", "B", "connected", "local")) == []


def test_of_too_many_changes_those_of_a_pair_that_are_close_become_the_last_of_them() -> None:
    many = [PathChange(at * 100, 0, 1, at % 2) for at in range(1000)]
    assert thinned(many, 1000) == (many, 0)
    kept, within = thinned(many, 20)
    assert within == 10_000
    assert len(kept) == 10
    assert kept[-1] == many[-1]
