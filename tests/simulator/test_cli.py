"""The command `teale-sim`."""

from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from simulator.cli import main

GOOD = """
from simulator.scenario import Scenario
from teale_proto.contract import SECOND


def build(world):
    {body}


SCENARIO = Scenario(name="little", summary="Nothing much.", lasts=5 * SECOND, build=build)
"""


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def written(folder: Path, text: str) -> Path:
    path = folder / "little.py"
    path.write_text(text)
    return path


@pytest.fixture
def little(tmp_path: Path) -> Path:
    return written(tmp_path, GOOD.format(body="pass"))


@pytest.fixture
def broken_rule(tmp_path: Path) -> Path:
    return written(
        tmp_path,
        GOOD.format(body="from simulator.checkers import EnoughServed; world.check(EnoughServed(1))"),
    )


def test_list_names_the_scenarios() -> None:
    assert "first_light" in call("list").output
    names = [each["name"] for each in msgspec.json.decode(call("list", "--json").output)]
    assert names == sorted(names)
    assert "first_light" in names


def test_a_run_ends_with_0_when_every_check_passed(little: Path) -> None:
    result = call("run", little)
    assert result.exit_code == 0
    assert "little, seed 0" in result.output
    assert "every request ended exactly once" in result.output


def test_a_run_ends_with_1_and_says_how_to_repeat_it_when_a_check_failed(broken_rule: Path) -> None:
    result = call("run", broken_rule, "--seed", 7)
    assert result.exit_code == 1
    assert "1 violations" in result.output
    assert "0 were" in result.output
    assert "--seed 7" in result.output
    assert call("run", broken_rule, "--json").exit_code == 1


def test_json_has_the_keys_that_programs_rely_on(little: Path) -> None:
    report = msgspec.json.decode(call("run", little, "--seed", 3, "--json").output)
    assert list(report) == [
        "scenario",
        "seed",
        "passed",
        "digest",
        "requests",
        "hosts_crashed",
        "peers_lost",
        "checks",
        "simulated_seconds",
        "events",
        "trace_entries",
        "wall_seconds",
    ]
    assert list(report["requests"]) == [
        "asked",
        "finished",
        "outcomes",
        "served_by_path",
        "attempts",
        "retried",
        "first_token_p50_ms",
        "first_token_p90_ms",
    ]
    assert list(report["checks"][0]) == ["rule", "passed", "violation_count", "violations"]
    assert (report["seed"], report["simulated_seconds"], report["passed"]) == (3, 5.0, True)


def test_digest_prints_the_digest_and_nothing_else(little: Path) -> None:
    digest = call("run", little, "--digest").output.strip()
    assert digest == msgspec.json.decode(call("run", little, "--json").output)["digest"]


def test_trace_writes_a_line_for_every_entry(tmp_path: Path) -> None:
    body = (
        "from tests.simulator.toys import Diary; from teale_proto.inputs import WAKE; "
        "world.add_host('a', lambda rng, now: Diary(), [], birth=(WAKE,)); world.start('a', at=5)"
    )
    trace = tmp_path / "trace.jsonl"
    report = msgspec.json.decode(
        call("run", written(tmp_path, GOOD.format(body=body)), "--json", "--trace", trace).output
    )
    assert report["trace_entries"] == 2
    assert [msgspec.json.decode(line) for line in trace.read_bytes().splitlines()] == [
        {"at": 5, "host": "a", "kind": "HostStarted", "summary": "life=1"},
        {"at": 5, "host": "a", "kind": "Woken", "summary": ""},
    ]


def test_an_unknown_scenario_is_answered_with_those_that_exist(tmp_path: Path) -> None:
    result = call("run", "second_light")
    assert result.exit_code == 2
    assert "there is no scenario 'second_light'; there are:" in result.stderr
    assert "first_light" in result.stderr
    missing = call("run", tmp_path / "missing.py")
    assert missing.exit_code == 2
    assert "there is no such file" in missing.stderr


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("x = 1\n", "little.py: expected a module-level `SCENARIO = Scenario(…)`, found nothing"),
        ("SCENARIO = 3\n", "little.py: expected a module-level `SCENARIO = Scenario(…)`, found int"),
        ("x = 1\ndef f(:\n", "little.py:2: not valid Python"),
        ("x = 1\n\nimport nothing_of_that_name\n", "little.py:3: loading the scenario failed: ModuleNotFoundError"),
        (
            GOOD.format(body="pass").replace("5 * SECOND", "0.5"),
            "SCENARIO is not right: `lasts` must be int, not float",
        ),
        (GOOD.format(body="pass").replace("5 * SECOND", "0"), "`lasts` must be a positive number of microseconds"),
        (GOOD.format(body="pass").replace("build=build", "build=3"), "`build` must be a function of a World, not int"),
        (GOOD.format(body="world.add_everything()"), "little.py:7: the scenario 'little' failed: AttributeError"),
        (
            GOOD.format(body="world.engine.call_at(5, lambda: 1 / 0)"),
            "little.py:7: the scenario 'little' failed: ZeroDiv",
        ),
    ],
)
def test_a_broken_scenario_is_answered_with_file_line_and_what_was_expected(
    tmp_path: Path, text: str, complaint: str
) -> None:
    result = call("run", written(tmp_path, text))
    assert result.exit_code == 2
    assert complaint in result.stderr


def test_a_core_that_raises_is_a_failure_and_not_a_wrong_call(tmp_path: Path) -> None:
    body = (
        "from teale_proto.inputs import WAKE; "
        "world.add_host('a', lambda rng, now: 3, [], birth=(WAKE,)); world.start('a', at=5)"
    )
    result = call("run", written(tmp_path, GOOD.format(body=body)))
    assert result.exit_code == 1
    assert "the core of a raised at 5 µs on Woken" in result.stderr
    assert "--seed 0" in result.stderr


def test_a_trace_that_cannot_be_written_and_a_negative_seed_are_wrong_calls(little: Path, tmp_path: Path) -> None:
    assert call("run", little, "--trace", tmp_path / "no" / "where").exit_code == 2
    assert call("run", little, "--seed", -1).exit_code == 2
