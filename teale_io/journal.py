"""The file that a program writes its journal to: private, bounded, and never the reason that the program stops.

Every step is one write to the system before its effects are performed, and what the system has, a killed process
leaves behind: nothing that anybody outside has seen is missing. A write that fails, a full disk for one, ends the
journal with one line in the log, and the program goes on.
"""

import os
import random
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import structlog

from teale_io.connections import reason_of
from teale_proto.contract import Core, Value
from teale_proto.errors import TealeError
from teale_proto.journal import Ending, Header, NodeMade, Recording, RecordingRng, RelayMade, ending
from teale_proto.rng import Rng

JOURNAL_BYTES_MAX: Final = 1 << 30

_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | getattr(os, "O_BINARY", 0)

_HELD: Final = {
    NodeMade: "this node's secret key, and everything that is asked and answered",
    RelayMade: "everything that passes through this relay",
}

_log = structlog.get_logger()

I = TypeVar("I")  # noqa: E741  (the letter that `Core` uses)
E = TypeVar("E", bound=Value)


def journal_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a program the options of a journal: `journal`, `journal_name` and `journal_bytes_max`."""
    options = (
        click.option(
            "--journal",
            type=click.Path(dir_okay=False, path_type=Path),
            metavar="FILE",
            help="Record all that comes in, for `teale-sim replay`. Whoever reads FILE knows what this program knows, "
            "its secret key included. It must not exist; {pid} in its name is the process's number.",
        ),
        click.option("--journal-name", default="", metavar="NAME", help="What the journal calls this program."),
        click.option(
            "--journal-bytes-max",
            default=JOURNAL_BYTES_MAX,
            show_default=True,
            type=click.IntRange(min=1),
            help="A larger journal ends there.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


class JournalFile:
    """One life's journal; make the core with `rng`, and drive what `recording` returns."""

    def __init__(self, descriptor: int, place: str, *, host: str = "", size_max: int = JOURNAL_BYTES_MAX) -> None:
        """Own `descriptor`; `place` is what the log calls it, and `host` what the journal calls the program."""
        self.rng: Final = RecordingRng(random.SystemRandom())
        self._descriptor: int | None = descriptor
        self._place: Final = place
        self._host: Final = host
        self._left = size_max

    @property
    def is_open(self) -> bool:
        """Whether it still takes records."""
        return self._descriptor is not None

    def recording(self, core: Core[I, E], made: NodeMade | RelayMade, *, unix_time_at_zero: int) -> Core[I, E]:
        """Return `core`, which was made with `rng` and of `made`, with all its steps recorded."""
        name = self._host or (made.config.display_name if isinstance(made, NodeMade) else "relay")
        _log.warning(f"recording a journal: whoever reads it has {_HELD[type(made)]}", file=self._place)
        return Recording(core, self.rng, Header(name, version("teale"), unix_time_at_zero, made), self)

    def write(self, record: bytes | bytearray) -> None:
        """Append a record, or end the journal where there is no room for it."""
        if self._descriptor is None:
            return
        if len(record) > self._left:
            self._end(Ending.FULL)
            _log.warning("the journal is as large as it may get, and ends here", file=self._place)
            return
        self._left -= len(record)
        self._append(record)

    def give_up(self, why: str) -> None:
        """End the journal without an ending, since what follows cannot be written."""
        if self._descriptor is not None:
            self._let_go()
            _log.error("the journal ends here", file=self._place, reason=why)

    def close(self) -> None:
        """End it properly."""
        if self._descriptor is not None:
            self._end(Ending.STOPPED)

    def _end(self, why: Ending) -> None:
        self._append(ending(why))
        self._let_go()

    def _append(self, record: bytes | bytearray) -> None:
        assert self._descriptor is not None
        try:
            written = os.write(self._descriptor, record)
            while written < len(record):
                written += os.write(self._descriptor, memoryview(record)[written:])
        except OSError as error:
            self.give_up(reason_of(error))

    def _let_go(self) -> None:
        if self._descriptor is not None:
            with suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = None


def entropy(journal: JournalFile | None) -> Rng:
    """Return what a core is made with: the system's entropy, recorded where there is a journal."""
    return random.SystemRandom() if journal is None else journal.rng


def create_journal(path: Path | None, *, host: str = "", size_max: int = JOURNAL_BYTES_MAX) -> JournalFile | None:
    """Create the file of a journal, which must not exist yet; `{pid}` in its name is this process's number.

    Returns None where no journal is wanted. Raises TealeError where it cannot be, and where others could read it.
    """
    if path is None:
        return None
    path = path.with_name(path.name.replace("{pid}", str(os.getpid())))
    try:
        descriptor = os.open(path, _NEW, 0o600)
    except FileExistsError:
        raise TealeError(
            f"{path} exists: a journal is of one start, so give it a name of its own, with {{pid}} for example"
        ) from None
    except OSError as error:
        raise TealeError(f"the journal {path} cannot be written: {reason_of(error)}") from None
    try:
        require_private(descriptor, path)
    except TealeError:
        os.close(descriptor)
        path.unlink(missing_ok=True)
        raise
    return JournalFile(descriptor, str(path), host=host, size_max=size_max)


def require_private(descriptor: int, path: Path) -> None:
    """Raise TealeError where others than its owner may read or write a file: not every file system keeps it private."""
    if sys.platform != "win32" and stat.S_IMODE(os.fstat(descriptor).st_mode) & 0o077:
        raise TealeError(f"others could read {path}, and a journal holds secrets: choose another place for it")
