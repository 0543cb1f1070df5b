"""Which program made some results, as far as that can be found out."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from simulator.results.model import MadeBy


def made_by() -> MadeBy:
    """Return the versions of this program and of Python."""
    try:
        installed = version("teale")
    except PackageNotFoundError:
        installed = ""
    return MadeBy(installed, _commit(), platform.python_version())


def _commit() -> str:
    """Return the commit of the clone that this file is in, marked where it was changed since; "" for none."""
    folder = Path(__file__).parents[2]
    if not (folder / ".git").exists():
        return ""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    # Git would refresh its index, which may be somebody else's at this moment.
    environment = os.environ | {"GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(  # noqa: S603 - a constant command
            command, cwd=folder, env=environment, capture_output=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode("utf-8", "replace").strip()
