"""Where runs are done makes no difference, and one that fails takes no other with it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from simulator.sweep.engines import EngineError, run_here, run_on_dask
from simulator.sweep.rows import Row
from tests.simulator.processes import dask_cluster
from tests.simulator.sweep.programs import jobs_of, program


def ignore(row: Row) -> None:
    """Nobody counts."""


def test_rows_are_in_the_order_of_the_plan_and_the_same_for_any_number_of_workers(tmp_path: Path) -> None:
    jobs = jobs_of(tmp_path, seeds=5)
    alone = run_here(jobs, workers=1, done=ignore)
    assert [row.seed for row in alone] == [0, 1, 2, 3, 4]
    assert len({row.digest for row in alone}) == 5
    assert all(row.passed and not row.error for row in alone)
    heard: list[Row] = []
    assert run_here(jobs, workers=2, done=heard.append) == alone
    assert sorted(row.number for row in heard) == [0, 1, 2, 3, 4]


def test_a_run_that_raises_becomes_a_row_with_its_error(tmp_path: Path) -> None:
    rows = run_here(jobs_of(tmp_path, "1 / (world.seed - 1)"), workers=1, done=ignore)
    assert [row.passed for row in rows] == [True, False, True]
    assert "tiny.py:12: the scenario 'tiny' failed: ZeroDivisionError" in rows[1].error
    assert (rows[1].digest, rows[1].metrics) == ("", {})


def test_a_bug_of_the_simulator_is_told_as_one(tmp_path: Path) -> None:
    (job,) = jobs_of(tmp_path, seeds=1)
    (row,) = run_here([msgspec.structs.replace(job, spec=b"[]")], workers=1, done=ignore)
    assert row.error.startswith("a bug of the simulator: ValidationError")


def test_a_run_whose_process_dies_becomes_a_row_and_the_others_are_done(tmp_path: Path) -> None:
    rows = run_here(jobs_of(tmp_path, "world.seed == 1 and os._exit(3)"), workers=2, done=ignore)
    assert [row.passed for row in rows] == [True, False, True]
    assert rows[1].error == "the process of the run died"


def test_a_worker_with_other_code_does_no_runs(tmp_path: Path) -> None:
    (job,) = jobs_of(tmp_path, seeds=1)
    (row,) = run_here([msgspec.structs.replace(job, code="another")], workers=1, done=ignore)
    assert "other code" in row.error


def test_a_dask_cluster_gives_the_same_rows(tmp_path: Path) -> None:
    jobs = jobs_of(tmp_path, "world.seed == 1 and 1 / 0", seeds=4)
    with dask_cluster(1) as scheduler:
        rows = run_on_dask(jobs, scheduler=scheduler, done=ignore)
    assert rows == run_here(jobs, workers=1, done=ignore)


def test_a_scheduler_that_is_not_there_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simulator.sweep.engines.CONNECT_SECONDS", 0.2)
    with pytest.raises(EngineError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:1"):
        run_on_dask(jobs_of(tmp_path), scheduler="tcp://127.0.0.1:1", done=ignore)


def test_where_dask_is_missing_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(EngineError, match=r"pip install 'teale\[dask\]'"):
        run_on_dask(jobs_of(tmp_path), scheduler="tcp://127.0.0.1:1", done=ignore)


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent")
def test_ctrl_c_ends_the_processes_and_writes_nothing(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    path = program(tmp_path, f"open({str(begun)!r}, 'w').close(); __import__('time').sleep(60)")
    out = tmp_path / "out"
    command = [sys.executable, "-m", "simulator.cli", "sweep", str(path), "--seeds", "2", "--workers", "2"]
    process = subprocess.Popen([*command, "--out", str(out)], stderr=subprocess.PIPE, start_new_session=True)
    try:
        waited_until = time.monotonic() + 30
        while not begun.exists() and process.poll() is None and time.monotonic() < waited_until:
            time.sleep(0.02)
        # To the whole group, as a terminal does.
        os.killpg(process.pid, signal.SIGINT)
        _, told = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130
    assert told.decode().strip() == "teale-sim: stopped; nothing was written"
    assert not out.exists()
