"""Verdicts: what is as predicted, what is not, and what one world has and the other has not."""

import pytest

from simulator.comparing.cast import cell_name
from simulator.comparing.measured import Figure, Measure
from simulator.comparing.wording import disagreements, text
from teale_proto.contract import MILLISECOND
from tests.simulator.comparing.worlds import held, measured, runs

CELL = cell_name("a", "b")
TOKEN = Figure(Measure.FIRST_TOKEN, f"{CELL}, direct")
COUNT = Figure(Measure.MESSAGES_IN, "relay-0")
TEN = tuple(measured(seed, {TOKEN: (100_000 + 1_000 * seed,)}) for seed in range(11))
"""Simulated: 100 to 110 ms, nine tenths of the way from 101 to 109."""


@pytest.mark.parametrize(
    ("microseconds", "is_inside"),
    [(105_000, True), (101_000, True), (109_000, True), (100_500, False), (109_500, False), (200_000, False)],
)
def test_a_median_in_the_interval_is_inside(microseconds: int, is_inside: bool) -> None:
    comparison = held(TEN, (measured(1, {TOKEN: (microseconds,)}),), grain=0)
    assert [row.is_inside for row in comparison.figures] == [is_inside]
    assert comparison.agrees is is_inside


def test_what_a_lab_cannot_tell_apart_widens_intervals_of_times_and_of_nothing_else() -> None:
    lab = measured(1, {TOKEN: (110_000,), COUNT: (6,)})
    ours = tuple(measured(seed, {TOKEN: (100_000 + 1_000 * seed,), COUNT: (5,)}) for seed in range(11))
    comparison = held(ours, (lab,), grain=MILLISECOND)
    assert {row.measure: row.is_inside for row in comparison.figures} == {
        Measure.FIRST_TOKEN: True,
        Measure.MESSAGES_IN: False,
    }


def test_the_values_of_all_runs_are_put_together_and_their_median_counts() -> None:
    lab = (measured(1, {TOKEN: (50_000, 105_000)}), measured(2, {TOKEN: (400_000,)}))
    (row,) = held(TEN, lab).figures
    assert row.is_inside
    assert row.lab is not None
    assert (row.lab.count, row.lab.least, row.lab.median, row.lab.most) == (3, 50_000, 105_000, 400_000)


def test_what_was_simulated_but_never_seen_is_a_disagreement_and_so_is_the_reverse() -> None:
    unseen = held(TEN, (measured(1),))
    assert not unseen.agrees
    assert "never seen in the lab" in text(unseen)
    unforeseen = held((measured(1),), (measured(1, {TOKEN: (1,)}),))
    assert not unforeseen.agrees
    assert "never simulated" in text(unforeseen)


def test_what_was_hardly_ever_simulated_may_be_missing() -> None:
    ours = (*(measured(seed) for seed in range(9)), measured(9, {TOKEN: (1_000,)}))
    assert held(ours, (measured(1),)).figures == ()


def test_a_run_without_any_of_what_is_counted_has_nought_of_it() -> None:
    ours = (measured(0), measured(1), measured(2, {COUNT: (4,)}))
    (row,) = held(ours, (measured(0, {COUNT: (0,)}),)).figures
    assert row.simulated is not None
    assert (row.simulated.median, row.simulated.most) == (0, 4)
    assert row.is_inside


def test_a_single_lost_request_is_not_made_good_by_runs_that_lost_none() -> None:
    lost, done = Figure(Measure.OUTCOMES, "timeout"), Figure(Measure.OUTCOMES, "finished")
    ours = tuple(measured(seed, {done: (10,)}) for seed in range(5))
    well = measured(1, {done: (10,)})
    assert held(ours, (well, well, well)).agrees
    comparison = held(ours, (well, measured(2, {done: (9,), lost: (1,)}), well))
    assert [row.is_inside for row in comparison.figures] == [False, False]


@pytest.mark.parametrize(
    ("simulated", "lab", "is_inside"),
    [
        ({"direct": 100}, {"direct": 4}, True),
        ({"direct": 100}, {"relay": 4}, False),
        ({"direct": 100}, {"direct": 3, "relay": 1}, False),
        ({"direct": 98, "relay": 2}, {"direct": 3, "relay": 1}, True),
        ({"direct": 98, "relay": 2}, {"relay": 4}, False),
        ({"direct": 80, "relay": 20}, {"relay": 4}, True),
        ({"direct": 100}, {"direct": 3, "never": 1}, False),
    ],
)
def test_a_cell_is_as_predicted_when_its_paths_are_likely_ones(
    simulated: dict[str, int], lab: dict[str, int], is_inside: bool
) -> None:
    ours, theirs = (
        (measured(1, paths={(CELL, path): pairs for path, pairs in found.items()}),) for found in (simulated, lab)
    )
    comparison = held(ours, theirs)
    assert [row.is_inside for row in comparison.paths] == [is_inside]
    assert (CELL in "".join(text(comparison).partition("measure")[0])) is not is_inside


def test_a_broken_rule_is_a_disagreement_whatever_the_figures_say() -> None:
    comparison = held(TEN, (measured(7, {TOKEN: (105_000,)}, broken=("no program ended by itself",)),))
    assert comparison.overall.inside == comparison.overall.of == 1
    assert not comparison.agrees
    assert next(disagreements(comparison)).sentences == ("lab, seed 7: no program ended by itself.",)


def test_figures_stand_by_measure_and_by_name_in_which_numbers_count_as_such() -> None:
    figures = {Figure(Measure.MESSAGES_IN, f"relay-{number}"): (1,) for number in (10, 9, 1)} | {TOKEN: (1,)}
    rows = held((measured(1, figures),), (measured(1, figures),)).figures
    assert [row.what for row in rows] == [TOKEN.what, "relay-1", "relay-9", "relay-10"]


# Whole worlds.


def test_a_scenario_agrees_with_itself_under_other_seeds() -> None:
    comparison = held(runs(1, 12), runs(101, 5))
    assert [row.is_inside for row in comparison.paths] == [True]
    assert comparison.overall.inside >= 0.8 * comparison.overall.of


def test_a_scenario_of_another_latency_is_told_apart_in_all_times_and_in_no_path() -> None:
    comparison = held(runs(1, 8), runs(101, 2, is_far=True))
    tallies = {each.what: (each.inside, each.of) for each in comparison.tallies}
    assert tallies["paths"] == (1, 1)
    assert tallies["first token"] == (0, 2)
    assert tallies["direct path, from the start"] == (0, 1)
    said = text(comparison)
    assert "first token: 2 of 2 are not as predicted, all longer, by " in said
    assert said.index("Disagreements") < said.index("measure")
