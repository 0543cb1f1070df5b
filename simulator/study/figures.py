"""The figures: markers, dashes and hatches for those who see grey, Okabe and Ito's colours for the colour-blind."""

from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from simulator.study.claim import choice, on_the_same_lan
from simulator.study.ledger import PURPOSES
from simulator.study.parameters import DESIGNS, Parameters
from simulator.study.reach import Paths, relayed_share, relayed_share_of_best, shares
from simulator.study.runs import Point, Results

COLOURS: Final = ("#D55E00", "#000000", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999")
MARKERS: Final = ("s", "o", "^", "D", "v", "P")
DASHES: Final = ("-", "-", "--", "-.", ":", (0, (5, 1, 1, 1)))
HATCHES: Final = ("", "/", "\\", "x", "-", "+", "|", "//")
"""Of straight lines alone: dots and circles make a file ten times as large."""
STYLE: Final[dict[Any, Any]] = {
    "svg.hashsalt": "teale",
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "path.simplify": True,
}


def draw(results: Results, parameters: Parameters, folder: Path) -> list[Path]:
    """Write every figure as SVG and as PNG; the same results give the same files."""
    with mpl.rc_context(STYLE):
        made = {
            "relay-load": _load(results),
            "relay-month": _cost(results),
            "relay-purposes": _purposes(results),
            "relay-claim": _claim(parameters),
        }
        written = []
        for name, figure in made.items():
            for suffix, metadata in (("svg", {"Date": None}), ("png", {"Software": None})):
                path = folder / f"{name}.{suffix}"
                figure.savefig(path, metadata=metadata, dpi=120, bbox_inches="tight")
                written.append(path)
        return written


def _load(results: Results) -> Figure:
    figure = Figure(figsize=(9.5, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    _lines(left, results, "egress", 1e-6, "sent by the relay, MB/s")
    _lines(right, results, "cores", 1.0, "processor, cores of this machine", names=True)
    return figure


def _cost(results: Results) -> Figure:
    figure = Figure(figsize=(7.5, 4.0), layout="constrained")
    axes = figure.subplots()
    _lines(axes, results, "cost", 1.0, "dollars a month", names=True)
    return figure


def _lines(axes: Any, results: Results, key: str, factor: float, label: str, *, names: bool = False) -> None:
    for number, design in enumerate(DESIGNS):
        points = [point for point in results.model if point.design == design.name]
        x = [point.nodes for point in points]
        y = [point.figures[key].mean * factor for point in points]
        style = {"color": COLOURS[number], "linestyle": DASHES[number]}
        axes.plot(x, y, **style, marker=MARKERS[number], markersize=3.5, linewidth=1.3)
        events = [point for point in results.events if point.design == design.name]
        axes.errorbar(
            [point.nodes for point in events],
            [point.figures[key].mean * factor for point in events],
            yerr=[_half(point, key) * factor for point in events],
            fmt=MARKERS[number], markersize=8, markerfacecolor="none", color=COLOURS[number], linewidth=1, capsize=3,
        )  # fmt: skip
        if names and x:
            axes.annotate(
                design.name, (1.06, 0.97 - 0.075 * number), xycoords="axes fraction", color=COLOURS[number], va="top"
            )
            axes.plot(
                [1.04], [0.955 - 0.075 * number], transform=axes.transAxes, clip_on=False, color=COLOURS[number],
                marker=MARKERS[number], markersize=4,
            )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="nodes", ylabel=label)
    axes.minorticks_off()


def _half(point: Point, key: str) -> float:
    estimate = point.figures[key]
    if point.runs == 1:
        return 0.0  # one run says nothing of its spread
    # On a logarithmic axis nothing can reach down to nought.
    return min(estimate.half, 0.9 * estimate.mean)


def _purposes(results: Results) -> Figure:
    nodes = 10_000 if any(point.nodes == 10_000 for point in results.model) else results.model[0].nodes
    figure = Figure(figsize=(9.5, 3.4), layout="constrained")
    axes = figure.subplots()
    points = [point for point in results.model if point.nodes == nodes]
    left = np.zeros(len(points))
    for number, purpose in enumerate(PURPOSES):
        widths = np.array(
            [100 * point.figures[f"egress/{purpose.value}"].mean / point.figures["egress"].mean for point in points]
        )
        axes.barh(
            range(len(points)), widths, left=left, color=COLOURS[number], hatch=HATCHES[number], edgecolor="white",
            label=purpose.value,
        )  # fmt: skip
        left += widths
    labels = [f"{point.design}\n{point.figures['egress'].mean / 1e6:,.1f} MB/s" for point in points]
    axes.set_yticks(range(len(points)), labels)
    axes.invert_yaxis()
    axes.set(xlabel=f"what the relay sends to {nodes:,} nodes, per cent", xlim=(0, 100))
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    return figure


def _claim(parameters: Parameters) -> Figure:
    figure = Figure(figsize=(9.5, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    counts = np.arange(1, 31)
    nodes = np.logspace(1, 8, 57)
    for number, (name, paths) in enumerate((("punching", Paths()), ("and birthday", Paths(birthday=True)))):
        who = shares(parameters.mixtures, paths)
        style = {"color": COLOURS[2 + number], "linestyle": DASHES[2 * number]}
        best = [100 * relayed_share_of_best(who, paths, int(count)) for count in counts]
        left.plot(counts, best, **style, marker=MARKERS[number], markersize=3.5)
        left.annotate(name, (counts[0], best[0]), (8, 2), textcoords="offset points", color=style["color"])
        at_random = 100 * relayed_share(who, paths)
        right.axhline(at_random, **style, linewidth=1)
        right.annotate(f"at random, {name}", (1e8, at_random), ha="right", va="bottom", color=style["color"])
        chosen = 100 * choice(parameters, paths, nodes)
        right.plot(nodes, chosen, **style, linewidth=2)
        right.annotate(
            f"chosen, {name}",
            (nodes[8 + 9 * number], chosen[8 + 9 * number]),
            (6 - 90 * number, 8 - 30 * number),
            textcoords="offset points",
            color=style["color"],
        )  # fmt: skip
    lan = [100 * on_the_same_lan(float(each)) for each in nodes]
    right.plot(nodes, lan, color="black", linestyle=":")
    right.annotate("users with another at home", (1e8, lan[-1]), ha="right", va="bottom")
    left.set(xlabel="holders to choose from", ylabel="requests relayed, per cent", ylim=(0, 35))
    right.set(xlabel="nodes", xscale="log", ylim=(0, 35))
    right.minorticks_off()
    return figure
