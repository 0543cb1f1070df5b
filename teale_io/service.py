"""What a running node offers to the programs around it: the local API sees this and nothing else."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from teale_proto.effects import NodeEffect, ReportAttempt, ReportFailed, ReportFinished
from teale_proto.errors import TealeError
from teale_proto.inputs import Address, NodeId, Task
from teale_proto.status import Explanation, ListedPeer, NodeStatus, PeerStatus


class AnswerFailed(TealeError):
    """The request ended without a complete answer; `report` says why."""

    def __init__(self, report: ReportFailed) -> None:
        super().__init__(report.message)
        self.report = report


class Answer(Protocol):
    """An answer on its way: iterate it for its chunks, each a JSON object in the shape of OpenAI's API.

    Iteration raises AnswerFailed when the answer cannot be completed. `finished` is set once it has ended well.
    """

    @property
    def attempts(self) -> Sequence[ReportAttempt]:
        """Which nodes have been asked, in order; the last is answering."""

    @property
    def finished(self) -> ReportFinished | None:
        """Set once the answer has ended well."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the chunks in order."""


class NodeService(Protocol):
    """A running node, as its own process sees it."""

    def ask(self, task: Task, model: str, body: bytes, *, streaming: bool) -> AbstractAsyncContextManager[Answer]:
        """Have `body` answered by the best node; leaving the context early cancels the request.

        `body` is the request as JSON in the shape of OpenAI's API. Raises LocalError when the node is stopping.
        """

    def status(self) -> NodeStatus:
        """Return the node at a glance."""

    def problems(self) -> tuple[str, ...]:
        """Return what keeps the node from serving what it is meant to serve, each in words for people."""

    def peers(self) -> tuple[PeerStatus, ...]:
        """Return the connected peers, by node id."""

    def listed_peers(self) -> tuple[ListedPeer, ...]:
        """Return the peers that the relay names and that are not connected."""

    def explain(self, task: Task, model: str) -> Explanation:
        """Return how a request for `model` would be routed now."""

    def connect(self, node: NodeId, addresses: tuple[Address, ...]) -> None:
        """Have a node connected to, directly at one of its addresses, or through the relay.

        Raises LocalError where it may not be, and when the node is stopping.
        """

    def reports(self) -> AbstractAsyncContextManager[AsyncIterator[NodeEffect]]:
        """Follow the node's `Report…` effects; a reader that falls behind loses the oldest."""

    def stop(self) -> None:
        """Begin a clean stop of the whole process."""
