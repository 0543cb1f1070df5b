"""What a node's owner reads in the log: one line for each thing that matters, with names that people know.

A request is one line at its end, however many pieces its answer had. A relay that stays away is told once for
each reason, and a neighbour that is refused again and again does not fill the disk.
"""

from collections.abc import Callable
from typing import Any, ClassVar, Final

import structlog
import trio

from teale_proto.contract import SECOND
from teale_proto.effects import (
    NodeEffect,
    PeerState,
    RelayState,
    ReportAttempt,
    ReportFailed,
    ReportFinished,
    ReportPeer,
    ReportRefusal,
    ReportRelay,
    ReportUnknown,
)
from teale_proto.inputs import Ask, Failure, NodeId, RequestId
from teale_proto.node import Node

REFUSALS_MAX: Final = 20
"""Refusals that are logged in one REFUSALS_SECONDS."""

REFUSALS_SECONDS: Final = 60.0
SHORT_CHARACTERS: Final = 16

_log = structlog.get_logger()


class _Request:
    """A request that has not ended."""

    def __init__(self, ask: Ask) -> None:
        self.ask = ask
        self.asked_at = trio.current_time()
        self.attempts = 0


class NodeLog:
    """Writes the log of one node; `node` is asked what its peers are called."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._requests: dict[RequestId, _Request] = {}
        self._names: dict[NodeId, str] = {}
        self._silent: set[NodeId] = set()
        self._relay_trouble = ""
        self._refusals = 0
        self._refusals_from = -REFUSALS_SECONDS

    def asked(self, ask: Ask) -> None:
        """Note that a request begins."""
        self._requests[ask.request] = _Request(ask)

    def note(self, report: NodeEffect) -> None:
        """Write what a report is worth."""
        write = self._ON.get(type(report))
        if write is not None:
            write(self, report)

    def forget(self, request: RequestId) -> None:
        """Forget a request; most have ended by now, but not one that was never taken."""
        self._requests.pop(request, None)

    # Requests.

    def _on_attempt(self, report: ReportAttempt) -> None:
        request = self._requests.get(report.request)
        if request is None:
            return
        request.attempts += 1
        write = _log.debug if request.attempts == 1 else _log.info
        write(
            "request goes to a node" if request.attempts == 1 else "request goes to another node",
            **self._of_request(report.request, request),
            **self._who(report.server, "by"),
            path=report.path.value,
            attempt=request.attempts,
        )

    def _on_finished(self, report: ReportFinished) -> None:
        _log.info(
            "request answered",
            **self._ended(report.request),
            **self._who(report.server, "by"),
            path=report.path.value,
            attempts=report.attempts,
            tokens_in=report.tokens_in,
            tokens_out=report.tokens_out,
        )

    def _on_failed(self, report: ReportFailed) -> None:
        ended = self._ended(report.request)
        if report.failure is Failure.CANCELLED:
            _log.info("request cancelled", **ended, attempts=report.attempts)
            return
        # What is wrong with a request cannot be said without quoting from it.
        reason = {} if report.failure is Failure.INVALID_REQUEST else {"reason": report.message}
        _log.warning("request failed", **ended, failure=report.failure.value, **reason, attempts=report.attempts)

    def _ended(self, request_id: RequestId) -> dict[str, Any]:
        request = self._requests.pop(request_id, None)
        if request is None:
            return {"request": request_id[:SHORT_CHARACTERS]}
        took = round(trio.current_time() - request.asked_at, 3)
        return {**self._of_request(request_id, request), "took_seconds": took}

    @staticmethod
    def _of_request(request_id: RequestId, request: _Request) -> dict[str, Any]:
        return {
            "request": request_id[:SHORT_CHARACTERS],
            "task": request.ask.task.value,
            "model": request.ask.model,
        }

    # Peers and relay.

    def _on_peer(self, report: ReportPeer) -> None:
        node = report.node
        if report.state is PeerState.CONNECTED:
            is_back = node in self._silent
            self._silent.discard(node)
            self._learn_names()
            _log.info("peer is back" if is_back else "peer connected", **self._who(node), path=report.path.value)
        elif report.state is PeerState.DEGRADED:
            self._silent.add(node)
            _log.info("peer is silent", **self._who(node), path=report.path.value)
        else:
            self._silent.discard(node)
            _log.info("peer lost", **self._who(node), path=report.path.value, reason=report.reason)
            self._names.pop(node, None)

    def _on_relay(self, report: ReportRelay) -> None:
        if report.state is RelayState.CONNECTED:
            self._relay_trouble = ""
            _log.info("relay connected")
        elif report.state is not RelayState.WAITING:
            _log.debug("relay", state=report.state.value)
        else:
            # A relay that is away for a night is away for one reason, and that is one line.
            write = _log.debug if report.reason == self._relay_trouble else _log.warning
            self._relay_trouble = report.reason
            again = {} if report.retry_in is None else {"again_in_seconds": round(report.retry_in / SECOND, 1)}
            write("relay not connected", reason=report.reason, **again)

    def _on_refusal(self, report: ReportRefusal) -> None:
        now = trio.current_time()
        if now - self._refusals_from >= REFUSALS_SECONDS:
            self._refusals, self._refusals_from = 0, now
        self._refusals += 1
        if self._refusals <= REFUSALS_MAX:
            _log.info("connection refused", connection=report.connection, reason=report.reason)
        elif self._refusals == REFUSALS_MAX + 1:
            _log.warning("many connections are refused; no more of them are logged for now")

    def _on_unknown(self, report: ReportUnknown) -> None:
        _log.debug("message of an unknown kind ignored", connection=report.connection, kind=report.kind)

    # Names.

    def _learn_names(self) -> None:
        self._names = {peer.node_id: peer.display_name for peer in self._node.peers()}

    def _who(self, node: NodeId, field: str = "peer") -> dict[str, str]:
        """Return what names a node to people, and its whole id to programs."""
        if node == self._node.node_id:
            name = "this node"
        else:
            called = self._names.get(node, "")
            name = f"{called} ({node[:SHORT_CHARACTERS]})" if called else node[:SHORT_CHARACTERS]
        return {field: name, f"{field}_id": node}

    _ON: ClassVar[dict[type[Any], Callable[..., None]]] = {
        ReportAttempt: _on_attempt,
        ReportFinished: _on_finished,
        ReportFailed: _on_failed,
        ReportPeer: _on_peer,
        ReportRelay: _on_relay,
        ReportRefusal: _on_refusal,
        ReportUnknown: _on_unknown,
    }
