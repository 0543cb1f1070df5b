"""Random simulated worlds for a while: no rule is broken in any of them.

`TEALE_WORLDS_MINUTES` is for all of them, and `TEALE_WORLDS_FROM` the first seed; a finding leaves its capsule in the
test's folder, and its command is printed.
"""

import os
from pathlib import Path

import pytest

from simulator.fuzz import campaign
from tests.soak.conftest import minutes

SEEDS_MAX = 1_000_000


@pytest.mark.soak
def test_random_worlds_break_no_rule(tmp_path: Path) -> None:
    first = int(os.environ.get("TEALE_WORLDS_FROM", "0"))
    for_minutes = minutes("TEALE_WORLDS_MINUTES", 10)
    report = campaign(first, SEEDS_MAX, for_minutes, os.cpu_count() or 1, folder=tmp_path)
    print(f"{report.done} worlds, seeds {first} to {first + report.done - 1}")
    assert report.done > 0
    assert not report.findings, f"teale-sim replay {tmp_path}/…: {report.findings}"
