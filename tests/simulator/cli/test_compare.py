"""`teale-sim compare`: a verdict on two worlds, and an exit code that says whether they agree."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from simulator.cli import apart
from simulator.spec.costs_file import toml_of
from tests.simulator.cli.calling import call, description, written
from tests.simulator.spec.test_costs_file import PROFILE

PAIR = """
name = "pair"
lasts = 15.0

[[populations]]
name = "asker"
count = 1
holders = 0.0
starts_at = 1.0
starts_within = 0.1
regions = { europe-west = 1.0 }
access = { nats = { eim-apdf = 1.0 }, lines = { LINE = 1.0 } }

[[populations]]
name = "server"
count = 1
starts_within = 0.1
regions = { europe-west = 1.0 }
access = { nats = { eim-apdf = 1.0 }, lines = { LINE = 1.0 } }

[[asks]]
at = 8.0
node = "asker-0"
"""

SIMULATOR = (sys.executable, "-m", "simulator.cli", "run")
"""What takes the same words as a lab, and stands in for it."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return a scenario, its results with another seed, and those of one that has the same name and is further away."""
    folder = tmp_path_factory.mktemp("pairs")
    scenario = written(folder, "pair.toml", PAIR.replace("LINE", "flat-9ms"))
    far = written(folder, "far.toml", PAIR.replace("LINE", "flat-39ms"))
    for file, name in ((scenario, "other seed"), (far, "far")):
        assert call("run", file, "--seed", 50, "--trace", "--out", folder / name).exit_code == 0
    return {"scenario": scenario, "other seed": folder / "other seed", "far": folder / "far"}


def test_the_same_run_agrees_with_itself_and_the_exit_code_says_so(folders: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = call(
        "compare", folders["scenario"], "--seed", 50, "--simulated", 1, "--lab-dir", folders["other seed"], "--out", out
    )
    assert done.exit_code == 0, done.output
    assert "as predicted: all of" in done.stdout
    assert "Disagreements" not in done.stdout
    assert {path.name for path in out.iterdir()} == {"comparison.html", "comparison.json", "comparison.txt"}


def test_another_latency_is_a_disagreement_that_is_told_first(folders: dict[str, Path]) -> None:
    done = call("compare", folders["scenario"], "--simulated", 4, "--workers", 1, "--lab-dir", folders["far"], "--json")
    assert done.exit_code == 1
    document = json.loads(done.stdout)
    assert document["agrees"] is False
    summaries = [each["summary"] for each in document["disagreements"]]
    assert any(each.startswith("first token: 1 of 1") for each in summaries)
    assert document["command"].endswith(f"--simulated 4 --lab-dir {folders['far']} --seed 0 --grain 1")


def test_a_grain_as_coarse_as_the_difference_makes_it_vanish(folders: dict[str, Path]) -> None:
    done = call(
        "compare", folders["scenario"], "--simulated", 3, "--lab-dir", folders["far"], "--grain", 5000, "--json"
    )
    times = {"first token", "whole answer", "conversation over the relay", "registered at the relay"}
    tallies = {each["what"]: each for each in json.loads(done.stdout)["tallies"]}
    assert times <= tallies.keys()
    assert all(tallies[name]["inside"] == tallies[name]["of"] for name in times)


def test_wrong_calls_say_what_to_do(folders: dict[str, Path], tmp_path: Path) -> None:
    scenario = folders["scenario"]
    nothing = call("compare", scenario, "--lab", 0)
    assert (nothing.exit_code, "--lab-dir" in nothing.output) == (2, True)
    other = call("compare", description(tmp_path), "--lab-dir", folders["far"])
    assert other.exit_code == 2
    assert "'pair'" in other.stderr
    missing = call("compare", scenario, "--lab-dir", tmp_path / "none")
    assert missing.exit_code == 2
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine").write_text("x")
    refused = call("compare", scenario, "--lab-dir", folders["far"], "--out", full)
    assert refused.exit_code == 2
    assert "something other than a comparison" in refused.stderr
    program = call("compare", "first_light", "--lab-dir", folders["far"])
    assert program.exit_code == 2
    assert "only descriptions" in program.stderr


def test_the_lab_is_run_by_a_process_of_its_own_and_its_results_are_kept(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apart, "LAB", SIMULATOR)
    out = tmp_path / "out"
    done = call("compare", folders["scenario"], "--simulated", 3, "--lab", 2, "--seed", 7, "--grain", 50, "--out", out)
    assert done.exit_code in (0, 1), done.output
    assert "2 runs of the lab (seed 7, 8)" in done.stdout
    assert (out / "lab-seed-7" / "summary.json").is_file()
    assert (out / "lab-seed-8" / "trace.jsonl.gz").is_file()


def test_a_lab_that_cannot_be_run_is_told_with_its_reason(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apart, "LAB", (*SIMULATOR, "--no-such-option"))
    done = call("compare", folders["scenario"], "--simulated", 1, "--lab", 1)
    assert done.exit_code == 2
    assert "no-such-option" in done.stderr


def slower(folder: Path, name: str, factor: float) -> Path:
    """Write the profile of a machine on which it takes so much longer until a model begins."""
    assert PROFILE.inference is not None
    inference = replace(PROFILE.inference, begins_after=PROFILE.inference.begins_after * factor)
    return written(folder, name, toml_of(replace(PROFILE, inference=inference)))


def first_tokens(document: dict[str, Any]) -> dict[str, float]:
    """Return the simulated interval of the time to the first token, in microseconds."""
    [found] = (each for each in document["figures"] if each["measure"] == "first token")
    spread: dict[str, float] = found["simulated"]
    return spread


def test_seeds_take_several_profiles_in_turn(folders: dict[str, Path], tmp_path: Path) -> None:
    files = [slower(tmp_path, f"{factor}.toml", factor) for factor in (1, 100)]
    words = ("compare", folders["scenario"], "--simulated", 4, "--workers", 1, "--lab-dir", folders["far"], "--json")
    spreads = [
        first_tokens(json.loads(call(*words, *(word for file in some for word in ("--costs", file))).stdout))
        for some in (files[:1], files[1:], files)
    ]
    quick, slow, both = spreads
    assert quick["high"] < slow["low"]
    assert both["low"] < quick["high"] < slow["low"] < both["high"]


def test_calibrating_surrounds_every_run_of_the_lab_and_the_profiles_are_kept(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A copy of a profile stands in for two minutes of measuring, which tests/simulator/calibrating is about.
    profile = slower(tmp_path, "profile.toml", 1)
    copying = f"import shutil, sys; shutil.copy({str(profile)!r}, sys.argv[sys.argv.index('--out') + 1])"
    monkeypatch.setattr(apart, "CALIBRATE", (sys.executable, "-c", copying))
    monkeypatch.setattr(apart, "LAB", SIMULATOR)
    out = tmp_path / "out"
    words = ("compare", folders["scenario"], "--simulated", 2, "--workers", 1)
    done = call(*words, "--lab", 2, "--calibrate", "--out", out)
    assert done.exit_code in (0, 1), done.output
    notes = [line.split(",")[0].split(":")[0] for line in done.stderr.splitlines()]
    assert notes[:5] == ["calibrating", "lab", "calibrating", "lab", "calibrating"]
    first = json.loads((out / "comparison.json").read_bytes())
    assert first["command"].endswith("--calibrate")
    profiles = [word for number in range(3) for word in ("--costs", out / f"profile-{number}.toml")]
    results = [word for seed in (0, 1) for word in ("--lab-dir", out / f"lab-seed-{seed}")]
    again = json.loads(call(*words, *results, *profiles, "--json").stdout)
    assert again["figures"] == first["figures"]
    # Profiles that somebody goes on to use from there are not removed with the results that are made anew.
    call(*words, "--lab", 1, "--out", out, *profiles[:2])
    assert (out / "profile-0.toml").read_bytes() == profile.read_bytes()


def test_a_calibration_that_fails_is_told_with_its_reason_and_others_are_refused(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apart, "CALIBRATE", (*SIMULATOR[:3], "calibrate", "--no-such-option"))
    done = call("compare", folders["scenario"], "--lab", 1, "--calibrate")
    assert (done.exit_code, "calibration came to nothing" in done.stderr) == (2, True)
    assert "no-such-option" in done.stderr
    twice = call("compare", folders["scenario"], "--calibrate", "--costs", slower(tmp_path, "profile.toml", 1))
    assert (twice.exit_code, "leave out --costs" in twice.output) == (2, True)


def test_what_is_not_asked_about_is_not_judged(folders: dict[str, Path]) -> None:
    words = ("compare", folders["scenario"], "--simulated", 2, "--lab-dir", folders["far"], "--only", "paths")
    alone = call(*words)
    assert alone.exit_code == 0
    assert "first token" not in alone.stdout
    done = call(*words, "--only", "first-token", "--json")
    assert done.exit_code == 1
    assert [each["what"] for each in json.loads(done.stdout)["tallies"]] == ["paths", "first token"]
    strange = call(*words, "--only", "nothing")
    assert strange.exit_code == 2
    assert "paths, registered" in strange.output
