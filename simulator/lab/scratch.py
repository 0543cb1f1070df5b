"""The folder of one run: it holds secret keys and is gone after it; what a killed lab has left, the next one removes.

A folder that somebody uses is locked, and the kernel lifts the lock of whoever is dead.
"""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import gettempdir, mkdtemp
from typing import Final

PREFIX: Final = "teale-lab-"
LOCK: Final = "lock"
FILES: Final = "run"


@contextmanager
def scratch() -> Iterator[Path]:
    """Give an empty folder, for its owner's eyes only; raises OSError where there can be none."""
    remove_left()
    folder = Path(mkdtemp(prefix=PREFIX))
    try:
        with (folder / LOCK).open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            files = folder / FILES
            files.mkdir(mode=0o700)
            yield files
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_left() -> None:
    """Remove the folders of labs that are dead; those of others are not ours to remove, nor to complain about."""
    for folder in Path(gettempdir()).glob(f"{PREFIX}*"):
        try:
            with (folder / LOCK).open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            # Somebody uses it, has only just made it, or it is somebody else's.
            continue
