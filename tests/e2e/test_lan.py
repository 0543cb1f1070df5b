"""Nodes on machines of their own, on one bridge, with no relay anywhere: they meet by mDNS."""

import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import as_file, files

import pytest

from tests.e2e.harness import QUESTION, SAFETY_SECONDS, SENTENCE, TINY, Node, Stage
from tests.e2e.namespaces import Lan, place

MEETING_SECONDS = 5
"""What the project promises: two nodes on one LAN know each other within this time of both being up."""

CAROLS = "carols-own"


@pytest.fixture
def lan() -> Iterator[Lan]:
    with Lan("alice", "bob", "carol") as made:
        yield made


@pytest.fixture
def nodes(lan: Lan, stage: Stage) -> Iterator[list[Node]]:
    """A node without a model, one with the tiny model, and one with a copy of it that has another name."""
    home = stage.home("carol")
    home.mkdir()
    with as_file(files("teale_io.inference") / "tiny.gguf") as tiny:
        shutil.copy(tiny, home / f"{CAROLS}.gguf")
    settings_of: dict[str, dict[str, object]] = {
        "alice": {},
        "bob": {"builtin_model": True},
        "carol": {"gguf_models": [f"{CAROLS}.gguf"]},
    }
    with place(lan, stage, settings_of) as placed:
        yield placed


def test_nodes_meet_answer_each_other_and_are_missed_when_they_die_or_fall_silent(lan: Lan, nodes: list[Node]) -> None:
    alice, bob, carol = nodes
    alice.wait_for_peers(bob, carol)
    bob.wait_for_peers(alice, carol)
    carol.wait_for_peers(alice, bob)
    # The one limit here that is no safety net, since it was promised. It takes a quarter of it on a quiet machine.
    assert time.time() - max(map(up_at, nodes)) < MEETING_SECONDS
    alice.wait_for_peers(bob, model=TINY)
    alice.wait_for_peers(carol, model=CAROLS)

    for server, model in ((bob, TINY), (carol, CAROLS)):
        reply = alice.chat(QUESTION, model=model)
        assert (reply.text, reply.is_done) == (SENTENCE, True)
        assert (reply.served_by, reply.path, reply.attempts) == (server.id, "lan", "1")
    peers = alice.peers()
    assert {(peer["path"], peer["state"]) for peer in peers.values()} == {("lan", "connected")}
    assert all(peer["encryption"].startswith("Noise_XX_25519_") for peer in peers.values())
    assert alice.get("/api/status")["wan"] == "off"

    with alice.follow() as events, ThreadPoolExecutor(1) as pool:
        # A killed process closes its connections, so that no heartbeat has to be missed.
        bob.kill()
        lost = events.wait_for("ReportPeer", node=bob.id, state="lost")
        assert "heartbeat" not in lost["reason"]
        asked_of_nobody = pool.submit(alice.chat, QUESTION)

        # A machine that loses its cable says nothing at all, and neither does the network.
        lan.cut("carol")
        events.wait_for("ReportPeer", node=carol.id, state="degraded")
        lost = events.wait_for("ReportPeer", node=carol.id, state="lost")
        assert lost["reason"] == "three heartbeats missed"
        assert alice.peers() == {}

        refused = asked_of_nobody.result(SAFETY_SECONDS)
        assert refused.status in (404, 503)
        assert refused.error is not None
        assert TINY in refused.error["message"]

    lan.mend("carol")
    alice.wait_for_peers(carol, model=CAROLS)
    assert alice.chat(QUESTION, model=CAROLS).text == SENTENCE


def up_at(node: Node) -> float:
    """Return the Unix time at which a node said, in a file, that it is up."""
    return (node.home / "node.json").stat().st_mtime
