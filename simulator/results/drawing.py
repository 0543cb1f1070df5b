"""From results to files that people look at: the plots, and the page that shows them."""

from pathlib import Path
from typing import Final

from simulator.results import folder as folders
from simulator.results.model import Results, ResultsError
from simulator.results.page import Picture, page
from simulator.results.plot_shares import calibration, latency, paths
from simulator.results.plot_time import relay_load, timeline
from simulator.results.plot_topology import topology
from simulator.results.reading import read
from simulator.results.style import drawn_in_style, png, settle, svg

_PLOTS: Final = (topology, timeline, relay_load, paths, latency, calibration)


def draw(folder: Path, results: Results) -> None:
    """Write the plots and the page into a directory that exists; raises OSError."""
    plots = folder / folders.PLOTS
    plots.mkdir(exist_ok=True)
    pictures = []
    with drawn_in_style():
        for make in _PLOTS:
            plot = make(results)
            if plot is None:
                continue
            settle(plot.figure)
            drawn = svg(plot.figure)
            folders.replace_file(plots / f"{plot.name}.svg", drawn)
            folders.replace_file(plots / f"{plot.name}.png", png(plot.figure))
            pictures.append(Picture(plot.name, plot.title, plot.sentence, drawn.decode()))
    folders.replace_file(folder / folders.REPORT, page(results, pictures).encode())


def redraw(folder: Path) -> Results:
    """Draw everything anew from what is stored; raises ResultsError."""
    results = read(folder)
    try:
        draw(folder, results)
    except OSError as error:
        raise ResultsError(f"{folder}: cannot be written: {error.strerror or error}") from error
    return results
