"""The page that opens without a network: verdicts first, then numbers, plots, faults, and how to repeat the run.

Everything that comes from a run is escaped; what is not is written here. The plots are part of the page, and their
colours become variables of its style, so that they follow the reader's choice of light or dark.
"""

import re
from collections.abc import Sequence
from html import escape
from typing import Final, NamedTuple

from simulator.results import style
from simulator.results.model import Results
from simulator.results.page_parts import document, section, table
from teale_proto.contract import SECOND

EVENTS_SHOWN_MAX: Final = 200

_VARIABLES: Final = {
    style.INK: "--ink",
    style.FAINT: "--faint",
    style.MUTED: "--muted",
    style.PAPER: "--paper",
    style.BLUE: "--blue",
    style.VERMILLION: "--vermillion",
    style.GREEN: "--green",
    style.PURPLE: "--purple",
    style.ORANGE: "--orange",
    style.SKY: "--sky",
}
_KINDS: Final = {"simulated": "teale-sim report", "lab": "teale-sim report: real programs in a lab"}
_TAG: Final = re.compile(r"<[^>]*>")
_COLOUR: Final = re.compile("|".join(_VARIABLES))
_ID: Final = re.compile(r'(\bid="|href="#|url\(#)')


class Picture(NamedTuple):
    """A plot as the page shows it."""

    name: str
    title: str
    sentence: str
    svg: str


def page(results: Results, pictures: Sequence[Picture]) -> str:
    """Return the page."""
    report = results.summary.report
    failed = sum(not check.passed for check in report.checks)
    total = style.plural(len(report.checks), "check")
    verdict = f"{failed} of {total} failed" if failed else f"passed: all of {total}"
    sections = (
        _checks(results),
        _violations(results),
        _numbers(results),
        *(_picture(each) for each in pictures),
        _events(results),
        _dropped(results),
        _repeat(results),
    )
    return document(
        "report",
        f"{report.scenario}, seed {report.seed}",
        verdict,
        "".join(sections),
        results.summary.made_by,
        passed=not failed,
        first=("checks", "verdicts"),
    )


def _checks(results: Results) -> str:
    rows = [
        ("✓ held" if check.passed else f"✗ {style.plural(check.violation_count, 'violation')}", check.rule)
        # Those that failed come first.
        for check in sorted(results.summary.report.checks, key=lambda check: check.passed)
    ]
    return section("checks", "What had to stay true", table("checks", ("verdict", "rule"), rows))


def _violations(results: Results) -> str:
    rows = [
        (_seconds(violation.at), violation.host, violation.what, check.rule)
        for check in results.summary.report.checks
        for violation in check.violations
    ]
    if not rows:
        return ""
    counted = sum(check.violation_count for check in results.summary.report.checks)
    more = f"<p>The first {len(rows)} of {counted}.</p>\n" if counted > len(rows) else ""
    rows_shown = table("violations", ("at (s)", "host", "what", "rule"), sorted(rows, key=lambda row: float(row[0])))
    return section("violations", "Violations", more + rows_shown)


def _numbers(results: Results) -> str:
    report = results.summary.report
    requests = report.requests
    served = style.percent(requests.finished, requests.asked)
    pairs = (
        ("requests finished", f"{requests.finished} of {requests.asked} ({served})"),
        ("outcomes", _counts(requests.outcomes)),
        ("served by path", _counts(requests.served_by_path)),
        ("attempts", f"{requests.attempts}; {style.plural(requests.retried, 'request')} retried"),
        ("first piece of an answer, median", _milliseconds(requests.first_token_p50_ms)),
        ("first piece, nine tenths within", _milliseconds(requests.first_token_p90_ms)),
        ("hosts", f"{len(results.world.hosts)}; {report.hosts_crashed} died"),
        ("peers reported lost", str(report.peers_lost)),
        ("simulated", f"{report.simulated_seconds:g} s, in {report.wall_seconds:g} s of real time"),
        ("events", f"{report.events}; {report.trace_entries} entries in the trace"),
    )
    body = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>\n" for name, value in pairs)
    return section("numbers", "In numbers", f"<dl>\n{body}</dl>\n")


def _picture(picture: Picture) -> str:
    name = f"plot-{picture.name}"
    body = (
        f'<figure>\n<div class="scroll" tabindex="0" role="region" aria-labelledby="{name}">\n'
        f"{_inline(picture)}\n</div>\n<figcaption>{escape(picture.sentence)}</figcaption>\n</figure>\n"
    )
    return section(name, picture.title, body)


def _inline(picture: Picture) -> str:
    """Return a plot as a part of the page: names of its own, and colours that follow the page."""
    _, opening, rest = picture.svg.partition("<svg")
    drawn = _TAG.sub(lambda tag: _adapted(tag[0], picture.name), opening + rest)
    label = escape(f"{picture.title}: {picture.sentence}", quote=True)
    return drawn.replace("<svg", f'<svg role="img" aria-label="{label}"', 1).strip()


def _adapted(tag: str, name: str) -> str:
    tag = _ID.sub(lambda found: f"{found[1]}{name}-", tag)
    return _COLOUR.sub(lambda found: f"var({_VARIABLES[found[0]]})", tag)


def _events(results: Results) -> str:
    events = results.world.events
    if not events:
        return section("events", "Faults", "<p>Nothing was done to the world.</p>\n")
    more = f"<p>The first {EVENTS_SHOWN_MAX} of {len(events)}.</p>\n" if len(events) > EVENTS_SHOWN_MAX else ""
    heads = ("at (s)", "host", "what", "detail")
    rows = [(_seconds(event.at), event.host, event.kind, event.detail) for event in events[:EVENTS_SHOWN_MAX]]
    # A column with nothing in it is not shown.
    columns = 4 if any(detail for *_, detail in rows) else 3
    return section("events", "Faults", more + table("events", heads[:columns], [row[:columns] for row in rows]))


def _dropped(results: Results) -> str:
    dropped = results.summary.dropped
    named = (
        ("requests", dropped.requests),
        ("pairs of host and peer", dropped.paths),
        ("events", dropped.events),
        ("packets", dropped.packets),
    )
    parts = [f"{count} {name}" for name, count in named if count]
    if not parts:
        return ""
    text = f"To bound memory, these were counted and not kept: {', '.join(parts)}."
    return section("dropped", "What is not in here", f"<p>{escape(text)}</p>\n")


def _repeat(results: Results) -> str:
    summary = results.summary
    body = (
        "<p>This repeats the run, to the same digest:</p>\n"
        f'<pre tabindex="0"><code>{escape(summary.command)}</code></pre>\n'
        f'<p>Digest of the trace: <code class="digest">{escape(summary.report.digest)}</code></p>\n'
    )
    if summary.source:
        body += f"<p>The scenario as it was run is in <code>{escape(summary.source)}</code>, beside this page.</p>\n"
    return section("repeat", "The same run again", body)


def _seconds(at: int) -> str:
    return f"{at / SECOND:.6f}"


def _milliseconds(value: float | None) -> str:
    return "none" if value is None else f"{value:.1f} ms"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "none"
