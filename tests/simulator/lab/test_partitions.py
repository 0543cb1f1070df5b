"""Who is kept from whom, worked out: by line where that will do, by marks where hosts share a line."""

import pytest

from simulator.lab.errors import LabError
from simulator.lab.partitions import CLASSES_MAX, Attached, rules_of, stops_of
from simulator.net.medium import Block

ALICE = Attached(1, frozenset({"alice", "home", "east"}), "alice")
ADAM = Attached(1, frozenset({"adam", "home", "east"}), "adam")
BOB = Attached(2, frozenset({"bob", "office", "west"}), "bob")
RELAY = Attached(3, frozenset({"relay", "east"}), "relay")
HOSTS = (ALICE, ADAM, BOB, RELAY)


def block(sources: str, targets: str) -> Block:
    return Block(frozenset(sources.split()), frozenset(targets.split()))


@pytest.mark.parametrize(
    ("blocks", "lines", "marks", "drops"),
    [
        ([], set(), {}, {}),
        ([block("bob", "relay")], {(2, 3)}, {}, {}),
        ([block("home", "bob")], {(1, 2)}, {}, {}),
        ([block("alice adam", "bob")], {(1, 2)}, {}, {}),
        ([block("alice", "bob"), block("adam", "bob")], {(1, 2)}, {}, {}),
        ([block("east", "west")], {(1, 2), (3, 2)}, {}, {}),
        # One of two behind a line; and from outside, to one of two.
        ([block("alice", "bob")], set(), {"alice": 1}, {"bob": {1}}),
        ([block("bob", "adam")], set(), {"bob": 1}, {"adam": {1}}),
        # Within a site, only hosts count.
        ([block("home east", "home east")], {(1, 3), (3, 1)}, {}, {}),
        ([block("alice", "adam")], set(), {"alice": 1}, {"adam": {1}}),
        ([block("alice adam", "alice adam")], set(), {"adam": 1, "alice": 2}, {"alice": {1}, "adam": {2}}),
    ],
)
def test_what_is_stopped_where(
    blocks: list[Block], lines: set[tuple[int, int]], marks: dict[str, int], drops: dict[str, set[int]]
) -> None:
    stops = stops_of(blocks, HOSTS)
    assert set(stops.lines) == lines
    assert stops.marks == marks
    assert {name: set(classes) for name, classes in stops.drops.items()} == drops


def test_hosts_that_are_kept_from_the_same_share_a_class() -> None:
    many = [Attached(1, frozenset({f"host-{number}"}), f"host-{number}") for number in range(200)]
    stops = stops_of([Block(frozenset(host.name for host in many[:150]), frozenset({"bob"}))], [*many, BOB])
    assert set(stops.marks.values()) == {1}
    assert stops.drops == {"bob": {1}}


def test_more_classes_than_there_can_be_are_refused() -> None:
    ours, theirs = (
        [Attached(line, frozenset({f"{side}-{number}"}), f"{side}-{number}") for number in range(CLASSES_MAX + 1)]
        for line, side in enumerate(("ours", "theirs"))
    )
    apart = [Block(one.names, other.names) for one, other in zip(ours, theirs, strict=True)]
    assert len(stops_of(apart[:-1], [*ours, *theirs]).marks) == CLASSES_MAX
    with pytest.raises(LabError, match="64 groups"):
        stops_of(apart, [*ours, *theirs])


def test_without_marks_and_drops_the_rules_are_gone() -> None:
    assert "chain" not in rules_of(None, frozenset())
    assert "dscp set 5" in rules_of(5, frozenset())
    assert "dscp { 2, 7 } drop" in rules_of(None, frozenset({7, 2}))
