"""`teale-sim lab fuzz`: what it says of findings, and how it ends; campaigns are tested with the lab."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from simulator.fuzz.values import Broken, Size
from simulator.lab import privileges, programs
from simulator.lab.fuzz import campaign as campaigns
from simulator.lab.fuzz.values import LabFinding, LabReport
from simulator.lab.plan import Served
from tests.simulator.cli.calling import call

BROKEN = Broken("nobody is forgotten", 1_500_000, "node-3", "node-3 was")
FINDING = LabFinding(
    17, Size(3, 1, 2, 4, 25.0), (BROKEN,), None, "found/seed-17", "teale-sim lab run …", "teale-sim run …"
)


def reporting(monkeypatch: pytest.MonkeyPatch, *findings: LabFinding, stopped: str = "done") -> list[Any]:
    """Have campaigns come to these findings at once, where labs are possible; returns what they are called with."""
    calls: list[Any] = []

    def campaign(*arguments: object, **options: object) -> LabReport:
        calls.append((arguments, options))
        outcomes = {"finished": 7, "timeout": 2}
        return LabReport(
            5, 40, 40, not findings, findings, stopped, 2, outcomes, 90, 4000, 1200.0, 310.0, 25_000, 1_600_000, 700.2
        )

    monkeypatch.setattr(campaigns, "campaign", campaign)
    monkeypatch.setattr(privileges, "missing", list)
    monkeypatch.setattr(programs, "missing", lambda _: [])
    return calls


def test_a_finding_is_told_with_its_place_and_with_what_the_simulator_makes_of_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    alike = msgspec.structs.replace(FINDING, seed=18, simulated=BROKEN, folder=None)
    other = msgspec.structs.replace(alike, simulated=msgspec.structs.replace(BROKEN, rule="nobody is late"))
    calls = reporting(monkeypatch, FINDING, alike, other)
    arguments = ("--seeds", 40, "--seed", 5, "--minutes", 2.5, "--at-once", 3, "--findings", 3)
    result = call("lab", "fuzz", *arguments, "--models", "described", "--out", tmp_path)
    assert result.exit_code == 1
    assert result.output.splitlines() == [
        "seed 17, 3 nodes, 1 relay, 2 faults, 4 asks, 25 s",
        "nobody is forgotten",
        "  1.500000 s  node-3  node-3 was",
        "  the same world keeps every rule in the simulator",
        "  kept in found/seed-17; to run it again, which may come to something else:",
        "  teale-sim lab run …",
        "  teale-sim run …",
        "seed 18, 3 nodes, 1 relay, 2 faults, 4 asks, 25 s",
        "nobody is forgotten",
        "  1.500000 s  node-3  node-3 was",
        "  the simulator breaks this rule too in it: nobody is forgotten",
        "  1.500000 s  node-3  node-3 was",
        "seed 18, 3 nodes, 1 relay, 2 faults, 4 asks, 25 s",
        "nobody is forgotten",
        "  1.500000 s  node-3  node-3 was",
        "  the simulator breaks another rule in it: nobody is late",
        "  1.500000 s  node-3  node-3 was",
        "40 of 40 worlds from seed 5 on (done): 3 broke a rule; 1200 s of worlds in 700 s, 2 at once, with 310 s of "
        "processor time",
        "90 journals with 4000 inputs were replayed; requests: 7 finished, 2 timeout; at worst an act was 0.03 s late, "
        "and a program up after 1.6 s",
    ]
    ((given, options),) = calls
    assert given == (5, 40, 2.5)
    assert (options["at_once"], options["findings_max"], options["served"]) == (3, 3, Served.DESCRIBED)
    assert options["folder"] == tmp_path


def test_a_campaign_without_a_finding_ends_with_0_and_one_that_was_stopped_with_130(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reporting(monkeypatch)
    document = msgspec.json.decode(call("lab", "fuzz", "--json").output)
    assert (document["passed"], document["outcomes"]["finished"]) == (True, 7)
    assert call("lab", "fuzz").exit_code == 0
    reporting(monkeypatch, stopped="interrupted")
    result = call("lab", "fuzz")
    assert result.exit_code == 130
    assert "(interrupted): no rule was broken" in result.output


def test_where_a_lab_cannot_run_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    reporting(monkeypatch)
    monkeypatch.setattr(privileges, "missing", lambda: ["the program `nft` (nftables)"])
    monkeypatch.setattr(privileges, "can_become_root", lambda: False)
    monkeypatch.setattr(programs, "missing", lambda plan: [f"a model for {plan.served.value}"])
    result = call("lab", "fuzz", "--seeds", 3, "--models", "builtin")
    assert result.exit_code == 2
    assert result.stderr.count("a model for builtin") == 1
    assert "the program `nft`" in result.stderr
