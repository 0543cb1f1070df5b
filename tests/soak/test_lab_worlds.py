"""Fifty random worlds with real programs behind the NATs of the kernel: no rule is broken, and all journals replay.

`TEALE_LAB_WORLDS` is how many there are, each of which takes about half a minute, two at a time, and
`TEALE_LAB_WORLDS_FROM` the first seed. A finding is kept in the test's folder, with what runs the same world again.
"""

import os
from pathlib import Path

import msgspec
import pytest

from simulator.lab.fuzz.campaign import campaign
from simulator.lab.privileges import missing


@pytest.mark.soak
def test_random_worlds_with_real_programs_break_no_rule(tmp_path: Path, commit: str) -> None:
    if lacking := missing():
        pytest.skip(f"the lab needs {'; '.join(lacking)}")
    worlds = int(os.environ.get("TEALE_LAB_WORLDS", "50"))
    report = campaign(int(os.environ.get("TEALE_LAB_WORLDS_FROM", "0")), worlds, folder=tmp_path)
    shown = msgspec.json.format(msgspec.json.encode(report)).decode()
    print(f"\ncommit {commit}: {shown}")
    assert report.passed, f"commit {commit}, kept in {tmp_path}: {shown}"
    assert report.done == worlds
