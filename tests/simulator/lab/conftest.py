"""Skips what needs a kernel that lets us make an internet, where it does not."""

from collections.abc import Iterator

import pytest

from simulator.lab.internet import Internet
from simulator.lab.privileges import missing


@pytest.fixture(scope="session")
def means() -> None:
    """Skip where no lab can be run."""
    if lacking := missing():
        pytest.skip(f"the lab needs {'; '.join(lacking)}")


@pytest.fixture
def net(means: None) -> Iterator[Internet]:
    """Return an internet that is not started yet."""
    with Internet(seed=1) as internet:
        yield internet
