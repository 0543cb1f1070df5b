"""`teale-sim plot`: the plots and the page of a run, drawn again from its stored results."""

from pathlib import Path

import click

from simulator.cli.exits import Exit, SimError
from simulator.cli.options import json_option
from simulator.cli.output import Output
from simulator.cli.progress import busy


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@json_option
def plot(directory: Path, *, as_json: bool) -> None:
    """Draw the plots and the page of DIR again, which `teale-sim run --out DIR` has written.

    Nothing is simulated: the plots are made from what is stored, after a change to how they are drawn, say.
    """
    from simulator.results.drawing import redraw
    from simulator.results.folder import PLOTS, REPORT
    from simulator.results.model import ResultsError

    try:
        with busy("drawing"):
            redraw(directory)
    except ResultsError as error:
        raise SimError(str(error)) from error
    except KeyboardInterrupt as error:
        raise SimError("stopped; what was drawn by then is new, and the rest as it was", Exit.INTERRUPTED) from error
    drawn = [directory / REPORT, *sorted((directory / PLOTS).iterdir())]
    out = Output(as_json=as_json)
    if as_json:
        out.document([str(path) for path in drawn])
        return
    for path in drawn:
        out.line(str(path))
