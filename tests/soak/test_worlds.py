"""A thousand random simulated worlds: no rule is broken in any of them.

`TEALE_WORLDS` is how many there are, `TEALE_WORLDS_FROM` the first seed, and `TEALE_WORLDS_MINUTES` after how long no
more are begun, if ever; a finding leaves its capsule in the test's folder, and its command is printed.
"""

import os
from pathlib import Path

import pytest

from simulator.fuzz import campaign
from tests.soak.conftest import minutes


@pytest.mark.soak
def test_random_worlds_break_no_rule(tmp_path: Path, commit: str) -> None:
    first, worlds = int(os.environ.get("TEALE_WORLDS_FROM", "0")), int(os.environ.get("TEALE_WORLDS", "1000"))
    for_minutes = minutes("TEALE_WORLDS_MINUTES", 0) or None
    report = campaign(first, worlds, for_minutes, os.cpu_count() or 1, folder=tmp_path)
    print(f"\n{report.done} worlds, seeds {first} to {first + report.done - 1}, {report.wall_seconds:.0f} s")
    assert report.done > 0
    assert not report.findings, f"commit {commit}, teale-sim replay {tmp_path}/…: {report.findings}"
    assert for_minutes is not None or report.done == worlds
