"""The folder of a run is gone after it, also when the run was killed; nobody's folder that is in use is touched."""

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from simulator.lab import scratch as scratches
from simulator.lab.scratch import PREFIX, scratch

KILLED = """
import os, signal
from simulator.lab.scratch import scratch
with scratch() as folder:
    (folder / "journal").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(scratches, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_it_is_for_its_owner_alone_and_gone_afterwards(temporary: Path) -> None:
    with scratch() as folder:
        assert list(folder.iterdir()) == []
        assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
    assert list(temporary.iterdir()) == []


def test_what_a_killed_run_has_left_goes_with_the_next_one(temporary: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED], check=False)
    [left] = temporary.glob(f"{PREFIX}*")
    with scratch():
        assert not left.exists()


def test_what_others_use_stays(temporary: Path) -> None:
    (temporary / f"{PREFIX}somebody").mkdir()
    with scratch() as first, scratch() as second:
        assert first.exists()
        assert second.exists()
    assert [path.name for path in temporary.iterdir()] == [f"{PREFIX}somebody"]
