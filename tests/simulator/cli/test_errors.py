"""Scenarios that are none, and what people are told about them."""

from pathlib import Path

import msgspec
import pytest

from tests.simulator.cli.calling import DESCRIPTION, PROGRAM, call, description, written

GOOD = PROGRAM.format(body="pass")

TYPED = """from simulator.spec.population import Population
from simulator.spec.faults import Crash
from simulator.spec.world_spec import WorldSpec

SCENARIO = WorldSpec(
    name="typed",
    lasts=30.0,
    populations=(
        Population(
            name="house",
            count=3,
        ),
    ),
    faults=(
        Crash("house-1", 20.0),
    ),
)
"""


def complaint_of(folder: Path, name: str, text: str) -> str:
    result = call("run", written(folder, name, text))
    assert result.exit_code == 2, result.output
    return result.stderr


def test_an_unknown_scenario_is_answered_with_those_that_exist(tmp_path: Path) -> None:
    result = call("run", "second_light")
    assert result.exit_code == 2
    assert "there is no scenario 'second_light'; there are:" in result.stderr
    assert "first_light" in result.stderr
    for name in ("missing.py", "missing.toml"):
        missing = call("run", tmp_path / name)
        assert missing.exit_code == 2
        assert "there is no such file" in missing.stderr
    assert "ends in .py or .toml" in complaint_of(tmp_path, "scenario.yaml", "")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("x = 1\n", "little.py: expected a module-level `SCENARIO = Scenario(…)` or `SCENARIO = WorldSpec(…)`, found "),
        ("SCENARIO = 3\n", "found int"),
        ("x = 1\ndef f(:\n", "little.py:2: not valid Python"),
        ("x = 1\n\nimport nothing_of_that_name\n", "little.py:3: loading the scenario failed: ModuleNotFoundError"),
        ("import sys\nsys.exit(0)\n", "little.py:2: loading the scenario failed: SystemExit(0)"),
        (PROGRAM.format(body="raise SystemExit(0)"), "little.py:7: the scenario 'little' failed: SystemExit(0)"),
        (GOOD.replace("5 * SECOND", "0.5"), "SCENARIO is not right: `lasts` must be int, not float"),
        (GOOD.replace("5 * SECOND", "0"), "`lasts` must be a positive number of microseconds"),
        (GOOD.replace("build=build", "build=3"), "`build` must be a function of a World, not int"),
        (PROGRAM.format(body="world.add_everything()"), "little.py:7: the scenario 'little' failed: AttributeError"),
        (
            PROGRAM.format(body="world.engine.call_at(5, lambda: 1 / 0)"),
            "little.py:7: the scenario 'little' failed: ZeroDiv",
        ),
    ],
)
def test_a_broken_program_is_answered_with_file_line_and_what_was_expected(
    tmp_path: Path, text: str, complaint: str
) -> None:
    assert complaint in complaint_of(tmp_path, "little.py", text)


@pytest.mark.parametrize(
    ("good", "bad", "complaint"),
    [
        ("lasts = 40.0", "lasts = ", "hamlet.toml: not valid TOML"),
        (
            "lasts = 40.0",
            "lasted = 40.0",
            "hamlet.toml:4: Object contains unknown field `lasted`; there are: format, name, ",
        ),
        (
            "count = 3",
            "counts = 3",
            "hamlet.toml:8: Object contains unknown field `counts`, at `populations[0]`; there are: name, count, ",
        ),
        ("count = 3", 'count = "3"', "hamlet.toml:8: Expected `int`, got `str`"),
        ("count = 3", "count = -3", "hamlet.toml:8: Expected `int` >= 0"),
        ("lasts = 40.0", "lasts = 0", "hamlet.toml:4: Expected `float` > 0"),
        (
            "at = 25.0",
            'at = 25.0\nhow = "bang"',
            "Invalid enum value 'bang', at `faults[0].how`; there are: reset, vanish",
        ),
        ("lasts = 40.0", "lasts = inf", "hamlet.toml:4: Expected `float` <= "),
        (
            "lasts = 40.0",
            "lasts = 40.0\nrelays = [\n {},\n {lime = 3}]",
            "hamlet.toml:7: Object contains unknown field `lime`, at `relays[1]`; there are: region, line, ",
        ),
        ("europe-west = 1.0", "atlantis = 1.0", "hamlet.toml:9: `regions`: no 'atlantis'; there are "),
        ('host = "house-2"', 'host = "house-9"', "hamlet.toml:18: `faults`: there is no host 'house-9'"),
        (
            'kind = "crash"',
            'kind = "meteor"',
            "hamlet.toml:17: Invalid value 'meteor', at `faults[0].kind`; there are: crash, ",
        ),
        ("lasts = 40.0", "lasts = 40.0\nformat = 99", "hamlet.toml:5: `format` 99 is newer than this program"),
        ('node = "house-1"', 'node = "nobody"', "hamlet.toml:14: `asks`: there is no node 'nobody'"),
    ],
)
def test_a_broken_description_is_answered_with_file_line_and_what_was_expected(
    tmp_path: Path, good: str, bad: str, complaint: str
) -> None:
    assert good in DESCRIPTION
    assert complaint in complaint_of(tmp_path, "hamlet.toml", DESCRIPTION.replace(good, bad))


def test_a_typed_description_is_a_scenario(tmp_path: Path) -> None:
    result = call("run", written(tmp_path, "typed.py", TYPED), "--json")
    assert result.exit_code == 0, result.output
    assert msgspec.json.decode(result.output)["scenario"] == "typed"
    assert call("run", tmp_path / "typed.py", "--set", "populations[0].count=2", "--digest").exit_code == 0


@pytest.mark.parametrize(
    ("good", "bad", "complaint"),
    [
        ("count=3", 'count="3"', "typed.py:11: `count` of Population: Expected `int`, got `str`"),
        ("count=3", "count=-3", "typed.py:11: `count` of Population: Expected `int` >= 0"),
        ("count=3", "counts=3", "typed.py:11: Population has no field `counts`; it has name, count, "),
        ("lasts=30.0", "lasts=0", "typed.py:7: `lasts` of WorldSpec: Expected `float` > 0"),
        ('"house-1", 20.0', '"house-1", "noon"', "typed.py:15: `at` of Crash: Expected `float`, got `str`"),
        ('"house-1", 20.0', '"house-1", 20.0, "bang"', "`how` of Crash: Invalid enum value 'bang'; there are: reset, "),
        ('"house-1", 20.0', '"house-9", 20.0', "`faults`: there is no host 'house-9'"),
        ("lasts=30.0", "lasts=30.0, format=99", "`format` 99 is newer than this program"),
    ],
)
def test_a_broken_typed_description_is_answered_with_file_line_and_what_was_expected(
    tmp_path: Path, good: str, bad: str, complaint: str
) -> None:
    assert good in TYPED
    told = complaint_of(tmp_path, "typed.py", TYPED.replace(good, bad))
    assert complaint in told
    assert "typed.py:" in told


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("populations[3].count=1", "there is no such field"),
        ("nonsense=1", "unknown field `nonsense`; there are: format, name, "),
        ("fidelity=high", "Invalid enum value 'high', at `fidelity`; there are: wire, message"),
        ("populations[0].count=many", "Expected `int`, got `str`"),
        ("lasts", "is not of the form path=value"),
        ("0x=1", "is not the path of a field"),
    ],
)
def test_a_knob_that_is_not_there_or_does_not_take_the_value_is_a_wrong_call(
    tmp_path: Path, setting: str, complaint: str
) -> None:
    result = call("run", description(tmp_path), "--set", setting)
    assert result.exit_code == 2
    assert complaint in result.stderr


def test_a_program_has_no_knobs(tmp_path: Path) -> None:
    result = call("run", written(tmp_path, "little.py", GOOD), "--set", "lasts=3")
    assert result.exit_code == 2
    assert "the scenario 'little' is a program and has no knobs" in result.stderr


def test_under_json_errors_are_documents(tmp_path: Path) -> None:
    for arguments in (("run", "nowhere"), ("run", "first_light", "--seed", -1), ("plot", tmp_path)):
        result = call(*arguments, "--json")
        assert result.exit_code == 2
        error = msgspec.json.decode(result.stdout)["error"]
        assert (error["type"], error["exit_code"]) == ("usage", 2)
        assert error["message"]


def test_what_a_file_says_cannot_steer_the_terminal(tmp_path: Path) -> None:
    told = complaint_of(tmp_path, "little.py", 'raise ValueError("\\x1b[2J")\n')
    assert "\x1b" not in told
