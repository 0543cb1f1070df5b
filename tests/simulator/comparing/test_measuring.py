"""One run, measured from its entries: the same whether they are taken as they come or read back."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from simulator import scenario
from simulator.comparing.cast import Cast, cell_name
from simulator.comparing.measured import Figure, Measure, Measured, PathCount
from simulator.comparing.measuring import Measuring, measured_from
from simulator.comparing.simulating import simulate, simulated
from simulator.comparing.traces import entries
from simulator.results.model import DamagedResults, MissingResults, ResultsError
from simulator.results.recorder import Recorder
from simulator.spec.build import scenario_of
from simulator.spec.world_spec import WorldSpec
from simulator.trace import Entry
from teale_proto.contract import MILLISECOND, SECOND
from teale_proto.effects import PeerState, ReportPeer
from tests.simulator.comparing.worlds import couple, runs

CELL = cell_name("asker", "server")


def recorded(folder: Path, spec: WorldSpec, seed: int, *, trace: bool = True) -> Path:
    made = scenario_of(spec)
    world = scenario.world_of(made, seed)
    with Recorder(world, folder, trace=trace) as recorder:
        recorder.finish(scenario.run(made, seed, world=world), command="x")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recorded(tmp_path_factory.mktemp("recorded") / "one", couple(), 1)


def values(run: Measured, measure: Measure, what: str) -> tuple[int, ...]:
    return run.values(Figure(measure, what))


def test_what_is_read_back_measures_as_what_was_watched(folder: Path) -> None:
    assert measured_from(folder, couple()) == runs(1, 1)[0]


def test_a_couple_meets_over_the_relay_punches_and_asks() -> None:
    run = runs(1, 1)[0]
    assert run.paths == (PathCount(CELL, "direct", 1),)
    (met,), (direct,), (punched,) = (
        values(run, measure, CELL) for measure in (Measure.MET, Measure.DIRECT, Measure.PUNCHED)
    )
    assert 200 * MILLISECOND < met < 400 * MILLISECOND
    assert direct == met + punched
    assert 2 * SECOND < direct < 4 * SECOND
    assert len(values(run, Measure.FIRST_TOKEN, f"{CELL}, relay")) == 1
    first, whole = (values(run, each, f"{CELL}, direct") for each in (Measure.FIRST_TOKEN, Measure.WHOLE))
    assert len(first) == len(whole) == 5
    # There, thought about, and back.
    assert all(70 * MILLISECOND < each < 110 * MILLISECOND for each in first)
    assert all(one < other for one, other in zip(first, whole, strict=True))
    assert len(values(run, Measure.REGISTERED, "relay-0")) == 2


def test_what_goes_through_the_relay_is_counted_by_kind() -> None:
    run = runs(1, 1)[0]
    kinds = {each.what: each.values[0] for each in run.samples if each.measure is Measure.MESSAGE_KINDS}
    assert kinds["relay-0, register"] == kinds["relay-0, registerProof"] == 2
    assert kinds["relay-0, relayOpen"] == 1
    assert sum(kinds.values()) == values(run, Measure.MESSAGES_IN, "relay-0")[0]
    assert values(run, Measure.BYTES_IN, "relay-0")[0] > 50 * sum(kinds.values())


def test_requests_are_counted_by_their_end_and_nothing_is_lost_or_doubled() -> None:
    found = {each.what: each.values for each in runs(1, 1)[0].samples if each.measure is Measure.OUTCOMES}
    assert found == {"finished": (6,), "doubled": (0,), "open at the end": (0,)}


def test_seeds_come_back_in_their_order_whoever_ran_them() -> None:
    spec = couple()
    assert simulate([spec], (3, 1), workers=2) == [simulated(spec, 3), simulated(spec, 1)]


def test_what_comes_after_the_end_of_the_scenario_is_let_pass(folder: Path) -> None:
    measuring = Measuring(couple())
    said = list(entries(folder, measuring.kinds))
    for entry in said:
        measuring.observe(entry)
    before = measuring.measured(1)
    reports = [entry.value for entry in said if isinstance(entry.value, ReportPeer)]
    # Programs that are ended say good-bye.
    measuring.observe(Entry(20 * SECOND + 1, "asker-0", replace(reports[0], state=PeerState.LOST)))
    assert measuring.measured(1) == before


def test_results_without_a_trace_of_another_scenario_or_with_a_broken_trace_are_refused(
    tmp_path: Path, folder: Path
) -> None:
    with pytest.raises(MissingResults, match="--trace"):
        measured_from(recorded(tmp_path / "bare", couple(), 1, trace=False), couple())
    with pytest.raises(ResultsError, match=r"'couple'.*not of 'village'"):
        measured_from(folder, WorldSpec(name="village"))
    broken = recorded(tmp_path / "broken", couple(), 1)
    trace = broken / "trace.jsonl.gz"
    trace.write_bytes(trace.read_bytes()[:-2000])
    with pytest.raises(DamagedResults, match=r"cannot be read, after \d+ lines"):
        measured_from(broken, couple())


def test_a_cast_knows_populations_sites_relays_and_cells() -> None:
    cast = Cast(couple())
    assert cast.cell("server-0", "asker-0") == cast.cell("asker-0", "server-0") == CELL
    assert cast.whom("asker site 0") == cast.whom("asker") == frozenset({"asker-0"})
    assert cast.whom("relay-0") == frozenset({"relay-0"})
    assert cast.whom("europe-west") == frozenset({"asker-0", "server-0"})
    assert cast.label("asker site 0") == cast.label("asker-0") == "asker"
    assert cast.label("relay-0") == "relay-0"
    assert cast.relay_of("asker-0") == "relay-0"
    assert list(cast.pairs()) == [("asker-0", "server-0")]
