"""A comparison in words and in columns of text: disagreements first, each in a sentence."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from simulator.comparing.comparison import PATHS, Comparison, FigureRow, PathRow, Setting, Share, Tally
from simulator.comparing.measured import Measure, Unit
from simulator.comparing.spread import Spread
from teale_proto.contract import MILLISECOND, SECOND

NOTHING: Final = "none"
_SPACE: Final = "\N{NARROW NO-BREAK SPACE}"


def amount(unit: Unit, value: float) -> str:
    """Return a value with its unit, as exact as it is worth."""
    if unit is Unit.COUNT:
        return f"{value:,.1f}".removesuffix(".0").replace(",", _SPACE)
    if unit is Unit.PROCESSOR:
        return f"{value / 1000:.1f}{_SPACE}µs"
    if abs(value) < SECOND:
        return f"{value / MILLISECOND:.1f}{_SPACE}ms"
    return f"{value / SECOND:.3f}{_SPACE}s"


def interval(unit: Unit, found: Spread | None) -> str:
    """Return the median and the range of what was simulated."""
    if found is None:
        return NOTHING
    return f"{amount(unit, found.median)} ({amount(unit, found.low)} to {amount(unit, found.high)})"


def extent(unit: Unit, found: Spread | None) -> str:
    """Return the median and the range of what was measured."""
    if found is None:
        return NOTHING
    if found.least == found.most:
        return amount(unit, found.median)
    return f"{amount(unit, found.median)} ({amount(unit, found.least)} to {amount(unit, found.most)})"


def shares(found: Iterable[Share]) -> str:
    """Return the paths of a cell with the share that has each."""
    return ", ".join(f"{each.path} {each.share:.0%}" for each in found) or NOTHING


def verdict(is_inside: bool) -> str:
    """Return a verdict in a word and a mark that differ in grey too."""
    return "\N{CHECK MARK} inside" if is_inside else "\N{BALLOT X} outside"


def headline(comparison: Comparison) -> str:
    """Return the whole in half a sentence."""
    whole = comparison.overall
    if comparison.agrees:
        return f"as predicted: all of {whole.of} figures"
    return f"{whole.inside} of {whole.of} figures as predicted"


def told(tally: Tally) -> str:
    """Return how much of something is as predicted."""
    return f"{tally.inside} of {tally.of} inside"


def of_seeds(seeds: Sequence[int]) -> str:
    """Return seeds for people: "3 to 22", or one by one."""
    if len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[0] + len(seeds))):
        return f"{seeds[0]} to {seeds[-1]}"
    return ", ".join(map(str, seeds))


def worlds(setting: Setting) -> str:
    """Return what was held against what."""
    runs, others = len(setting.simulated_seeds), len(setting.lab_seeds)
    return (
        f"{runs} simulated {_runs(runs)} (seed {of_seeds(setting.simulated_seeds)}), and {others} {_runs(others)} of "
        f"the {setting.lab_name} (seed {of_seeds(setting.lab_seeds)})"
    )


class Disagreements(NamedTuple):
    """What is not as predicted in one respect: in a sentence, and in one for each case."""

    summary: str
    sentences: tuple[str, ...]


def disagreements(comparison: Comparison) -> Iterator[Disagreements]:
    """Yield what is not as predicted, one respect after the other: broken rules, paths, then each measure."""
    name = comparison.setting.lab_name
    if comparison.broken:
        yield Disagreements("Rules were broken.", tuple(f"{rule}." for rule in comparison.broken))
    paths = [row for row in comparison.paths if not row.is_inside]
    if paths:
        said = f"{PATHS}: {len(paths)} of {len(comparison.paths)} cells do not end up as predicted."
        yield Disagreements(said, tuple(_path_sentence(row, name) for row in paths))
    for measure in Measure:
        rows = [row for row in comparison.figures if row.measure is measure]
        outside = [row for row in rows if not row.is_inside]
        if outside:
            yield Disagreements(
                f"{measure.value}: {len(outside)} of {len(rows)} are not as predicted{_tendency(outside)}.",
                tuple(_figure_sentence(row, name) for row in outside),
            )


def text(comparison: Comparison) -> str:
    """Return the whole comparison as text."""
    setting = comparison.setting
    found = list(disagreements(comparison))
    parts = [f"{setting.scenario}: {headline(comparison)}", f"{worlds(setting)}."]
    for number, each in enumerate(found, 1):
        parts += [] if number > 1 else ["", "Disagreements"]
        parts += [f"  {number}. {each.summary}", *(f"     - {sentence}" for sentence in each.sentences)]
    parts += ["", *_columns([("measure", "verdict"), *((each.what, told(each)) for each in comparison.tallies)])]
    if comparison.paths:
        rows = [("paths of", "simulated", setting.lab_name, "verdict")]
        rows += [(row.cell, shares(row.simulated), shares(row.lab), verdict(row.is_inside)) for row in comparison.paths]
        parts += ["", *_columns(rows)]
    for measure in Measure:
        rows = [(measure.value, "simulated", setting.lab_name, "verdict")]
        rows += [
            (row.what, interval(measure.unit, row.simulated), extent(measure.unit, row.lab), verdict(row.is_inside))
            for row in comparison.figures
            if row.measure is measure
        ]
        if len(rows) > 1:
            parts += ["", *_columns(rows)]
    return "\n".join(parts) + "\n"


def _path_sentence(row: PathRow, name: str) -> str:
    if not row.simulated:
        return f"Nobody was simulated to meet in {row.cell}; in the {name}: {shares(row.lab)}."
    if not row.lab:
        return f"{row.cell} should end as {shares(row.simulated)}; in the {name} nobody was there at the end."
    return f"{row.cell} should end as {shares(row.simulated)}; in the {name} it is {shares(row.lab)}."


def _figure_sentence(row: FigureRow, name: str) -> str:
    unit, what = row.measure.unit, row.what or row.measure.value
    if row.lab is None:
        return f"{what} was never seen in the {name}; simulated: {interval(unit, row.simulated)}."
    if row.simulated is None:
        return f"{what} was never simulated; in the {name}: {extent(unit, row.lab)}."
    differs = row.lab.median - row.simulated.median
    by, how = amount(unit, abs(differs)), _word(unit, differs)
    measured = f"in the {name} {extent(unit, row.lab)}, simulated {interval(unit, row.simulated)}"
    return f"{what} is {by} {how}: {measured}." if differs else f"{what} varies otherwise: {measured}."


def _tendency(rows: Sequence[FigureRow]) -> str:
    """Return by how much most of some rows differ, where they all do so in the same direction."""
    differs = [row.lab.median - row.simulated.median for row in rows if row.lab and row.simulated]
    if len(differs) < 2 or not (min(differs) > 0 or max(differs) < 0):
        return ""
    unit = rows[0].measure.unit
    how = _word(unit, differs[0])
    least, most = (amount(unit, each) for each in sorted((abs(min(differs)), abs(max(differs)))))
    all_of = "all" if len(differs) == len(rows) else f"{len(differs)} of them"
    return f", {all_of} {how}, by {least} to {most}"


def _word(unit: Unit, differs: float) -> str:
    if unit is Unit.COUNT:
        return "more" if differs > 0 else "fewer"
    return "longer" if differs > 0 else "shorter"


def _runs(count: int) -> str:
    return "run" if count == 1 else "runs"


def _columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
