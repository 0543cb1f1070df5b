"""Every kind of NAT against every other, with the cores that ship."""

from itertools import product
from statistics import median

import msgspec
import pytest

from simulator.nat_grid import EIGHT, KINDS, Cell, Conditions, Grid, Outcome, run_cell, run_grid
from simulator.net.nat import Allocation, NatKind
from teale_proto.contract import MILLISECOND, SECOND
from teale_proto.nat.kinds import Filtering, Hairpinning, Mapping
from tests.simulator.processes import printed

MATRIX = """
               public   EIM+EIF  EIM+ADF  EIM+APDF  APDM+APDF
    public     direct   direct   direct   direct    direct
    EIM+EIF    -        direct   direct   direct    direct
    EIM+ADF    -        -        punched  punched   punched
    EIM+APDF   -        -        -        punched   birthday
    APDM+APDF  -        -        -        -         relayed
"""
HEADER, *ROWS = [line.split() for line in MATRIX.strip().splitlines()]
CELLS = [(row[0], other, cell) for row in ROWS for other, cell in zip(HEADER, row[1:], strict=True) if cell != "-"]
LATENCIES = [each * MILLISECOND for each in (1, 5, 10, 20, 40, 80, 120, 150, 200, 300)]
"""One way, from a site to the middle of the internet; the last is a geostationary satellite's."""
LOSSES = [0.0, 0.05]


def meet(ours: str, theirs: str, conditions: Conditions, *, shared: int = 0) -> Cell:
    return run_cell((ours, KINDS[ours]), (theirs, KINDS[theirs]), conditions, shared=shared)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("latency", LATENCIES)
@pytest.mark.parametrize("birthday", [False, True])
def test_the_matrix_holds_cell_by_cell(birthday: bool, latency: int, loss: float) -> None:
    for ours, theirs, expected in CELLS:
        wanted = "relayed" if expected == "birthday" and not birthday else expected
        for pair in ((ours, theirs), (theirs, ours)):
            cell = meet(*pair, Conditions(latency, latency, loss, birthday=birthday))
            assert (cell.outcome.value, cell.predicted.value) == (wanted, wanted), pair
            assert cell.carries == (wanted != "relayed"), pair


NAMES = {
    f"{mapping.name} {filtering.name}": (NatKind(mapping=mapping, filtering=filtering, allocation=Allocation.RANDOM),)
    for mapping, filtering in product(Mapping, Filtering)
}


@pytest.mark.parametrize("birthday", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
def test_all_pairs_of_mapping_and_filtering_end_as_planned(loss: float, birthday: bool) -> None:
    grid = run_grid(NAMES, Conditions(3, loss=loss, birthday=birthday))
    assert [cell for cell in grid.cells if cell.outcome is not cell.predicted] == []
    assert all(cell.carries for cell in grid.cells if cell.outcome is not Outcome.RELAYED)


@pytest.mark.parametrize("step", [1, 3])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_nat_that_counts_is_predicted(step: int, loss: float) -> None:
    kind = NatKind(mapping=Mapping.ADDRESS_AND_PORT_DEPENDENT, step=step, allocation=Allocation.SEQUENTIAL)
    counting, easy = ("counting", (kind,)), ("easy", KINDS["EIM+APDF"])
    for ours, theirs in ((counting, easy), (easy, counting), (counting, counting)):
        for seed in range(5):
            cell = run_cell(ours, theirs, Conditions(seed, loss=loss))
            assert (cell.outcome, cell.carries) == (Outcome.PREDICTED, True)


def test_a_hard_nat_that_preserves_ports_is_predicted_too() -> None:
    preserving = ("preserving", (NatKind(mapping=Mapping.ADDRESS_AND_PORT_DEPENDENT),))
    cell = run_cell(preserving, ("easy", KINDS["EIM+APDF"]), Conditions())
    assert (cell.outcome, cell.carries) == (Outcome.PREDICTED, True)


def test_counting_and_random_stay_relayed() -> None:
    assert meet("APDM sequential", "APDM+APDF", Conditions(birthday=True)).outcome is Outcome.RELAYED


@pytest.mark.parametrize("kind", ["EIM+APDF", "APDM+APDF", "UDP blocked", "carrier over home"])
def test_neighbours_meet_at_their_own_addresses(kind: str) -> None:
    cell = meet(kind, kind, Conditions(loss=0.05), shared=len(KINDS[kind]))
    assert (cell.outcome, cell.carries) == (Outcome.DIRECT, True)


@pytest.mark.parametrize("home", ["EIM+EIF", "EIM+ADF", "EIM+APDF"])
def test_homes_behind_one_carrier_meet_where_it_loops_their_packets_back(home: str) -> None:
    for hairpinning in (Hairpinning.EXTERNAL_SOURCE, Hairpinning.NONE):
        carrier = NatKind(hairpinning=hairpinning, allocation=Allocation.RANDOM)
        kind = ("home", (carrier, *KINDS[home]))
        cell = run_cell(kind, kind, Conditions(2, loss=0.05), shared=1)
        loops = hairpinning is Hairpinning.EXTERNAL_SOURCE
        # Nobody can know from outside whether one address stands for one home or for a carrier's thousand.
        assert cell.predicted is Outcome.DIRECT
        assert ("would loop them back" in cell.reason) == loops
        assert (cell.outcome, cell.carries) == ((Outcome.DIRECT, True) if loops else (Outcome.RELAYED, False))
        assert cell.attempts == (1 if loops else 3)


def test_the_birthday_takes_the_time_that_the_plan_promises() -> None:
    cells = [meet("EIM+APDF", "APDM+APDF", Conditions(seed, birthday=True, loss=0.05)) for seed in range(60)]
    times = [cell.time_to_open for cell in cells if cell.time_to_open is not None]
    assert len(times) >= 58
    assert 2 * SECOND < median(times) < 6 * SECOND
    assert all(cell.probes_sent < 3 * 4500 for cell in cells)


def test_a_small_table_is_a_surprise_that_the_grid_shows() -> None:
    """A table of 64 cannot hold two thousand guesses, and nobody can ask a router for its table's size.

    Some 60 guesses against 256 new sockets hit in one attempt of five, so three attempts fail for half of the pairs.
    """
    names = ("small table", "APDM+APDF")
    grids = [run_grid({name: KINDS[name] for name in names}, Conditions(seed, birthday=True)) for seed in range(10)]
    cells = [grid.cell(*names) for grid in grids]
    assert {cell.predicted for cell in cells} == {Outcome.BIRTHDAY}
    assert 3 <= sum(cell.outcome is Outcome.RELAYED for cell in cells) <= 7
    assert any("relayed !" in grid.text for grid in grids)


def test_eight_by_eight_end_as_planned_where_packets_are_lost() -> None:
    grid = run_grid(EIGHT, Conditions(loss=0.05, birthday=True))
    assert len(grid.cells) == 64
    assert [cell for cell in grid.cells if cell.outcome is not cell.predicted] == []


def test_twelve_kinds_end_as_planned_without_guessing() -> None:
    grid = run_grid(KINDS)
    assert len(grid.cells) == 144
    assert [cell for cell in grid.cells if cell.outcome is not cell.predicted] == []


def test_a_grid_is_a_value_for_programs_and_a_table_for_people() -> None:
    grid = run_grid({name: KINDS[name] for name in ("public", "EIM+APDF")})
    assert msgspec.json.decode(msgspec.json.encode(grid), type=Grid) == grid
    header, first, second = grid.text.splitlines()
    assert header.split() == ["public", "EIM+APDF"]
    assert first.startswith("public")
    assert second.split()[0] == "EIM+APDF"
    with pytest.raises(KeyError):
        grid.cell("public", "nothing")


def test_a_cell_is_the_same_whichever_other_kinds_there_are() -> None:
    small = run_grid({name: KINDS[name] for name in ("EIM+APDF", "APDM+APDF")}, Conditions(birthday=True, loss=0.05))
    large = run_grid(EIGHT, Conditions(birthday=True, loss=0.05))
    assert small.cell("EIM+APDF", "APDM+APDF") == large.cell("EIM+APDF", "APDM+APDF")


DIGEST = """
import msgspec
from simulator.nat_grid import Conditions, EIGHT, run_grid
print(msgspec.json.encode(run_grid(EIGHT, Conditions({seed}, birthday=True, loss=0.05))))
"""


def digest(seed: int, hash_seed: str) -> str:
    return printed(DIGEST.format(seed=seed), hash_seed)


def test_a_seed_decides_everything_and_the_hash_seed_nothing() -> None:
    assert digest(1, "1") == digest(1, "2") != digest(2, "1")
