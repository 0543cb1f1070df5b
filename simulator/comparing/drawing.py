"""One row of a comparison as a little picture: the simulated interval as a bar, what the lab measured as a dot on it.

Every row has a scale of its own, on which the bar is always in the same place: one looks down a column and sees which
dots are off the bar. What is too far out is an arrow at the edge. In grey the shapes tell: a disc is inside, a hollow
diamond or an arrow outside.
"""

from html import escape
from typing import Final

from simulator.comparing.comparison import FigureRow, bounds
from teale_proto.contract import Duration

WIDTH: Final = 240
HEIGHT: Final = 24
_MIDDLE: Final = HEIGHT / 2
_BAR: Final = (80.0, 160.0)
"""From where to where the simulated interval reaches."""
_EDGE: Final = 8.0

CSS: Final = """\
.dots svg { display: block; width: 15rem; min-width: 9rem; height: auto; }
.dots .bar { fill: var(--faint); stroke: var(--muted); }
.dots .tick { stroke: var(--muted); stroke-width: 2; }
.dots .range { stroke: var(--ink); stroke-width: 1.5; }
.dots .inside { fill: var(--ink); }
.dots .outside { fill: var(--paper); stroke: var(--bad); stroke-width: 2; }
"""


def dots(row: FigureRow, grain: Duration, said: str) -> str:
    """Return the picture of a row as SVG; `said` is what it shows, for those who cannot see it."""
    label = escape(said, quote=True)
    opening = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">'
    if row.simulated is None or row.lab is None:
        return f"{opening}</svg>"
    scale = _Scale(row, grain)
    low, high = _BAR
    median = scale.x(row.simulated.median)
    parts = (
        f'<rect class="bar" x="{low:g}" y="5" width="{high - low:g}" height="{HEIGHT - 10}"/>',
        f'<line class="tick" x1="{median:.1f}" x2="{median:.1f}" y1="5" y2="{HEIGHT - 5}"/>',
        _range(scale.x(row.lab.least), scale.x(row.lab.most)),
        _dot(scale.x(row.lab.median), row.is_inside),
    )
    return f"{opening}{''.join(parts)}</svg>"


class _Scale:
    """Where on the picture a value is."""

    def __init__(self, row: FigureRow, grain: Duration) -> None:
        low, high = bounds(row, grain)
        if low == high:
            # An interval of one value: a bar as wide as one of them, or as two of a thing.
            around = max(1.0, abs(low) * 0.02) / 2
            low, high = low - around, high + around
        self._low = low
        self._per_unit = (_BAR[1] - _BAR[0]) / (high - low)

    def x(self, value: float) -> float:
        return min(max(_BAR[0] + (value - self._low) * self._per_unit, 0.0), float(WIDTH))


def _range(least: float, most: float) -> str:
    if least == most:
        return ""
    return f'<line class="range" x1="{least:.1f}" x2="{most:.1f}" y1="{_MIDDLE:g}" y2="{_MIDDLE:g}"/>'


def _dot(x: float, is_inside: bool) -> str:
    if is_inside:
        return f'<circle class="inside" cx="{x:.1f}" cy="{_MIDDLE:g}" r="5"/>'
    if x <= _EDGE:
        return _shape((1, _MIDDLE), (12, _MIDDLE - 7), (12, _MIDDLE + 7))
    if x >= WIDTH - _EDGE:
        return _shape((WIDTH - 1, _MIDDLE), (WIDTH - 12, _MIDDLE - 7), (WIDTH - 12, _MIDDLE + 7))
    return _shape((x - 7, _MIDDLE), (x, _MIDDLE - 7), (x + 7, _MIDDLE), (x, _MIDDLE + 7))


def _shape(*corners: tuple[float, float]) -> str:
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
    return f'<polygon class="outside" points="{points}"/>'
