"""Which ways requests took, how long they took, and how the run compares with what others published."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from simulator.results.model import RequestRow, Results
from simulator.results.plot_time import coarser
from simulator.results.style import (
    BLUE,
    FAINT,
    INK,
    MUTED,
    PAPER,
    Label,
    Plot,
    figure,
    label_ends,
    path_look,
    percent,
    plural,
    shown,
    time_axis,
)
from teale_proto.contract import SECOND

_FINISHED: Final = "finished"
_LABEL_AT: Final = (0.3, 0.55, 0.8, 0.42, 0.68)
"""At which shares the curves of a distribution are labelled, so that the labels keep apart."""


def paths(results: Results) -> Plot | None:
    """Draw over which paths requests were served and peers were connected, or return None where nothing was."""
    served = Counter(row.path for row in results.requests if row.outcome == _FINISHED)
    labels = [path for path in results.labels("peers_connected") if any(results.points("peers_connected", path)[1])]
    if not served and not labels:
        return None
    made = figure(0.9 + 0.36 * max(1, len(served)) + (1.9 if labels else 0))
    if labels:
        bars, lines = made.subplots(2, 1, gridspec_kw={"height_ratios": [0.5 + 0.36 * max(1, len(served)), 1.9]})
        _draw_connected(lines, results, labels)
    else:
        bars = made.subplots()
    _draw_served(bars, served)
    return Plot("paths", "Path types", _paths_sentence(served), made)


def latency(results: Results) -> Plot | None:
    """Draw the distributions of the time to the first token and to the end, or return None where nothing finished."""
    done = [row for row in results.requests if row.outcome == _FINISHED]
    if not done:
        return None
    # What is not streamed comes as a whole: its first token says nothing.
    first = [(row, row.first_token_at) for row in done if row.streaming]
    ended = [(row, row.ended_at) for row in done]
    made = figure(3.3)
    left, right = made.subplots(1, 2, sharey=True)
    _draw_distribution(left, first, "first token (streamed requests)")
    _draw_distribution(right, ended, "complete answer")
    left.set_ylabel("share of requests")
    return Plot("latency", "Latency distributions", _latency_sentence(first, ended), made)


def calibration(results: Results) -> Plot | None:
    """Draw measured figures beside published ones, or return None where the run has none."""
    rows = results.world.calibration
    if not rows:
        return None
    made = figure(0.9 + 0.55 * len(rows))
    axes = made.subplots()
    for lane, row in enumerate(rows):
        low, high = row.published_low, row.published_high
        axes.plot([low, high], [lane, lane], color=MUTED, linewidth=7, solid_capstyle="butt", alpha=0.55)
        axes.plot([low, high], [lane, lane], color=MUTED, linestyle="", marker="|", markersize=13)
        axes.plot([row.measured], [lane], color=BLUE, marker="o", markersize=7, linestyle="", zorder=3)
        axes.annotate(
            f"{row.measured:.1f} {row.unit}",
            (row.measured, lane),
            xytext=(0, 8),
            textcoords="offset points",
            color=BLUE,
            ha="center",
        )
        axes.text(
            0.0, lane + 0.33, row.source, fontsize=7, color=MUTED, transform=axes.get_yaxis_transform(), va="center"
        )
    axes.set_yticks(range(len(rows)), [row.figure for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.7)
    axes.grid(axis="y", visible=False)
    units = sorted({row.unit for row in rows})
    axes.set_xlabel(f"{', '.join(units)}; disc: this run, bar: published")
    inside = sum(row.published_low <= row.measured <= row.published_high for row in rows)
    sentence = (
        f"Within what was published: {inside} of {plural(len(rows), 'figure')}. What NATs allow is counted over all "
        "pairs of nodes behind one, as the planner sees them; what ended up direct, over the peers of all nodes at "
        "the end. Sources stand below each line."
    )
    return Plot("calibration", "Beside published figures", sentence, made)


# Paths.


def _draw_served(axes: Axes, served: Counter[str]) -> None:
    total = served.total()
    ordered = sorted(served.items(), key=lambda each: (-each[1], each[0]))
    for lane, (path, count) in enumerate(ordered):
        look = path_look(path)
        axes.barh(lane, count, height=0.62, color=look.colour, hatch=look.hatch, edgecolor=PAPER, linewidth=0)
        axes.text(count, lane, f" {count} ({percent(count, total)})", va="center")
    axes.set_yticks(range(len(ordered)), [shown(path) for path, _ in ordered])
    axes.set_ylim(max(1, len(ordered)) - 0.4, -0.6)
    axes.set_xlim(0, 1.18 * max(served.values(), default=1))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.grid(axis="y", visible=False)
    axes.set_title("requests served, by path")


def _draw_connected(axes: Axes, results: Results, paths: Sequence[str]) -> None:
    ends, top = [], 1
    for path in paths:
        at, values, width = results.points("peers_connected", path)
        starts, values, width = coarser(at, values, width, keep_last=True)
        look = path_look(path)
        axes.stairs(
            values, [*starts, starts[-1] + width], baseline=None, color=look.colour, linestyle=look.line, linewidth=1.6
        )
        ends.append(Label(values[-1], shown(path), look))
        top = max(top, *values)
    axes.set_ylim(0, 1.08 * top)
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True, steps=[1, 2, 5, 10]))
    axes.set_title("peers that nodes count as connected, by path")
    label_ends(axes, ends)
    time_axis(axes, results.seconds)


def _paths_sentence(served: Counter[str]) -> str:
    if not served:
        return "No request was served; the lines show whom the nodes counted as connected."
    parts = [f"{percent(count, served.total())} over {shown(path)}" for path, count in served.most_common()]
    return f"Of {plural(served.total(), 'request')} that were served, {', '.join(parts)}."


# Latencies.


def _draw_distribution(axes: Axes, rows: Sequence[tuple[RequestRow, int | None]], title: str) -> None:
    by_path: dict[str, list[float]] = {}
    for row, at in rows:
        if at is not None:
            by_path.setdefault(row.path, []).append(max(1, at - row.asked_at) / SECOND)
    for number, (path, waits) in enumerate(sorted(by_path.items())):
        waits.sort()
        look = path_look(path)
        axes.ecdf(waits, color=look.colour, linestyle=look.line)
        share = _LABEL_AT[number % len(_LABEL_AT)]
        x = _quantile(waits, share)
        axes.plot([x], [share], color=look.colour, marker=look.marker, markersize=5)
        axes.annotate(
            f"{shown(path)}, {len(waits)}",
            (x, share),
            xytext=(7, -7),
            textcoords="offset points",
            color=look.colour,
            bbox={"facecolor": PAPER, "edgecolor": "none", "alpha": 0.75, "pad": 0.8},
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel("seconds since asked (log)")
    axes.set_title(title)
    axes.set_ylim(0, 1.02)
    axes.axhline(0.5, color=FAINT, linewidth=1.2)
    if not by_path:
        axes.text(0.5, 0.5, "none", transform=axes.transAxes, ha="center", color=INK)


def _latency_sentence(
    first: Sequence[tuple[RequestRow, int | None]], ended: Sequence[tuple[RequestRow, int | None]]
) -> str:
    parts = []
    for rows, what in ((first, "the streamed answers had their first token"), (ended, "all answers were complete")):
        waits = sorted((at - row.asked_at) / SECOND for row, at in rows if at is not None)
        if waits:
            half, most = _quantile(waits, 0.5), _quantile(waits, 0.9)
            parts.append(f"half of {what} within {half:.2f} s and nine tenths within {most:.2f} s")
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}. The number after each path is how many requests took it."


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Return the smallest value that at least `share` of the values do not exceed."""
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]
