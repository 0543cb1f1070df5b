"""Files that are read again when they change: nobody has to restart a relay because a certificate was renewed.

What a file says is taken whole or not at all. A new file that cannot be used leaves the old content in force, and
is complained of once, not at every look.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path
from typing import Protocol, TypeAlias

import structlog
import trio

from teale_proto.errors import TealeError

_log = structlog.get_logger()

_Mark: TypeAlias = tuple[tuple[int, int, int] | None, ...]


class Reloadable(Protocol):
    """Something that is made of files."""

    @property
    def what(self) -> str:
        """What it is, in a word or two for a log."""

    @property
    def files(self) -> Sequence[Path]:
        """What it is made of."""

    def load(self) -> None:
        """Read the files and use them from now on; raises TealeError, and changes nothing, where that fails."""


class Reloader:
    """Watches over what has been loaded once: looks every `interval_seconds`, and whenever it is told to."""

    def __init__(self, watched: Iterable[Reloadable], *, interval_seconds: float) -> None:
        self._marks = {each: _mark(each.files) for each in watched}
        self._interval_seconds = interval_seconds

    def look(self, *, force: bool = False) -> None:
        """Load what has changed since the last look, or everything."""
        for each, former in self._marks.items():
            mark = _mark(each.files)
            if mark == former and not force:
                continue
            # Marked before it is read: what is written meanwhile is seen at the next look.
            self._marks[each] = mark
            try:
                each.load()
            except TealeError as error:
                _log.warning("reload failed, the old one stays in use", what=each.what, reason=str(error))
            else:
                _log.info("reloaded", what=each.what)

    async def run(self, hangups: AsyncIterator[int]) -> None:
        """Look at intervals, and load everything at each signal of `hangups`, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._look_at_intervals)
            async for _ in hangups:
                self.look(force=True)

    async def _look_at_intervals(self) -> None:
        while True:
            await trio.sleep(self._interval_seconds)
            self.look()


def _mark(files: Sequence[Path]) -> _Mark:
    """Return what changes whenever the files do."""
    return tuple(map(_mark_of, files))


def _mark_of(file: Path) -> tuple[int, int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    # The inode tells of a renewal that replaced the file within the resolution of the clock.
    return status.st_mtime_ns, status.st_size, status.st_ino
