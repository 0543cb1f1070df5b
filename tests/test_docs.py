"""What the pages take from the code covers it, and every command that they tell people to type exists."""

import importlib
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any, get_args
from xml.etree import ElementTree

import click
import pytest

from teale_io.cli.exits import Exit
from teale_io.config import KEYS, SECRETS, key_named
from teale_proto import routing
from teale_proto.asking import AskState
from teale_proto.inputs import Failure
from teale_proto.liveness import ON
from teale_proto.peer import ConversationState
from teale_proto.relay.client_states import NEXT_STATE, RelayClientConfig
from teale_proto.relay.limits import RelayServerConfig
from teale_proto.wire import relay as wire
from teale_proto.wire.cluster import ClusterMessage
from teale_proto.wire.codec import kind_of
from teale_proto.wire.relay import RelayMessage

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
BLOCK = re.compile(r"^( *)```(?P<language>\w+)\n(?P<code>.*?)^\1```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module", autouse=True)
def _hooks_are_importable() -> Iterator[None]:
    # As mkdocs does with the folder of its hooks.
    sys.path.insert(0, str(DOCS))
    yield
    sys.path.remove(str(DOCS))


def generators(name: str) -> ModuleType:
    return importlib.import_module(name)


def names_in(page: Path) -> list[str]:
    return [match["words"] for match in generators("_hooks").MARKER.finditer(page.read_text())]


def cells(table: str, column: int = 0) -> list[str]:
    return [line.strip("| ").split(" | ")[column] for line in table.splitlines()[2:]]


# Everything is there.


def test_every_marker_of_every_page_is_replaced() -> None:
    for page in PAGES:
        expanded = generators("_hooks").expand(page.read_text())
        assert "<!-- generate" not in expanded, page


def test_everything_that_is_generated_is_shown_on_some_page() -> None:
    shown = {words.split()[0] for page in PAGES for words in names_in(page)}
    assert shown == set(generators("_hooks").GENERATORS)


def test_a_marker_that_nobody_knows_is_an_error() -> None:
    hooks = generators("_hooks")
    with pytest.raises(hooks.UnknownGenerator, match="no-such-thing"):
        hooks.expand("before\n<!-- generate: no-such-thing -->\nafter")


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text()
    for page in PAGES:
        assert f": {page.relative_to(DOCS).as_posix()}\n" in navigation


def test_nothing_is_fetched_from_the_network() -> None:
    configuration = (ROOT / "mkdocs.yml").read_text()
    assert "font: false" in configuration
    assert "http" not in configuration
    for style in DOCS.rglob("*.css"):
        assert "url(" not in style.read_text()


# Tables cover what they describe.


def test_the_configuration_lists_every_key() -> None:
    found = [re.sub(r"<span.*?</span>", "", cell) for cell in cells(generators("_reference").config_keys())]
    assert found == [f"`{key}`" for key in KEYS]


def test_the_exit_codes_are_all_there_and_explained() -> None:
    table = generators("_reference").exit_codes()
    assert cells(table) == [str(each.value) for each in Exit]
    assert all(cells(table, 2))


def test_every_failure_has_a_meaning_and_a_remedy() -> None:
    table = generators("_reference").failures()
    assert set(cells(table)) == {f"`{failure.value}`" for failure in Failure}


def test_every_relay_code_is_explained() -> None:
    declared = {
        value
        for name, value in vars(wire).items()
        if name.isupper() and isinstance(value, str) and not name.startswith("_")
    }
    assert {f"`{code}`" for code in declared} == set(cells(generators("_reference").relay_codes()))


@pytest.mark.parametrize(("which", "union"), [("relay", RelayMessage), ("cluster", ClusterMessage)])
def test_every_message_has_a_line_and_a_section_with_all_its_fields(which: str, union: Any) -> None:
    messages = generators("_messages")
    index, sections = messages.index(which), messages.messages(which)
    for message in get_args(union):
        kind = kind_of(message)
        assert f"[`{kind}`](#{messages.anchor(kind)})" in index
        section = sections.partition(f"#### `{kind}` {{")[2].partition("\n#### ")[0]
        for field in message.__struct_encode_fields__:
            assert f"| `{field}` |" in section


def test_every_message_of_a_relay_has_a_direction() -> None:
    assert generators("_messages").DIRECTIONS.keys() == set(get_args(RelayMessage))


def test_every_link_between_messages_has_its_target() -> None:
    messages = generators("_messages")
    for which in ("relay", "cluster"):
        text = messages.index(which) + messages.messages(which)
        assert set(re.findall(r"\(#([\w-]+)\)", text)) <= set(re.findall(r"\{ #([\w-]+) \}", text))


def test_every_limit_says_what_it_means() -> None:
    """A new constant needs a docstring, or a text in docs/_reference.py."""
    reference = generators("_reference")
    tables = generators("_tables")
    for module in reference.LIMIT_MODULES:
        for name in tables.constants(module):
            assert reference.limit_text(module, name), f"{module.__name__}.{name}"
    for owner in (RelayServerConfig, RelayClientConfig):
        for field in owner.__struct_fields__:
            if field not in ("names", "allow_legacy_register"):
                assert reference.field_text(owner, field), f"{owner.__name__}.{field}"


def test_the_metrics_of_a_relay_are_those_that_it_shows() -> None:
    names = cells(generators("_reference").relay_metrics())
    assert {"`teale_relay_nodes`", "`teale_relay_messages_total`", "`teale_relay_complaints_total`"} <= set(names)


def test_every_number_of_routing_is_listed() -> None:
    declared = {name for name in vars(routing) if name.isupper()}
    assert {f"`routing.{name}`" for name in declared} == set(cells(generators("_reference").routing_numbers()))


def test_the_help_of_every_command_is_there() -> None:
    reference = generators("_reference")
    for program, command in reference.COMMANDS.items():
        text = reference.cli(program)
        for words, _ in reference.commands(command, program):
            assert f"### `{words}`\n" in text


# Diagrams.


@pytest.mark.parametrize(
    ("diagram", "table"), [("liveness_states", ON), ("relay_client_states", NEXT_STATE)], ids=["liveness", "relay"]
)
def test_a_state_diagram_shows_every_state_and_trigger_of_its_table(diagram: str, table: Mapping[Any, Enum]) -> None:
    texts = texts_of(getattr(generators("_diagrams"), diagram)())
    for (state, trigger), target in table.items():
        assert {state.value, target.value} <= set(texts)
        assert any(text.startswith(trigger.value) for text in texts)


def test_every_layer_of_the_core_is_drawn_and_explained() -> None:
    diagrams = generators("_diagrams")
    assert diagrams.LAYER_TEXTS.keys() == {layer[0] for layer in diagrams.core_layers()}
    assert {" · ".join(layer) for layer in diagrams.core_layers()} <= set(texts_of(diagrams.layers()))


def test_the_hand_drawn_state_diagrams_show_every_state() -> None:
    diagrams = generators("_diagrams")
    assert {state.value for state in AskState} <= set(texts_of(diagrams.ask_states()))
    assert {state.value for state in ConversationState} <= set(texts_of(diagrams.conversation_states()))


@pytest.mark.parametrize(
    "diagram",
    [
        "architecture",
        "ask_states",
        "conversation_states",
        "layers",
        "liveness_states",
        "relay_client_states",
        "relay_session",
    ],
)
def test_a_diagram_is_well_formed_has_a_title_and_a_description_and_stays_in_its_frame(diagram: str) -> None:
    figure = getattr(generators("_diagrams"), diagram)()
    assert "\n\n" not in figure, "Markdown would end the figure there"
    svg = ElementTree.fromstring(figure).find("svg")
    assert svg is not None
    assert svg.findtext("title")
    assert svg.findtext("desc")
    width, height = (float(number) for number in svg.attrib["viewBox"].split()[2:])
    for box in svg.iter("rect"):
        x, y, w, h = (float(box.attrib[name]) for name in ("x", "y", "width", "height"))
        assert x >= 0
        assert y >= 0
        assert x + w <= width
        assert y + h <= height


def test_the_same_build_gives_the_same_examples() -> None:
    walkthrough = generators("_walkthrough")
    for example in (walkthrough.request_trace, walkthrough.handshake_example, walkthrough.registration_example):
        assert example() == example()


def test_the_example_request_ends_with_its_answer() -> None:
    trace = generators("_walkthrough").request_trace()
    assert "Ask(request='r1'" in trace
    assert "ReportFinished(request='r1'" in trace
    assert "Report" + "Failed" not in trace


def texts_of(figure: str) -> list[str]:
    return [text.text or "" for text in ElementTree.fromstring(figure).iter("text")]


# Commands.


def command_lines() -> list[tuple[str, list[str]]]:
    """Return every command of ours in a shell block, with the page where it stands."""
    found = []
    for page in PAGES:
        for block in BLOCK.finditer(page.read_text()):
            if block["language"] == "sh":
                script = block["code"].replace("\\\n", " ")
                for line in script.splitlines():
                    found += [(page.name, words) for words in commands_in(line)]
    return found


LOOP_VARIABLES = {"$seed": "1", "$name": "one"}
"""What stands for a variable that the shell would have filled in."""


def commands_in(line: str) -> Iterator[list[str]]:
    """Yield the commands of ours in one line of shell: assignments, redirections and other programs left out."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, ";"]:
        if word in (";", "&", "&&", "||", "|", ">", "2>", "do"):
            while words and (words[0] in ("export", "do", "sudo") or re.fullmatch(r"\w+=.*", words[0])):
                del words[0]
            if words and words[0].startswith("teale"):
                yield words
            words = []
        else:
            words.append(LOOP_VARIABLES.get(word, word))


def parse(command: click.Command, name: str, arguments: list[str], parent: click.Context | None = None) -> None:
    """Parse a command line down to its last command, and run nothing."""
    with command.make_context(name, list(arguments), parent=parent) as context:
        if isinstance(command, click.Group):
            rest = [*context._protected_args, *context.args]
            found, subcommand, rest = command.resolve_command(context, rest)
            assert subcommand is not None
            parse(subcommand, found or name, rest, context)


def test_there_are_commands_in_the_pages() -> None:
    assert len(command_lines()) > 50


@pytest.mark.parametrize(("page", "words"), command_lines(), ids=lambda value: value if isinstance(value, str) else "")
def test_every_command_in_the_pages_exists_with_its_options(page: str, words: list[str]) -> None:
    command = generators("_reference").COMMANDS[words[0]]
    if words[1:] == ["--version"]:
        assert any("--version" in parameter.opts for parameter in command.params)
        return
    parse(command, words[0], words[1:])
    is_asked_for = words[3:4] and words[3] in SECRETS and not words[4:]
    if words[:3] == ["teale", "config", "set"] and not is_asked_for:
        key_named(words[3]).parse(words[4:])
