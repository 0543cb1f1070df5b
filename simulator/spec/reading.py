"""Reading descriptions of worlds from TOML, and changing single knobs of them by their path.

What is wrong is said with the file, the line and what was expected.
"""

import re
import tomllib
from pathlib import Path
from typing import Any, Final

import msgspec

from simulator.locating import with_choices
from simulator.spec.world_spec import WorldSpec, to_builtins


class SpecError(Exception):
    """A description that is not one; the text says where and what was expected."""


_STEP: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_-]*)|\[(\d+)\]|\.")
_AT: Final = re.compile(r"^(?P<what>.*?)(?: - at `\$\.?(?P<path>.*)`)?$", re.DOTALL)

TOML_BYTES_MAX: Final = 4 << 20


def read_toml(path: Path) -> WorldSpec:
    """Return the world that a file describes.

    Raises SpecError for a file that cannot be read, is not TOML or does not describe a world.
    """
    try:
        size = path.stat().st_size
        if size > TOML_BYTES_MAX:
            raise SpecError(f"{path}: {size} bytes are too many for a description; at most {TOML_BYTES_MAX}")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SpecError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SpecError(f"{path}: not UTF-8: {error.reason} at byte {error.start}") from error
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"{path}: not valid TOML: {error}") from error
    found.setdefault("name", path.stem)
    try:
        return msgspec.convert(found, WorldSpec)
    except msgspec.ValidationError as error:
        what, steps = parts_of(str(error))
        raise SpecError(f"{path}:{line_of(text, steps)}: {_said(what, steps)}") from error


def changed(spec: WorldSpec, path: str, value: Any) -> WorldSpec:
    """Return the description with one field set, as `populations[0].count` names it.

    Raises SpecError for a path that leads nowhere and for a value that the field does not take.
    """
    steps = steps_of(path)
    found = to_builtins(spec)
    place: Any = found
    for step in steps[:-1]:
        place = _below(place, step, path)
    last = steps[-1]
    _below(place, last, path)
    place[last] = value
    try:
        return msgspec.convert(found, WorldSpec)
    except msgspec.ValidationError as error:
        what, where = parts_of(str(error))
        raise SpecError(f"{path} = {value!r}: {_said(what, where)}") from error


def steps_of(path: str) -> list[str | int]:
    """Return `populations[0].count` as its steps; raises SpecError for anything else."""
    steps: list[str | int] = []
    at = 0
    while at < len(path):
        step = _STEP.match(path, at)
        if step is None:
            raise SpecError(f"{path!r} is not the path of a field, such as populations[0].count")
        if step[1]:
            steps.append(step[1])
        elif step[2]:
            steps.append(int(step[2]))
        at = step.end()
    if not steps:
        raise SpecError("the path of a field is empty")
    return steps


def line_of(text: str, steps: list[str | int]) -> int:
    """Return the number of the line in a TOML text that holds the field, or the nearest one above it.

    It knows headers, arrays of tables and plain keys; what is written in other ways is found one level higher.
    """
    best, depth = 1, 0
    table: list[str | int] = []
    counts: dict[tuple[str | int, ...], int] = {}
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if line.startswith("["):
            table = _placed(_keys(line.split("#")[0].strip("[] ")), counts, is_array=line.startswith("[["))
            here = table
        elif "=" in line and not line.startswith("#"):
            here = [*table, *_keys(line.split("=", 1)[0])]
        else:
            continue
        if here == steps[: len(here)] and len(here) > depth:
            best, depth = number, len(here)
    return best


def _placed(keys: list[str | int], counts: dict[tuple[str | int, ...], int], *, is_array: bool) -> list[str | int]:
    """Return the path of a table, with the number of each element of an array of tables that it passes."""
    place: list[str | int] = []
    for position, key in enumerate(keys):
        place.append(key)
        known = tuple(place)
        if is_array and position == len(keys) - 1:
            counts[known] = counts.get(known, -1) + 1
        if known in counts:
            place.append(counts[known])
    return place


def _keys(dotted: str) -> list[str | int]:
    return [key.strip().strip("\"'") for key in dotted.split(".")]


def _below(place: Any, step: str | int, path: str) -> Any:
    """Return what is one step below, where an unset table becomes an empty one."""
    if isinstance(place, list) and isinstance(step, int):
        if step >= len(place):
            raise SpecError(f"{path}: there is no such field: the list holds {len(place)}, counted from 0")
        return place[step]
    if isinstance(place, dict) and isinstance(step, str):
        if place.get(step) is None:
            place[step] = {}
        return place[step]
    raise SpecError(f"{path}: there is no such field")


def parts_of(message: str) -> tuple[str, list[str | int]]:
    """Return what a complaint of msgspec's says, and the path of the field that it is about."""
    match = _AT.match(message)
    assert match is not None
    path = match["path"]
    # An ellipsis stands for a key of any dict, which has no place of its own in the text.
    steps = steps_of(path.replace("[...]", "")) if path else []
    return match["what"], steps


def _said(what: str, steps: list[str | int]) -> str:
    return with_choices(f"{what}{_named(steps)}", WorldSpec, steps_of)


def _named(steps: list[str | int]) -> str:
    shown = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
    return f", at `{shown.lstrip('.')}`" if shown else ""
