"""`teale-sim lab`: what it refuses, and how it says so, before anything is started."""

import importlib.util
import os
from pathlib import Path

import msgspec
import pytest

from simulator.cli.exits import SimError
from simulator.cli.lab import BEGUN_ANEW
from simulator.lab import privileges
from tests.simulator.cli.calling import DESCRIPTION, call, description, program

SLOW = """
[[faults]]
kind = "slow node"
host = "house-0"
at = 20.0
until = 30.0
"""


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be on a machine that has nothing of what a lab needs."""
    monkeypatch.setattr(privileges, "missing", lambda: ["the program `nft` (nftables)", "the right to do anything"])
    monkeypatch.setattr(privileges, "can_become_root", lambda: False)


@pytest.mark.usefixtures("nowhere")
def test_where_a_lab_cannot_run_it_says_what_is_missing(tmp_path: Path) -> None:
    done = call("lab", "run", description(tmp_path))
    assert isinstance(done.exception, SystemExit)
    assert done.exit_code == 2
    assert "a lab cannot run here:\n- the program `nft` (nftables)\n- the right to do anything" in done.stderr
    checked = call("lab", "check")
    assert checked.exit_code == 2
    assert "missing: the program `nft` (nftables)" in checked.stdout


@pytest.mark.usefixtures("nowhere")
def test_it_says_so_to_programs_too(tmp_path: Path) -> None:
    told = msgspec.json.decode(call("lab", "check", "--json").stdout)
    assert told == {
        "ready": False,
        "in_user_namespace": False,
        "missing": ["the program `nft` (nftables)", "the right to do anything"],
    }
    refused = msgspec.json.decode(call("lab", "run", description(tmp_path), "--json").stdout)
    assert refused["error"]["exit_code"] == 2
    assert "nft" in refused["error"]["message"]


@pytest.mark.usefixtures("nowhere")
def test_who_may_become_root_of_a_namespace_begins_anew_there_and_only_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[list[str]] = []

    def become_root(words: list[str]) -> None:
        begun.append(words)
        raise SimError("this would be another program now")

    # Set first, so that it is taken away again afterwards.
    monkeypatch.setenv(BEGUN_ANEW, "")
    monkeypatch.delenv(BEGUN_ANEW)
    monkeypatch.setattr(privileges, "can_become_root", lambda: True)
    monkeypatch.setattr(privileges, "become_root", become_root)
    call("lab", "run", description(tmp_path))
    assert begun[0][1:3] == ["-m", "simulator.cli"]
    again = call("lab", "run", description(tmp_path))
    assert len(begun) == 1
    assert "a lab cannot run here" in again.stderr
    del os.environ[BEGUN_ANEW]
    assert "as root of a user namespace" in call("lab", "check").stdout


def test_what_a_lab_cannot_do_is_told_at_once_with_what_to_do(tmp_path: Path) -> None:
    path = description(tmp_path, DESCRIPTION.replace("count = 3", "count = 3\nclock_error_ppm = 9.0") + SLOW)
    done = call("lab", "run", path)
    assert done.exit_code == 2
    assert "- a slow node (house-0 at 20 s)" in done.stderr
    assert "`clock_error_ppm` of 'house'" in done.stderr
    assert "leave out what can be left out with --ignore-unsupported" in done.stderr


@pytest.mark.usefixtures("nowhere")
def test_with_leave_to_do_without_it_gets_further(tmp_path: Path) -> None:
    done = call("lab", "run", description(tmp_path, DESCRIPTION + SLOW), "--ignore-unsupported")
    assert "slow node" not in done.stderr
    assert "a lab cannot run here" in done.stderr


def test_a_program_is_no_description(tmp_path: Path) -> None:
    done = call("lab", "run", program(tmp_path))
    assert done.exit_code == 2
    assert "a lab runs descriptions" in done.stderr


def test_what_to_keep_needs_a_place_to_keep_it(tmp_path: Path) -> None:
    for option in ("--trace", "--keep-journals"):
        done = call("lab", "run", description(tmp_path), option)
        assert done.exit_code == 2
        assert "--out DIR, which is missing" in done.stderr


def test_the_builtin_model_needs_what_runs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(privileges, "missing", list)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    done = call("lab", "run", description(tmp_path))
    assert done.exit_code == 2
    assert "--models described" in done.stderr


def test_a_folder_with_something_else_in_it_is_found_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(privileges, "missing", list)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "letter.txt").touch()
    done = call("lab", "run", description(tmp_path), "--models", "described", "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert "will not be replaced" in done.stderr


def test_it_has_a_help_page() -> None:
    done = call("lab", "run", "--help")
    assert done.exit_code == 0
    assert "--ignore-unsupported" in done.stdout
