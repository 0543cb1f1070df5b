"""What happened when: requests, faults, and the load of the relays."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from simulator.results.model import Event, RequestRow, Results
from simulator.results.style import (
    BLUE,
    FAINT,
    GREEN,
    INK,
    LOOKS,
    MUTED,
    VERMILLION,
    Label,
    Look,
    Plot,
    figure,
    label_ends,
    plural,
    shown,
    time_axis,
)
from teale_proto.contract import SECOND

REQUESTS_DRAWN_MAX: Final = 400
"""Up to so many requests are drawn one by one."""
EVENTS_NAMED_MAX: Final = 16
KINDS_MAX: Final = 10
RELAYS_MAX: Final = 5
STEPS_MAX: Final = 120
"""How many steps a line has at most, so that it stays readable."""

_MARKERS: Final = {"crashed (reset)": "X", "crashed (vanish)": "x", "restarted": "^", "stopped": "s"}


class _Line(NamedTuple):
    label: str
    look: Look
    values: Sequence[float]
    """One a step, in units a second or as they are."""


def timeline(results: Results) -> Plot:
    """Draw requests as they are asked and end, and below them what was done to the world."""
    one_by_one = 0 < len(results.requests) <= REQUESTS_DRAWN_MAX
    events = results.world.events
    heights = [1.5, 2.2 if one_by_one else 0.0, 0.5 + 0.26 * len(_kinds(events)) if events else 0.0]
    panels = [height for height in heights if height]
    made = figure(sum(panels) + 0.6)
    grid = made.subplots(len(panels), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": panels})
    rows: list[Axes] = list(grid[:, 0])
    _draw_rates(rows[0], results)
    if one_by_one:
        _draw_requests(rows[1], results.requests, results.seconds)
    if events:
        _draw_events(rows[-1], events)
        for axes in rows[:-1]:
            for event in events:
                axes.axvline(event.at / SECOND, color=FAINT, linewidth=0.8, zorder=0)
    time_axis(rows[-1], results.seconds)
    return Plot("timeline", "Requests and faults over time", _timeline_sentence(results), made)


def relay_load(results: Results) -> Plot | None:
    """Draw what the relays held and forwarded, or return None where there was none."""
    relays = _busiest(results)
    if not relays:
        return None
    made = figure(5.2)
    grid = made.subplots(3, 1, sharex=True)
    unit, divisor = _byte_unit(results)
    panels = (
        ("connections at a relay", ("relay_connections",), 1.0, False),
        ("messages through a relay (1/s)", ("relay_messages_in", "relay_messages_out"), 1.0, True),
        (f"data through a relay ({unit})", ("relay_bytes_in", "relay_bytes_out"), divisor, True),
    )
    for axes, (title, metrics, scale, is_rate) in zip(grid, panels, strict=True):
        lines, starts, width = _lines(results, relays, metrics, scale, is_rate=is_rate)
        _draw_lines(axes, lines, starts, width)
        axes.set_title(title)
    time_axis(grid[-1], results.seconds)
    return Plot("relay-load", "Load of the relays", _load_sentence(results), made)


# The timeline.


def _draw_rates(axes: Axes, results: Results) -> None:
    lines = []
    starts, width = [0.0], 1.0
    for metric, label, look in (
        ("requests_asked", "asked", LOOKS[0]),
        ("requests_finished", "finished", LOOKS[2]),
        ("requests_failed", "failed", LOOKS[1]),
    ):
        at, values, step = results.points(metric)
        if at:
            starts, sums, width = coarser(at, values, step)
            lines.append(_Line(label, look, [value / width for value in sums]))
    _draw_lines(axes, lines, starts, width)
    axes.set_title("requests (1/s)")


def _draw_requests(axes: Axes, requests: Sequence[RequestRow], seconds: float) -> None:
    for number, row in enumerate(requests):
        ends = seconds if row.ended_at is None else row.ended_at / SECOND
        well = row.outcome == "finished"
        colour = GREEN if well else VERMILLION
        axes.plot(
            [row.asked_at / SECOND, ends], [number, number], color=colour, linewidth=0.9, linestyle="-" if well else ":"
        )
        if not well:
            axes.plot([ends], [number], color=VERMILLION, marker="x", markersize=5, markeredgewidth=1.4)
    first = [(row.first_token_at / SECOND, number) for number, row in enumerate(requests) if row.first_token_at]
    axes.plot(
        [at for at, _ in first], [number for _, number in first], color=BLUE, marker="|", markersize=3.5, linestyle=""
    )
    axes.set_title("each request, from asked to its end; a tick is the first token, a cross a failure")
    axes.set_ylabel("request")
    axes.set_ylim(len(requests), -1)
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.grid(axis="y", visible=False)


def _draw_events(axes: Axes, events: Sequence[Event]) -> None:
    kinds = _kinds(events)
    for lane, kind in enumerate(kinds):
        of_kind = [event for event in events if event.kind == kind]
        look = LOOKS[lane % len(LOOKS)]
        marker = _MARKERS.get(kind, look.marker)
        axes.plot(
            [event.at / SECOND for event in of_kind],
            [lane] * len(of_kind),
            color=INK,
            marker=marker,
            markersize=6,
            linestyle="",
        )
    axes.set_yticks(range(len(kinds)), [shown(kind) for kind in kinds])
    axes.set_ylim(len(kinds) - 0.4, -0.6)
    axes.set_title("what was done to the world")


def _kinds(events: Sequence[Event]) -> list[str]:
    return sorted({event.kind for event in events})[:KINDS_MAX]


def _timeline_sentence(results: Results) -> str:
    rows, events = results.requests, results.world.events
    finished = sum(row.outcome == "finished" for row in rows)
    text = f"{plural(len(rows), 'request')} were asked, and {finished} of them finished"
    if len(rows) == 1:
        text = f"One request was asked, and it {'finished' if finished else 'did not finish'}"
    elif not rows:
        text = "Nothing was asked"
    if not events:
        return f"{text}; nothing was done to the world meanwhile."
    first, last = events[0].at / SECOND, events[-1].at / SECOND
    when = f"at {first:.1f} s" if first == last else f"between {first:.1f} s and {last:.1f} s"
    return f"{text}; {plural(len(events), 'event')} befell the hosts {when}, drawn as grey lines through all panels."


# The load of relays.


def _busiest(results: Results) -> list[str]:
    """Return the relays, the one with the most bytes first."""
    sums: dict[str, int] = dict.fromkeys(results.labels("relay_connections"), 0)
    for row in results.series:
        if row.label in sums and row.metric in {"relay_bytes_in", "relay_bytes_out"}:
            sums[row.label] += row.value
    return sorted(sums, key=lambda label: (-sums[label], label))


def _lines(
    results: Results, relays: Sequence[str], metrics: Sequence[str], scale: float, *, is_rate: bool
) -> tuple[list[_Line], list[float], float]:
    """Return a line for each relay, or in and out apart where there is one, with the common steps."""
    wanted: list[tuple[Sequence[str], Sequence[str], str]]
    if len(relays) == 1:
        wanted = [((metric,), relays, _direction(metric, relays[0])) for metric in metrics]
    else:
        wanted = [(tuple(metrics), [relay], shown(relay)) for relay in relays[:RELAYS_MAX]]
        if len(relays) > RELAYS_MAX:
            wanted.append((tuple(metrics), relays[RELAYS_MAX:], f"{len(relays) - RELAYS_MAX} others"))
    lines = []
    starts, width = [0.0], 1.0
    for look, (names, of, label) in zip(LOOKS, wanted, strict=False):
        at, values, step = _sum(results, names, of)
        if at:
            starts, binned, width = coarser(at, values, step, keep_last=not is_rate)
            divisor = scale * (width if is_rate else 1.0)
            lines.append(_Line(label, look, [value / divisor for value in binned]))
    return lines, starts, width


def _direction(metric: str, relay: str) -> str:
    return shown(relay) if metric == "relay_connections" else metric.rpartition("_")[2]


def _sum(results: Results, metrics: Sequence[str], labels: Sequence[str]) -> tuple[list[float], list[int], float]:
    sums: dict[int, int] = {}
    interval = SECOND
    for row in results.series:
        if row.metric in metrics and row.label in labels:
            sums[row.at] = sums.get(row.at, 0) + row.value
            interval = row.interval
    return [at / SECOND for at in sums], list(sums.values()), interval / SECOND


def _byte_unit(results: Results) -> tuple[str, float]:
    peak = max(
        (row.value * SECOND / row.interval for row in results.series if row.metric.startswith("relay_bytes")), default=0
    )
    return ("MB/s", 1e6) if peak >= 1e6 else ("kB/s", 1e3) if peak >= 1e3 else ("B/s", 1.0)


def _load_sentence(results: Results) -> str:
    relays = _busiest(results)
    connections = max((row.value for row in results.series if row.metric == "relay_connections"), default=0)
    _, values, width = _sum(results, ("relay_bytes_in", "relay_bytes_out"), relays)
    peak, total = max(values, default=0) / width, sum(values)
    subject = f"The relay {shown(relays[0])}" if len(relays) == 1 else f"The busiest of {len(relays)} relays"
    return (
        f"{subject} held up to {plural(connections, 'connection')}; at most {peak / 1e3:.1f} kB/s went in and out of "
        f"{'it' if len(relays) == 1 else 'all of them'}, and {total / 1e6:.2f} MB in the whole run."
    )


# Lines of steps.


def coarser(
    at: Sequence[float], values: Sequence[int], width: float, *, keep_last: bool = False
) -> tuple[list[float], list[int], float]:
    """Return a series in at most `STEPS_MAX` steps: sums of what happened, or the last of what there was."""
    size = -(-len(values) // STEPS_MAX)
    groups = [values[start : start + size] for start in range(0, len(values), size or 1)]
    return list(at[:: size or 1]), [group[-1] if keep_last else sum(group) for group in groups], width * size


def _draw_lines(axes: Axes, lines: Sequence[_Line], starts: Sequence[float], width: float) -> None:
    for line in lines:
        axes.stairs(
            line.values,
            [*starts, starts[-1] + width],
            baseline=None,
            color=line.look.colour,
            linestyle=line.look.line,
            linewidth=1.6,
        )
    top = max((value for line in lines for value in line.values), default=0)
    axes.set_ylim(0, 1.08 * top or 1)
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    label_ends(axes, [Label(line.values[-1], line.label, line.look) for line in lines], gap=0.17)
    if not lines:
        axes.text(0.5, 0.5, "nothing", transform=axes.transAxes, ha="center", color=MUTED)
