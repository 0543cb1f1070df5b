"""The tables of the study, in Markdown for the documentation and as JSON for programs."""

from collections.abc import Iterable, Sequence
from math import isfinite
from typing import Any, Final

import numpy as np

from simulator.study.claim import calibration_rows, choice, on_the_same_lan
from simulator.study.ledger import Estimate
from simulator.study.parameters import PRICES, SHIPPED, Parameters
from simulator.study.reach import Paths, relayed_share_of_best, shares
from simulator.study.runs import Point, Results

KEYS: Final = ("connections_relayed", "bytes_relayed", "messages", "cores", "egress", "cost")
TOLERANCE: Final = 0.10
"""How far the model may be from the event simulation, beyond the joint interval."""


def markdown(results: Results, parameters: Parameters) -> str:
    """Return all tables."""
    parts = [
        f"### {nodes:,} nodes\n\n{_costs([p for p in results.model if p.nodes == nodes])}"
        for nodes in dict.fromkeys(point.nodes for point in results.model)
    ]
    parts.append(f"### Model and event simulation\n\n{_agreement(results)}")
    if results.events:
        parts.append(f"### Waiting for the core, in the event simulation\n\n{_waiting(results)}")
    parts.append(f"### Choosing whom to ask\n\n{_choosing(parameters)}")
    heads = ("figure", "source", "published", "here")
    parts.append(f"### Calibration\n\n{_table(heads, calibration_rows(parameters))}")
    return "\n\n".join(parts) + "\n"


def sizing(results: Results, parameters: Parameters) -> str:
    """Return what one relay must bear in the busiest hour, and whether one core of this profile does."""
    nodes, peak = results.model[0].nodes, parameters.peak_factor
    rows = []
    for point in results.model:
        f = point.figures
        busy = f["cores"].mean * peak
        sessions = f["messages/heartbeats"].mean / parameters.beats_per_second * peak
        rows.append((
            point.design,
            "yes" if busy <= PRICES.utilisation_max else "barely" if busy <= 1 else "no",
            f"{busy:,.2f}",
            f"{f['egress'].mean * peak * 8 / 1e6:,.0f}",
            f"{f['messages'].mean * peak:,.0f}",
            f"{sessions:,.0f}",
            f"{f['memory'].mean / 2**20:,.0f}",
            f"{f['cost'].mean:,.0f}",
        ))  # fmt: skip
    heads = (
        "design", "does one core do?", "cores", "egress, Mbit/s", "messages/s", "relayed sessions", "memory, MiB",
        "$ a month",
    )  # fmt: skip
    return (
        f"### A relay for {nodes:,} nodes, in the busiest hour\n\n{_table(heads, rows)}\n\n"
        f"yes: below {PRICES.utilisation_max:.0%} of a core; barely: below all of it; no: above. "
        f"`{SHIPPED.name}` is what runs today: no direct paths over the internet.\n"
    )


def as_json(results: Results) -> dict[str, Any]:
    """Return every figure with its interval."""
    return {
        kind: [
            {
                "design": point.design,
                "nodes": point.nodes,
                "runs": point.runs,
                "wall_seconds": round(point.wall_seconds, 2),
                "figures": {name: [each.mean, _finite(each.half)] for name, each in point.figures.items()},
            }
            for point in points
        ]
        for kind, points in (("events", results.events), ("model", results.model))
    }


def agree(event: Estimate, model: Estimate) -> bool:
    """Whether two estimates are within both intervals together, or within TOLERANCE; a single run has no interval."""
    apart = abs(event.mean - model.mean)
    if not isfinite(event.half):
        return apart <= TOLERANCE * abs(model.mean)
    return apart <= (event.half**2 + model.half**2) ** 0.5 or apart <= TOLERANCE * abs(model.mean)


def _costs(points: Sequence[Point]) -> str:
    rows = []
    for point in points:
        f = point.figures
        rows.append((
            point.design,
            _percent(f["connections_relayed"]),
            _percent(f["bytes_relayed"]),
            f"{f['messages'].mean:,.0f}",
            _with(f["cores"]),
            _with(f["egress"], 1e-6),
            _with(f["egress/discover"], 1e-6),
            _with(f["egress/joins and leaves"], 1e-6),
            f"{f['memory'].mean / 2**20:,.0f}",
            _with(f["cost"]),
        ))  # fmt: skip
    heads = (
        "design", "connections relayed, %", "bytes relayed, %", "messages/s", "cores", "egress, MB/s",
        "of it discover", "of it joins, leaves", "memory, MiB", "$ a month",
    )  # fmt: skip
    return _table(heads, rows)


def _agreement(results: Results) -> str:
    rows = []
    found = {(point.design, point.nodes): point for point in results.model}
    for point in results.events:
        other = found.get((point.design, point.nodes))
        if other is None:
            continue
        for key in ("messages", "cores", "egress", "connections_relayed"):
            ours, theirs = point.figures[key], other.figures[key]
            ratio = ours.mean / theirs.mean if theirs.mean else 1.0
            verdict = "yes" if agree(ours, theirs) else "no"
            rows.append((f"{point.nodes:,}", point.design, key, _with(ours), _with(theirs), f"{ratio:.3f}", verdict))
    return _table(("nodes", "design", "figure", "events", "model", "ratio", "agree"), rows)


def _waiting(results: Results) -> str:
    rows = []
    for point in results.events:
        f = point.figures
        waits = (f"{f[name].mean / 1000:,.2f}" for name in ("wait_mean", "wait_max"))
        rows.append((f"{point.nodes:,}", point.design, f"{f['cores'].mean:.3f}", *waits))
    return _table(("nodes", "design", "cores", "mean wait, ms", "longest wait, ms"), rows)


def _choosing(parameters: Parameters) -> str:
    rows = []
    for count in (1, 2, 3, 5, 10, 20, 50):
        row = [str(count)]
        for paths in (Paths(), Paths(birthday=True)):
            share = relayed_share_of_best(shares(parameters.mixtures, paths), paths, count)
            row.append(f"{100 * share:.1f}")
        rows.append(row)
    first = _table(("holders to choose from", "relayed, punching, %", "with birthday, %"), rows)
    rows = []
    for nodes in (100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000):
        at = np.array([float(nodes)])
        found = [100 * float(choice(parameters, paths, at)[0]) for paths in (Paths(), Paths(birthday=True))]
        rows.append([f"{nodes:,}", *(f"{each:.1f}" for each in found), f"{100 * on_the_same_lan(nodes):.2g}"])
    heads = ("nodes", "relayed if chosen, punching, %", "with birthday, %", "users with another at home, %")
    return first + "\n\n" + _table(heads, rows)


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [" | ".join(heads)]
    lines.append(" | ".join("---" for _ in lines[0].split(" | ")))
    lines += [" | ".join(row) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)


def _percent(each: Estimate) -> str:
    return f"{100 * each.mean:.1f} ± {100 * each.half:.1f}"


def _with(each: Estimate, factor: float = 1.0) -> str:
    mean, half = each.mean * factor, each.half * factor
    if half == 0:
        return f"{mean:,.4g}" if mean < 1e4 else f"{mean:,.0f}"
    return f"{mean:,.4g} ± {half:.2g}" if mean < 1e4 else f"{mean:,.0f} ± {half:,.0f}"


def _finite(value: float) -> float | None:
    return value if value < float("inf") else None
