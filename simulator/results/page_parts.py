"""What pages are put together from: the document around everything, sections with headings, and tables.

A page opens without a network and without a script, in light and in dark. What is passed as text is escaped here.
"""

from collections.abc import Iterable, Sequence
from html import escape
from string import Template
from typing import Final

from simulator.results.model import MadeBy
from simulator.results.page_style import CSS

_PAGE: Final = Template(
    """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>$title</title>
<style>
$css</style>
</head>
<body>
<a class="skip" href="#$first">Skip to the $first_name</a>
<header>
<p class="kind">teale-sim $kind</p>
<h1>$heading</h1>
<p class="verdict $verdict_class">$verdict</p>
</header>
<main>
$body</main>
<footer>
<p>$made_by</p>
</footer>
</body>
</html>
"""
)


def document(
    kind: str,
    heading: str,
    verdict: str,
    body: str,
    made: MadeBy,
    *,
    passed: bool,
    first: tuple[str, str],
    css: str = "",
) -> str:
    """Return a whole page; `body` is HTML.

    `first` is the section that whoever uses a keyboard can skip to, and what it holds; `css` comes on top of the common
    style.
    """
    return _PAGE.substitute(
        kind=escape(kind),
        title=escape(heading),
        heading=escape(heading).replace("seed ", "seed&nbsp;"),
        verdict_class="passed" if passed else "failed",
        verdict=("✓ " if passed else "✗ ") + escape(verdict),
        css=CSS + css,
        first=first[0],
        first_name=escape(first[1]),
        body=body,
        made_by=escape(
            f"Made by teale-sim {made.version or '(not installed)'}"
            + (f", commit {made.commit}" if made.commit else "")
            + f", on Python {made.python}."
        ),
    )


def section(name: str, title: str, body: str) -> str:
    """Return a part of a page with a heading; `body` is HTML, `name` is what links lead to."""
    return f'<section aria-labelledby="{name}">\n<h2 id="{name}">{escape(title)}</h2>\n{body}</section>\n'


def table(name: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of texts that scrolls by itself where it is too wide; `name` is that of its section."""
    head = "".join(f'<th scope="col">{escape(each)}</th>' for each in heads)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>\n" for row in rows)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-labelledby="{name}">\n<table>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>\n</div>\n"
    )
