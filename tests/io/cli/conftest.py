"""A home folder, the `teale` command in it, and a node that it talks to."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keyring
import pytest
from click.testing import CliRunner
from keyring.backend import KeyringBackend
from keyring.backends import fail

from teale_io.cli.app import App
from teale_io.cli.main import teale
from teale_io.paths import Paths, Runtime, write_runtime
from tests.io.cli.fake_node import FakeNode
from tests.io.status import ALICE


class Ended:
    """How a command ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err

    @property
    def document(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.out)


Teale = Callable[..., Ended]


@pytest.fixture(autouse=True)
def no_keychain() -> Iterator[None]:
    former = keyring.get_keyring()
    nothing: type[KeyringBackend] = fail.Keyring
    keyring.set_keyring(nothing())
    yield
    keyring.set_keyring(former)


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths.below(tmp_path / "home")


@pytest.fixture
def teale_command(paths: Paths) -> Teale:
    def run(*words: str, stdin: str | None = None, environ: dict[str, str] | None = None) -> Ended:
        app = App(environ={"TEALE_HOME": str(paths.home), **(environ or {})})
        result = CliRunner().invoke(teale, list(words), input=stdin, obj=app)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return Ended(result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture
def node(paths: Paths) -> Iterator[FakeNode]:
    fake = FakeNode()
    with fake.serving() as port:
        write_runtime(paths, Runtime(os.getpid(), "127.0.0.1", port, ALICE))
        yield fake
