"""`teale-sim replay JOURNAL`: a real program's core is taken through what happened to it, and must do the same."""

from pathlib import Path

import click

from simulator.cli.exits import Exit, SimError
from simulator.cli.output import Output

DIFFERENCES_SHOWN = 10


def replay_journal(path: Path, *, as_json: bool, tail: bool) -> int:
    """Replay a journal and tell what came of it; returns the exit code."""
    from simulator.journals import JournalError, read
    from simulator.journals.report import report

    try:
        found = report(read(path))
    except JournalError as error:
        raise SimError(str(error)) from error
    if as_json:
        click.echo(found.json())
    else:
        console = Output()
        if tail:
            for entry in found.tail:
                console.line(entry)
        console.line(found.course)
        for number, name in sorted(((number, name) for name, number in found.inputs.items()), reverse=True):
            console.line(f"{number:>9}  {name}")
        if found.refused:
            console.line(f"{found.refused:>9}  of them refused, then as now")
        for difference in found.differences[:DIFFERENCES_SHOWN]:
            console.line(difference, style="bold red")
        console.line(found.explanation)
    return Exit.OK if found.equal else Exit.VIOLATED
