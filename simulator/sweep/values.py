"""Values as people type them: `--set path=value` and `--vary path=value,value`.

A value is what TOML would read: 10, 0.5, true, "text", [1, 2], {a = 1}. What TOML cannot read is taken as plain text,
so that `access=home` needs no quotes in the shell.
"""

import json
import tomllib
from collections.abc import Sequence
from typing import Any, Final

from teale_proto.contract import Value

VALUES_MAX: Final = 1000
"""Values of one axis."""


class Axis(Value):
    """A knob, and the values that it takes one after the other."""

    path: str
    values: tuple[Any, ...]


def setting_of(text: str) -> tuple[str, Any]:
    """Return a `path=value` as the path and the value; raises ValueError."""
    path, typed = _parts(text, "path=value")
    return path, _value(typed)


def axis_of(text: str) -> Axis:
    """Return a `path=value,value,…` as an axis; raises ValueError."""
    path, typed = _parts(text, "path=value,value")
    values = _values(typed)
    if len(values) > VALUES_MAX:
        raise ValueError(f"{path}: {len(values)} values are too many; at most {VALUES_MAX}")
    if len({repr(value) for value in values}) < len(values):
        raise ValueError(f"{path}: a value is there twice in {typed}")
    return Axis(path, values)


def shown(value: object) -> str:
    """Return a value for a cell of a table: short, and text without quotes."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {shown(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(shown(each) for each in value) + "]"
    return str(value)


def typed(value: object) -> str:
    """Return what has to be typed for a value, so that `setting_of` gives it back."""
    # Text in quotes where without them it would be something else.
    bare = shown(value)
    return bare if isinstance(value, str) and bare and repr(_value(bare)) == repr(value) else _toml_of(value)


def typed_all(values: Sequence[object]) -> str:
    """Return what has to be typed for the values of an axis, so that `axis_of` gives them back."""
    bare = ",".join(map(typed, values))
    return bare if repr(_values(bare)) == repr(tuple(values)) else ",".join(map(_toml_of, values))


def _toml_of(value: object) -> str:
    if isinstance(value, str):
        # What JSON escapes, TOML reads; but TOML wants one more character escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml_of(str(key))} = {_toml_of(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml_of, value)) + "]"
    return shown(value)


def _values(typed: str) -> tuple[Any, ...]:
    try:
        return tuple(_toml(f"[{typed}]"))
    except tomllib.TOMLDecodeError:
        return tuple(map(_value, typed.split(",")))


def _parts(text: str, form: str) -> tuple[str, str]:
    path, equals, typed = text.partition("=")
    path, typed = path.strip(), typed.strip()
    if not (path and equals and typed):
        raise ValueError(f"{text!r} is not of the form {form}")
    return path, typed


def _value(typed: str) -> Any:
    try:
        return _toml(typed)
    except tomllib.TOMLDecodeError:
        return typed.strip()


def _toml(typed: str) -> Any:
    # Newlines and comments would smuggle further keys in, which `x` alone does not show.
    found = tomllib.loads(f"x = {typed}")
    if found.keys() != {"x"}:
        raise tomllib.TOMLDecodeError(f"{typed!r} is more than one value")
    return found["x"]
