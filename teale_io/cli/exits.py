"""How a command ends: exit codes that scripts can rely on, and the error that carries one."""

from enum import IntEnum

from teale_io.config import ConfigError, UnknownKey
from teale_io.keychain import IdentityError
from teale_proto.errors import TealeError


class Exit(IntEnum):
    """The exit codes of `teale`; the names in lower case are the `type` of an error under `--json`."""

    OK = 0
    ERROR = 1
    """Something that has no code of its own."""
    USAGE = 2
    """The command line is wrong, or a value for the configuration is."""
    NOT_RUNNING = 3
    """No node is running here."""
    NOT_FOUND = 4
    """No such model, key or identity."""
    REQUEST_FAILED = 5
    """The node could not do what was asked, or not to the end."""
    TIMEOUT = 6
    """It took too long."""
    CONFIG = 7
    """The configuration file is wrong."""
    IDENTITY = 8
    """The node's secret key cannot be read or kept."""
    INTERRUPTED = 130
    """Ctrl-C, as shells count it."""


class CliError(TealeError):
    """The command cannot do what was asked; the message says what to do next."""

    def __init__(self, exit_code: Exit, message: str) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def exit_code_of(error: Exception) -> Exit:
    """Return the exit code that an error ends the command with."""
    match error:
        case CliError():
            return error.exit_code
        case ConfigError(file=None):
            return Exit.NOT_FOUND if isinstance(error, UnknownKey) else Exit.USAGE
        case ConfigError():
            return Exit.CONFIG
        case IdentityError():
            return Exit.IDENTITY
    return Exit.ERROR
