"""Processor time a message at the relay: from a profile in one world, from the processes in the other."""

from pathlib import Path

import msgspec
import pytest

from simulator.comparing.cast import Cast
from simulator.comparing.measured import Figure, Measure
from simulator.comparing.relay_cpu import LAB, MESSAGES_MIN, RelayCosts, found_in_lab
from simulator.comparing.wording import text
from simulator.costs import MachineProfile, NodeProfile
from simulator.relay_cost import OURS, Work
from simulator.results.model import DamagedResults
from simulator.trace import Entry
from teale_proto.contract import SECOND
from teale_proto.inputs import DataReceived
from tests.simulator.comparing.worlds import couple, held, measured

RELAY = Figure(Measure.RELAY_CPU, "relay-0")
CAST = Cast(couple())


def lab(folder: Path, *, messages: int, lives: list[tuple[int, int]], name: str = "relay-0") -> Path:
    program = {
        "name": name,
        "role": "relay",
        "messages_in": messages,
        "lives": [{"number": 1, "cpu_us": used, "cpu_us_to_start": start} for used, start in lives],
    }
    (folder / LAB).write_bytes(msgspec.json.encode({"seed": 1, "programs": [program]}))
    return folder


def test_what_a_relay_used_less_its_start_is_shared_by_its_messages(tmp_path: Path) -> None:
    folder = lab(tmp_path, messages=2_000, lives=[(500_000, 400_000), (450_000, 400_000)])
    assert found_in_lab(folder, CAST) == {RELAY: [75_000]}


def test_a_relay_that_had_little_to_do_says_nothing_and_neither_does_another_program(tmp_path: Path) -> None:
    assert found_in_lab(lab(tmp_path, messages=MESSAGES_MIN - 1, lives=[(9, 1)]), CAST) == {}
    assert found_in_lab(lab(tmp_path, messages=5_000, lives=[(9, 1)], name="stun-0"), CAST) == {}


def test_results_that_are_of_no_lab_say_nothing_and_a_broken_file_is_told(tmp_path: Path) -> None:
    assert found_in_lab(tmp_path, CAST) == {}
    (tmp_path / LAB).write_text("{")
    with pytest.raises(DamagedResults, match=r"lab\.json"):
        found_in_lab(tmp_path, CAST)


def test_a_profile_is_put_on_what_the_relay_was_fed() -> None:
    costs = RelayCosts(CAST, MachineProfile(machine="x", relay=OURS, node=NodeProfile(message=Work(0.0))))
    assert costs.samples() == {}
    for number in range(MESSAGES_MIN):
        # Once a second, so that each of them wakes the relay.
        costs.observe(Entry(number * SECOND, "relay-0", DataReceived(2, bytes(100))))
        costs.observe(Entry(number * SECOND, "server-0", DataReceived(1, bytes(100))))
    expected = OURS.forward_us(100, alone=True) + OURS.idle_us
    assert costs.samples()[RELAY][0] == pytest.approx(1000 * expected, rel=0.01)


@pytest.mark.parametrize(("nanoseconds", "is_inside"), [(60_000, True), (71_000, True), (73_000, False)])
def test_a_fifth_more_or_less_than_predicted_is_as_predicted(nanoseconds: int, is_inside: bool) -> None:
    comparison = held((measured(1, {RELAY: (60_000,)}),), (measured(1, {RELAY: (nanoseconds,)}),))
    assert comparison.agrees is is_inside
    assert "60.0" in text(comparison)
