"""Profiles of machines as TOML files: written with comments, read with errors that name the line."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import tomlkit
from tomlkit.items import Table

from simulator.costs import MachineProfile
from simulator.locating import closer, with_choices
from simulator.spec.reading import TOML_BYTES_MAX, SpecError, line_of, parts_of, steps_of

DIGITS: Final = 5
"""Significant digits of what is written: more was not measured."""


def read_costs(path: Path) -> MachineProfile:
    """Return the profile in a file; raises SpecError, with the line, for what is none."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SpecError(f"{path}: {error.strerror}") from error
    if len(data) > TOML_BYTES_MAX:
        raise SpecError(f"{path}: {len(data)} bytes are too many for a profile; at most {TOML_BYTES_MAX}")
    try:
        text = data.decode()
        found = tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise SpecError(f"{path}: not UTF-8: {error.reason} at byte {error.start}") from error
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"{path}: not valid TOML: {error}") from error
    if "relay" not in found or "node" not in found:
        raise SpecError(
            f"{path}:1: expected the profile of a machine, with [relay] and [node], as `teale-sim calibrate` writes it"
        )
    try:
        return msgspec.convert(found, MachineProfile)
    except msgspec.ValidationError as error:
        what, steps = parts_of(str(error))
        shown = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).lstrip(".")
        said = with_choices(f"{what}, at `{shown}`" if shown else what, MachineProfile, steps_of)
        raise SpecError(closer(f"{path}:{line_of(text, steps)}: {said}", text)) from error


def toml_of(profile: MachineProfile, *, heading: str = "", notes: Mapping[str, str] | None = None) -> str:
    """Return a profile as TOML, with a heading in comments and what is said of single fields."""
    document = tomlkit.document()
    for line in heading.splitlines():
        document.add(tomlkit.comment(line) if line else tomlkit.nl())
    if heading:
        document.add(tomlkit.nl())
    members = {key: value for key, value in msgspec.to_builtins(profile).items() if value is not None}
    # What is a table must come after what is none.
    for key, value in sorted(members.items(), key=lambda item: isinstance(item[1], dict)):
        document.add(key, _table(value, key, notes or {}) if isinstance(value, dict) else value)
    return tomlkit.dumps(document)


def _table(members: Mapping[str, Any], path: str, notes: Mapping[str, str]) -> Table:
    table = tomlkit.table()
    for key, value in members.items():
        table.add(key, _item(value))
        note = notes.get(f"{path}.{key}")
        if note and not isinstance(value, list | tuple):
            table[key].comment(note)
    return table


def _item(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        inline = tomlkit.inline_table()
        inline.update({key: _item(each) for key, each in value.items()})
        return inline
    if isinstance(value, list | tuple):
        array = tomlkit.array()
        array.extend([_item(each) for each in value])
        return array.multiline(bool(value))
    return value
