"""Rules about answers: who gave them, how often, and whether they came whole.

What travels between an asker and the server is sealed, so the two ends are held against each other: the same body that
a node was asked with turns up where a backend is started with it. Bodies that two requests share say nothing, and are
left out.
"""

import re
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from simulator.backend import ANSWER_MARKER
from simulator.checkers import Checker
from simulator.events import HostCrashed, HostStarted, HostStopped
from simulator.trace import Entry
from teale_proto.contract import Duration, Instant, Value
from teale_proto.effects import ReportAttempt, ReportChunk, ReportFailed, ReportFinished, StartGeneration
from teale_proto.inputs import Ask, GenerationFinished, JobId, NodeId, RequestId, Task

HostOf = Callable[[NodeId], str | None]
"""Says on which host a node lives or lived; None for a node that there never was."""

_WORD: Final = re.compile(re.escape(ANSWER_MARKER.encode()) + rb"-(\d+)")


class _Request:
    """One request, and what became of it on the hosts that worked on it."""

    __slots__ = ("asker", "attempts", "body", "ended_at", "finished", "request", "started")

    def __init__(self, asker: str, ask: Ask) -> None:
        self.asker = asker
        self.request = ask.request
        self.body = ask.body
        self.attempts: Counter[str] = Counter()
        self.started: Counter[str] = Counter()
        self.finished: dict[str, int] = {}
        """How many tokens a host's backend produced, once it had finished."""
        self.ended_at: Instant | None = None


class AnswersAreHonest(Checker):
    """An attempt is worked on at most once and not long after its asker heard the end, and the server is the one named.

    `patience` is how long a server may take to notice that its asker is gone.
    """

    rule = "every attempt was worked on at most once, by the node that it was given to, and not after its end"

    def __init__(self, host_of: HostOf, *, patience: Duration) -> None:
        super().__init__()
        self._host_of = host_of
        self._patience = patience
        self._open: dict[tuple[str, RequestId], _Request] = {}
        self._by_body: dict[bytes, _Request | None] = {}
        self._jobs: dict[tuple[str, JobId], _Request] = {}

    def observe(self, entry: Entry) -> None:
        """Follow requests at their askers and their servers."""
        self._ON[type(entry.value)](self, entry, entry.value)

    def _asked(self, entry: Entry, ask: Ask) -> None:
        request = self._open[entry.host, ask.request] = _Request(entry.host, ask)
        self._by_body[ask.body] = None if ask.body in self._by_body else request

    def _attempted(self, entry: Entry, report: ReportAttempt) -> None:
        request = self._open.get((entry.host, report.request))
        server = self._host_of(report.server)
        if request is None:
            self.violated(entry.at, entry.host, f"{report.request} was given to a node after it had ended")
        elif server is not None:
            request.attempts[server] += 1

    def _started(self, entry: Entry, effect: StartGeneration) -> None:
        request = self._by_body.get(effect.body)
        if request is None:
            return
        host = entry.host
        self._jobs[host, effect.job] = request
        request.started[host] += 1
        request.finished.pop(host, None)
        asker, name = request.asker, request.request
        if request.started[host] > request.attempts[host]:
            given = request.attempts[host]
            self.violated(
                entry.at, host, f"began {name} of {asker} for the {request.started[host]}. time, given {given}"
            )
        if request.ended_at is not None and entry.at > request.ended_at + self._patience:
            self.violated(entry.at, host, f"began {name}, which had ended for {asker} at {request.ended_at} µs")

    def _finished(self, entry: Entry, event: GenerationFinished) -> None:
        request = self._jobs.pop((entry.host, event.job), None)
        if request is not None:
            request.finished[entry.host] = event.tokens_out

    def _chunk(self, entry: Entry, report: ReportChunk) -> None:
        if (entry.host, report.request) not in self._open:
            self.violated(entry.at, entry.host, f"a piece of the answer to {report.request} came after its end")

    def _ended(self, entry: Entry, report: ReportFinished | ReportFailed) -> None:
        request = self._open.pop((entry.host, report.request), None)
        if request is None:
            return
        request.ended_at = entry.at
        if not isinstance(report, ReportFinished) or self._by_body[request.body] is not request:
            return
        server = self._host_of(report.server)
        tokens = None if server is None else request.finished.get(server)
        if tokens != report.tokens_out:
            did = "did not answer it" if tokens is None else f"answered it with {tokens} tokens"
            told = f"{report.request} was reported answered with {report.tokens_out} tokens by {server}, which {did}"
            self.violated(entry.at, entry.host, told)

    def _gone(self, entry: Entry, _: HostCrashed | HostStarted | HostStopped) -> None:
        for key in [key for key in self._open if key[0] == entry.host]:
            self._open.pop(key).ended_at = entry.at
        for job in [job for job in self._jobs if job[0] == entry.host]:
            del self._jobs[job]

    _ON: Final[dict[type[Value], Callable[[Any, Entry, Any], None]]] = {
        Ask: _asked,
        ReportAttempt: _attempted,
        StartGeneration: _started,
        GenerationFinished: _finished,
        ReportChunk: _chunk,
        ReportFinished: _ended,
        ReportFailed: _ended,
        HostCrashed: _gone,
        HostStarted: _gone,
        HostStopped: _gone,
    }
    kinds = tuple(_ON)


class AnswersComeWhole(Checker):
    """The words of an answer are numbered: they come in order, none is missing and none comes twice."""

    rule = "every answer came in order, without a gap and without a double"
    kinds = (Ask, ReportChunk, ReportFinished, ReportFailed)

    def __init__(self) -> None:
        super().__init__()
        self._words: dict[tuple[str, RequestId], int] = {}

    def observe(self, entry: Entry) -> None:
        """Count the words of each answer."""
        value = entry.value
        kind = type(value)
        if kind is ReportChunk:
            self._count(entry, value)  # type: ignore[arg-type]  # told by its type, which is faster than isinstance
        elif isinstance(value, Ask):
            if value.task is not Task.EMBEDDING:
                self._words[entry.host, value.request] = 0
        elif isinstance(value, ReportFailed):
            self._words.pop((entry.host, value.request), None)
        elif isinstance(value, ReportFinished):
            words = self._words.pop((entry.host, value.request), None)
            if words not in (None, value.tokens_out):
                self.violated(entry.at, entry.host, f"{value.request} ended after {words} of {value.tokens_out} words")

    def _count(self, entry: Entry, report: ReportChunk) -> None:
        key = (entry.host, report.request)
        last = self._words.get(key)
        if last is None:
            return
        for number in map(int, _WORD.findall(report.chunk)):
            if number != last + 1:
                self.violated(entry.at, entry.host, f"{report.request}: word {number} came after word {last}")
            last = number
        self._words[key] = last
