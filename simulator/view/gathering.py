"""The steps of each request, gathered from a trace that goes by once.

What is sent between the asker, the servers that it tried and their relays while the request is under way is a step. A
core answers each input at once, so what follows from a message that came in, and what is sent after a piece of the
answer was made, says for which request a message was, though nobody can read it.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final, NamedTuple, TypeAlias

from simulator.results.model import RequestRow
from simulator.results.traces import Line
from simulator.view import lines
from simulator.view.ends import Ends, relay_message
from simulator.view.lines import INPUTS
from simulator.view.wire import Carried, Direction, Sent
from teale_proto.contract import Instant

STEPS_KEPT_MAX: Final = 4000
"""Steps of one request that are kept while a trace goes by: the first half, and the last."""


class Happened(NamedTuple):
    """A step that is no message."""

    at: Instant
    host: str
    label: str
    size_bytes: int = -1
    to: str = ""
    """Another host that it concerns."""


class Message(NamedTuple):
    """A step that is one."""

    sent: Sent
    label: str


AnyStep: TypeAlias = Happened | Message


class Gathered:
    """One request and what was gathered of it."""

    def __init__(self, row: RequestRow, involved: frozenset[str], *, is_chosen: bool) -> None:
        self.row: Final = row
        self.involved: Final = involved
        """The asker, the servers that it tried, and every relay."""
        self.is_chosen: Final = is_chosen
        self.is_over = False
        self.attempts = 0
        self.server = ""
        self.is_begun = False
        """Whether the server that it was last given to has begun."""
        self.began_at: Instant | None = None
        self.first_made_at: Instant | None = None
        self.last_made_at: Instant | None = None
        self.words = 0
        """A hash of what was asked, by which it is known again."""
        self.body = b""
        self.chunks: list[bytes] = []
        self.cut = 0
        self._first: list[AnyStep] = []
        self._last: deque[AnyStep] = deque(maxlen=STEPS_KEPT_MAX // 2)

    def add(self, step: AnyStep) -> None:
        """Add a step; of too many, the middle goes."""
        if not self.is_chosen:
            return
        if len(self._first) < STEPS_KEPT_MAX // 2:
            self._first.append(step)
            return
        self.cut += len(self._last) == self._last.maxlen
        self._last.append(step)

    def waits(self, server: str, model: str) -> bool:
        """Return whether this was given to that server, for that model, and is not known to have begun there."""
        return not self.is_begun and (self.server, self.row.model) == (server, model)

    def steps(self) -> tuple[list[AnyStep], list[AnyStep]]:
        """Return the first steps and the last, between which `cut` are missing."""
        return self._first, list(self._last)


class _Wire:
    """One connection: what goes from who dialled, and what comes back."""

    __slots__ = ("directions", "is_relayed")

    def __init__(self, *, is_relayed: bool) -> None:
        self.is_relayed = is_relayed
        self.directions = (Direction(), Direction())


class _End(NamedTuple):
    """One end of a connection, as its host knows it."""

    number: int
    """Which Connect of the trace made it."""
    wire: _Wire
    outward: int
    """Which of the wire's directions leads away from here."""
    peer: str


class _Doing:
    """What a host is doing: what came in last, and for which request that was."""

    __slots__ = ("received", "request")

    def __init__(self) -> None:
        self.request: int | None = None
        self.received: list[tuple[str, Carried]] = []
        """The messages that came in with it, by their session."""


_Handler: TypeAlias = Callable[["Gathering", Line, Any], None]


class Gathering:
    """Follows a trace; `requests` has what came of each, in the order of `rows`."""

    def __init__(
        self,
        rows: Sequence[RequestRow],
        chosen: frozenset[int],
        servers: Mapping[int, frozenset[str]],
        relays: frozenset[str],
        ends: Ends,
        *,
        with_texts: bool,
    ) -> None:
        self.requests: Final = [
            Gathered(row, relays | servers.get(index, frozenset()) | {row.asker}, is_chosen=index in chosen)
            for index, row in enumerate(rows)
        ]
        self._ends_known = ends
        self._relays = relays
        self._with_texts = with_texts
        self._asked = 0
        self._dialled = 0
        self._accepted = 0
        self._wires: dict[int, _Wire] = {}
        self._ends: dict[tuple[str, int], _End] = {}
        self._diallers: list[str] = []
        self._open: dict[tuple[str, str], int] = {}
        self._active: dict[str, set[int]] = defaultdict(set)
        """By host, the chosen requests under way that it has to do with."""
        self._ending: dict[str, set[int]] = defaultdict(set)
        """By asker, those that ended with what it is doing now."""
        self._jobs: dict[tuple[str, int], int] = {}
        self._doing: dict[str, _Doing] = defaultdict(_Doing)

    def observe(self, line: Line) -> None:
        """Take note of a line."""
        if line.kind in INPUTS:
            for index in self._ending.pop(line.host, ()):
                self._leave(index)
            self._doing[line.host] = _Doing()
        handler = self._HANDLERS.get(line.kind)
        if handler is not None:
            handler(self, line, line.value)

    # Requests, at the asker.

    def _ask(self, line: Line, asked: lines.Asked) -> None:
        index = self._asked
        self._asked += 1
        if index >= len(self.requests):
            return
        request = self.requests[index]
        self._open[line.host, asked.request] = index
        self._doing[line.host].request = index
        if request.is_chosen:
            for host in request.involved:
                self._active[host].add(index)
        request.words = hash(asked.body)
        if self._with_texts and request.is_chosen:
            request.body = asked.body
        request.add(Happened(line.at, line.host, f"Ask: {asked.model}", len(asked.body)))

    def _attempt(self, line: Line, attempted: lines.Attempted) -> None:
        index = self._open.get((line.host, attempted.request))
        if index is None:
            return
        request = self.requests[index]
        self._doing[line.host].request = index
        request.attempts += 1
        request.is_begun = False
        request.server = self._ends_known.nodes.get(attempted.server, attempted.server[:8])
        over = "itself" if attempted.path == "local" else f"{request.server} over {attempted.path}"
        request.add(Happened(line.at, line.host, f"ReportAttempt {request.attempts}: {over}", to=request.server))

    def _answered(self, line: Line, named: lines.Named) -> None:
        index = self._open.get((line.host, named.request))
        if index is None:
            return
        self._follows(line.host, index)
        request = self.requests[index]
        label, size_bytes = line.kind, -1
        if isinstance(named, lines.Chunk):
            size_bytes = len(named.chunk)
            if self._with_texts and request.is_chosen:
                request.chunks.append(named.chunk)
        elif isinstance(named, lines.Finished):
            label = f"ReportFinished: {named.tokens_in} tokens in, {named.tokens_out} out"
        elif isinstance(named, lines.Failed):
            # The message may be somebody else's, and quote what was asked.
            label = f"ReportFailed: {named.failure}" + (f", {named.message}" if self._with_texts else "")
        request.add(Happened(line.at, line.host, label, size_bytes))
        if isinstance(named, lines.Finished | lines.Failed):
            request.is_over = True
            del self._open[line.host, named.request]
            self._ending[line.host].add(index)

    def _leave(self, index: int) -> None:
        for host in self.requests[index].involved:
            self._active[host].discard(index)

    # Requests, at the server.

    def _start(self, line: Line, job: lines.Job) -> None:
        index = self._request_of(line.host, job)
        if index is None:
            return
        self._jobs[line.host, job.job] = index
        self._follows(line.host, index)
        request = self.requests[index]
        request.is_begun = True
        request.began_at, request.first_made_at, request.last_made_at = line.at, None, None
        request.add(Happened(line.at, line.host, f"StartGeneration {job.job}", len(job.body)))

    def _request_of(self, host: str, job: lines.Job) -> int | None:
        """Return for which request a job is: what came with the same input, or else the oldest that fits and waits."""
        doing = self._doing[host]
        at_hand = {doing.request} | {carried.request for _, carried in doing.received}
        waiting = [index for index in self._open.values() if self.requests[index].waits(host, job.model)]
        # The same words first: a queue need not be served in the order in which was asked.
        waiting.sort(key=lambda index: (index not in at_hand, self.requests[index].words != hash(job.body)))
        return waiting[0] if waiting else None

    def _generated(self, line: Line, job: lines.Job) -> None:
        index = self._jobs.get((line.host, job.job))
        if index is None:
            return
        request = self.requests[index]
        label, size_bytes = line.kind, -1
        if line.kind in INPUTS:
            self._doing[line.host].request = index
        if line.kind == "GenerationChunk":
            size_bytes = len(job.chunk)
            request.first_made_at = request.first_made_at or line.at
        elif line.kind == "GenerationFinished":
            request.first_made_at = request.first_made_at or line.at
            request.last_made_at = line.at
            label = f"GenerationFinished: {job.tokens_in} tokens in, {job.tokens_out} out"
        elif line.kind == "GenerationFailed":
            label = f"GenerationFailed: {job.failure}"
        if not request.is_over:
            request.add(Happened(line.at, line.host, label, size_bytes))

    def _follows(self, host: str, index: int) -> None:
        """Take note that what came in last at a host was of a request."""
        for _, carried in self._doing[host].received:
            carried.note(index)

    # Connections.

    def _connect(self, line: Line, opened: lines.Opened) -> None:
        number = self._dialled
        self._dialled += 1
        self._diallers.append(line.host)
        wire = self._wires[number] = _Wire(is_relayed=self._ends_known.is_relayed[number])
        peer = self._ends_known.dialled[number]
        self._ends[line.host, opened.connection] = _End(number, wire, 0, peer)
        self._between(line, peer, f"Connect to {peer}")
        opening = opened.opening
        if opening:  # what goes with the first packet, before there is an answer
            self._send(line, lines.Data(opened.connection, opening))

    def _accept(self, line: Line, accepted: lines.Accepted) -> None:
        number = self._ends_known.accepted[self._accepted]
        self._accepted += 1
        wire = self._wires.get(number)
        if wire is not None:
            peer = self._diallers[number]
            self._ends[line.host, accepted.connection] = _End(number, wire, 1, peer)
            self._between(line, peer, f"ConnectionAccepted from {peer}")

    def _changed(self, line: Line, ended: lines.Ended) -> None:
        key = (line.host, ended.connection)
        end = self._ends.get(key) if line.kind == "ConnectionOpened" else self._ends.pop(key, None)
        if end is None:
            return
        self._between(line, end.peer, f"{line.kind}: {end.peer}")
        if key not in self._ends and end.outward == 0:
            # What was under way to the other end may arrive yet; nobody new will come to it.
            self._wires.pop(end.number, None)

    def _between(self, line: Line, peer: str, label: str) -> None:
        for index in self._under_way(line.host, peer):
            self.requests[index].add(Happened(line.at, line.host, label, to=peer))

    def _under_way(self, one: str, other: str) -> list[int]:
        return sorted(self._active[one] & self._active[other]) if other in self._active else []

    def _send(self, line: Line, data: lines.Data) -> None:
        end = self._ends.get((line.host, data.connection))
        if end is None:
            return
        sent = Sent(line.at, line.host, end.peer, data.data)
        end.wire.directions[end.outward].send(sent, bulk=data.bulk)
        message = relay_message(data.data) if end.wire.is_relayed else None
        doing = self._doing[line.host]
        if doing.request is not None:
            sent.of.note(doing.request)
        elif line.host in self._relays and message is not None and message.session:
            # A relay that passes something on: it is for whatever that was for.
            passed = (carried for session, carried in doing.received if session == message.session)
            sent.of = next(passed, sent.of)
        known = None if message is None else self._ends_known.sessions.get(message.session)
        label = "data" if message is None else message.kind
        for index in self._under_way(line.host, end.peer):
            request = self.requests[index]
            if known is None or known <= request.involved:
                request.add(Message(sent, label))

    def _receive(self, line: Line, data: lines.Data | lines.Several) -> None:
        end = self._ends.get((line.host, data.connection))
        if end is None:
            return
        doing = self._doing[line.host]
        whole = end.wire.is_relayed
        for each in data.messages if isinstance(data, lines.Several) else (data.data,):
            session = relay_message(each).session if whole else ""
            for sent in end.wire.directions[1 - end.outward].receive(line.at, each, whole=whole):
                doing.received.append((session, sent.of))

    # News of peers and hosts.

    def _peer(self, line: Line, told: lines.Peer) -> None:
        peer = self._ends_known.nodes.get(told.node, "")
        why = f" ({told.reason})" if told.reason else ""
        self._between(line, peer, f"ReportPeer: {peer} {told.state} over {told.path}{why}")

    def _relay(self, line: Line, told: lines.RelayNews) -> None:
        why = f" ({told.reason})" if told.reason else ""
        for index in sorted(self._active.get(line.host, ())):
            self.requests[index].add(Happened(line.at, line.host, f"ReportRelay: {told.state}{why}"))

    def _died(self, line: Line, _: object) -> None:
        for key in [key for key in self._ends if key[0] == line.host]:
            del self._ends[key]
        for asked in [asked for asked in self._open if asked[0] == line.host]:
            self._leave(self._open.pop(asked))
        for job in [job for job in self._jobs if job[0] == line.host]:
            del self._jobs[job]

    _HANDLERS: ClassVar[Mapping[str, _Handler]] = {
        "Ask": _ask,
        "ReportAttempt": _attempt,
        "ReportChunk": _answered,
        "ReportFinished": _answered,
        "ReportFailed": _answered,
        "CancelAsk": _answered,
        "StartGeneration": _start,
        "CancelGeneration": _generated,
        "GenerationChunk": _generated,
        "GenerationFinished": _generated,
        "GenerationFailed": _generated,
        "Connect": _connect,
        "ConnectionAccepted": _accept,
        "ConnectionOpened": _changed,
        "ConnectionClosed": _changed,
        "CloseConnection": _changed,
        "ConnectFailed": _changed,
        "SendData": _send,
        "SendText": _send,
        "DataReceived": _receive,
        "MessagesReceived": _receive,
        "ReportPeer": _peer,
        "ReportRelay": _relay,
        "HostCrashed": _died,
        "HostStopped": _died,
    }


def own_and_near(index: int, steps: Sequence[AnyStep]) -> Iterator[tuple[AnyStep, bool]]:
    """Yield the steps of a request, and whether each is known to be its own; those of other requests are left out."""
    for step in steps:
        if isinstance(step, Happened):
            yield step, True
            continue
        of = step.sent.of
        if of.is_mixed or of.request is None:
            yield step, False
        elif of.request == index:
            yield step, True
