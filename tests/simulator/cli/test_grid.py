"""`teale-sim grid`."""

from pathlib import Path

import msgspec
import pytest

from simulator.nat_grid import EIGHT, KINDS
from tests.simulator.cli.calling import call


def test_the_grid_shows_every_pair_in_words_and_says_whether_all_came_as_predicted() -> None:
    result = call("grid", "--kinds", "public,eim+apdf,APDM+APDF")
    assert result.exit_code == 0
    lines = [line.split() for line in result.output.splitlines()]
    assert lines[0] == ["public", "EIM+APDF", "APDM+APDF"]
    assert [line[0] for line in lines[1:4]] == ["public", "EIM+APDF", "APDM+APDF"]
    assert lines[1][1:] == ["direct", *lines[1][2:3], "direct", *lines[1][4:5], "direct", *lines[1][6:7]]
    assert lines[3][-1] == "relayed"
    assert "9 pairs: 5 direct, 1 punched, 3 relayed; all as predicted" in result.output


def test_json_has_a_cell_for_each_pair_with_what_was_predicted() -> None:
    found = msgspec.json.decode(call("grid", "--json", "--seed", 3, "--latency", 5).output)
    assert found["kinds"] == list(EIGHT)
    assert [(cell["ours"], cell["theirs"]) for cell in found["cells"]] == [(a, b) for a in EIGHT for b in EIGHT]
    assert all(cell["outcome"] == cell["predicted"] for cell in found["cells"])
    assert (found["conditions"]["seed"], found["conditions"]["latency"]) == (3, 5000)


def test_out_writes_the_grid_as_csv_and_json_the_same_each_time(tmp_path: Path) -> None:
    written = []
    for _ in range(2):
        assert call("grid", "--kinds", "public,UDP blocked", "--loss", 0.1, "--out", tmp_path / "grid").exit_code == 0
        written.append((tmp_path / "grid" / "grid.csv").read_bytes())
    assert written[0] == written[1]
    assert len(written[0].splitlines()) == 5
    assert len(msgspec.json.decode((tmp_path / "grid" / "grid.json").read_bytes())["cells"]) == 4
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    assert call("grid", "--kinds", "public", "--out", tmp_path / "other").exit_code == 2


def test_ports_are_guessed_only_where_that_is_wanted() -> None:
    pair = ("--kinds", "EIM+APDF,APDM+APDF")
    assert "birthday" not in call("grid", *pair).output
    assert "2 birthday" in call("grid", *pair, "--birthday").output


@pytest.mark.parametrize("kinds", ["symmetric", ",", "public,symmetric"])
def test_an_unknown_kind_is_answered_with_those_that_exist(kinds: str) -> None:
    result = call("grid", "--kinds", kinds)
    assert result.exit_code == 2
    assert ", ".join(KINDS) in result.stderr
