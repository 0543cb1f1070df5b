"""The planner as a grid: who can reach whom, how, and what it says about that."""

from itertools import product

import pytest

from teale_proto.contract import MILLISECOND, SECOND
from teale_proto.inputs import Address
from teale_proto.nat import birthday
from teale_proto.nat.allocation import Allocation, Pattern
from teale_proto.nat.kinds import Behaviour, Filtering, Hairpinning, Mapping
from teale_proto.nat.strategy import CandidateKind, Effort, Part, Plan, PlanKind, Side, plan

MAPPINGS = dict(zip(("EIM", "ADM", "APDM"), Mapping, strict=True))
FILTERINGS = dict(zip(("EIF", "ADF", "APDF"), Filtering, strict=True))

MATRIX = """
               public   EIM+EIF  EIM+ADF  EIM+APDF  APDM+APDF
    public     direct   direct   direct   direct    direct
    EIM+EIF    -        direct   direct   direct    direct
    EIM+ADF    -        -        punch    punch     punch
    EIM+APDF   -        -        -        punch     birthday
    APDM+APDF  -        -        -        -         relay
"""

ALL_PAIRS = """
               EIM+EIF  EIM+ADF  EIM+APDF  ADM+EIF   ADM+ADF   ADM+APDF  APDM+EIF  APDM+ADF  APDM+APDF
    EIM+EIF    direct   direct   direct    direct    direct    direct    direct    direct    direct
    EIM+ADF    -        punch    punch     direct    punch     punch     direct    punch     punch
    EIM+APDF   -        -        punch     birthday  birthday  birthday  birthday  birthday  birthday
    ADM+EIF    -        -        -         direct    direct    relay     direct    direct    relay
    ADM+ADF    -        -        -         -         relay     relay     direct    relay     relay
    ADM+APDF   -        -        -         -         -         relay     relay     relay     relay
    APDM+EIF   -        -        -         -         -         -         relay     relay     relay
    APDM+ADF   -        -        -         -         -         -         -         relay     relay
    APDM+APDF  -        -        -         -         -         -         -         -         relay
"""

UNKNOWN_FILTERING = """
               EIM+?   EIM+EIF  EIM+ADF  EIM+APDF  APDM+?  APDM+APDF
    EIM+?      punch   direct   punch    punch     punch   punch
    APDM+?     punch   direct   punch    birthday  relay   relay
    ?+?        punch   direct   punch    punch     punch   punch
"""


def cells(table: str) -> list[tuple[str, str, str]]:
    header, *rows = [line.split() for line in table.strip().splitlines()]
    return [(row[0], other, cell) for row in rows for other, cell in zip(header, row[1:], strict=True) if cell != "-"]


def side(name: str, *, host: str = "203.0.113.1", birthday_allowed: bool = False, **more: object) -> Side:
    """Return a side by its shorthand; `?` is what is not known."""
    if name == "public":
        behaviour = Behaviour(False, Address(host, 1), False, Mapping(0), False, Filtering(0))
    elif name == "blocked":
        behaviour = Behaviour(udp_blocked=True)
    else:
        mapping, filtering = name.split("+")
        behaviour = Behaviour(
            False, Address(host, 1), True, MAPPINGS.get(mapping), None, FILTERINGS.get(filtering), Hairpinning.NONE
        )
    return Side(behaviour, birthday_allowed=birthday_allowed, **more)  # type: ignore[arg-type]  # passed on


def planned(ours: str, theirs: str, *, allowed: bool = True) -> Plan:
    return plan(side(ours, birthday_allowed=allowed), side(theirs, host="203.0.113.2", birthday_allowed=allowed))


def mirrored(made: Plan) -> tuple[object, ...]:
    return made.kind, made.theirs, made.ours, made.chance, made.time, made.keep_alive


@pytest.mark.parametrize("table", [MATRIX, ALL_PAIRS, UNKNOWN_FILTERING], ids=["matrix", "all pairs", "unknown"])
def test_the_grid_holds_cell_by_cell_and_so_does_its_mirror(table: str) -> None:
    for ours, theirs, cell in cells(table):
        made, other = planned(ours, theirs), planned(theirs, ours)
        assert made.kind.name.lower() == cell, f"{ours} x {theirs}"
        assert mirrored(made) == (other.kind, other.ours, other.theirs, other.chance, other.time, other.keep_alive)


@pytest.mark.parametrize(("ours", "theirs", "cell"), [cell for cell in cells(ALL_PAIRS) if cell[2] == "birthday"])
def test_without_leave_on_both_sides_there_is_no_birthday(ours: str, theirs: str, cell: str) -> None:
    for allowed in ((True, False), (False, True), (False, False)):
        sides = side(ours, birthday_allowed=allowed[0]), side(theirs, host="h", birthday_allowed=allowed[1])
        assert plan(*sides).kind is PlanKind.RELAY


def test_where_udp_is_blocked_there_is_only_the_relay() -> None:
    for name in ("public", "EIM+EIF", "APDM+APDF", "blocked"):
        made = planned("blocked", name)
        assert (made.kind, made.candidates, made.chance) == (PlanKind.RELAY, (CandidateKind.RELAYED,), 0.0)
    assert planned("blocked", "public").reason == "relayed: your network blocks UDP"
    assert planned("public", "blocked").reason == "relayed: their network blocks UDP"


PARTS = {
    ("public", "EIM+APDF"): (Part.WAITS, Part.SENDS),
    ("APDM+APDF", "EIM+EIF"): (Part.SENDS, Part.WAITS),
    ("EIM+EIF", "EIM+EIF"): (Part.SENDS, Part.SENDS),
    ("EIM+ADF", "APDM+APDF"): (Part.SENDS, Part.SENDS),
    ("EIM+APDF", "APDM+APDF"): (Part.GUESSES, Part.OPENS_SOCKETS),
    ("APDM+APDF", "APDM+APDF"): (Part.NOTHING, Part.NOTHING),
}


@pytest.mark.parametrize(("pair", "parts"), PARTS.items())
def test_a_plan_says_who_does_what(pair: tuple[str, str], parts: tuple[Part, Part]) -> None:
    made = planned(*pair)
    assert (made.ours, made.theirs) == parts


COUNTING = Allocation(Pattern.SEQUENTIAL, 2)
RANDOM = Allocation(Pattern.RANDOM)
PREDICTIONS = {
    "counting and easy": ((COUNTING, "APDM+APDF"), (None, "EIM+APDF"), PlanKind.PREDICTION),
    "preserving and easy": ((Allocation(Pattern.PRESERVING), "ADM+APDF"), (None, "EIM+APDF"), PlanKind.PREDICTION),
    "both counting": ((COUNTING, "APDM+APDF"), (COUNTING, "APDM+APDF"), PlanKind.PREDICTION),
    "counting and random": ((COUNTING, "APDM+APDF"), (RANDOM, "APDM+APDF"), PlanKind.RELAY),
    "random and easy": ((RANDOM, "APDM+APDF"), (None, "EIM+APDF"), PlanKind.RELAY),
    "nothing to foretell": ((COUNTING, "APDM+APDF"), (None, "EIM+ADF"), PlanKind.PUNCH),
}


@pytest.mark.parametrize(("ours", "theirs", "kind"), PREDICTIONS.values(), ids=PREDICTIONS)
def test_ports_are_foretold_only_where_every_hard_side_can(
    ours: tuple[Allocation, str], theirs: tuple[Allocation | None, str], kind: PlanKind
) -> None:
    one, other = side(ours[1], allocation=ours[0]), side(theirs[1], host="h", allocation=theirs[0])
    assert plan(one, other).kind is plan(other, one).kind is kind


def test_a_mapping_that_varies_counts_as_hard_and_one_that_is_unknown_as_common() -> None:
    varies = Side(Behaviour(False, Address("h", 1), True, mapping_varies=True))
    assert plan(varies, side("EIM+APDF")).kind is PlanKind.RELAY
    assert plan(varies, side("EIM+ADF")).kind is PlanKind.PUNCH
    unknown = planned("?+?", "EIM+APDF")
    # Of ninety homes behind a NAT, eighty are not hard.
    assert unknown.chance == pytest.approx(0.97 * 80 / 90)
    assert "what your mapping depends on is not known" in unknown.reason


def test_a_forwarded_port_makes_anybody_reachable() -> None:
    made = plan(side("APDM+APDF"), side("APDM+APDF", host="h", port_mapped=True))
    assert (made.kind, made.ours, made.theirs) == (PlanKind.DIRECT, Part.SENDS, Part.WAITS)
    assert made.candidates[0] is CandidateKind.MAPPED
    assert made.reason == "direct: their gateway forwards a port to them"


def test_ipv6_is_taken_where_it_is_better_and_only_there() -> None:
    firewall = Behaviour(False, Address("2001:db8::1", 1), False, Mapping(0), False, Filtering(2))
    hard = side("APDM+APDF", ipv6=firewall), side("EIM+APDF", host="h", ipv6=firewall)
    made = plan(*hard)
    assert (made.kind, made.ipv6) == (PlanKind.PUNCH, True)
    assert made.reason.endswith("(over IPv6)")
    assert not plan(side("public", ipv6=firewall), hard[1]).ipv6
    assert not plan(side("APDM+APDF"), hard[1]).ipv6


@pytest.mark.parametrize("loops", [True, False])
def test_neighbours_try_their_own_addresses_first(loops: bool) -> None:
    behaviour = Behaviour(
        False,
        Address("h", 1),
        True,
        Mapping(2),
        True,
        Filtering(2),
        Hairpinning.EXTERNAL_SOURCE if loops else Hairpinning.NONE,
    )
    made = plan(Side(behaviour), Side(behaviour))
    assert (made.kind, made.candidates[0]) == (PlanKind.DIRECT, CandidateKind.HOST)
    assert (CandidateKind.REFLEXIVE in made.candidates) is loops
    assert plan(Side(behaviour), Side(behaviour), failures=1).kind is PlanKind.RELAY


def test_neighbours_without_udp_to_the_internet_are_known_by_where_the_relay_sees_them() -> None:
    blocked = side("blocked", outside="h")
    assert plan(blocked, blocked).kind is PlanKind.DIRECT


def test_after_a_failure_the_plan_changes() -> None:
    counting = side("APDM+APDF", allocation=COUNTING, birthday_allowed=True)
    easy = side("EIM+APDF", host="h", birthday_allowed=True)
    kinds = [plan(counting, easy, failures=failures).kind for failures in range(3)]
    assert kinds == [PlanKind.PREDICTION, PlanKind.PREDICTION, PlanKind.BIRTHDAY]
    unsure = side("EIM+?", host="h", birthday_allowed=True)
    hard = side("APDM+APDF", birthday_allowed=True)
    assert [plan(hard, unsure, failures=failures).kind for failures in range(2)] == [PlanKind.PUNCH, PlanKind.BIRTHDAY]
    again = plan(side("public"), side("EIM+APDF", host="h"), failures=1)
    assert (again.kind, again.ours, again.theirs) == (PlanKind.PUNCH, Part.SENDS, Part.SENDS)


def test_the_reason_is_a_sentence_for_people() -> None:
    assert planned("APDM+APDF", "EIM+APDF", allowed=False).reason == (
        "relayed: your mapping is address-and-port-dependent, theirs filters by port; a birthday attempt would succeed "
        "with 98 % within 10 s; enable with wan_birthday = true on both sides"
    )
    assert planned("EIM+APDF", "EIM+ADF").reason == (
        "punched: your NAT filters by port, theirs filters by address; both send at about the same time"
    )
    assert planned("APDM+APDF", "APDM+APDF").reason.endswith("to guess both ports would take 54 000 probes")
    assert planned("EIM+APDF", "public").reason == "direct: they can be reached from anywhere"


def test_every_plan_ends_with_the_relay_and_has_a_reason() -> None:
    names = ["public", "blocked", *("+".join(pair) for pair in product([*MAPPINGS, "?"], [*FILTERINGS, "?"]))]
    for ours, theirs, failures in product(names, names, range(3)):
        made = plan(side(ours), side(theirs, host="h"), failures=failures)
        assert made.candidates[-1] is CandidateKind.RELAYED
        assert made.reason
        assert 0 <= made.chance < 1


def test_time_and_keep_alive_follow_the_distance_and_the_shortest_lifetime() -> None:
    far = plan(side("EIM+ADF"), side("EIM+ADF", host="h"), effort=Effort(round_trip=200 * MILLISECOND))
    assert (far.time, far.keep_alive) == (500 * MILLISECOND, 10 * SECOND)
    long = plan(side("EIM+ADF", lifetime=300 * SECOND), side("EIM+ADF", host="h", lifetime=300 * SECOND))
    assert long.keep_alive == 30 * SECOND
    short = plan(side("EIM+ADF", lifetime=30 * SECOND), side("EIM+ADF", host="h", lifetime=300 * SECOND))
    assert short.keep_alive == 10 * SECOND
    # The median of guessing is well below the ten seconds that the reason speaks of.
    assert 2 * SECOND < planned("EIM+APDF", "APDM+APDF").time < 5 * SECOND


@pytest.mark.parametrize("ports", [(1, 3), (5, 1), (-(10**400), 10**400)])
def test_nonsense_that_a_peer_says_of_its_ports_harms_nobody(ports: tuple[int, int]) -> None:
    liar = side("APDM+APDF", birthday_allowed=True, lifetime=-5, allocation=Allocation(Pattern.RANDOM, 0, *ports))
    for failures in range(3):
        made = plan(side("EIM+APDF", host="h", birthday_allowed=True), liar, failures=failures)
        assert made.kind is PlanKind.BIRTHDAY
        assert made.keep_alive == SECOND


FIGURES = """
    64512  174   50
    64512  256   64
    64512  512   87
    64512  1024  98.4
    64512  2048  99.97
    32768  256   86.7
    32768  512   98.3
"""


@pytest.mark.parametrize("line", FIGURES.strip().splitlines())
def test_the_odds_of_the_birthday_are_those_of_the_published_figures(line: str) -> None:
    ports, probes, percent = line.split()
    digits = len(percent.partition(".")[2])
    odds = birthday.chance(sockets=256, probes=int(probes), ports=int(ports))
    assert 100 * odds == pytest.approx(float(percent), abs=0.6 * 10**-digits)


def test_both_sides_hard_take_54_000_probes_for_an_even_chance() -> None:
    assert round(birthday.probes_if_both_are_hard(0.5), -3) == 54_000


def test_the_probes_for_a_chance_are_the_fewest() -> None:
    for wanted in (0.1, 0.5, 0.98):
        probes = birthday.probes_for(wanted, sockets=256)
        assert birthday.chance(sockets=256, probes=probes) >= wanted > birthday.chance(sockets=256, probes=probes - 1)
