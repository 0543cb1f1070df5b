"""A running node as its own process sees it: questions go in through the runner, reports come out to whoever waits."""

import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import SystemRandom
from typing import Any, Final

import trio

from teale_io.node_log import NodeLog
from teale_io.runner import Performers
from teale_io.service import AnswerFailed
from teale_proto.contract import SECOND, Duration
from teale_proto.effects import (
    NodeEffect,
    ReportAttempt,
    ReportChunk,
    ReportFailed,
    ReportFinished,
    ReportPeer,
    ReportRefusal,
    ReportRelay,
    ReportUnknown,
)
from teale_proto.inputs import Address, Ask, CancelAsk, NodeId, NodeInput, PeerWanted, RequestId, Task
from teale_proto.node import Node
from teale_proto.status import Explanation, ListedPeer, NodeStatus, PeerStatus

REPORTS_KEPT: Final = 256
"""Reports that wait for one slow reader; of more, it loses the oldest."""

ANSWER_BYTES_MAX: Final = 64 * 2**20
"""Bytes of one answer that wait for a client that does not read."""


class LiveAnswer:
    """An answer on its way."""

    def __init__(self) -> None:
        self.attempts: list[ReportAttempt] = []
        self.finished: ReportFinished | None = None
        self.failed: ReportFailed | None = None
        self.waiting_bytes = 0
        self._chunks: deque[bytes] = deque()
        self._news = trio.Event()

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self.finished is not None or self.failed is not None

    def note(self, report: ReportAttempt | ReportChunk | ReportFinished | ReportFailed) -> None:
        """Take what the node says of this request."""
        match report:
            case ReportChunk(chunk=chunk):
                self._chunks.append(chunk)
                self.waiting_bytes += len(chunk)
            case ReportAttempt():
                self.attempts.append(report)
            case ReportFinished():
                self.finished = report
            case ReportFailed():
                self.failed = report
        self._news.set()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the chunks in order; raises AnswerFailed when the answer cannot be completed."""
        while True:
            while self._chunks:
                chunk = self._chunks.popleft()
                self.waiting_bytes -= len(chunk)
                yield chunk
            if self.failed is not None:
                raise AnswerFailed(self.failed)
            if self.ended:
                return
            self._news = trio.Event()
            await self._news.wait()


class _Reader:
    """One follower of the reports."""

    def __init__(self) -> None:
        self._waiting: deque[NodeEffect] = deque(maxlen=REPORTS_KEPT)
        self._news = trio.Event()
        self._ended = False

    def note(self, report: NodeEffect) -> None:
        self._waiting.append(report)
        self._news.set()

    def end(self) -> None:
        self._ended = True
        self._news.set()

    async def __aiter__(self) -> AsyncIterator[NodeEffect]:
        while True:
            while self._waiting:
                yield self._waiting.popleft()
            if self._ended:
                return
            self._news = trio.Event()
            await self._news.wait()


class LiveNode:
    """The node of this process: what `teale_io.service.NodeService` promises.

    `feed` hands an input to the node's runner; `request_timeout_seconds` bounds every request. `problems` tells what
    keeps the backends from serving.
    """

    def __init__(
        self,
        node: Node,
        *,
        feed: Callable[[NodeInput], None],
        request_timeout_seconds: int,
        problems: Callable[[], tuple[str, ...]] = tuple,
    ) -> None:
        self._node = node
        self._log = NodeLog(node)
        self._problems = problems
        self._feed = feed
        self._timeout: Duration = request_timeout_seconds * SECOND
        self._answers: dict[RequestId, LiveAnswer] = {}
        # A dict for its order; readers are told in the order in which they came.
        self._readers: dict[_Reader, None] = {}
        self._stop = trio.Event()
        self._closed = False

    @property
    def performers(self) -> Performers:
        """What carries out the `Report…` effects."""
        about_requests: tuple[type[Any], ...] = (ReportAttempt, ReportChunk, ReportFinished, ReportFailed)
        about_the_node: tuple[type[Any], ...] = (ReportPeer, ReportRelay, ReportRefusal, ReportUnknown)
        return dict.fromkeys(about_requests, self._note_request) | dict.fromkeys(about_the_node, self._note)

    @asynccontextmanager
    async def ask(self, task: Task, model: str, body: bytes, *, streaming: bool) -> AsyncIterator[LiveAnswer]:
        """Have `body` answered by the best node; leaving the context early cancels the request."""
        request = secrets.token_hex(16)
        ask = Ask(request, task, model, body, streaming, self._timeout)
        answer = self._answers[request] = LiveAnswer()
        self._log.asked(ask)
        try:
            self._feed(ask)
            yield answer
        finally:
            del self._answers[request]
            if not answer.ended:
                self._feed(CancelAsk(request))
            self._log.forget(request)

    def status(self) -> NodeStatus:
        """Return the node at a glance."""
        return self._node.status()

    def problems(self) -> tuple[str, ...]:
        """Return what keeps the node from serving what it is meant to serve, each in words for people."""
        return self._problems()

    def peers(self) -> tuple[PeerStatus, ...]:
        """Return the connected peers, by node id."""
        return self._node.peers()

    def listed_peers(self) -> tuple[ListedPeer, ...]:
        """Return the peers that the relay names and that are not connected."""
        return self._node.listed_peers()

    def explain(self, task: Task, model: str) -> Explanation:
        """Return how a request for `model` would be routed now; today every task of a model is routed alike."""
        del task
        return self._node.explain(model, SystemRandom())

    def connect(self, node: NodeId, addresses: tuple[Address, ...]) -> None:
        """Have a node connected to; raises LocalError where it may not be."""
        self._feed(PeerWanted(node, addresses))

    @asynccontextmanager
    async def reports(self) -> AsyncIterator[AsyncIterator[NodeEffect]]:
        """Follow the node's `Report…` effects; a reader that falls behind loses the oldest."""
        reader = _Reader()
        self._readers[reader] = None
        if self._closed:
            reader.end()
        try:
            yield aiter(reader)
        finally:
            del self._readers[reader]

    def close(self) -> None:
        """Let those who follow the reports come to an end: the node has stopped, and nothing more will follow."""
        self._closed = True
        for reader in self._readers:
            reader.end()

    def stop(self) -> None:
        """Begin a clean stop of the whole process."""
        self._stop.set()

    async def wait_stopped(self) -> None:
        """Wait until somebody asked for a stop."""
        await self._stop.wait()

    def _note_request(self, report: ReportAttempt | ReportChunk | ReportFinished | ReportFailed) -> None:
        answer = self._answers.get(report.request)
        if answer is not None and not answer.ended:
            answer.note(report)
            if answer.waiting_bytes > ANSWER_BYTES_MAX:
                # Nobody is reading. The core ends the request, and says so to both sides.
                self._feed(CancelAsk(report.request))
        if not isinstance(report, ReportChunk):
            self._tell(report)

    def _note(self, report: ReportPeer | ReportRelay | ReportRefusal | ReportUnknown) -> None:
        self._tell(report)

    def _tell(self, report: NodeEffect) -> None:
        self._log.note(report)
        for reader in self._readers:
            reader.note(report)
