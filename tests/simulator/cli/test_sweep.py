"""`teale-sim sweep`."""

import csv
from pathlib import Path

import msgspec
import pytest
from pyarrow import parquet

from tests.simulator.cli.calling import call, description, program
from tests.simulator.processes import dask_cluster

GRID = ("--vary", "populations[0].count=2,3", "--set", "faults=[]", "--set", "lasts=30", "--seeds", 2, "--seed", 5)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_sweep_has_a_row_for_each_run_and_a_mean_for_each_figure_of_each_cell(tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = call("sweep", description(tmp_path), *GRID, "--workers", 1, "--out", out, "--parquet")
    assert result.exit_code == 0, result.output
    rows = table(out / "rows.csv")
    assert [(row["run"], row["populations[0].count"], row["seed"]) for row in rows] == [
        ("0", "2", "5"),
        ("1", "2", "6"),
        ("2", "3", "5"),
        ("3", "3", "6"),
    ]
    assert len({row["digest"] for row in rows}) == 4
    assert {(row["asked"], row["served_share"], row["passed"], row["error"]) for row in rows} == {
        ("1", "1.0", "true", "")
    }
    cells = {(cell["populations[0].count"], cell["figure"]): cell for cell in table(out / "cells.csv")}
    share = cells["2", "served_share"]
    assert [share[name] for name in ("count", "mean", "low", "high")] == ["2", "1.0", "1.0", "1.0"]
    assert ("3", "relay_bytes_out") in cells
    stored = parquet.read_table(out / "rows.parquet").to_pylist()
    assert [(row["run"], row["seed"], row["passed"]) for row in stored] == [
        (0, 5, True),
        (1, 6, True),
        (2, 5, True),
        (3, 6, True),
    ]
    document = msgspec.json.decode((out / "sweep.json").read_bytes())
    assert document["command"].startswith("teale-sim sweep ")
    assert document["command"].endswith("--set 'faults=[]' --set lasts=30 --vary 'populations[0].count=2,3'")
    assert [row["digest"] for row in document["rows"]] == [row["digest"] for row in rows]


def test_one_run_of_a_sweep_is_what_run_gives(tmp_path: Path) -> None:
    path = description(tmp_path)
    document = msgspec.json.decode(call("sweep", path, *GRID, "--workers", 1, "--json").output)
    digest = call(
        "run",
        path,
        "--set",
        "populations[0].count=3",
        "--set",
        "faults=[]",
        "--set",
        "lasts=30",
        "--seed",
        6,
        "--digest",
    )
    assert document["rows"][3]["digest"] == digest.output.strip()


def test_one_worker_two_workers_and_a_dask_cluster_write_the_same_bytes(tmp_path: Path) -> None:
    path = description(tmp_path)
    with dask_cluster(2) as scheduler:
        engines = {
            "one": ("--workers", 1),
            "two": ("--workers", 2),
            "dask": ("--engine", "dask", "--scheduler", scheduler),
        }
        for name, engine in engines.items():
            result = call("sweep", path, *GRID, *engine, "--out", tmp_path / name)
            assert result.exit_code == 0, result.output
    for file in ("rows.csv", "cells.csv", "sweep.json"):
        one, two, cluster_s = ((tmp_path / name / file).read_bytes() for name in engines)
        assert one == two == cluster_s
    assert len(table(tmp_path / "one" / "rows.csv")) == 4


def test_a_run_that_fails_is_a_row_with_its_error_and_the_exit_code_1(tmp_path: Path) -> None:
    out = tmp_path / "out"
    path = program(tmp_path, "1 / (world.seed - 1)")
    result = call("sweep", path, "--seeds", 3, "--workers", 1, "--out", out)
    assert result.exit_code == 1
    assert "failed: seed 1: " in result.output
    rows = table(out / "rows.csv")
    assert [row["passed"] for row in rows] == ["true", "false", "true"]
    assert "ZeroDivisionError" in rows[1]["error"]
    assert rows[1]["asked"] == ""


def test_a_violated_rule_makes_the_exit_code_1(tmp_path: Path) -> None:
    path = program(tmp_path, "from simulator.checkers import EnoughServed; world.check(EnoughServed(1))")
    result = call("sweep", path, "--seeds", 2, "--workers", 1, "--show", "violations")
    assert result.exit_code == 1
    assert result.output.split() == ["passed", "violations", "0", "of", "2", "1", "±", "0"]


def test_the_table_shows_the_figures_that_were_asked_for(tmp_path: Path) -> None:
    path = program(tmp_path)
    assert "simulated_seconds" in call("sweep", path, "--workers", 1, "--show", "simulated_seconds").output


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--vary", "lasts=20,long"), "Expected `float`, got `str`"),
        (("--vary", "populations[9].count=2"), "there is no such field"),
        (("--vary", "lasts=20,20"), "a value is there twice"),
        (("--vary", "lasts=20", "--vary", "lasts=30"), "lasts is varied twice"),
        (("--vary", "lasts"), "is not of the form path=value,value"),
        (("--engine", "dask"), "--engine dask and --scheduler ADDRESS belong together"),
        (("--scheduler", "tcp://127.0.0.1:1"), "--engine dask and --scheduler ADDRESS belong together"),
        (("--parquet",), "--out DIR"),
        (("--show", "beauty"), "There is no figure 'beauty'; there are: asked, served,"),
        (("--seeds", 2_000_000), "2000000 runs are too many for one sweep"),
    ],
)
def test_a_wrong_sweep_is_refused_before_any_run(tmp_path: Path, options: tuple[object, ...], complaint: str) -> None:
    result = call("sweep", description(tmp_path), *options)
    assert result.exit_code == 2
    assert complaint in result.stderr


def test_a_program_can_be_swept_over_its_seeds_alone(tmp_path: Path) -> None:
    result = call("sweep", program(tmp_path), "--vary", "lasts=1,2")
    assert result.exit_code == 2
    assert "is a program and has no knobs" in result.stderr


def test_where_no_run_could_be_done_no_directory_is_left(tmp_path: Path) -> None:
    result = call("sweep", program(tmp_path), "--engine", "dask", "--scheduler", "nowhere", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "'nowhere' is not the address of a scheduler, such as tcp://" in result.stderr
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("")
    result = call("sweep", program(tmp_path), "--out", tmp_path / "file" / "out")
    assert (result.exit_code, "file/out: cannot be written" in result.stderr) == (2, True)


def test_a_directory_of_something_else_is_left_alone_and_a_former_sweep_is_replaced(tmp_path: Path) -> None:
    path, other, out = program(tmp_path), tmp_path / "other", tmp_path / "out"
    other.mkdir()
    (other / "thesis.tex").touch()
    result = call("sweep", path, "--out", other)
    assert result.exit_code == 2
    assert "holds something other than a sweep" in result.stderr
    assert call("sweep", path, "--seeds", 2, "--workers", 1, "--out", out).exit_code == 0
    assert call("sweep", path, "--seeds", 3, "--workers", 1, "--out", out).exit_code == 0
    assert len(table(out / "rows.csv")) == 3
