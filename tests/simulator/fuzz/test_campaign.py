"""Campaigns: what was planted is found, shrunk and replayed, and what is sound passes."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from simulator.fuzz import campaign, replay
from simulator.fuzz.campaign import DONE, ENOUGH_FOUND, INTERRUPTED, TIME_IS_UP
from simulator.fuzz.capsule import CapsuleError, load
from simulator.fuzz.values import Progress, Size
from simulator.fuzz.workers import Died, Job, Result, TrialJob, Workers
from simulator.spec.world_spec import Planted

SOUND = range(3997, 4017)
"""Seeds whose worlds a sound tree survives. Whoever finds one that it does not has found a bug, or a wrong rule."""


def test_twenty_random_worlds_break_no_rule() -> None:
    report = campaign(SOUND.start, len(SOUND))
    assert report.findings == ()
    assert (report.passed, report.done, report.stopped) == (True, len(SOUND), DONE)
    assert report.simulated_seconds > 60 * len(SOUND)


@pytest.mark.parametrize("planted", [Planted.FORGETS_HEARTBEATS, Planted.DELIVERS_TWICE])
def test_a_planted_bug_is_found_shrunk_and_replayed_to_the_same_event(planted: Planted, tmp_path: Path) -> None:
    report = campaign(2, 24, planted=planted, findings_max=1, folder=tmp_path)
    assert report.stopped == ENOUGH_FOUND
    (finding,) = report.findings
    assert finding.shrunk is not None
    assert finding.capsule is not None
    assert finding.shrunk.nodes <= 5
    assert finding.shrunk.faults <= 1
    assert finding.shrunk.asks == 0
    assert Size.of(load(Path(finding.capsule)).spec) == finding.shrunk
    again = replay(Path(finding.capsule))
    assert (again.reproduced, again.same_event, again.same_code) == (True, True, True)
    assert again.found == finding.broken
    assert again.tail


def test_what_is_reported_does_not_depend_on_the_number_of_processes() -> None:
    def found(workers: int) -> object:
        report = campaign(2, 12, None, workers, planted=Planted.DELIVERS_TWICE, findings_max=2)
        return msgspec.structs.replace(report, wall_seconds=0.0, workers=0)

    assert found(0) == found(2)


def test_a_campaign_tells_how_far_it_is() -> None:
    told: list[Progress] = []
    campaign(SOUND.start, 3, on_progress=told.append)
    assert [progress.done for progress in told[:3]] == [1, 2, 3]
    assert told[0].remaining_seconds is not None
    assert {progress.total for progress in told} == {3}


def test_a_campaign_ends_when_its_time_is_up() -> None:
    report = campaign(SOUND.start, 1_000_000, 1e-6)
    assert (report.stopped, report.done, report.passed) == (TIME_IS_UP, 1, True)


def test_ctrl_c_ends_a_campaign_with_what_was_found_by_then() -> None:
    def interrupt(progress: Progress) -> None:
        if progress.done >= 3:
            raise KeyboardInterrupt

    report = campaign(2, 1000, planted=Planted.DELIVERS_TWICE, on_progress=interrupt)
    assert (report.stopped, report.done) == (INTERRUPTED, 3)
    assert all(finding.shrunk is None for finding in report.findings)


@pytest.mark.parametrize(
    ("first", "seeds", "minutes", "workers", "findings"),
    [(-1, 1, None, 0, 1), (0, 0, None, 0, 1), (0, 1, 0.0, 0, 1), (0, 1, None, -1, 1), (0, 1, None, 0, 0)],
)
def test_numbers_that_make_no_sense_are_refused(
    first: int, seeds: int, minutes: float | None, workers: int, findings: int
) -> None:
    with pytest.raises(ValueError, match="counted from"):
        campaign(first, seeds, minutes, workers, findings_max=findings)


def test_where_no_capsule_can_be_written_no_world_is_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    told: list[Progress] = []
    with pytest.raises(CapsuleError, match="file: is not a directory"):
        campaign(0, 1, folder=tmp_path / "file" / "capsules", on_progress=told.append)
    assert not told


# Processes.


def outcomes(workers: Workers) -> Iterator[tuple[Job, Result]]:
    while not workers.is_idle:
        yield from workers.results()


def test_a_process_that_dies_is_told_with_its_job_and_replaced() -> None:
    jobs = [TrialJob(seed, Planted.NONE) for seed in range(3)]
    with Workers(1) as workers:
        for job in jobs:
            workers.put(job)
        workers.hand_out()
        (pid,) = workers.pids
        os.kill(pid, signal.SIGKILL)
        found = list(outcomes(workers))
        assert [job for job, _ in found] == jobs
        assert found[0][1] == Died("the process ended with signal SIGKILL")
        assert not any(isinstance(result, Died) for _, result in found[1:])
        assert pid not in workers.pids


def test_processes_leave_ctrl_c_to_their_parent() -> None:
    with Workers(1) as workers:
        workers.put(TrialJob(0, Planted.NONE))
        (_, first) = next(outcomes(workers))
        (pid,) = workers.pids
        os.kill(pid, signal.SIGINT)
        workers.put(TrialJob(0, Planted.NONE))
        assert next(outcomes(workers)) == (TrialJob(0, Planted.NONE), first)
