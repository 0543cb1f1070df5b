"""What a core was fed and what it answered, step by step; fed to a new core it must be answered alike (law 7)."""

from collections.abc import Iterable
from typing import Any, NamedTuple, TypeAlias

from teale_proto.contract import Core, Instant, Value

AnyCore: TypeAlias = Core[Any, Value]
"""A node or a relay. What it can be fed differs, and only scenarios, which know which it is, choose inputs."""


class Step(NamedTuple):
    """One line of a journal: what a core was fed, and what it answered."""

    now: Instant
    """By the host's own clock."""
    event: Value
    effects: tuple[Value, ...]


def replay(steps: Iterable[Step], core: AnyCore) -> list[str]:
    """Feed a journal to a new core and return how its answers differ; an empty list means law 7 holds."""
    differences = []
    for number, step in enumerate(steps):
        effects = tuple(core.handle(step.event, step.now))
        if effects != step.effects:
            differences.append(
                f"step {number} at {step.now} µs, {type(step.event).__name__}: {effects} != {step.effects}"
            )
    return differences
