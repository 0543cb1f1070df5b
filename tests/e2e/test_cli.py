"""The command `teale`, as a person uses it: a folder, a relay somewhere, and another person's node behind it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.harness import (
    QUESTION,
    ROOT,
    SAFETY_SECONDS,
    SENTENCE,
    TINY,
    Node,
    Stage,
    environ_of,
    eventually,
    write_config,
)


class Person:
    """Types commands, in a home of their own; a context that ends the node which they have left running."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def __enter__(self) -> "Person":
        return self

    def __exit__(self, *_: object) -> None:
        # Only of a failed test is there one left. It is not our child, so its number comes from its own file.
        with suppress(FileNotFoundError, psutil.Error):
            psutil.Process(json.loads((self.home / "node.json").read_text())["pid"]).kill()

    def runs(self, *words: str, typing: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command; what is typed is piped in."""
        return subprocess.run(
            [sys.executable, "-m", "teale_io.cli", *words],
            input=typing,
            capture_output=True,
            text=True,
            timeout=SAFETY_SECONDS,
            cwd=ROOT,
            env=environ_of(self.home),
            check=False,
        )

    def sees(self, *words: str, typing: str = "") -> str:
        """Return what a command prints, which ends well."""
        done = self.runs(*words, typing=typing)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        assert "Warning" not in done.stderr
        return done.stdout

    def reads(self, *words: str) -> Any:
        """Return what a command prints as JSON, which is all that it prints."""
        return json.loads(self.sees(*words, "--json"))


@pytest.fixture
def person(tmp_path: Path) -> Iterator[Person]:
    with Person(tmp_path / "person") as somebody:
        yield somebody


@pytest.fixture
def server(stage: Stage) -> Node:
    """A node with the tiny model, registered at a relay."""
    relay = stage.relay()
    node = stage.node("server", builtin_model=True, wan_enabled=True, wan_relay_url=relay.url)
    relay.wait_for_nodes(node, model=TINY)
    return node


def relay_url_of(node: Node) -> str:
    url: str = node.get("/api/status")["wan_relay_url"]
    return url


def test_a_person_sets_a_node_up_asks_somebody_elses_model_and_stops_it(person: Person, server: Node) -> None:
    assert person.runs("status").returncode == 3
    settings = {"identity_storage": "plain-file", "api_port": "0", "lan_enabled": "false", "wan_enabled": "true"}
    for name, value in {**settings, "wan_relay_url": relay_url_of(server)}.items():
        person.sees("config", "set", name, value)

    assert "The node is up." in person.sees("up")
    assert "already running" in person.sees("up")
    shown = eventually(lambda: connected(person.sees("status")), "teale status says that the relay is connected")
    assert f"node id: {person.reads('id')['node_id']}" in shown

    eventually(lambda: person.reads("models")["models"], "teale models knows one")
    assert TINY in person.sees("models")
    assert "server" in person.sees("peers", "--wan")
    assert "server" not in person.sees("peers", "--lan")

    assert person.sees("chat", "--temperature", "0", QUESTION) == f"{SENTENCE}\n"
    assert person.sees("chat", "--model", TINY, "--temperature", "0", typing=QUESTION) == f"{SENTENCE}\n"
    told = person.reads("chat", "--temperature", "0", QUESTION)
    assert (told["text"], told["served_by"], told["path"]) == (SENTENCE, server.id, "relay")
    explained = person.sees("route", "--explain", TINY)
    assert "->" in explained
    assert server.id[:16] in explained
    assert person.runs("chat", "--model", "no-such-model", "hello").returncode == 4

    pid = json.loads((person.home / "node.json").read_text())["pid"]
    assert "The node has stopped." in person.sees("down")
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    assert not (person.home / "node.json").exists()
    assert "No node is running here." in person.sees("down")
    assert person.runs("chat", "hello").returncode == 3


def connected(shown: str) -> str:
    return shown if "wan: connected" in shown else ""


def test_a_node_that_cannot_start_is_told_with_its_reason_and_an_exit_code(person: Person) -> None:
    write_config(person.home)
    person.sees("up")
    person.sees("down")
    (person.home / "identity.key").write_text("garbage")
    failed = person.runs("up")
    assert failed.returncode == 8
    assert "is damaged" in failed.stderr
    assert failed.stdout == ""
    (person.home / "config.toml").write_text("lan_port = 'no number'\n")
    assert person.runs("up").returncode == 7
