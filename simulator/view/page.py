"""The page: one file with its data, its style and its program in it, which opens without a network.

The browser is told to load nothing at all, and to run this one program and no other. Whatever comes from a run gets
into the page as JSON, and from there by the program as text.
"""

from base64 import b64encode
from hashlib import sha256
from html import escape
from importlib import resources
from string import Template
from typing import Final

import msgspec

from simulator.results.page_style import CSS
from simulator.view.model import View

_PROGRAM: Final = ("data.js", "timeline.js", "topology.js", "requests.js", "sequence.js", "main.js")

_PAGE: Final = Template(
    """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src '$hash'; style-src '$style_hash'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>$title</title>
<style>$css</style>
</head>
$body
<script type="application/json" id="data">$data</script>
<script>$program</script>
</html>
"""
)


def page(view: View) -> str:
    """Return the page."""
    program = "\n".join(["'use strict';", *map(_asset, _PROGRAM)])
    css = CSS + _asset("view.css")
    return _PAGE.substitute(
        hash=_hash(program),
        style_hash=_hash(css),
        title=escape(_title(view)),
        css=css,
        body=_asset("body.html"),
        data=_data(view),
        program=program,
    )


def _title(view: View) -> str:
    worlds = " and ".join(dict.fromkeys(world.label for world in view.worlds))
    first = view.worlds[0]
    return f"{first.scenario}, seed {first.seed}: {worlds}"


def _data(view: View) -> str:
    # No text in it can end the element: without `<`, there is no tag and no comment.
    return msgspec.json.encode(view).decode().replace("<", "\\u003c")


def _asset(name: str) -> str:
    return (resources.files("simulator.view") / "assets" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"
