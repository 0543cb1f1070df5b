"""What goes to the terminal: tables and lines for people on stdout, one JSON document for programs, news on stderr.

Where nobody looks, lines are as long as they are: programs that read a table want whole lines.
"""

import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final

import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from simulator.cli.exits import Exit
from teale_proto.contract import SECOND, Instant

PIPE_WIDTH: Final = 10_000
"""Columns of what is no terminal."""

_STEERING: Final = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What could steer a terminal; a capsule comes from somebody else's machine."""


def neutral(text: str) -> str:
    """Return `text` with whatever could steer a terminal shown as escapes."""
    return _STEERING.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def console(*, stderr: bool = False) -> Console:
    """Return the console of a stream, which reads nothing as markup."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PIPE_WIDTH
    return Console(stderr=stderr, width=width, markup=False, emoji=False, highlight=False)


class Output:
    """The two streams of one invocation, in the form that was asked for."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json

    def document(self, value: Any) -> None:
        """Print the one JSON document."""
        click.echo(msgspec.json.format(msgspec.json.encode(value)))

    def line(self, text: str = "", style: str = "") -> None:
        """Print one line for people."""
        console().print(Text(neutral(text), style), soft_wrap=True)

    def violation(self, at: Instant, host: str, what: str, style: str = "") -> None:
        """Print when and where a rule was broken, and by what."""
        self.line("  ".join(part for part in (f"  {at / SECOND:.6f} s", host, what) if part), style)

    def fields(self, title: str, rows: Iterable[tuple[str | Text, str]]) -> None:
        """Print a table of names and values."""
        table = Table(title=Text(neutral(title)), show_header=False)
        table.add_column()
        table.add_column(overflow="fold")
        for name, value in rows:
            table.add_row(Text(neutral(name)) if isinstance(name, str) else name, Text(neutral(value)))
        console().print(table)

    def table(self, headings: Sequence[str], rows: Iterable[Sequence[str | Text]], *, numbers: int = 0) -> None:
        """Print a table; its last `numbers` columns are set flush right."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        for place, heading in enumerate(headings):
            is_number = place >= len(headings) - numbers
            table.add_column(Text(heading), overflow="fold", justify="right" if is_number else "left")
        for row in rows:
            table.add_row(*(Text(neutral(cell)) if isinstance(cell, str) else cell for cell in row))
        console().print(table)

    def note(self, text: str) -> None:
        """Say something on stderr that is not the result; nothing under `--json`."""
        if not self.as_json:
            console(stderr=True).print(Text(neutral(text), "dim"), soft_wrap=True)

    def error(self, exit_code: Exit, message: str) -> None:
        """Report the error that ends the command."""
        if self.as_json:
            kind = exit_code.name.lower()
            self.document({"error": {"message": message, "type": kind, "exit_code": int(exit_code)}})
        else:
            words = Text.assemble(("teale-sim: ", "bold red"), neutral(message))
            console(stderr=True).print(words, soft_wrap=True)
