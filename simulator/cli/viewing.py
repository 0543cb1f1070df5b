"""`teale-sim view`: one run, or two beside each other, as a page to look into."""

from pathlib import Path

import click

from simulator.cli.exits import SimError
from simulator.cli.options import json_option
from simulator.cli.output import Output
from simulator.cli.progress import busy


@click.command()
@click.argument(
    "directories", metavar="DIR [DIR2]", nargs=-1, required=True, type=click.Path(file_okay=False, path_type=Path)
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    required=True,
    help="Write the page into FILE.",
)
@click.option("--with-texts", is_flag=True, help="Put prompts and answers into the page; without, there are none.")
@json_option
def view(directories: tuple[Path, ...], *, out: Path, with_texts: bool, as_json: bool) -> None:
    """Make a page of the run in DIR, which `--trace` was given to: topology, timeline and every message of a request.

    With DIR2, two runs are beside each other on one clock, as a simulated one and one of the lab. The page is one file
    that needs no network.
    """
    from simulator.results.folder import replace_file
    from simulator.results.model import ResultsError
    from simulator.view.building import view_of
    from simulator.view.page import page

    if len(directories) > 2:
        raise click.UsageError("At most two directories go into one page.")
    try:
        with busy("reading the trace"):
            made = view_of(directories, with_texts=with_texts)
            data = page(made).encode()
    except ResultsError as error:
        raise SimError(str(error)) from error
    replace_file(out, data)
    output = Output(as_json=as_json)
    left_out = [sentence for world in made.worlds for sentence in world.left_out]
    if as_json:
        output.document({"page": str(out), "size_bytes": len(data), "left_out": left_out})
        return
    output.line(str(out))
    for sentence in left_out:
        output.note(sentence)
