"""Markdown out of values: tables, and the docstrings that the code has under its constants and fields."""

import ast
import inspect
from collections.abc import Iterable, Sequence
from functools import cache
from types import ModuleType
from typing import Any

from teale_proto.contract import MILLISECOND, SECOND, Duration


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; cells may hold Markdown, and bars in them are escaped."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def code(value: object) -> str:
    """Return a value as inline code, "" as nothing."""
    text = str(value)
    return f"`{text}`" if text else ""


def sentence(text: str) -> str:
    """Return a docstring's text on one line, with a full stop and its names as Markdown has them."""
    joined = " ".join(text.split())
    return joined if not joined or joined[-1] in ".:!?" else joined + "."


@cache
def documented(where: type[Any] | ModuleType) -> dict[str, str]:
    """Return the docstring under each field, member or constant of a class or module, "" where there is none."""
    body = _body(where)
    found = {}
    for statement, follower in zip(body, [*body[1:], None], strict=True):
        for name in _assigned(statement):
            found[name] = sentence(inspect.cleandoc(_text(follower)))
    return found


def constants(module: ModuleType) -> dict[str, int]:
    """Return the public integer constants that a module itself declares."""
    return {
        name: value
        for name in documented(module)
        if name.isupper() and not name.startswith("_") and type(value := getattr(module, name)) is int
    }


@cache
def annotations(where: type[Any] | ModuleType) -> dict[str, str]:
    """Return the annotations of a class or module as they are written: a Duration is an int only to Python."""
    return {
        statement.target.id: ast.unparse(statement.annotation)
        for statement in _body(where)
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
    }


def duration(value: Duration) -> str:
    """Return a duration for people: `15 s`, `100 ms`."""
    if value % SECOND == 0:
        return f"{value // SECOND} s"
    return f"{value / MILLISECOND:g} ms"


def number(value: int) -> str:
    """Return a count for people, with thousands apart from 10 000 on."""
    return f"{value:,}".replace(",", " ") if value >= 10_000 else str(value)


def size(value: int) -> str:
    """Return a number of bytes for people: `8 MiB`, `65 535 bytes`."""
    if value >= 1 << 20 and value % (1 << 20) == 0:
        return f"{value >> 20} MiB"
    if value >= 1 << 10 and value % (1 << 10) == 0:
        return f"{value >> 10} KiB"
    return f"{number(value)} bytes"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _body(where: type[Any] | ModuleType) -> list[ast.stmt]:
    body = ast.parse(inspect.cleandoc("\n" + inspect.getsource(where))).body
    if isinstance(where, ModuleType):
        return body
    definition = body[0]
    assert isinstance(definition, ast.ClassDef)
    return definition.body


def _assigned(statement: ast.stmt) -> list[str]:
    targets = (
        statement.targets
        if isinstance(statement, ast.Assign)
        else [statement.target]
        if isinstance(statement, ast.AnnAssign)
        else []
    )
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _text(statement: ast.stmt | None) -> str:
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        value = statement.value.value
        return value if isinstance(value, str) else ""
    return ""
