"""A stage for every test; when one fails, what the programs on stage have logged is printed."""

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.e2e.harness import Stage

LOG_CHARACTERS_SHOWN = 6000


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        for program in (program for stage in Stage.open for program in stage.programs):
            report.sections.append((f"{program.name} ({program.pid})", program.log[-LOG_CHARACTERS_SHOWN:]))
    return report


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with Stage(tmp_path) as opened:
        yield opened
