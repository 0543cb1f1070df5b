"""Where in the file of a scenario the thing stands that an error is about.

What reads a description says which field it does not take; a person wants the line. In TOML the nearest line that
names the culprit is looked for. In Python the file is parsed, and what it writes down for the values of a
description is held against their types, one by one, so that the first that does not fit is found where it stands.
"""

import ast
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from types import ModuleType
from typing import Any, Final, NamedTuple, get_args

import msgspec

_NAMED: Final = re.compile(
    r"(?:Object contains unknown field )?`(?P<field>\w+)`(?:: no '(?P<culprit>[^']+)'|.*? '(?P<host>[^']+)')?"
)
_UNKNOWN: Final = re.compile(r"Object contains unknown field `\w+`(?:, at `(?P<path>[^`]*)`)?$")
_CHOICE: Final = re.compile(r"Invalid (?:enum )?value '[^']*'(?:, at `(?P<path>[^`]*)`)?$")
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
    looks.append(rf"[{{,]\s*[\"']?{named['field']}[\"']?\s*[=.]")
    for look in looks:
        for number in below:
            if re.search(look, lines[number]):
                return f"{placed['file']}:{number + 1}: {placed['what']}"
    return message


def with_choices(message: str, kind: Any, steps_of: Callable[[str], Sequence[str | int]]) -> str:
    """Return the message about a field, or a word, that there is not with those that there are, where that is clear.

    `kind` is what the whole text describes, and `steps_of` splits the path in the message.
    """
    unknown, choice = _UNKNOWN.search(message), _CHOICE.search(message)
    found = unknown or choice
    if found is None:
        return message
    steps = list(steps_of(found["path"])) if found["path"] else []
    choices = _fields(_at(kind, steps)) if unknown else _words(_at(kind, steps)) or _tags(_at(kind, steps[:-1]), steps)
    return f"{message}; there are: {', '.join(choices)}" if choices else message


def _at(kind: Any, steps: Sequence[str | int]) -> Any:
    for step in steps:
        kind = _below(kind, step)
    return kind


def _fields(kind: Any) -> list[str]:
    kinds = _structs(kind)
    return [field.name for field in msgspec.structs.fields(kinds[0])] if len(kinds) == 1 else []


def _words(kind: Any) -> list[str]:
    """Return the values of an enumeration."""
    enums = [each for each in (kind, *get_args(kind)) if inspect.isclass(each) and issubclass(each, Enum)]
    return [str(member.value) for each in enums for member in each]


def _tags(kind: Any, steps: Sequence[str | int]) -> list[str]:
    """Return the words that tell the structures of a union apart, where the last step leads to such a word."""
    configs = [each.__struct_config__ for each in _structs(kind)]
    return [str(config.tag) for config in configs if steps and config.tag_field == steps[-1]]


def _below(kind: Any, step: str | int) -> Any:
    """Return the type of what a step leads to, or None where that is not clear."""
    if isinstance(step, int):
        inner = [each for each in get_args(kind) if each is not Ellipsis]
        return inner[0] if inner else None
    types = [field.type for each in _structs(kind) for field in msgspec.structs.fields(each) if field.name == step]
    return types[0] if types and all(each == types[0] for each in types) else None


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
            said = with_choices(str(error), fields[name].type, lambda _: ())
            return Complaint(node.lineno, f"`{name}` of {kind.__name__}: {said}")
    return None
