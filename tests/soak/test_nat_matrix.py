"""Twelve kinds of NATs of the kernel, every node with every other: all cells end on the path that was simulated.

Five minutes, most of them with 24 real nodes. What disagrees is printed, and the page is kept in the test's folder.
"""

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from simulator.lab.privileges import missing

KINDS = 12
CELLS = KINDS * (KINDS + 1) // 2


@pytest.mark.soak
def test_the_whole_matrix_ends_in_the_lab_as_simulated(tmp_path: Path) -> None:
    if lacking := missing():
        pytest.skip(f"the lab needs {'; '.join(lacking)}")
    words = ("compare", "nat_matrix", "--only", "paths", "--simulated", "5", "--lab", "1", "--json")
    command = [sys.executable, "-m", "simulator.cli", *words, "--out", str(tmp_path / "matrix")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    cells = msgspec.json.decode(done.stdout)["paths"]
    assert len(cells) == CELLS
    assert not [cell for cell in cells if not cell["is_inside"]]
    assert done.returncode == 0
