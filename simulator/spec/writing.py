"""Writing descriptions of worlds as TOML, so that what was drawn or turned can be read, kept and run again."""

from typing import Any

import tomlkit

from simulator.spec.world_spec import WorldSpec, to_builtins


def toml_of(spec: WorldSpec) -> str:
    """Return a description as TOML."""
    return tomlkit.dumps(_without_none(to_builtins(spec)))


def _without_none(value: Any) -> Any:
    """Return what TOML can hold, which has no word for nothing: a key that is missing is as good."""
    if isinstance(value, dict):
        return {key: _without_none(each) for key, each in value.items() if each is not None}
    if isinstance(value, list | tuple):
        return [_without_none(each) for each in value]
    return value
