"""Commands of `teale-sim` as processes of their own: what enters namespaces does not come back from there."""

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from simulator.cli.exits import Exit, SimError
from simulator.cli.progress import busy
from simulator.spec.world_spec import WorldSpec
from simulator.spec.writing import toml_of

LAB: Final = (sys.executable, "-m", "simulator.cli", "lab", "run")
CALIBRATE: Final = (sys.executable, "-m", "simulator.cli", "calibrate", "--lab")


def run_lab(spec: WorldSpec, seed: int, results: Path) -> None:
    """Run the lab once and keep the results in a directory; raises SimError where none come of it."""
    with TemporaryDirectory(prefix="teale-lab-") as folder:
        scenario = Path(folder) / "scenario.toml"
        scenario.write_text(toml_of(spec), encoding="utf-8")
        words = (*LAB, str(scenario), "--seed", str(seed), "--trace", "--out", str(results))
        _run(f"the lab's run with seed {seed}", words, results)


def calibrate(profile: Path) -> None:
    """Measure this machine and write a profile to a file; raises SimError where none comes of it."""
    _run("calibration", (*CALIBRATE, "--out", str(profile)), profile)


def _run(what: str, words: tuple[str, ...], made: Path) -> None:
    with busy(what):
        # Ctrl-C reaches it too, and it takes down what it has built: it is waited for.
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)  # noqa: S603 - our own
        try:
            _, said = process.communicate()
        except KeyboardInterrupt:
            process.wait()
            raise
    # Rules that were broken are part of the results.
    if process.returncode not in (Exit.OK, Exit.VIOLATED) or not made.exists():
        why = said.decode("utf-8", "replace").strip() or f"it ended with {process.returncode}"
        raise SimError(f"{what} came to nothing: {why}")
