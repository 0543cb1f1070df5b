"""A LAN with a passcode: those who have it meet, a node with another one and a node with none stay outside."""

import json
import subprocess
import sys

import pytest

from tests.e2e.harness import QUESTION, ROOT, SENTENCE, Node, Stage, environ_of, eventually
from tests.e2e.namespaces import Lan, place

PASSCODE = "correct horse battery"


@pytest.fixture
def machines() -> list[str]:
    return ["alice", "bob", "carol", "dave"]


def test_only_those_with_the_passcode_meet_and_nobody_says_it(stage: Stage, machines: list[str]) -> None:
    settings_of: dict[str, dict[str, object]] = {
        "alice": {"lan_passcode": PASSCODE},
        "bob": {"lan_passcode": PASSCODE, "builtin_model": True},
        "carol": {"lan_passcode": "staple staple", "builtin_model": True},
        "dave": {"builtin_model": True},
    }
    with Lan(*machines) as lan, place(lan, stage, settings_of) as (alice, bob, carol, dave):
        alice.wait_for_peers(bob, model="teale-tiny")
        assert alice.chat(QUESTION).text == SENTENCE
        # It "has" none where he was dialled, and "offers" none where he dialled; the ids decide which.
        eventually(lambda: "no LAN passcode, and lan_join is passcode here" in alice.log + bob.log, "dave was refused")
        eventually(lambda: "wrong LAN passcode" in carol.log, "carol was refused, and knows why")
        eventually(lambda: "asks for the LAN passcode" in dave.log, "dave knows why")
        assert set(alice.peers()) == {bob.id}
        assert not carol.peers()
        assert not dave.peers()
        assert [node.get("/api/status")["lan_join"] for node in (alice, dave)] == ["passcode", "open"]
        for node in (alice, bob, carol):
            assert_silent(node)


def assert_silent(node: Node) -> None:
    shown = subprocess.run(
        [sys.executable, "-c", "from teale_io.cli.main import main; main()", "config", "list", "--json"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env=environ_of(node.home),
    ).stdout
    values = {key["key"]: key["value"] for key in json.loads(shown)["keys"]}
    assert values["lan_passcode"] == "(set)"
    for text in (shown, node.log, json.dumps(node.get("/api/status"))):
        assert PASSCODE not in text
        assert "staple staple" not in text
