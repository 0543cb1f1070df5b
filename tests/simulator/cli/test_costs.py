"""`--costs` of `teale-sim run` and `sweep`, and `teale-sim calibrate`."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from simulator.calibrating import session
from simulator.calibrating.measuring import Plan
from simulator.calibrating.programs import CalibrationError
from simulator.cli.running import repeating
from simulator.spec.costs_file import read_costs, toml_of
from tests.simulator.calibrating.measured import session as measured_session
from tests.simulator.cli.calling import call, description, program
from tests.simulator.spec.test_costs_file import PROFILE


@pytest.fixture
def costs(tmp_path: Path) -> Path:
    file = tmp_path / "profile.toml"
    file.write_text(toml_of(PROFILE), encoding="utf-8")
    return file


def report(*arguments: object) -> dict[str, Any]:
    result = call("run", *arguments, "--seed", 3, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = msgspec.json.decode(result.output)
    return found


def test_a_world_of_slow_machines_is_slower_and_the_same_every_time(tmp_path: Path, costs: Path) -> None:
    scenario = description(tmp_path)
    quick, slow, again = report(scenario), report(scenario, "--costs", costs), report(scenario, "--costs", costs)
    assert slow["digest"] == again["digest"] != quick["digest"]
    assert slow["requests"]["outcomes"] == quick["requests"]["outcomes"]
    assert slow["passed"]


def test_the_results_of_such_a_world_hold_all_that_it_takes_to_run_it_again(tmp_path: Path, costs: Path) -> None:
    out = tmp_path / "results"
    first = report(description(tmp_path), "--costs", costs, "--out", out)
    assert report(out / "scenario.toml")["digest"] == first["digest"]


def test_the_command_that_repeats_a_run_names_the_profile() -> None:
    command = repeating("village", 3, (), None, Path("profile.toml"))
    assert command == "teale-sim run village --seed 3 --costs profile.toml"


def test_a_program_has_no_machines_to_be_slow(tmp_path: Path, costs: Path) -> None:
    result = call("run", program(tmp_path), "--costs", costs)
    assert result.exit_code == 2
    assert "is a program and has no knobs" in result.output


@pytest.mark.parametrize("command", ["run", "sweep"])
def test_what_is_no_profile_is_refused_in_a_sentence(tmp_path: Path, command: str) -> None:
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("[relay]\n[node]\nmessage = 3\n", encoding="utf-8")
    result = call(command, description(tmp_path), "--costs", wrong)
    assert result.exit_code == 2
    assert f"{wrong}:" in result.output.replace("\n", "")


def test_a_sweep_runs_every_cell_on_such_machines(tmp_path: Path, costs: Path) -> None:
    words = ("sweep", description(tmp_path), "--seeds", 2, "--workers", 1, "--json")
    plain, slow = (msgspec.json.decode(call(*words, *more).output) for more in ((), ("--costs", costs)))
    assert [row["digest"] for row in plain["rows"]] != [row["digest"] for row in slow["rows"]]
    assert "--costs" not in plain["command"]
    assert f"--costs {costs}" in slow["command"]


def test_a_calibration_is_written_shown_and_told_as_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plans: list[Plan] = []

    def measured(plan: Plan, tell: object) -> session.Measured:
        plans.append(plan)
        return measured_session()

    monkeypatch.setattr(session, "measure_apart", measured)
    out = tmp_path / "profile.toml"
    result = call("calibrate", "--out", out, "--quick", "--lab")
    assert result.exit_code == 0, result.output
    assert plans[0].as_in_lab
    assert plans[0].rounds == 2
    assert "relay ping, µs" in result.output
    assert "deviation" in result.output
    assert read_costs(out).relay.ping_us > 0
    document = msgspec.json.decode(call("calibrate", "--out", out, "--json").output)
    assert document["figures"]["relay ping, µs"] == {"value": 150.0, "iqr": 0.0, "rounds": 3}
    assert document["profile"]["node"]["message"]["fixed_us"] > 0
    assert {"checks", "notes", "rounds", "seconds", "load_before", "file"} < document.keys()


def test_a_calibration_that_fails_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(plan: Plan, tell: object) -> session.Measured:
        raise CalibrationError("the relay closed a connection")

    monkeypatch.setattr(session, "measure_apart", fails)
    out = tmp_path / "profile.toml"
    result = call("calibrate", "--out", out)
    assert result.exit_code == 2
    assert "the relay closed a connection" in result.output
    assert not out.exists()
    assert "there is no folder" in call("calibrate", "--out", tmp_path / "no" / "where.toml").output
