"""The table of the threat model names tests; they exist, and hold what they promise by running elsewhere."""

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "explanation" / "threat-model.md"
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
WHO = (
    "Curious relay",
    "Malicious relay",
    "LAN listener",
    "LAN stranger",
    "Hostile peer",
    "The node that answers you",
    "The node that asks you",
    "A web page",
    "Another user of the machine",
    "A stolen disk",
)


@cache
def names_in(path: str) -> set[str]:
    """Return the names that a test file defines at its top, be they functions, classes or variables."""
    names: set[str] = set()
    for node in ast.parse((ROOT / path).read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names.update(target.id for target in node.targets if isinstance(target, ast.Name))
    return names


def rows() -> list[list[str]]:
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def test_every_test_that_the_threat_model_names_exists() -> None:
    named = NAMED.findall(PAGE.read_text())
    assert len(named) > 40
    missing = [f"{path}::{name}" for path, name in named if not (ROOT / path).is_file() or name not in names_in(path)]
    assert missing == []


def test_every_row_says_what_can_be_done_what_cannot_and_what_shows_it() -> None:
    for row in rows():
        assert len(row) == 4, row
        _, can, cannot, shown = row
        assert can, row
        assert cannot, row
        assert NAMED.search(shown), row


def test_everybody_who_should_be_in_the_table_is() -> None:
    page = PAGE.read_text()
    assert [who for who in WHO if f"**{who}**" not in page] == []
