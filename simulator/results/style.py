"""How all plots look, and how they become files.

The colours are those of Okabe and Ito ("Color Universal Design", 2008), told apart by all kinds of colour vision.
Beside its colour, everything has a line style, a marker or a hatch of its own, so that nothing is lost in grey.
Figures are made and saved without pyplot and without anybody's own settings, and the same figure gives the same
bytes.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import Any, Final, Literal, NamedTuple, TypeAlias
from warnings import catch_warnings, filterwarnings

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import Bbox

INK: Final = "#1b1f24"
FAINT: Final = "#d3d7dc"
MUTED: Final = "#6b7178"
PAPER: Final = "#ffffff"

BLUE: Final = "#0072b2"
VERMILLION: Final = "#d55e00"
GREEN: Final = "#009e73"
PURPLE: Final = "#cc79a7"
ORANGE: Final = "#e69f00"
SKY: Final = "#56b4e9"

WIDTH: Final = 7.2
"""Inches."""

NAME_MAX: Final = 24
"""Characters of a name that a plot shows."""


Line: TypeAlias = Literal["-", "--", "-."] | tuple[float, Sequence[float]]
"""A style of lines: solid, dashed, dash-dotted, or an offset and the lengths of ink and gaps."""


class Look(NamedTuple):
    """How one of several things is drawn."""

    colour: str
    line: Line
    marker: str
    hatch: str


LOOKS: Final = (
    Look(BLUE, "-", "o", ""),
    Look(VERMILLION, "--", "s", "///"),
    Look(GREEN, "-.", "^", "\\\\\\"),
    Look(PURPLE, (0, (1.0, 1.2)), "D", "xxx"),
    Look(ORANGE, (0, (6.0, 1.5, 1.0, 1.5, 1.0, 1.5)), "v", "---"),
    Look(SKY, (0, (3.0, 1.0)), "P", "+++"),
)

PATH_LOOKS: Final = {"local": LOOKS[2], "lan": LOOKS[0], "relay": LOOKS[1], "direct": LOOKS[3]}
"""The same path looks the same in every plot."""

_SETTINGS: Final = {
    "font.family": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.labelsize": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "lines.linewidth": 1.6,
    "hatch.linewidth": 0.7,
    # A host may be called "$x", and that is no formula.
    "text.parse_math": False,
    # Text stays text in SVG: it can be read out, searched and selected.
    "svg.fonttype": "none",
    "svg.hashsalt": "teale-sim",
} | dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK)

_SVG_METADATA: Final = dict.fromkeys(("Date", "Creator", "Format", "Type"))


class Plot(NamedTuple):
    """One figure, what it is called, and what one sees in it."""

    name: str
    title: str
    sentence: str
    figure: Figure


class Label(NamedTuple):
    """A text at the end of a line, where `y` is in the data's units."""

    y: float
    text: str
    look: Look


@contextmanager
def drawn_in_style() -> Iterator[None]:
    """Have everything that is drawn inside look like this, whatever the user's own settings."""
    # Asking for the back end would choose one, and perhaps open a display.
    settings: dict[Any, Any] = {name: value for name, value in mpl.rcParamsDefault.items() if "backend" not in name}
    with mpl.rc_context(settings | _SETTINGS), catch_warnings():
        # A name may hold characters that the font lacks; a box is drawn for them.
        filterwarnings("ignore", message="Glyph .* missing from")
        yield


def figure(height: float) -> Figure:
    """Return an empty figure of the common width, `height` in inches."""
    made = Figure(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasAgg(made)
    return made


def settle(made: Figure) -> None:
    """Lay a figure out for good.

    The solver's answers differ in their last digits from process to process, and with them the names of clip paths.
    """
    made.draw_without_rendering()
    made.set_layout_engine("none")
    for axes in made.axes:
        axes.set_position(Bbox(axes.get_position().get_points().round(5)))


def svg(made: Figure) -> bytes:
    """Return a figure that is settled as SVG."""
    buffer = BytesIO()
    made.savefig(buffer, format="svg", metadata=_SVG_METADATA)
    return buffer.getvalue()


def png(made: Figure) -> bytes:
    """Return a figure that is settled as PNG, at twice the size of a screen."""
    buffer = BytesIO()
    made.savefig(buffer, format="png", dpi=200, metadata={"Software": None})
    return buffer.getvalue()


def shown(name: str) -> str:
    """Return a name as a plot can bear it: of limited length, and without what XML forbids."""
    clean = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in name)
    return clean if len(clean) <= NAME_MAX else clean[: NAME_MAX - 1] + "…"


def label_ends(axes: Axes, labels: Sequence[Label], *, gap: float = 0.1) -> None:
    """Write labels right of the axes, each at its height, but `gap` (of the axes' height) apart.

    Before each text is a piece of its line, since in grey its colour would not say which one it is.
    """
    low, high = axes.get_ylim()
    places = sorted((((label.y - low) / (high - low or 1)), label) for label in labels)
    heights: list[float] = []
    for height, _ in places:
        heights.append(max(height, heights[-1] + gap) if heights else height)
    # What was pushed out at the top goes back down, and pushes in turn.
    for index in reversed(range(len(heights))):
        above = heights[index + 1] - gap if index + 1 < len(heights) else 1.0
        heights[index] = min(heights[index], above)
    for height, (_, label) in zip(heights, places, strict=True):
        colour, where = label.look.colour, axes.transAxes
        sample = Line2D([1.012, 1.05], [height] * 2, color=colour, linestyle=label.look.line, transform=where)
        sample.set_clip_on(False)
        axes.add_artist(sample)
        axes.text(1.058, height, label.text, color=colour, transform=where, va="center", clip_on=False)


def time_axis(axes: Axes, seconds: float) -> None:
    """Let an axis run over the whole run."""
    axes.set_xlim(0, seconds or 1)
    axes.set_xlabel("virtual time (s)")


def path_look(path: str) -> Look:
    """Return how a path is drawn, also one that is not known here."""
    return PATH_LOOKS.get(path) or LOOKS[4 + sum(path.encode()) % 2]


def percent(part: int, whole: int) -> str:
    """Return a share for people."""
    return f"{100 * part / whole:.0f} %" if whole else "none"


def plural(count: int, noun: str) -> str:
    """Return "1 host" or "2 hosts"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}".replace(",", "\N{NARROW NO-BREAK SPACE}")
