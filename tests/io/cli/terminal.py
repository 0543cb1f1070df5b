"""`teale` as a process on a real pseudo-terminal, typed at and watched."""

import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

from teale_io.paths import Paths

ROOT = Path(__file__).parents[3]

SAFETY_SECONDS = 60.0


def environ_of(paths: Paths, **more: str) -> dict[str, str]:
    """Return the environment of a `teale` whose home is a test's, without a keychain."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TEALE_")}
    return {
        **kept,
        "TEALE_HOME": str(paths.home),
        "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring",
        "PYTHONPATH": str(ROOT),
        "TERM": "dumb",
        **more,
    }


class Terminal:
    """One `teale`, with the fake node in the manner given, on a terminal of its own."""

    def __init__(self, paths: Paths, manner: str, *words: str) -> None:
        self._ours, theirs = pty.openpty()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.io.cli.run_teale", manner, *words],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=ROOT,
            env=environ_of(paths),
            start_new_session=True,
        )
        os.close(theirs)
        self._unread = ""

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._ours)

    def expect(self, text: str) -> str:
        """Wait until `text` is shown, and return all that was shown up to its end."""
        give_up_at = time.monotonic() + SAFETY_SECONDS
        while text not in self._unread:
            assert self._is_readable(give_up_at - time.monotonic()), f"{text!r} did not come, but {self._unread!r}"
            shown = self._read()
            assert shown, f"teale ended without {text!r}, but with {self._unread!r}"
            self._unread += shown
        before, _, self._unread = self._unread.partition(text)
        return before + text

    def type(self, text: str) -> None:
        """Type `text`."""
        os.write(self._ours, text.encode())

    def ended(self) -> int:
        """Wait for the end, and return the exit code."""
        give_up_at = time.monotonic() + SAFETY_SECONDS
        while self._is_readable(give_up_at - time.monotonic()) and self._read():
            pass
        return self._process.wait(max(0.0, give_up_at - time.monotonic()))

    def interrupted(self) -> int:
        """Type Ctrl-C as people do, again if nothing happens, and return the exit code.

        One that comes between CPython's look for signals and its wait for a line is noticed with the next key.
        """
        for _ in range(int(SAFETY_SECONDS)):
            self.type("\x03")
            if self._is_readable(1.0):
                return self.ended()
        raise AssertionError("teale goes on")

    def _is_readable(self, seconds: float) -> bool:
        return bool(select.select([self._ours], [], [], max(0.0, seconds))[0])

    def _read(self) -> str:
        try:
            return os.read(self._ours, 65_536).decode("utf-8", "replace")
        except OSError:  # how Linux says that the other side has closed
            return ""
