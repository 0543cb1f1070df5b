"""`teale-sim replay` of a journal."""

import json
from pathlib import Path

import pytest

from tests.simulator.cli.calling import call
from tests.simulator.journals.lives import ASKING, LIVES, recorded


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return recorded(ASKING, tmp_path / "a.journal")


@pytest.fixture
def other(path: Path) -> Path:
    """A journal of a core that was made from other entropy."""
    data = bytearray(path.read_bytes())
    # The first draw of eight bytes, which is what names this start of the node.
    data[data.index(b"\xc4\x08") + 2] ^= 1
    path.write_bytes(data)
    return path


def test_a_journal_that_comes_to_the_same_ends_with_0_and_shows_what_came_in(path: Path) -> None:
    result = call("replay", path)
    assert result.exit_code == 0, result.output
    first, *rest = result.output.splitlines()
    seconds = (ASKING.steps[-1][0] - ASKING.steps[0][0]) / 1e6
    assert first == (f"node a, version 0.1.0: {len(ASKING.steps)} inputs in {seconds:.1f} s, until it ended properly")
    counts = [line.split() for line in rest[:-1]]
    assert sum(int(number) for number, _ in counts) == len(ASKING.steps)
    assert ["3", "Ask"] in counts
    assert rest[-1] == "the core did again all that it did"


def test_a_journal_that_comes_to_something_else_ends_with_1_and_shows_where(other: Path) -> None:
    result = call("replay", other)
    assert result.exit_code == 1
    assert "other effects than recorded, now SendData" in result.output
    assert "the code has changed since, or a core depends on something besides its journal" in result.output


@pytest.mark.parametrize("equal", [True, False])
def test_programs_get_one_document(request: pytest.FixtureRequest, equal: bool) -> None:
    path = request.getfixturevalue("path" if equal else "other")
    result = call("replay", path, "--json")
    document = json.loads(result.output)
    assert result.exit_code == (0 if equal else 1)
    assert document["equal"] is equal
    assert document["path"] == str(path)
    assert (document["host"], document["kind"], document["ending"]) == ("a", "node", "stopped")
    assert document["steps"] == sum(document["inputs"].values()) == len(ASKING.steps)
    assert document["differing"] >= len(document["differences"])
    assert bool(document["differences"]) is not equal


def test_what_was_refused_is_counted(tmp_path: Path) -> None:
    path = recorded(
        ASKING, tmp_path / "j", illegal=[step[1] for step in ASKING.steps if type(step[1]).__name__ == "Ask"]
    )
    result = call("replay", path)
    assert result.exit_code == 0, result.output
    assert "3  of them refused, then as now" in result.output


def test_the_end_of_a_killed_program_is_told(tmp_path: Path) -> None:
    result = call("replay", recorded(LIVES["relay"], tmp_path / "j", end=None), "--tail")
    assert "relay relay.test, version 0.1.0" in result.output
    assert "until it was killed, or could write no more" in result.output
    assert "relay.test DataReceived(connection=" in result.output


def test_what_is_damaged_ends_with_2_and_its_name(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:30])
    result = call("replay", path)
    assert result.exit_code == 2
    assert str(path) in result.output
    result = call("replay", path, "--json")
    assert json.loads(result.output)["error"]["exit_code"] == 2


def test_a_journal_has_no_results_of_a_whole_run(path: Path, tmp_path: Path) -> None:
    result = call("replay", path, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "--out is for capsules" in result.output
