"""Every test of QUIC runs with each of the libraries that are installed."""

import importlib.util

import pytest

from teale_io.quic.stack import PREFERRED, Stack


@pytest.fixture(params=[name for name in PREFERRED if importlib.util.find_spec(name)])
def stack(request: pytest.FixtureRequest) -> Stack:
    return Stack(request.param)
