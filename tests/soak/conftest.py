"""Keeps the campaigns out of every run that did not ask for them with `-m soak`."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import stage

__all__ = ["stage"]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "soak" in (config.option.markexpr or ""):
        return
    ours = [item for item in items if item.get_closest_marker("soak")]
    if ours:
        config.hook.pytest_deselected(items=ours)
        items[:] = [item for item in items if item not in ours]


@pytest.fixture
def commit() -> str:
    """Return the commit that is being tested, so that a failure can be repeated."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "unknown"


def minutes(name: str, default: float) -> float:
    """Return how long a campaign lasts, in minutes, from the environment."""
    return float(os.environ.get(name, default))
