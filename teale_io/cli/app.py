"""What all commands share: where the node's files are, where output goes, and the way to the running node."""

import os
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from teale_io.cli.client import NodeApi
from teale_io.cli.exits import CliError, Exit
from teale_io.cli.output import Output
from teale_io.cli.process import NODE_COMMAND, find_node
from teale_io.config import load_config
from teale_io.keychain import load_or_create_identity, passphrase_from, read_marker
from teale_io.paths import Paths
from teale_proto.secure.identity import Identity

F = TypeVar("F", bound=Callable[..., Any])


class App:
    """One invocation of `teale`."""

    def __init__(
        self,
        *,
        paths: Paths | None = None,
        environ: Mapping[str, str] | None = None,
        node_command: Sequence[str] = NODE_COMMAND,
    ) -> None:
        self.environ: dict[str, str] = dict(os.environ if environ is None else environ)
        self.paths = paths or Paths.find(self.environ)
        self.node_command = tuple(node_command)
        self.out = Output()
        self._passphrase: str | None = None

    @contextmanager
    def node_api(self) -> Iterator[NodeApi]:
        """Connect to the running node; raises CliError where there is none, or it is silent."""
        found = find_node(self.paths)
        if found is None:
            raise CliError(Exit.NOT_RUNNING, "No node is running here. Start one with: teale up")
        if not found.is_answering:
            raise CliError(
                Exit.REQUEST_FAILED,
                f"A node is running (process {found.runtime.pid}), but does not answer at {found.runtime.api_url}. "
                "Wait a moment, or restart it: teale down, teale up",
            )
        with NodeApi(found.runtime.api_url) as api:
            yield api

    def identity(self) -> Identity:
        """Return this node's identity, made now where there is none; asks for a passphrase on a terminal."""
        storage = load_config(self.paths.config_file).identity_storage
        return load_or_create_identity(
            self.paths, storage, passphrase=self._ask_passphrase, entropy=random.SystemRandom()
        )

    def node_environ(self) -> dict[str, str]:
        """Return the environment of the node's process, with the passphrase that was typed, if one was."""
        environ = dict(self.environ)
        if "TEALE_HOME" in environ:
            environ["TEALE_HOME"] = str(self.paths.home)  # which may have been relative to where we are
        if self._passphrase:
            environ["TEALE_PASSPHRASE"] = self._passphrase
        return environ

    def _ask_passphrase(self) -> str:
        given = passphrase_from(self.environ)
        if given or self.out.as_json or not sys.stdin.isatty():
            return given
        is_new = read_marker(self.paths) is None and not self.paths.identity_secret.exists()
        if is_new:
            self.out.note("The node's secret key is going to be kept in a file, encrypted under a passphrase.")
        question = "Passphrase for the new secret key" if is_new else "Passphrase"
        self._passphrase = str(click.prompt(question, hide_input=True, confirmation_prompt=is_new, err=True))
        return self._passphrase


def json_option(command: F) -> F:
    """Give a command `--json`."""

    def switch(context: click.Context, _parameter: click.Parameter, is_on: bool) -> None:
        if is_on:
            context.ensure_object(App).out.as_json = True

    return click.option(
        "--json", is_flag=True, is_eager=True, expose_value=False, callback=switch, help="Print one JSON document."
    )(command)


pass_app = click.make_pass_decorator(App)
