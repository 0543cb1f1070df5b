"""`teale-sim run` and `teale-sim list`."""

import gzip
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest

from simulator.cli.running import repeating
from tests.simulator.cli.calling import call, description, program

BROKEN_RULE = "from simulator.checkers import EnoughServed; world.check(EnoughServed(1))"
TWO_ENTRIES = (
    "from tests.simulator.toys import Diary; from teale_proto.inputs import WAKE; "
    "world.add_host('a', lambda rng, now: Diary(), [], birth=(WAKE,)); world.start('a', at=5)"
)


def test_list_names_programs_and_descriptions() -> None:
    assert "first_light" in call("list").output
    found = {each["name"]: each for each in msgspec.json.decode(call("list", "--json").output)}
    assert list(found) == sorted(found)
    assert found["first_light"]["kind"] == "program"
    assert found["home_network"]["kind"] == found["village"]["kind"] == "description"
    assert all(each["summary"] for each in found.values())


def test_a_run_ends_with_0_when_every_check_passed(tmp_path: Path) -> None:
    result = call("run", program(tmp_path))
    assert result.exit_code == 0
    assert "little, seed 0" in result.output
    assert "every request ended exactly once" in result.output


def test_a_run_ends_with_1_and_says_how_to_repeat_it_when_a_check_failed(tmp_path: Path) -> None:
    path = program(tmp_path, BROKEN_RULE)
    result = call("run", path, "--seed", 7)
    assert result.exit_code == 1
    assert "1 violations" in result.output
    assert "0 were" in result.output
    assert f"repeat with: teale-sim run {path} --seed 7" in result.output
    assert call("run", path, "--json").exit_code == 1


def test_json_has_the_keys_that_programs_rely_on(tmp_path: Path) -> None:
    report = msgspec.json.decode(call("run", program(tmp_path), "--seed", 3, "--json").output)
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
        "peers_direct",
        "peers_relayed",
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


def test_digest_prints_the_digest_and_nothing_else(tmp_path: Path) -> None:
    path = program(tmp_path)
    digest = call("run", path, "--digest").output.strip()
    assert digest == msgspec.json.decode(call("run", path, "--json").output)["digest"]


def test_a_knob_is_turned_and_the_command_that_repeats_the_run_turns_it_too(tmp_path: Path) -> None:
    path = description(tmp_path)
    result = call("run", path, "--set", "lasts=30", "--set", "served_at_least=1", "--set", "asks=[]", "--json")
    assert result.exit_code == 0, result.output
    assert msgspec.json.decode(result.output)["simulated_seconds"] == 30.0
    same = call("run", path, "--set", "lasts=30", "--digest").output
    assert (
        same
        != call(
            "run", path, "--set", "lasts=30", "--set", "populations[0].count=2", "--set", "faults=[]", "--digest"
        ).output
    )
    settings: tuple[tuple[str, Any], ...] = (("asks", []), ("populations[0].access", "home"), ("name", "10"))
    assert repeating("village", 4, settings, "message") == (
        "teale-sim run village --seed 4 --set 'asks=[]' --set 'populations[0].access=home' "
        """--set 'name="10"' --fidelity message"""
    )


def test_both_fidelities_serve_the_same_requests(tmp_path: Path) -> None:
    path = description(tmp_path)
    wire, message = (
        msgspec.json.decode(call("run", path, "--fidelity", fidelity, "--json").output)
        for fidelity in ("wire", "message")
    )
    assert wire["requests"]["outcomes"] == message["requests"]["outcomes"] == {"finished": 1}
    assert wire["digest"] != message["digest"]


def test_the_digest_of_a_description_is_the_same_in_other_processes_with_other_hash_seeds(tmp_path: Path) -> None:
    path = description(tmp_path)
    digests = {call("run", path, "--seed", 5, "--digest").output}
    for hash_seed in ("0", "4242"):
        command = [sys.executable, "-m", "simulator.cli", "run", str(path), "--seed", "5", "--digest"]
        done = subprocess.run(
            command, env=os.environ | {"PYTHONHASHSEED": hash_seed}, capture_output=True, check=True, timeout=60
        )
        digests.add(done.stdout.decode())
    assert len(digests) == 1


def test_out_keeps_the_run_with_its_scenario_and_plot_draws_it_again(tmp_path: Path) -> None:
    path, out = description(tmp_path), tmp_path / "out"
    options = ("--seed", 3, "--set", "lasts=35")
    result = call("run", path, *options, "--out", out, "--trace", "--capture", "--json")
    assert result.exit_code == 0, result.output
    report = msgspec.json.decode(result.output)
    names = {each.name for each in out.iterdir()}
    assert {"summary.json", "scenario.toml", "report.html", "capture.pcapng", "trace.jsonl.gz", "plots"} <= names
    assert call("run", out / "scenario.toml", "--seed", 3, "--digest").output.strip() == report["digest"]
    assert len(gzip.decompress((out / "trace.jsonl.gz").read_bytes()).splitlines()) == report["trace_entries"]

    page = out / "report.html"
    page.write_text("gone")
    drawn = call("plot", out, "--json")
    assert drawn.exit_code == 0
    assert page.read_text() != "gone"
    files = [Path(name) for name in msgspec.json.decode(drawn.output)]
    assert files[0] == page
    assert [ElementTree.parse(each) for each in files if each.suffix == ".svg"]


def test_results_of_a_program_hold_the_program(tmp_path: Path) -> None:
    path, out = program(tmp_path, TWO_ENTRIES), tmp_path / "out"
    assert call("run", path, "--out", out, "--trace").exit_code == 0
    assert (out / "scenario.py").read_text() == path.read_text()
    trace = [msgspec.json.decode(line) for line in gzip.decompress((out / "trace.jsonl.gz").read_bytes()).splitlines()]
    assert [(entry["at"], entry["host"], entry["kind"]) for entry in trace] == [
        (5, "a", "HostStarted"),
        (5, "a", "Woken"),
    ]


def test_results_are_written_into_no_directory_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years")
    result = call("run", program(tmp_path), "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "will not be replaced" in result.stderr
    assert [each.name for each in (tmp_path / "out").iterdir()] == ["thesis.tex"]


def test_a_run_that_fails_leaves_no_results(tmp_path: Path) -> None:
    path = program(tmp_path, "world.engine.call_at(5, lambda: 1 / 0)")
    assert call("run", path, "--out", tmp_path / "out").exit_code == 2
    assert [each.name for each in tmp_path.iterdir()] == ["little.py"]


def test_ctrl_c_leaves_a_message_and_no_half_results(tmp_path: Path) -> None:
    path = program(tmp_path, "raise KeyboardInterrupt")
    result = call("run", path, "--out", tmp_path / "out")
    assert result.exit_code == 130
    assert result.stderr.strip() == "teale-sim: stopped; nothing was written"
    assert [each.name for each in tmp_path.iterdir()] == ["little.py"]


@pytest.mark.parametrize("option", [("--trace",), ("--capture",), ("--metrics", "csv")])
def test_what_to_keep_needs_a_directory(tmp_path: Path, option: tuple[str, ...]) -> None:
    result = call("run", program(tmp_path), *option)
    assert result.exit_code == 2
    assert "--out DIR" in result.stderr


def test_a_core_that_raises_is_a_failure_and_not_a_wrong_call(tmp_path: Path) -> None:
    body = (
        "from teale_proto.inputs import WAKE; "
        "world.add_host('a', lambda rng, now: 3, [], birth=(WAKE,)); world.start('a', at=5)"
    )
    result = call("run", program(tmp_path, body))
    assert result.exit_code == 1
    assert "the core of a raised at 5 µs on Woken" in result.stderr
    assert "--seed 0" in result.stderr


def test_nothing_but_the_result_is_printed_where_stderr_is_no_terminal(tmp_path: Path) -> None:
    assert call("run", program(tmp_path)).stderr == ""


def test_help_of_every_command_says_what_it_is_for() -> None:
    for command in ("run", "grid", "sweep", "fuzz", "replay", "plot", "list"):
        result = call(command, "--help")
        assert result.exit_code == 0
        assert "--json" in result.output
