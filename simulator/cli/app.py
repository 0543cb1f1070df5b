"""The command line as a whole: the group of all commands, and the one place where errors become exit codes."""

import sys
from collections.abc import Sequence
from typing import Any

import click

from simulator.cli import (
    calibrating,
    comparing,
    fuzzing,
    grid,
    lab,
    lab_fuzzing,
    listing,
    plotting,
    running,
    sweeping,
    viewing,
)
from simulator.cli.exits import Exit, SimError
from simulator.cli.output import Output
from simulator.host import CoreError
from simulator.scenario import ScenarioError


class _SimGroup(click.Group):
    """A group whose failures are told in a sentence or, under `--json`, as a document.

    What is no one's fault but this program's stays a traceback: who simulates is who will mend it.
    """

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command line and end the process with its exit code; `standalone_mode` False raises instead."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, False, **extra)
        words = list(sys.argv[1:] if args is None else args)
        as_json = "--json" in words
        try:
            result = super().main(args, prog_name or "teale-sim", complete_var, False, **extra)
        except click.exceptions.Exit as error:
            sys.exit(error.exit_code)
        except click.ClickException as error:
            if as_json:
                Output(as_json=True).error(Exit.USAGE, error.format_message())
            else:
                error.show()
            sys.exit(error.exit_code)
        except (click.Abort, KeyboardInterrupt):
            # click puts an end to the line that Ctrl-C was typed on.
            sys.exit(_told(Exit.INTERRUPTED, "stopped; nothing was written", as_json=as_json))
        except (SimError, ScenarioError, CoreError, OSError) as error:
            sys.exit(_told(_exit_code_of(error), _message(error), as_json=as_json))
        sys.exit(result if isinstance(result, int) else Exit.OK)


def _told(exit_code: Exit, message: str, *, as_json: bool) -> Exit:
    Output(as_json=as_json).error(exit_code, message)
    return exit_code


def _exit_code_of(error: Exception) -> Exit:
    if isinstance(error, SimError):
        return error.exit_code
    return Exit.VIOLATED if isinstance(error, CoreError) else Exit.USAGE


def _message(error: Exception) -> str:
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}"
    return str(error)


@click.group(cls=_SimGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="teale")
def main() -> None:
    """A simulated internet for the cores of Teale: virtual time, one seed, nothing else.

    Exit codes: 0 when every check passed, 1 when one found a violation, a core raised or a run of a sweep failed, 2 for
    a wrong call, a scenario that cannot be found, loaded or built, and results that cannot be written, 130 for Ctrl-C.
    """


for _command in (
    listing.list_scenarios,
    running.run,
    calibrating.calibrate,
    lab.lab,
    comparing.compare,
    grid.grid,
    sweeping.sweep,
    fuzzing.fuzz,
    fuzzing.replay,
    plotting.plot,
    viewing.view,
):
    main.add_command(_command)

lab.lab.add_command(lab_fuzzing.fuzz)
