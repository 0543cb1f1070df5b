"""Where in the file of a scenario the thing stands that an error is about.

What reads a description says which field it does not take; a person wants the line. In TOML the nearest line that
names the culprit is looked for. In Python the file is parsed, and what it writes down for the values of a
description is held against their types, one by one, so that the first that does not fit is found where it stands.
"""

import ast
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any, Final, NamedTuple, get_args

import msgspec

_NAMED: Final = re.compile(
    r"(?:Object contains unknown field )?`(?P<field>\w+)`(?:: no '(?P<culprit>[^']+)'|.*? '(?P<host>[^']+)')?"
)
_UNKNOWN: Final = re.compile(r"Object contains unknown field `\w+`(?:, at `(?P<path>[^`]*)`)?$")
_PLACED: Final = re.compile(r"^(?P<file>.*?):(?P<line>\d+): (?P<what>.*)$", re.DOTALL)


class Complaint(NamedTuple):
    """What is wrong, and on which line."""

    line: int
    what: str


def closer(message: str, text: str) -> str:
    """Return a `file:line: what` with the line moved down to the field or value that `what` names, where it can be."""
    placed = _PLACED.match(message)
    named = _NAMED.match(placed["what"]) if placed is not None else None
    if placed is None or named is None:
        return message
    lines = text.splitlines()
    below = range(int(placed["line"]) - 1, len(lines))
    # The culprit itself, as a value or as a key; else the field that it is in.
    culprit = re.escape(named["culprit"] or named["host"] or "")
    looks = [rf"[\"']{culprit}[\"']", rf"(^|[{{,.\s]){culprit}\s*="] if culprit else []
    looks.append(rf"^\s*(\[+\s*)?[\"']?{named['field']}[\"']?\s*[\]=.]")
    for look in looks:
        for number in below:
            if re.search(look, lines[number]):
                return f"{placed['file']}:{number + 1}: {placed['what']}"
    return message


def with_fields(message: str, kind: type[msgspec.Struct], steps_of: Callable[[str], Sequence[str | int]]) -> str:
    """Return the message about a field that is not there with those that are, where that is clear.

    `kind` is what the whole text describes, and `steps_of` splits the path in the message.
    """
    unknown = _UNKNOWN.search(message)
    if unknown is None:
        return message
    found: Any = kind
    for step in steps_of(unknown["path"]) if unknown["path"] else ():
        found = _below(found, step)
    kinds = _structs(found)
    if len(kinds) != 1:
        return message
    return f"{message}; there are: {', '.join(field.name for field in msgspec.structs.fields(kinds[0]))}"


def _below(kind: Any, step: str | int) -> Any:
    """Return the type of what a step leads to, or None where that is not clear."""
    if isinstance(step, int):
        inner = [each for each in get_args(kind) if each is not Ellipsis]
        return inner[0] if inner else None
    kinds = _structs(kind)
    fields = msgspec.structs.fields(kinds[0]) if len(kinds) == 1 else ()
    return next((field.type for field in fields if field.name == step), None)


def _structs(kind: Any) -> list[type[msgspec.Struct]]:
    """Return the structures that a type allows, itself or as parts of a union."""
    return [each for each in (kind, *get_args(kind)) if inspect.isclass(each) and issubclass(each, msgspec.Struct)]


def complaint_about(text: str, modules: Mapping[str, ModuleType]) -> Complaint | None:
    """Return the first value in a Python text that a field of a description does not take.

    `modules` are those whose classes make up descriptions. Only what is written out as a literal is looked at.
    """
    kinds = {
        name: kind
        for module in modules.values()
        for name, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, msgspec.Struct) and kind.__module__ in modules
    }
    calls = sorted(_calls(ast.parse(text), kinds), key=lambda each: each[0].lineno)
    for call, kind in calls:
        complaint = _complaint_about_call(call, kind)
        if complaint is not None:
            return complaint
    return None


def _calls(tree: ast.AST, kinds: Mapping[str, type[msgspec.Struct]]) -> Iterator[tuple[ast.Call, type[msgspec.Struct]]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            function = node.func
            name = function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")
            if name in kinds:
                yield node, kinds[name]


def _complaint_about_call(call: ast.Call, kind: type[msgspec.Struct]) -> Complaint | None:
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    given = dict(zip(fields, call.args, strict=False))
    for keyword in call.keywords:
        if keyword.arg is not None and keyword.arg not in fields:
            there_are = ", ".join(fields)
            return Complaint(keyword.value.lineno, f"{kind.__name__} has no field `{keyword.arg}`; it has {there_are}")
        if keyword.arg is not None:
            given[keyword.arg] = keyword.value
    for name, node in given.items():
        try:
            value: Any = ast.literal_eval(node)
        except ValueError:
            continue
        try:
            msgspec.convert(value, fields[name].type)
        except msgspec.ValidationError as error:
            return Complaint(node.lineno, f"`{name}` of {kind.__name__}: {error}")
    return None
