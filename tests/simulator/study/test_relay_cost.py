"""What relay work costs, profiles in files, and the queue of one core."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from simulator.relay_cost import (
    BUN,
    OURS,
    PROFILES,
    CpuQueue,
    Prices,
    ProfileError,
    Work,
    load,
    monthly,
    save,
    wire_bytes,
)
from teale_proto.contract import SECOND


@pytest.mark.parametrize(
    ("profile", "size_bytes", "measured_us"),
    [
        (OURS, 117, 2.1),
        (OURS, 16_401, 14.1),
        (PROFILES["teale-relay, JSON"], 386, 4.01),
        (PROFILES["teale-relay, JSON"], 22_098, 35.9),
        (BUN, 386, 5.26),
        (BUN, 22_098, 26.6),
    ],
)
def test_a_profile_gives_back_the_messages_that_it_was_fitted_to(profile, size_bytes, measured_us) -> None:  # type: ignore[no-untyped-def]
    assert profile.forward_us(size_bytes, alone=False) == pytest.approx(measured_us, rel=0.03)


def test_a_message_that_comes_by_itself_costs_a_turn_of_the_loop_more() -> None:
    assert OURS.forward_us(300, alone=True) - OURS.forward_us(300, alone=False) == OURS.wake_us


@pytest.mark.parametrize("name", ["profile.toml", "profile.json"])
def test_a_profile_that_is_saved_is_the_same_when_loaded(tmp_path: Path, name: str) -> None:
    profile = replace(OURS, name="mine", forward=Work(1.5, 0.25))
    save(profile, tmp_path / name)
    assert load(tmp_path / name) == profile


@pytest.mark.parametrize("text", ["", "name = 3", "nonsense", "[forward]\nfixed_us = 'fast'"])
def test_what_is_no_profile_is_refused_with_the_name_of_the_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(ProfileError, match=r"mine\.toml"):
        load(path)
    with pytest.raises(ProfileError, match=r"none\.toml"):
        load(tmp_path / "none.toml")


def test_a_small_message_is_one_segment_and_a_large_one_many() -> None:
    assert wire_bytes(100) == 100 + 30 + 40
    assert wire_bytes(1430) == 1460 + 40
    assert wire_bytes(1431) == 1461 + 2 * 40


def test_the_smallest_machine_costs_what_the_deployed_relay_is_said_to() -> None:
    bill = monthly(Prices(), cores=0.001, memory_bytes=2**27, egress_bytes_per_second=100, peak_factor=1.6)
    assert 3 <= bill.total <= 4


def test_processor_memory_and_bandwidth_are_added_up() -> None:
    prices = Prices(vcpu_month=6.0, gib_month=2.0, egress_gb=0.01, machine_min=0.0, utilisation_max=0.5)
    bill = monthly(prices, cores=1.0, memory_bytes=2**31, egress_bytes_per_second=1e6, peak_factor=2.0)
    assert bill.machine == pytest.approx(6.0 * 1.0 * 2.0 / 0.5 + 2.0 * 2)
    assert bill.egress == pytest.approx(0.01 * 1e6 * 730 * 3600 / 1e9)


def test_work_waits_for_the_work_before_it() -> None:
    queue = CpuQueue()
    assert queue.serve(0, 100.0) == 100
    assert queue.serve(40, 10.0) == 110
    assert queue.waited_max == 60
    assert queue.serve(1000, 2.5) == 1003
    assert queue.wait_mean == pytest.approx(20.0)
    assert queue.busy == 112


def test_a_core_that_is_asked_for_more_than_it_has_is_more_than_busy() -> None:
    queue = CpuQueue(since=SECOND)
    for turn in range(10):
        queue.serve(SECOND + turn * 100_000, 150_000.0)
    assert queue.utilisation(2 * SECOND) == pytest.approx(1.5)
    assert queue.waited_max == 9 * 50_000
