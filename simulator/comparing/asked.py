"""Requests from the side of who asked: the first text, the end, and whether each ended exactly once."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from simulator.comparing.cast import Cast
from simulator.comparing.measured import Figure, Measure
from simulator.events import HostCrashed, HostStopped
from simulator.trace import Entry
from teale_proto.contract import Instant, Value
from teale_proto.effects import Path, ReportAttempt, ReportChunk, ReportFailed, ReportFinished
from teale_proto.inputs import Ask, NodeId, RequestId

FINISHED: Final = "finished"
OPEN: Final = "open at the end"
ABANDONED: Final = "asker lost"
DOUBLED: Final = "doubled"

Key = tuple[str, RequestId]


class Request:
    """One request that has not ended."""

    __slots__ = ("asked_at", "asker", "first_token_at", "last_piece_at", "path", "server", "silence")

    def __init__(self, asker: str, at: Instant) -> None:
        self.asker = asker
        self.asked_at = at
        self.server: NodeId | None = None
        self.path: Path | None = None
        self.first_token_at: Instant | None = None
        self.last_piece_at: Instant | None = None
        self.silence = 0
        """The longest pause between two pieces so far."""


class Requests:
    """Follows all requests; `names` are the hosts of nodes, which somebody else finds out."""

    KINDS: Final = (Ask, ReportAttempt, ReportChunk, ReportFinished, ReportFailed, HostCrashed, HostStopped)

    def __init__(self, cast: Cast, names: Mapping[NodeId, str]) -> None:
        self._cast = cast
        self._names = names
        self.open: Final[dict[Key, Request]] = {}
        self._ended: set[Key] = set()
        self._outcomes: Counter[str] = Counter()
        self._found: dict[Figure, list[int]] = {}

    def observe(self, entry: Entry) -> None:
        """Take note of an entry."""
        value: Any = entry.value
        if isinstance(value, Ask):
            self.open[entry.host, value.request] = Request(entry.host, entry.at)
        elif isinstance(value, HostCrashed | HostStopped):
            for key in [key for key in self.open if key[0] == entry.host]:
                self._end(key, ABANDONED)
        else:
            self._heard(entry, value)

    def samples(self) -> dict[Figure, list[int]]:
        """Return what was measured so far."""
        counted = self._outcomes + Counter({OPEN: len(self.open)})
        # Told in any case, so that what happens in one world alone is held against nought.
        outcomes = {name: counted[name] for name in (FINISHED, OPEN, DOUBLED)} | dict(counted)
        return self._found | {Figure(Measure.OUTCOMES, name): [count] for name, count in sorted(outcomes.items())}

    def _heard(self, entry: Entry, value: ReportAttempt | ReportChunk | ReportFinished | ReportFailed) -> None:
        key = (entry.host, value.request)
        request = self.open.get(key)
        if request is None:
            self._outcomes[DOUBLED] += key in self._ended
        elif isinstance(value, ReportAttempt):
            request.server, request.path = value.server, value.path
        elif isinstance(value, ReportChunk):
            _piece(request, value.chunk, entry.at)
        elif isinstance(value, ReportFinished):
            self._finished(request, value, entry.at)
            self._end(key, FINISHED)
        else:
            self._end(key, value.failure.value)

    def _finished(self, request: Request, report: ReportFinished, at: Instant) -> None:
        server = self._names.get(report.server)
        if server is None:
            return
        what = f"{self._cast.cell(request.asker, server)}, {report.path.value}"
        if request.first_token_at is not None:
            self._sample(Measure.FIRST_TOKEN, what, request.first_token_at - request.asked_at)
        self._sample(Measure.WHOLE, what, at - request.asked_at)

    def _end(self, key: Key, outcome: str) -> None:
        del self.open[key]
        self._ended.add(key)
        self._outcomes[outcome] += 1

    def _sample(self, measure: Measure, what: str, value: int) -> None:
        self._found.setdefault(Figure(measure, what), []).append(value)


def _piece(request: Request, chunk: bytes, at: Instant) -> None:
    if request.first_token_at is None and has_text(chunk):
        request.first_token_at = at
    if request.last_piece_at is not None:
        request.silence = max(request.silence, at - request.last_piece_at)
    request.last_piece_at = at


# Of what OpenAI's API answers, the part that text is in.


class _Said(Value):
    content: str | None = None


class _Choice(Value):
    delta: _Said | None = None
    message: _Said | None = None
    text: str | None = None


class _Chunk(Value):
    choices: tuple[_Choice, ...] = ()


_CHUNKS: Final = msgspec.json.Decoder(_Chunk)


def has_text(chunk: bytes) -> bool:
    """Return whether a piece of an answer has text in it; one that is not understood counts as one that has."""
    try:
        choices = _CHUNKS.decode(chunk).choices
    except msgspec.DecodeError:
        return True
    said = (text for each in choices for text in (each.text, *(part and part.content for part in _parts(each))))
    return any(said)


def _parts(choice: _Choice) -> tuple[_Said | None, _Said | None]:
    return choice.delta, choice.message
