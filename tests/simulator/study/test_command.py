"""The one command that makes every table and figure."""

from pathlib import Path
from xml.etree import ElementTree

import msgspec
from click.testing import CliRunner

from simulator.study.__main__ import main


def test_the_command_writes_tables_figures_and_results_and_says_how_long_it_took(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["--out", str(tmp_path), "--quick"])
    assert done.exit_code == 0, done.output
    assert "run time: " in done.output
    assert "### Calibration" in (tmp_path / "tables.md").read_text()
    results = msgspec.json.decode((tmp_path / "results.json").read_bytes())
    assert {point["nodes"] for point in results["model"]} == {100, 1_000, 10_000_000}
    for name in ("relay-load", "relay-month", "relay-purposes", "relay-claim"):
        assert ElementTree.parse(tmp_path / f"{name}.svg").getroot().tag.endswith("svg")
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_one_size_alone_is_answered_with_parameters_of_ones_own(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text("requests_per_hour = 40.0\n[mixtures]\ncellular = 1.0\n")
    done = CliRunner().invoke(main, ["--out", str(tmp_path), "--quick", "--nodes", "500", "--parameters", str(mine)])
    assert done.exit_code == 0, done.output
    assert "### A relay for 500 nodes" in done.output
    assert "| ours, all relayed | yes |" in done.output
    assert not list(tmp_path.glob("*.svg"))


def test_parameters_that_do_not_exist_are_refused_with_the_name_of_the_file(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text("requests_per_minute = 40.0\n")
    done = CliRunner().invoke(main, ["--out", str(tmp_path), "--parameters", str(mine)])
    assert done.exit_code == 2
    assert "mine.toml" in done.output
    assert "requests_per_minute" in done.output
