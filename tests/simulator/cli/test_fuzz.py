"""`teale-sim fuzz` and `teale-sim replay`; that bugs are found and shrunk is tested with the fuzzer."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from simulator import fuzz
from simulator.cli.fuzzing import PLANTED
from simulator.fuzz.capsule import Capsule, save, this_code
from simulator.fuzz.trial import run
from simulator.fuzz.values import Broken, CampaignReport, Finding, Size
from simulator.spec.load import AskSpec
from simulator.spec.population import Population
from simulator.spec.world_spec import Planted, WorldSpec
from tests.simulator.cli.calling import call

NOBODY_ANSWERS = WorldSpec(
    name="deaf",
    lasts=30.0,
    populations=(Population(count=1, holders=0.0),),
    asks=(AskSpec(at=10.0, node="node-0", timeout=5.0),),
    served_at_least=1.0,
)

BROKEN = Broken("nobody is forgotten", 1_500_000, "node-3", "node-3 was")


@pytest.fixture
def capsule(tmp_path: Path) -> Path:
    trial = run(NOBODY_ANSWERS, 3)
    assert trial.broken is not None
    return save(
        Capsule(
            seed=3,
            spec=NOBODY_ANSWERS,
            broken=trial.broken,
            digest=trial.digest,
            entries=trial.entries,
            found=Size.of(NOBODY_ANSWERS),
            code=this_code(),
            tail=trial.tail,
        ),
        tmp_path / "capsules",
    )


def reporting(monkeypatch: pytest.MonkeyPatch, *findings: Finding, stopped: str = "done") -> list[Any]:
    """Have campaigns come to these findings at once; returns what they are called with."""
    calls: list[Any] = []

    def campaign(*arguments: object, **options: object) -> CampaignReport:
        calls.append((arguments, options))
        return CampaignReport(5, 40, 40, not findings, findings, stopped, 2, 4000.0, 12.5)

    monkeypatch.setattr(fuzz, "campaign", campaign)
    return calls


def test_the_planted_bugs_are_those_that_there_are() -> None:
    assert list(PLANTED) == [each.value for each in Planted]


def test_a_world_without_a_finding_ends_with_0_and_leaves_nothing(tmp_path: Path) -> None:
    result = call("fuzz", "--seeds", 1, "--workers", 1, "--out", tmp_path / "capsules")
    assert result.exit_code == 0, result.output
    assert "1 of 1 worlds from seed 0 on (done): no rule was broken" in result.output
    assert not list(tmp_path.iterdir())


def test_a_finding_is_told_with_its_place_its_sizes_and_the_command_that_replays_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    finding = Finding(17, BROKEN, Size(30, 2, 5, 40, 120.0), Size(2, 1, 0, 1, 12.0), 57, "capsules/seed-17.json")
    calls = reporting(monkeypatch, finding)
    arguments = ("fuzz", "--seeds", 40, "--seed", 5, "--minutes", 2.5, "--workers", 2, "--findings", 3)
    result = call(*arguments, "--planted", "delivers twice", "--out", tmp_path)
    assert result.exit_code == 1
    assert result.output.splitlines() == [
        "seed 17: nobody is forgotten",
        "  1.500000 s  node-3  node-3 was",
        f"  {finding.found}, shrunk in 57 runs to {finding.shrunk}",
        "  teale-sim replay capsules/seed-17.json",
        "40 of 40 worlds from seed 5 on (done): 1 broke a rule; 4000 s simulated in 12.5 s on 2 workers",
    ]
    ((given, options),) = calls
    assert given == (5, 40, 2.5, 2)
    assert (options["planted"], options["findings_max"]) == (Planted.DELIVERS_TWICE, 3)
    assert options["folder"] == tmp_path
    document = msgspec.json.decode(call("fuzz", "--json").output)
    assert document["findings"][0]["capsule"] == "capsules/seed-17.json"


def test_a_campaign_that_was_stopped_tells_what_it_has_and_how_it_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    reporting(monkeypatch, stopped="interrupted")
    result = call("fuzz")
    assert result.exit_code == 130
    assert "(interrupted): no rule was broken" in result.output


def test_a_capsule_comes_to_the_same_event(capsule: Path, tmp_path: Path) -> None:
    shown = call("replay", capsule, "--tail", "--out", tmp_path / "results")
    assert shown.exit_code == 1, shown.output
    assert "at least 100% of the requests were served" in shown.output
    assert "the same event" in shown.output
    assert "ReportFailed" in shown.output
    assert (tmp_path / "results" / "report.html").is_file()
    replayed = msgspec.json.decode(call("replay", capsule, "--json").output)
    assert replayed["reproduced"]
    assert replayed["found"] == replayed["expected"]


def test_a_capsule_whose_rule_holds_again_ends_with_0_only_if_the_code_has_changed(capsule: Path) -> None:
    written = msgspec.json.decode(capsule.read_bytes())
    written["spec"]["served_at_least"] = 0.0
    capsule.write_bytes(msgspec.json.encode(written))
    same_code = call("replay", capsule)
    assert same_code.exit_code == 1
    assert "depends on something besides its seed" in same_code.output
    written["code"]["source"] = "of long ago"
    capsule.write_bytes(msgspec.json.encode(written))
    mended = call("replay", capsule)
    assert mended.exit_code == 0
    assert "no rule is broken any more" in mended.output


def test_a_file_that_is_no_capsule_is_a_wrong_call(tmp_path: Path) -> None:
    path = tmp_path / "capsule.json"
    assert call("replay", path).exit_code == 2
    path.write_text("{}")
    result = call("replay", path)
    assert result.exit_code == 2
    assert "not a capsule" in result.stderr
