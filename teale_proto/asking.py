"""The requests of the local application: each ends exactly once, with an answer or an honest error.

As long as no token has come out, a request whose server fails or disappears goes to another one. After that
it cannot be started over without the asker noticing, so it ends with an error that says what happened.
"""

from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Final

from teale_proto.contract import SECOND, Duration, Instant, Sink, Value
from teale_proto.effects import NodeEffect, Path, ReportAttempt, ReportChunk, ReportFailed, ReportFinished
from teale_proto.errors import LocalError
from teale_proto.inputs import Ask, Failure, NodeId, RequestId, Whom
from teale_proto.timers import Timers

ASKS_MAX: Final = 1024
ATTEMPTS_MAX: Final = 4
BODY_MAX: Final = 7 * 2**20
"""Bytes of one request; it must fit into a message."""

PATIENCE: Final[Duration] = 15 * SECOND
"""How long a request may wait for a node that could take it."""

RETRIED: Final = frozenset(
    {Failure.MODEL_NOT_LOADED, Failure.QUEUE_FULL, Failure.UNAVAILABLE, Failure.INTERNAL_ERROR, Failure.PEER_LOST}
)
"""Failures that another node may not have. An invalid request is invalid everywhere; a timeout has used up the time."""


class AskState(Enum):
    """How far a request has come."""

    WAITING = "waiting"
    """Nobody is working on it."""
    SENT = "sent"
    """A node is working on it; no token has come."""
    STREAMING = "streaming"
    """Tokens have come; from here there is no way back."""


class AskDue(Value):
    """The time that the application gave this request is used up."""

    request: RequestId


class PatienceDue(Value):
    """A request that nobody could take has waited long enough for a node to turn up."""

    request: RequestId


class Asked:
    """One request of the local application."""

    __slots__ = ("ask", "attempts", "busy_only", "due_at", "handle", "listing", "path", "server", "state", "tried")

    def __init__(self, ask: Ask, now: Instant) -> None:
        self.ask = ask
        self.due_at: Instant = now + ask.timeout
        self.state = AskState.WAITING
        self.attempts = 0
        self.listing: int | None = None
        """Which of the relay's listings would name a node that has come lately; None while none was asked for."""
        self.tried: dict[NodeId, str] = {}
        """The nodes that failed to answer, and why."""
        self.busy_only = True
        """Whether the only reason so far is that they have too much to do."""
        self.server: NodeId | None = None
        self.path = Path.LOCAL
        self.handle: Whom | None = None

    def remaining(self, now: Instant) -> Duration:
        """Return how much of its time is left, at least one microsecond."""
        return max(1, self.due_at - now)


class Asking:
    """All requests of the local application that have not ended.

    Every attempt has an id of its own on the wire, so that a late word about a former one is recognised.
    """

    __slots__ = ("_asked", "_by_wire_id", "_in_flight", "_timers", "changed")

    def __init__(self, timers: Timers[object]) -> None:
        self._timers = timers
        self._asked: dict[RequestId, Asked] = {}
        self._by_wire_id: dict[str, RequestId] = {}
        self._in_flight: dict[NodeId, int] = {}
        self.changed: dict[NodeId, None] = {}
        """Nodes whose `in_flight` has changed; whoever takes note of one removes it."""

    def __len__(self) -> int:
        return len(self._asked)

    def get(self, request: RequestId) -> Asked | None:
        """Return a request that has not ended."""
        return self._asked.get(request)

    def waiting(self) -> list[Asked]:
        """Return the requests that nobody is working on, oldest first."""
        return [asked for asked in self._asked.values() if asked.state is AskState.WAITING]

    @property
    def in_flight(self) -> Mapping[NodeId, int]:
        """How many requests each node is working on; a node that has none is absent."""
        return self._in_flight

    def on(self, handle: Whom) -> list[Asked]:
        """Return the requests that one node, or one conversation with it, is answering."""
        return [asked for asked in self._asked.values() if asked.handle == handle]

    def begin(self, ask: Ask, now: Instant) -> Asked:
        """Take a request.

        Raises LocalError when its id is in use, it is over BODY_MAX, or ASKS_MAX requests are under way.
        """
        if len(ask.body) > BODY_MAX:
            raise LocalError(f"request of {len(ask.body)} bytes where {BODY_MAX} are allowed")
        if ask.request in self._asked:
            raise LocalError(f"request {ask.request!r} is already under way")
        if len(self._asked) >= ASKS_MAX:
            raise LocalError(f"{ASKS_MAX} requests are already under way")
        asked = self._asked[ask.request] = Asked(ask, now)
        self._timers.set(AskDue(ask.request), asked.due_at)
        self._timers.set(PatienceDue(ask.request), now + PATIENCE)
        return asked

    def assign(self, asked: Asked, server: NodeId, path: Path, handle: Whom, out: Sink[NodeEffect]) -> str:
        """Hand a waiting request to a node and return its id on the wire."""
        assert asked.state is AskState.WAITING
        asked.attempts += 1
        asked.state = AskState.SENT
        asked.server, asked.path, asked.handle = server, path, handle
        wire_id = _wire_id(asked)
        self._by_wire_id[wire_id] = asked.ask.request
        self._in_flight[server] = self._in_flight.get(server, 0) + 1
        self.changed[server] = None
        out.append(ReportAttempt(asked.ask.request, server, path))
        return wire_id

    def chunk(self, handle: Whom, wire_id: str, chunk: bytes, out: Sink[NodeEffect]) -> None:
        """Pass on a piece of an answer, if it comes from whom it is expected from."""
        asked = self._find(handle, wire_id)
        if asked is not None:
            asked.state = AskState.STREAMING
            out.append(ReportChunk(asked.ask.request, chunk))

    def completed(self, handle: Whom, wire_id: str, tokens_in: int, tokens_out: int, out: Sink[NodeEffect]) -> None:
        """End a request well."""
        asked = self._find(handle, wire_id)
        if asked is not None:
            assert asked.server is not None
            request, server, path = asked.ask.request, asked.server, asked.path
            self._forget(asked)
            out.append(ReportFinished(request, server, path, tokens_in, tokens_out, asked.attempts))

    def failed(self, handle: Whom, wire_id: str, failure: Failure, message: str, out: Sink[NodeEffect]) -> None:
        """Note that a node could not answer: the request waits for another one, or ends."""
        asked = self._find(handle, wire_id)
        if asked is not None:
            self._fell(asked, failure, message, out)

    def lost(self, handle: Whom, reason: str, out: Sink[NodeEffect]) -> None:
        """Note that whoever answered is gone: the requests wait for another node, or end."""
        for asked in self.on(handle):
            self._fell(asked, Failure.PEER_LOST, f"the node that was answering was lost: {reason}", out)

    def leave(self, asked: Asked, reason: str, out: Sink[NodeEffect]) -> None:
        """Take a request that may be asked again from a node that may still answer it: it waits for another one."""
        assert asked.state is AskState.SENT
        assert asked.attempts < ATTEMPTS_MAX
        self._fell(asked, Failure.PEER_LOST, reason, out)

    def end(self, asked: Asked, failure: Failure, message: str, out: Sink[NodeEffect]) -> None:
        """End a request with an error."""
        self._forget(asked)
        out.append(ReportFailed(asked.ask.request, failure, message, asked.attempts))

    def wire_id(self, asked: Asked) -> str:
        """Return the id of the current attempt on the wire."""
        return _wire_id(asked)

    def __iter__(self) -> Iterator[Asked]:
        return iter(list(self._asked.values()))

    def _find(self, handle: Whom, wire_id: str) -> Asked | None:
        request = self._by_wire_id.get(wire_id)
        asked = None if request is None else self._asked[request]
        # A node may name any id, so the conversation that it comes over must be the one that was asked.
        return asked if asked is not None and asked.handle == handle else None

    def _fell(self, asked: Asked, failure: Failure, message: str, out: Sink[NodeEffect]) -> None:
        assert asked.server is not None
        if asked.state is AskState.STREAMING or failure not in RETRIED or asked.attempts >= ATTEMPTS_MAX:
            self.end(asked, failure, message, out)
        else:
            asked.tried[asked.server] = message
            asked.busy_only &= failure is Failure.QUEUE_FULL
            self._withdraw(asked)

    def _forget(self, asked: Asked) -> None:
        request = asked.ask.request
        del self._asked[request]
        self._timers.cancel(AskDue(request))
        self._timers.cancel(PatienceDue(request))
        self._withdraw(asked)

    def _withdraw(self, asked: Asked) -> None:
        """Take a request from the node that has it, if one has."""
        if asked.server is not None:
            del self._by_wire_id[_wire_id(asked)]
            self._in_flight[asked.server] -= 1
            self.changed[asked.server] = None
            if not self._in_flight[asked.server]:
                del self._in_flight[asked.server]
        asked.state = AskState.WAITING
        asked.server = asked.handle = None


def _wire_id(asked: Asked) -> str:
    return f"{asked.ask.request}.{asked.attempts}"
