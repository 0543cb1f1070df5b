"""One random world in a lab: what is kept of it, and when; with runs that never were."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from simulator.fuzz.values import Broken, Size
from simulator.lab.errors import LabError
from simulator.lab.fuzz import trial
from simulator.lab.fuzz.trial import LAB_HOLDS, RESULTS, TAIL_FILE, WORLD, broken_in, perform
from simulator.lab.plan import Plan
from simulator.lab.results import Judged
from simulator.lab.run import Ran
from simulator.spec.load import AskSpec
from simulator.spec.world_spec import WorldSpec
from simulator.spec.writing import toml_of
from tests.simulator.lab import runs

PLANTED = Broken("it was planted", 5_000_000, "a-0", "here")


def as_ran(monkeypatch: pytest.MonkeyPatch, *broken: Broken, spec: WorldSpec = runs.SPEC) -> None:
    """Have every plan come to the same run, which is in its journals, and to this verdict."""

    def run(plan: Plan, folder: Path, tell: Any) -> Ran:
        journals = folder / "journals"
        journals.mkdir()
        for node in plan.nodes:
            (folder / node.name).mkdir(exist_ok=True)
            (folder / node.name / "err.log").write_text("it said something\n")
        tell("and so it went")
        return runs.ran(journals, spec=spec)

    monkeypatch.setattr(trial, "run", run)
    monkeypatch.setattr(trial, "broken_in", lambda _: broken)


def at(folder: Path, spec: WorldSpec) -> Path:
    (folder / WORLD).write_text(toml_of(spec), encoding="utf-8")
    return folder


def test_of_a_world_that_breaks_no_rule_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_ran(monkeypatch)
    found = perform(at(tmp_path, runs.SPEC), 1)
    assert found.violations == ()
    assert found.size == Size.of(runs.SPEC)
    assert (found.journals, found.outcomes) == (3, {"cancelled": 1, "finished": 1, "timeout": 1})
    assert found.steps > 20
    assert found.usage.wall_seconds > 0
    assert [path.name for path in tmp_path.iterdir()] == [WORLD]


def test_of_a_world_that_breaks_one_everything_is_kept_and_it_is_simulated_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = msgspec.structs.replace(
        runs.SPEC,
        lasts=60.0,
        populations=tuple(msgspec.structs.replace(each, holders=0.0) for each in runs.SPEC.populations),
        asks=(AskSpec(at=20.0, node="a-0", timeout=10.0),),
        served_at_least=1.0,
    )
    as_ran(monkeypatch, PLANTED, spec=spec)
    found = perform(at(tmp_path, spec), 1)
    assert found.violations == (PLANTED,)
    assert found.simulated is not None
    assert found.simulated.rule == "at least 100% of the requests were served"
    assert len(list((tmp_path / "journals").glob("*.journal"))) == 3
    assert (tmp_path / "logs" / "a-0.log").read_text() == "it said something\n"
    assert (tmp_path / "told.txt").read_text() == "and so it went\n"
    assert "Started(" in (tmp_path / TAIL_FILE).read_text()
    assert {"lab.json", "summary.json", "trace.jsonl.gz", "scenario.toml"} <= {
        path.name for path in (tmp_path / RESULTS).iterdir()
    }
    assert tmp_path.stat().st_mode & 0o077 == 0


def test_of_each_rule_that_was_broken_the_first_violation_is_told_in_the_order_of_time(tmp_path: Path) -> None:
    # These lives are of three worlds, so that nobody is who the others take him for.
    report = Judged(runs.ran(tmp_path)).play()
    found = broken_in(report)
    assert {broken.rule for broken in found} == {check.rule for check in report.checks if not check.passed}
    assert len(found) > 1
    assert [broken.at for broken in found] == sorted(broken.at for broken in found)


def test_a_lab_that_fails_is_a_finding_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: object) -> Ran:
        raise LabError("relay-0 was not ready within 60 s")

    monkeypatch.setattr(trial, "run", run)
    found = perform(at(tmp_path, runs.SPEC), 1)
    (broken,) = found.violations
    assert (broken.rule, broken.what) == (f"{LAB_HOLDS} (LabError)", "relay-0 was not ready within 60 s")
    assert found.simulated is None


def test_what_nobody_expected_is_a_finding_with_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: object) -> Ran:
        raise ZeroDivisionError("nobody")

    monkeypatch.setattr(trial, "run", run)
    (broken,) = perform(at(tmp_path, runs.SPEC), 1).violations
    assert broken.rule == f"{LAB_HOLDS} (ZeroDivisionError)"
    assert "test_trial.py" in broken.what
