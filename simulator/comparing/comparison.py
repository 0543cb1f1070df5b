"""Two sets of runs of one scenario beside each other, figure by figure, and a verdict on each.

A figure is as predicted when the median of what the lab measured lies between the tenth and the ninetieth percentile
of what was simulated. The values of all runs of a world, and of all pairs of a cell, are put together first. A figure
that one world has and the other has not is a disagreement of its own; only what a simulation hardly ever came to may be
missing in the lab. How requests end is judged run by run besides: one that is lost is not made good by two others.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Final

from simulator.comparing.asked import FINISHED
from simulator.comparing.measured import Figure, Measure, Measured, Unit
from simulator.comparing.spread import Spread, spread
from teale_proto.contract import MILLISECOND, Duration, Value

GRAIN: Final[Duration] = MILLISECOND
"""How exact a lab is: neither its forwarder nor the timers of its kernel are better."""

PATHS: Final = "paths"
"""What a comparison of paths is called among measures."""

USUAL: Final = 0.9
"""A figure that this share of the simulated runs has is expected of the lab."""

COST_TOLERANCE: Final = 0.2
"""By how much of what was predicted processor times may differ: a model of costs does not spread."""

LIKELY: Final = 0.1
"""A path that this share of the simulated pairs ended up with may be what all pairs of the lab ended up with."""


class Setting(Value):
    """What two worlds were held against each other."""

    scenario: str
    simulated_seeds: tuple[int, ...]
    lab_seeds: tuple[int, ...]
    lab_name: str = "lab"
    """What the second world is called."""
    grain: Duration = GRAIN
    """By how much the simulated interval of a time is widened at both ends."""


class FigureRow(Value):
    """One figure in both worlds; times are in microseconds."""

    measure: Measure
    what: str
    simulated: Spread | None
    lab: Spread | None
    is_inside: bool


class Share(Value):
    """The part of some pairs that ended up talking over one path."""

    path: str
    share: float


class PathRow(Value):
    """Over which paths the pairs of one cell ended up talking, in both worlds; the commonest first."""

    cell: str
    simulated: tuple[Share, ...]
    lab: tuple[Share, ...]
    is_inside: bool


class Tally(Value):
    """How many of something are as predicted."""

    what: str
    inside: int
    of: int


class Comparison(Value):
    """Both worlds, side by side."""

    setting: Setting
    paths: tuple[PathRow, ...]
    figures: tuple[FigureRow, ...]
    broken: tuple[str, ...]
    """Rules that a checker found broken, with the world and the seed."""

    @property
    def agrees(self) -> bool:
        """Whether everything is as predicted."""
        are_inside = (*(row.is_inside for row in self.paths), *(row.is_inside for row in self.figures))
        return not self.broken and all(are_inside)

    @property
    def tallies(self) -> tuple[Tally, ...]:
        """How much of each measure is as predicted, paths first."""
        found = [Tally(PATHS, sum(row.is_inside for row in self.paths), len(self.paths))] if self.paths else []
        for measure in Measure:
            rows = [row for row in self.figures if row.measure is measure]
            if rows:
                found.append(Tally(measure.value, sum(row.is_inside for row in rows), len(rows)))
        return tuple(found)

    @property
    def overall(self) -> Tally:
        """How much of everything is as predicted."""
        return Tally("everything", sum(each.inside for each in self.tallies), sum(each.of for each in self.tallies))


def compared(
    setting: Setting, simulated: Sequence[Measured], lab: Sequence[Measured], *, only: Collection[str] = ()
) -> Comparison:
    """Hold the runs of a lab against those of the simulator; with `only`, no more than paths or measures so called."""
    broken = [
        f"{world}, seed {run.seed}: {rule}"
        for world, runs in (("simulated", simulated), (setting.lab_name, lab))
        for run in runs
        for rule in run.broken
    ]
    figures = (row for row in _figure_rows(simulated, lab, setting.grain) if not only or row.measure.slug in only)
    paths = _path_rows(simulated, lab) if not only or PATHS in only else ()
    return Comparison(setting, tuple(paths), tuple(figures), tuple(broken))


# Figures.


def _figure_rows(simulated: Sequence[Measured], lab: Sequence[Measured], grain: Duration) -> Iterable[FigureRow]:
    ours, theirs = _pooled(simulated), _pooled(lab)
    seen = Counter(Figure(each.measure, each.what) for run in simulated for each in run.samples)
    for figure in sorted(dict.fromkeys((*ours, *theirs)), key=_place):
        one, other = ours.get(figure, []), theirs.get(figure, [])
        if figure.measure.unit is Unit.COUNT:
            # A run that has none of them counts as one with nought.
            one, other = (_padded(values, len(runs)) for values, runs in ((one, simulated), (other, lab)))
        is_rare = seen[figure] < USUAL * len(simulated)
        if other or not is_rare:
            row = FigureRow(figure.measure, figure.what, spread(one), spread(other), False)
            yield FigureRow(row.measure, row.what, row.simulated, row.lab, _is_inside(row, grain))


def _place(figure: Figure) -> tuple[int, list[tuple[int, str]]]:
    """Return where a figure stands: by measure, then by name, in which numbers count as such."""
    parts = re.findall(r"\d+|\D+", figure.what)
    return list(Measure).index(figure.measure), [(int(each), "") if each.isdigit() else (-1, each) for each in parts]


def bounds(row: FigureRow, grain: Duration) -> tuple[float, float]:
    """Return between what a measured median is as predicted; there must be something simulated."""
    assert row.simulated is not None, "what was not simulated has no bounds"
    if row.measure.unit is Unit.PROCESSOR:
        return (1 - COST_TOLERANCE) * row.simulated.median, (1 + COST_TOLERANCE) * row.simulated.median
    slack = grain if row.measure.unit is Unit.TIME else 0
    return row.simulated.low - slack, row.simulated.high + slack


def _is_inside(row: FigureRow, grain: Duration) -> bool:
    if row.simulated is None or row.lab is None:
        return False
    if row.measure is Measure.OUTCOMES and not _is_bearable(row.what, row.simulated, row.lab):
        return False
    low, high = bounds(row, grain)
    return low <= row.lab.median <= high


def _is_bearable(outcome: str, simulated: Spread, lab: Spread) -> bool:
    """Return whether no run of the lab answered fewer requests, or failed more, than any simulated one."""
    return lab.least >= simulated.least if outcome == FINISHED else lab.most <= simulated.most


def _pooled(runs: Sequence[Measured]) -> dict[Figure, list[int]]:
    found: dict[Figure, list[int]] = {}
    for run in runs:
        for each in run.samples:
            found.setdefault(Figure(each.measure, each.what), []).extend(each.values)
    return found


def _padded(values: list[int], runs: int) -> list[int]:
    return values + [0] * (runs - len(values))


# Paths.


def _path_rows(simulated: Sequence[Measured], lab: Sequence[Measured]) -> Iterable[PathRow]:
    cells = dict.fromkeys(each.cell for run in (*simulated, *lab) for each in run.paths)
    for cell in cells:
        ours, theirs = _shares(simulated, cell), _shares(lab, cell)
        yield PathRow(cell, ours, theirs, _is_predicted(ours, theirs))


def _shares(runs: Sequence[Measured], cell: str) -> tuple[Share, ...]:
    pairs: Counter[str] = Counter()
    for run in runs:
        for each in run.paths:
            if each.cell == cell:
                pairs[each.path] += each.pairs
    total = pairs.total()
    return tuple(Share(path, count / total) for path, count in sorted(pairs.items(), key=lambda each: -each[1]))


def _is_predicted(simulated: Sequence[Share], lab: Sequence[Share]) -> bool:
    """Return whether a lab's paths are likely ones, or the odd one out of what a simulation came to as well."""
    expected = {each.path: each.share for each in simulated}
    if not lab or not expected:
        return False
    return all(expected.get(each.path, 0) >= LIKELY or (each.path in expected and each.share < 1 / 2) for each in lab)
