"""How a command ends: exit codes that scripts can rely on, and the error that carries one."""

from enum import IntEnum


class Exit(IntEnum):
    """The exit codes of `teale-sim`; the names in lower case are the `type` of an error under `--json`."""

    OK = 0
    """Every check passed."""
    VIOLATED = 1
    """A check found a violation, a core raised, or a run of a sweep failed."""
    USAGE = 2
    """A wrong call, a scenario that is none, or results that cannot be written or read."""
    INTERRUPTED = 130
    """Ctrl-C, as shells count it."""


class SimError(Exception):
    """The command cannot do what was asked; the message says what to do next."""

    def __init__(self, message: str, exit_code: Exit = Exit.USAGE) -> None:
        super().__init__(message)
        self.exit_code = exit_code
