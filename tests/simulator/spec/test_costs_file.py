"""Profiles of machines in files, and in descriptions."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from simulator.backend import CostModel
from simulator.costs import HardwareProfile, InferenceProfile, MachineProfile, NodeProfile
from simulator.relay_cost import OURS, Wake, Work
from simulator.spec.costs_file import read_costs, toml_of
from simulator.spec.reading import SpecError

WAKES = (Wake(30.0, 50.0, 10.0), Wake(1000.0, 130.0, 40.0))
MODEL = InferenceProfile(
    model="teale-tiny",
    begins_after=0.002,
    begins_spread=0.001,
    prefill_tokens_per_second=2500.0,
    tokens_per_second=900.0,
    jitter=0.5,
    remembers_prompt=True,
    tokens_min=9,
    tokens_max=26,
)
HARDWARE = HardwareProfile(chip_family="x86_64", chip_name="A Processor", total_ram_gb=15.6, tier=3, platform="linux")
PROFILE = MachineProfile(
    machine="a machine",
    relay=replace(OURS, wakes=WAKES),
    node=NodeProfile(message=Work(30.0, 2.0), wakes=WAKES, upstream_us=3000.0),
    hardware=HARDWARE,
    inference=MODEL,
)


@pytest.mark.parametrize("profile", [PROFILE, replace(PROFILE, inference=None, hardware=None)], ids=["all", "least"])
def test_a_profile_that_is_written_is_the_same_when_read(tmp_path: Path, profile: MachineProfile) -> None:
    file = tmp_path / "profile.toml"
    text = toml_of(profile, heading="One machine.\n\nNote: busy.", notes={"relay.ping_us": "measured 3 ± 1"})
    file.write_text(text, encoding="utf-8")
    assert read_costs(file) == profile
    assert text.startswith("# One machine.\n")
    assert "ping_us = 30.0 # measured 3 ± 1\n" in text


def test_five_digits_are_written() -> None:
    assert "idle_us = 0.12346" in toml_of(replace(PROFILE, node=replace(PROFILE.node, idle_us=0.123456789)))


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("ping_us = 30.0", 'ping_us = "fast"', r"Expected `float`, got `str`, at `relay.ping_us`"),
        ("ping_us = 30.0", "pong_us = 30.0", r"missing required field `ping_us`, at `relay`|unknown field `pong_us`"),
        ("jitter = 0.5", "jitter = 1.5", r"Expected `float` <= 1.0, at `inference.jitter`"),
        ("tokens_min = 9", "tokens_min = 90", r"`tokens_max` is not below `tokens_min`, at `inference`"),
        ("tier = 3", "tier = 5", r"Expected `int` <= 4, at `hardware.tier`"),
        ("format = 1", "format = 2", r"`format` 2 is newer than this program, which reads 1"),
    ],
)
def test_what_is_wrong_is_said_with_file_line_and_what_was_expected(
    tmp_path: Path, old: str, new: str, complaint: str
) -> None:
    file = tmp_path / "profile.toml"
    text = toml_of(PROFILE)
    assert text.count(old) == 1
    file.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(SpecError, match=complaint) as raised:
        read_costs(file)
    place = str(raised.value).removeprefix(f"{file}:").partition(":")[0]
    lines = file.read_text(encoding="utf-8").splitlines()
    line = lines[int(place) - 1]
    assert new in line or line.startswith(("[relay]", "[inference]", "tokens_max", "format"))


def test_pauses_out_of_order_are_refused_with_their_line(tmp_path: Path) -> None:
    file = tmp_path / "profile.toml"
    file.write_text(toml_of(PROFILE).replace("idle_us = 30.0", "idle_us = 3000.0", 1), encoding="utf-8")
    with pytest.raises(SpecError, match=r"profile\.toml:\d+: `wakes` must be in the order of their `idle_us`"):
        read_costs(file)


def test_what_is_no_profile_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "profile.toml"
    with pytest.raises(SpecError, match=r"profile\.toml: No such file"):
        read_costs(file)
    file.write_text("[relay]\nping_us = fast\n", encoding="utf-8")
    with pytest.raises(SpecError, match=r"profile\.toml: not valid TOML: .*line 2"):
        read_costs(file)
    file.write_text("name = 'x'", encoding="utf-8")
    with pytest.raises(
        SpecError, match=r"profile\.toml:1: expected the profile of a machine, with \[relay\] and \[node\]"
    ):
        read_costs(file)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(SpecError, match=r"profile\.toml: not UTF-8"):
        read_costs(file)


def test_a_population_of_which_nothing_is_said_has_the_built_in_model() -> None:
    assert PROFILE.inference_of(CostModel()) == CostModel(
        prefill_tokens_per_second=2500.0,
        tokens_per_second=900.0,
        jitter=0.5,
        tokens_min=9,
        tokens_max=26,
        begins_after=0.002,
        begins_spread=0.001,
        remembers_prompt=True,
    )
    assert replace(PROFILE, inference=None).inference_of(CostModel()) == CostModel()


def test_a_described_model_is_as_fast_as_is_said_and_its_node_needs_its_time_too() -> None:
    described = CostModel(tokens_min=3, tokens_max=5, begins_after=0.5)
    assert PROFILE.inference_of(described) == replace(described, begins_after=0.503)
