"""Random worlds with real programs, the short form; the long one is `make soak` (tests/soak/test_lab_worlds.py)."""

from pathlib import Path

import msgspec
import pytest

from simulator.lab.fuzz.campaign import campaign

pytestmark = pytest.mark.usefixtures("means")

SOUND = range(219, 221)
"""Short ones, with a LAN, roaming, bad weather, a partition, NATs that forget and a crash between them."""


def test_random_worlds_break_no_rule_with_real_programs(tmp_path: Path) -> None:
    report = campaign(SOUND.start, len(SOUND), at_once=len(SOUND), folder=tmp_path)
    assert report.findings == (), msgspec.json.encode(report.findings).decode()
    assert report.done == len(SOUND)
    assert report.journals >= 8
    assert report.steps > 100
    assert report.outcomes.get("finished", 0) > 0
    assert list(tmp_path.iterdir()) == []
