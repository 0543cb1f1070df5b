"""Campaigns in a lab: how worlds are begun, what is kept of findings, how one ends; with processes that run no lab."""

import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from simulator.fuzz.campaign import DONE, ENOUGH_FOUND, INTERRUPTED, TIME_IS_UP, WORKERS_LIVE
from simulator.fuzz.values import Broken, Progress, Size
from simulator.lab.fuzz import campaign as campaigns
from simulator.lab.fuzz.campaign import FINDING, campaign
from simulator.lab.fuzz.values import LabTrial, Usage
from simulator.lab.fuzz.worlds import draw
from simulator.lab.plan import Served
from simulator.spec.reading import read_toml

BROKEN = Broken("nobody is forgotten", 1_500_000, "home-0", "home-0 was")


def trial_of(seed: int, *, broken: Broken | None = None, simulated: Broken | None = None) -> LabTrial:
    usage = Usage(wall_seconds=2.0, cpu_seconds=1.5, latest_act_us=100 * seed, slowest_start_us=1000)
    found = () if broken is None else (broken,)
    return LabTrial(seed, Size(2, 1, 0, 3, 20.0), found, {"finished": 3}, 4, 50, usage, simulated)


@pytest.fixture
def stands_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Return what has worlds come to what a program says, in place of a lab."""

    def put(program: str) -> None:
        module = tmp_path / "stand_in.py"
        module.write_text(program)
        monkeypatch.setattr(campaigns, "WORDS", (sys.executable, str(module)))

    return put


def says(*trials: LabTrial) -> str:
    """Return the program that says what came of the world of its seed."""
    said = {trial.seed: msgspec.json.encode(trial).decode() for trial in trials}
    return f"import sys\nprint({said!r}[int(sys.argv[2])])\n"


def test_every_seed_is_run_once_and_the_figures_of_all_are_summed(stands_in: Any, tmp_path: Path) -> None:
    stands_in(says(*map(trial_of, range(5, 9))))
    told: list[Progress] = []
    report = campaign(5, 4, at_once=3, folder=tmp_path / "findings", on_progress=told.append)
    assert (report.passed, report.done, report.stopped, report.findings) == (True, 4, DONE, ())
    assert (report.outcomes, report.journals, report.steps) == ({"finished": 12}, 16, 200)
    assert (report.cpu_seconds, report.latest_act_us, report.slowest_start_us) == (6.0, 800, 1000)
    assert report.lab_seconds == sum(draw(seed).lasts for seed in range(5, 9))
    assert [progress.done for progress in told] == [1, 2, 3, 4]
    assert not (tmp_path / "findings").exists()


def test_a_finding_is_kept_with_its_world_and_the_commands_that_run_it_again(stands_in: Any, tmp_path: Path) -> None:
    stands_in(
        "import sys\nfrom pathlib import Path\nPath(sys.argv[1], 'tail.txt').write_text('so it ended')\n"
        + says(trial_of(7, broken=BROKEN, simulated=BROKEN))
    )
    folder = tmp_path / "my findings"
    for name in ("seed-7", "seed-7-2"):
        # A lab may come to something else next time, so that nothing is overwritten.
        (finding,) = campaign(7, 1, served=Served.BUILTIN, folder=folder).findings
        assert finding.folder == str(folder / name)
    assert (finding.violations, finding.fails_simulated) == ((BROKEN,), True)
    world = folder / "seed-7-2" / "world.toml"
    assert read_toml(world) == draw(7, Served.BUILTIN)
    assert finding.command == f"teale-sim lab run '{world}' --seed 7"
    assert finding.simulate == f"teale-sim run '{world}' --seed 7"
    assert (folder / "seed-7-2" / "tail.txt").read_text() == "so it ended"
    written = msgspec.json.decode((folder / "seed-7-2" / FINDING).read_bytes())
    assert written["finding"]["violations"][0]["rule"] == BROKEN.rule
    assert written["trial"]["simulated"]["what"] == BROKEN.what


def test_a_simulator_that_breaks_another_rule_does_not_fail_alike(stands_in: Any) -> None:
    other = msgspec.structs.replace(BROKEN, rule="nobody is late")
    stands_in(says(trial_of(7, broken=BROKEN, simulated=other), trial_of(8, broken=BROKEN)))
    assert [finding.fails_simulated for finding in campaign(7, 2).findings] == [False, False]


def test_a_process_that_dies_or_says_nothing_of_use_is_a_finding(stands_in: Any) -> None:
    stands_in("import sys\nsys.exit('nobody can go on here')\n")
    (finding,) = campaign(1, 1).findings
    assert finding.violations[0].rule == WORKERS_LIVE
    assert finding.violations[0].what == "the process ended with status 1: nobody can go on here"


def test_a_world_that_never_ends_is_told_to_and_is_a_finding(
    stands_in: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(campaigns, "SECONDS_MORE", -draw(1).lasts + 0.5)
    stands_in("import signal\nsignal.pause()\n")
    (finding,) = campaign(1, 1).findings
    assert finding.violations[0].what.startswith("no end within")


def test_after_enough_findings_or_minutes_no_world_is_begun(stands_in: Any) -> None:
    stands_in(says(*(trial_of(seed, broken=BROKEN) for seed in range(9))))
    enough = campaign(0, 9, at_once=1, findings_max=2)
    assert (enough.stopped, enough.done, len(enough.findings)) == (ENOUGH_FOUND, 2, 2)
    early = campaign(0, 9, 1e-9)
    assert (early.stopped, early.done) == (TIME_IS_UP, 0)


def test_ctrl_c_has_labs_taken_down_and_ends_with_what_was_found(stands_in: Any, tmp_path: Path) -> None:
    gone, there = tmp_path / "gone", tmp_path / "there"
    stands_in(
        f"""
import signal, sys, time
from pathlib import Path
gone, there = Path({str(gone)!r}), Path({str(there)!r})
if sys.argv[2] == "1":
    signal.signal(signal.SIGTERM, lambda *_: (gone.touch(), sys.exit(130)))
    there.touch()
    signal.pause()
while not there.exists():
    time.sleep(0.01)
"""
        + says(trial_of(0, broken=BROKEN))
    )

    def interrupt(_: Progress) -> None:
        raise KeyboardInterrupt

    report = campaign(0, 2, at_once=2, on_progress=interrupt)
    assert (report.stopped, report.done, len(report.findings)) == (INTERRUPTED, 1, 1)
    assert gone.exists()


@pytest.mark.parametrize("wrong", [{"first_seed": -1}, {"seeds": 0}, {"minutes": 0.0}, {"at_once": 0}])
def test_numbers_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="counted from"):
        campaign(**{"first_seed": 0, "seeds": 1, **wrong})
