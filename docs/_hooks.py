"""Puts into the pages what the code itself can say: tables, diagrams, help texts, traces of real runs.

A page asks for it with a line `<!-- generate: NAME WORDS… -->`. A name that is not known, and a generator that
fails, fail the build; so a page cannot drift from the code without somebody noticing.
"""

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, TypeAlias

import _diagrams
import _messages
import _reference
import _walkthrough

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

Generator: TypeAlias = Callable[..., str]

GENERATORS: Final[Mapping[str, Generator]] = {
    "api-limits": _reference.api_limits,
    "architecture": _diagrams.architecture,
    "ask-states": _diagrams.ask_states,
    "cli": _reference.cli,
    "config": _reference.config_keys,
    "conversation-states": _diagrams.conversation_states,
    "core-limits": _reference.core_limits,
    "exit-codes": _reference.exit_codes,
    "failures": _reference.failures,
    "frame-example": _walkthrough.frame_example,
    "handshake-example": _walkthrough.handshake_example,
    "layers": _diagrams.layers,
    "liveness-states": _diagrams.liveness_states,
    "mdns-example": _walkthrough.mdns_example,
    "message-index": _messages.index,
    "messages": _messages.messages,
    "multibase-example": _walkthrough.multibase_example,
    "registration-example": _walkthrough.registration_example,
    "relay-client-limits": _reference.relay_client_limits,
    "relay-client-states": _diagrams.relay_client_states,
    "relay-codes": _reference.relay_codes,
    "relay-limits": _reference.relay_limits,
    "relay-metrics": _reference.relay_metrics,
    "relay-session": _diagrams.relay_session,
    "request-trace": _walkthrough.request_trace,
    "routing-numbers": _reference.routing_numbers,
    "transitions": _reference.transitions,
}

MARKER: Final = re.compile(r"^<!-- generate: (?P<words>[^\n]*?) -->$", re.MULTILINE)


class UnknownGenerator(Exception):
    """A page asks for something that nobody generates."""


def expand(markdown: str) -> str:
    """Return a page with every marker replaced by what it asks for; raises UnknownGenerator."""
    return MARKER.sub(_generated, markdown)


def on_page_markdown(markdown: str, *, page: "Page", config: "MkDocsConfig", files: "Files") -> str:
    """Expand one page: mkdocs calls this before it turns Markdown into HTML."""
    del page, config, files
    return expand(markdown)


def _generated(marker: re.Match[str]) -> str:
    name, *words = marker["words"].split()
    if name not in GENERATORS:
        raise UnknownGenerator(f"{name!r}; there are: {', '.join(GENERATORS)}")
    return GENERATORS[name](*words).strip("\n")
