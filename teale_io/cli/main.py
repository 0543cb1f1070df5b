"""The command line as a whole: the group of all commands, and the one place where errors become exit codes."""

import io
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from teale_io.cli import addresses, chat, completion, doctor, lifecycle, settings, views
from teale_io.cli.app import App, json_option
from teale_io.cli.exits import Exit, exit_code_of
from teale_io.cli.output import Output
from teale_proto.errors import TealeError


class _TealeGroup(click.Group):
    """A group whose failures are told in a sentence or, under `--json`, as a document, and never as a traceback."""

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
        try:
            result = super().main(args, prog_name or "teale", complete_var, False, **extra)
        except Exception as error:
            sys.exit(_tell(error, as_json=_wants_json(words)))
        sys.exit(result if isinstance(result, int) else Exit.OK)


def _wants_json(words: Sequence[str]) -> bool:
    """Whether errors are to be JSON; asked of the words, since the command line itself may be what is wrong."""
    return "--json" in (words[: words.index("--")] if "--" in words else words)


def _tell(error: Exception, *, as_json: bool) -> int:
    out = Output(as_json=as_json)
    match error:
        case click.Abort():
            if as_json:
                out.error(Exit.INTERRUPTED, "Interrupted.")
            return Exit.INTERRUPTED
        case click.ClickException():
            if as_json:
                out.error(Exit.USAGE, error.format_message())
            else:
                error.show()
            return error.exit_code
        case TealeError():
            message = str(error)
        case OSError():
            where = f"{error.filename}: " if error.filename else ""
            message = f"{where}{error.strerror or error}"
        case _:
            if os.environ.get("TEALE_DEBUG"):
                raise error
            message = f"This is a bug in teale: {type(error).__name__}: {error}. TEALE_DEBUG=1 shows where."
    exit_code = exit_code_of(error)
    out.error(exit_code, message)
    return exit_code


@click.group(cls=_TealeGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="teale")
@json_option
@click.pass_context
def teale(context: click.Context) -> None:
    """Pool AI compute between your own machines, and ask any of them from one.

    Exit codes: 0 done, 1 error, 2 wrong usage, 3 no node is running, 4 no such model or key, 5 the request failed,
    6 it took too long, 7 the configuration file is wrong, 8 the secret key cannot be read, 130 interrupted.
    """
    context.ensure_object(App)


for _command in (
    lifecycle.up,
    lifecycle.down,
    views.status,
    views.peers,
    views.models,
    views.route,
    chat.chat,
    settings.config,
    settings.show_id,
    addresses.address,
    addresses.connect,
    doctor.doctor,
    completion.completion,
):
    teale.add_command(_command)


def main() -> NoReturn:
    """Run `teale` with this process's arguments."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a name that the terminal cannot show is no reason to fail
    teale.main()
    raise AssertionError("teale.main ends the process")
