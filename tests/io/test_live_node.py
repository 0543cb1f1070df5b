"""Questions in, reports out, and what the log says of a session."""

from typing import Any

import pytest
import structlog
import trio

from teale_io import live_node as module
from teale_io.api.encoding import encode
from teale_io.api.iterating import iterating
from teale_io.inference.base import Emit, Usage
from teale_io.live_node import REPORTS_KEPT, LiveNode
from teale_io.node_log import REFUSALS_MAX
from teale_io.service import AnswerFailed
from teale_proto.contract import SECOND
from teale_proto.effects import (
    NodeEffect,
    Path,
    PeerState,
    RelayState,
    ReportFailed,
    ReportFinished,
    ReportPeer,
    ReportRefusal,
    ReportRelay,
)
from teale_proto.errors import LocalError
from teale_proto.inputs import Failure, NodeId, Task
from tests.io.live import MODEL, Answering, Live, live_node, question, until

BOB = NodeId("b2" * 32)


def body_of(content: str) -> bytes:
    return encode(question(content))


async def answer_of(live: LiveNode, content: str) -> tuple[list[bytes], ReportFinished | None]:
    async with live.ask(Task.CHAT, MODEL, body_of(content), streaming=True) as answer:
        return [chunk async for chunk in answer], answer.finished


async def test_an_answer_comes_in_pieces_and_ends_once() -> None:
    async with live_node(Answering()) as node:
        chunks, finished = await answer_of(node.live, "a b")
    assert len(chunks) == 3
    assert finished is not None
    assert (finished.tokens_out, finished.path) == (2, Path.LOCAL)


async def test_leaving_early_cancels_and_nothing_is_kept() -> None:
    backend = Answering(open_gate=False)
    async with live_node(backend) as node:
        question = node.live.ask(Task.CHAT, MODEL, body_of("a b"), streaming=True)
        async with question as answer, iterating(answer) as arriving:
            await anext(arriving)
        await until(lambda: backend.cancelled == 1)
        assert node.load == (0, 0, 0)
        assert not node.live._answers


async def test_a_failure_is_raised_with_its_report() -> None:
    async with live_node() as node:
        with pytest.raises(AnswerFailed) as failed:
            await answer_of(node.live, "a")
    assert failed.value.report.failure is Failure.MODEL_NOT_LOADED


async def test_a_request_that_is_refused_leaves_nothing_behind() -> None:
    async with live_node() as node:
        with pytest.raises(LocalError, match="bytes"):
            await answer_of(node.live, "a" * (8 << 20))
        assert not node.live._answers
        assert not node.live._log._requests


async def test_an_answer_that_nobody_reads_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_BYTES_MAX", 1000)

    class Endless(Answering):
        async def generate(self, task: Task, model: str, body: bytes, *, streaming: bool, emit: Emit) -> Usage:
            while True:
                emit(b'{"choices": []}')
                await trio.lowlevel.checkpoint()

    async with live_node(Endless()) as node, node.live.ask(Task.CHAT, MODEL, b"{}", streaming=True) as answer:
        await until(lambda: answer.ended)
        assert answer.failed is not None
        assert answer.failed.failure is Failure.CANCELLED
        assert answer.waiting_bytes < 1100


# Reports.


async def reports_of(live: LiveNode, *, seen: list[NodeEffect], ready: trio.Event) -> None:
    async with live.reports() as reports:
        ready.set()
        async for report in reports:
            seen.append(report)  # noqa: PERF401 - what was seen so far is looked at meanwhile


async def test_those_who_follow_are_told_in_order_and_come_to_an_end() -> None:
    seen: list[NodeEffect] = []
    async with live_node(Answering()) as node, trio.open_nursery() as nursery:
        ready = trio.Event()
        nursery.start_soon(lambda: reports_of(node.live, seen=seen, ready=ready))
        await ready.wait()
        await answer_of(node.live, "a")
        node.live.close()
    assert [type(report).__name__ for report in seen] == ["ReportAttempt", "ReportFinished"]
    async with live_node() as node:
        node.live.close()
        await reports_of(node.live, seen=seen, ready=trio.Event())


async def test_a_reader_that_falls_behind_loses_the_oldest() -> None:
    async with live_node() as node, node.live.reports() as following, iterating(following) as reports:
        note = node.live.performers[ReportRefusal]
        for number in range(REPORTS_KEPT + 3):
            note(ReportRefusal(number, "x"))
        first = await anext(reports)
        assert isinstance(first, ReportRefusal)
        assert first.connection == 3


# The log.


async def logged(node: Live, *reports: NodeEffect) -> list[dict[str, Any]]:
    with structlog.testing.capture_logs() as lines:
        for report in reports:
            node.live.performers[type(report)](report)
    return [dict(line) for line in lines if line["log_level"] != "debug"]


async def test_an_ordinary_session_is_one_line_for_each_thing_that_matters() -> None:
    with structlog.testing.capture_logs() as lines:
        async with live_node(Answering(), name="alice") as alice, live_node(name="bob") as bob:
            bob.meet(alice, MODEL)
            await until(lambda: any(peer.loaded_models for peer in bob.live.peers()))
            await answer_of(bob.live, "a secret question of many words")
            alice_id = alice.node.node_id
            said = [line for line in lines if line["log_level"] != "debug"]
    assert sorted(line["event"] for line in said) == ["peer connected", "peer connected", "request answered"]
    [answered] = [line for line in said if line["event"] == "request answered"]
    assert answered["by"] == f"alice ({alice_id[:16]})"
    assert (answered["by_id"], answered["model"], answered["path"], answered["attempts"]) == (alice_id, MODEL, "lan", 1)
    assert 0 <= answered["took_seconds"] < 60
    assert "secret" not in str(lines)


async def test_a_relay_that_stays_away_is_told_once_for_each_reason() -> None:
    away = ReportRelay(RelayState.WAITING, "connection refused", 2 * SECOND)
    async with live_node() as node:
        lines = await logged(
            node,
            ReportRelay(RelayState.CONNECTING),
            away,
            ReportRelay(RelayState.CONNECTING),
            away,
            ReportRelay(RelayState.CONNECTED),
            away,
        )
    assert [line["event"] for line in lines] == ["relay not connected", "relay connected", "relay not connected"]
    assert (lines[0]["reason"], lines[0]["again_in_seconds"]) == ("connection refused", 2.0)


async def test_a_peer_that_comes_and_goes_is_told_by_what_it_does() -> None:
    states = (PeerState.CONNECTED, PeerState.DEGRADED, PeerState.CONNECTED, PeerState.LOST)
    async with live_node() as node:
        lines = await logged(node, *(ReportPeer(BOB, state, Path.LAN, "why") for state in states))
    assert [line["event"] for line in lines] == ["peer connected", "peer is silent", "peer is back", "peer lost"]
    assert {line["peer"] for line in lines} == {BOB[:16]}


async def test_a_neighbour_that_is_refused_again_and_again_does_not_fill_the_disk() -> None:
    async with live_node() as node:
        lines = await logged(node, *(ReportRefusal(number, "nonsense") for number in range(10 * REFUSALS_MAX)))
    assert len(lines) == REFUSALS_MAX + 1
    assert lines[-1]["event"].startswith("many connections are refused")


async def test_what_is_wrong_with_a_request_is_not_quoted() -> None:
    async with live_node() as node:
        bad = ReportFailed("r" * 32, Failure.INVALID_REQUEST, "your secret words are too many", 1)
        lines = await logged(node, bad, ReportFailed("r" * 32, Failure.TIMEOUT, "too slow", 1))
    assert "secret" not in str(lines)
    assert [line["failure"] for line in lines] == ["invalid_request", "timeout"]
    assert lines[1]["reason"] == "too slow"
