"""The comparison as a page that opens without a network: disagreements first, in words, then everything in tables."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

from simulator.comparing import drawing, wording
from simulator.comparing.cast import BETWEEN
from simulator.comparing.comparison import Comparison, FigureRow, PathRow, Share
from simulator.comparing.measured import Measure
from simulator.results.model import MadeBy
from simulator.results.page_parts import document, section, table
from teale_proto.contract import MILLISECOND

UNFOLDED_MAX: Final = 6
"""Cases of a disagreement that are listed without being asked for."""

MATRIX_FROM: Final = 3
"""From so many populations on, all of whose pairs are there, paths are shown as a matrix."""

CSS: Final = (
    drawing.CSS
    + """\
body { max-width: 72rem; }
li { margin: .3rem 0; }
.outside-row td:last-child, td.differs { color: var(--bad); font-weight: 600; }
.matrix td, .matrix th { min-width: 0; padding: .25rem .5rem .25rem 0; font-size: .85rem; overflow-wrap: normal; }
.matrix thead th { vertical-align: bottom; overflow-wrap: anywhere; }
th[scope="row"] { color: var(--ink); font-weight: 400; }
td:last-child { white-space: nowrap; }
.matrix td:last-child { white-space: normal; }
ul { padding-left: 1.2rem; }
summary { cursor: pointer; color: var(--link); }
"""
)


def page(comparison: Comparison, command: str, made: MadeBy) -> str:
    """Return the page; `command` is what repeats the comparison."""
    parts = (
        _disagreements(comparison),
        _tallies(comparison),
        _paths(comparison),
        *(_measure(comparison, measure) for measure in Measure),
        _method(comparison, command),
    )
    return document(
        "comparison",
        f"{comparison.setting.scenario}, simulated and in the {comparison.setting.lab_name}",
        wording.headline(comparison),
        "".join(parts),
        made,
        passed=comparison.agrees,
        first=("disagreements", "disagreements"),
        css=CSS,
    )


def _disagreements(comparison: Comparison) -> str:
    found = "".join(map(_disagreement, wording.disagreements(comparison)))
    body = f"<ol>\n{found}</ol>\n" if found else "<p>There are none.</p>\n"
    return section("disagreements", "Disagreements", body)


def _disagreement(found: wording.Disagreements) -> str:
    """Return one respect; where there are many cases, they are folded away."""
    cases = "".join(f"<li>{escape(each)}</li>\n" for each in found.sentences)
    listed = f"<ul>\n{cases}</ul>\n"
    if len(found.sentences) > UNFOLDED_MAX:
        listed = f"<details><summary>All {len(found.sentences)}</summary>\n{listed}</details>\n"
    return f"<li>{escape(found.summary)}\n{listed}</li>\n"


def _tallies(comparison: Comparison) -> str:
    rows = [(each.what, wording.told(each)) for each in (*comparison.tallies, comparison.overall)]
    return section("tallies", "How much is as predicted", table("tallies", ("what", "verdict"), rows))


# Paths.


def _paths(comparison: Comparison) -> str:
    rows = comparison.paths
    if not rows:
        return ""
    names = _populations(rows)
    cells = {row.cell: row for row in rows}
    is_square = len(names) >= MATRIX_FROM and len(cells) == len(names) * (len(names) + 1) // 2
    body = f"<p>{escape(_explained(comparison))}</p>\n"
    body += _matrix(names, cells) if is_square else ""
    listed = [row for row in rows if not (is_square and row.is_inside)]
    heads = ("cell", "simulated", comparison.setting.lab_name, "verdict")
    if listed:
        body += table("paths", heads, (_path_row(row) for row in listed))
    return section("paths", "Over which path pairs end up talking", body)


def _explained(comparison: Comparison) -> str:
    return (
        f"{len(comparison.paths)} cells, each a pair of populations; shares are of the pairs of nodes of all runs. "
        "Where all go the same way in both worlds, that is one word; a cell that differs is marked ✗, and says what "
        "was simulated and what was found."
    )


def _path_row(row: PathRow) -> tuple[str, ...]:
    return row.cell, wording.shares(row.simulated), wording.shares(row.lab), wording.verdict(row.is_inside)


def _populations(rows: Iterable[PathRow]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row.cell.split(BETWEEN)))


def _matrix(names: Sequence[str], cells: dict[str, PathRow]) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    body = ""
    for one in names:
        found = (cells.get(f"{one}{BETWEEN}{other}") or cells.get(f"{other}{BETWEEN}{one}") for other in names)
        body += f'<tr><th scope="row">{escape(one)}</th>{"".join(map(_matrix_cell, found))}</tr>\n'
    return (
        '<div class="scroll" tabindex="0" role="region" aria-labelledby="paths">\n<table class="matrix">\n'
        f"<thead><tr><td></td>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>\n</div>\n"
    )


def _matrix_cell(row: PathRow | None) -> str:
    if row is None:
        return "<td></td>"
    simulated, lab = _short(row.simulated), _short(row.lab)
    if not row.is_inside:
        return f'<td class="differs">✗ {escape(simulated)} → {escape(lab)}</td>'
    return f"<td>{escape(lab)}</td>" if simulated == lab else f"<td>{escape(simulated)}; {escape(lab)}</td>"


def _short(found: Sequence[Share]) -> str:
    return found[0].path if len(found) == 1 else wording.shares(found)


# Figures.


def _measure(comparison: Comparison, measure: Measure) -> str:
    rows = [row for row in comparison.figures if row.measure is measure]
    if not rows:
        return ""
    name = f"measure-{measure.slug}"
    heads = (measure.value, "lab on interval", "simulated", comparison.setting.lab_name, "verdict")
    head = "".join(f'<th scope="col">{escape(each)}</th>' for each in heads)
    body = "".join(_row(row, comparison) for row in rows)
    inside = sum(row.is_inside for row in rows)
    shown = (
        f"<p>{escape(measure.meaning)} As predicted: {inside} of {len(rows)}.</p>\n"
        f'<div class="scroll" tabindex="0" role="region" aria-labelledby="{name}">\n<table>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>\n</div>\n"
    )
    return section(name, measure.value[0].upper() + measure.value[1:], shown)


def _row(row: FigureRow, comparison: Comparison) -> str:
    unit = row.measure.unit
    simulated, lab = wording.interval(unit, row.simulated), wording.extent(unit, row.lab)
    verdict = wording.verdict(row.is_inside)
    said = f"simulated {simulated}; {comparison.setting.lab_name} {lab}; {verdict}"
    kind = "" if row.is_inside else ' class="outside-row"'
    return (
        f'<tr{kind}><th scope="row">{escape(row.what or "all")}</th>'
        f'<td class="dots">{drawing.dots(row, comparison.setting.grain, said)}</td>'
        f"<td>{escape(simulated)}</td><td>{escape(lab)}</td><td>{escape(verdict)}</td></tr>\n"
    )


# How it was done.


def _method(comparison: Comparison, command: str) -> str:
    setting = comparison.setting
    body = (
        f"<p>{escape(wording.worlds(setting))}. Of what was simulated, the median is given, and the interval from the "
        f"10th to the 90th percentile; of the {escape(setting.lab_name)}, the median, the least and the most. A figure "
        "is inside when the second median lies in the interval; for times that is widened by "
        f"{setting.grain / MILLISECOND:g} ms at both ends, since no lab is more exact. In the pictures the bar is the "
        "interval, the tick the simulated median, the line what was measured, and the dot its median: a disc inside, a "
        "hollow diamond outside, an arrow far outside.</p>\n"
        "<p>This repeats the comparison:</p>\n"
        f'<pre tabindex="0"><code>{escape(command)}</code></pre>\n'
    )
    return section("method", "How this was compared", body)
