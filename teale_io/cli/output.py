"""What goes to the terminal: tables and lines for people, one JSON document for programs.

Names and answers come from other people's machines. Whatever could steer a terminal or turn its writing direction
is shown as an escape instead, and nothing is ever read as markup.
"""

import json
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final

import click
from rich.console import Console
from rich.status import Status
from rich.table import Table
from rich.text import Text

from teale_io.cli.exits import Exit

_STEERING: Final = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters (C0, C1), line separators, bidirectional controls, and halves of surrogate pairs."""

_PIPE_WIDTH: Final = 10_000
"""Columns where nobody looks: programs that read a table want whole lines."""


def neutral(text: str, *, multiline: bool = False) -> str:
    """Return `text` with all that could steer a terminal shown as escapes; `multiline` keeps newlines and tabs."""

    def escape(found: re.Match[str]) -> str:
        character = found.group()
        if multiline and character in "\n\t":
            return character
        if multiline and character == "\r":
            return ""
        code = ord(character)
        return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"

    return _STEERING.sub(escape, text)


def short(node_id: str) -> str:
    """Return as much of a node id as people compare."""
    return neutral(node_id[:16])


class Output:
    """The two streams of one invocation, in the form that was asked for."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self._out = _console(stderr=False)
        self._err = _console(stderr=True)

    def document(self, value: Any) -> None:
        """Print the one JSON document; ASCII only, so that it cannot steer a terminal either."""
        click.echo(json.dumps(value, indent=2, ensure_ascii=True))

    def line(self, text: str = "", style: str = "") -> None:
        """Print one line for people."""
        self._out.print(Text(neutral(text), style), soft_wrap=True)

    def field(self, name: str, value: str, style: str = "") -> None:
        """Print one `name: value` line."""
        self._out.print(Text.assemble((f"{neutral(name)}: ", "bold"), (neutral(value), style)), soft_wrap=True)

    def table(self, headings: Sequence[str], rows: Iterable[Sequence[str]], *, emphasis: Iterable[bool] = ()) -> None:
        """Print a table; the rows whose `emphasis` is true stand out."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading in headings:
            table.add_column(heading, overflow="fold")
        styles = iter(emphasis)
        for row in rows:
            table.add_row(*(Text(neutral(cell)) for cell in row), style="bold green" if next(styles, False) else "")
        self._out.print(table)

    def piece(self, text: str) -> None:
        """Print a piece of a streamed answer at once."""
        sys.stdout.write(neutral(text, multiline=True))
        sys.stdout.flush()

    def note(self, text: str, style: str = "dim") -> None:
        """Say something on stderr that is not the result; nothing under `--json`."""
        if not self.as_json:
            self._err.print(Text(neutral(text), style), soft_wrap=True)

    def waiting(self, text: str) -> Status:
        """Return a context in which a spinner turns on stderr, where that is a terminal."""
        return self._err.status(Text(text), spinner="dots")

    def error(self, exit_code: Exit, message: str) -> None:
        """Report the error that ends the command."""
        if self.as_json:
            self.document({"error": {"message": message, "type": exit_code.name.lower(), "exit_code": int(exit_code)}})
        else:
            words = Text.assemble(("error: ", "bold red"), neutral(message, multiline=True))
            self._err.print(words, soft_wrap=True)


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _PIPE_WIDTH
    return Console(stderr=stderr, width=width, markup=False, emoji=False, highlight=False)
