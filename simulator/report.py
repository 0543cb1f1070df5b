"""What came of a run, as a value: for people a table, for programs JSON with keys that stay.

Everything but the wall-clock time follows from the seed.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Final

import msgspec

from simulator.checkers import Checker, Violation
from simulator.events import HostCrashed
from simulator.trace import Entry
from teale_proto.contract import MILLISECOND, Duration, Instant, Value
from teale_proto.effects import (
    PeerState,
    ReportAttempt,
    ReportChunk,
    ReportFailed,
    ReportFinished,
    ReportPeer,
)
from teale_proto.inputs import Ask, RequestId

ABANDONED = "asker_lost"
"""The outcome of a request whose own node died before it ended."""


class Requests(Value):
    """How the requests fared."""

    asked: int
    finished: int
    outcomes: dict[str, int]
    """How many ended in each way: `finished`, a failure's name, or `asker_lost`."""
    served_by_path: dict[str, int]
    attempts: int
    retried: int
    """Requests that more than one node was asked for."""
    first_token_p50_ms: float | None
    first_token_p90_ms: float | None


class Check(Value):
    """One rule, and whether it held."""

    rule: str
    passed: bool
    violation_count: int
    violations: tuple[Violation, ...]


class Report(Value):
    """A run, summed up."""

    scenario: str
    seed: int
    passed: bool
    digest: str
    requests: Requests
    hosts_crashed: int
    peers_lost: int
    """How often a node noticed that it had lost a peer."""
    checks: tuple[Check, ...]
    simulated_seconds: float
    events: int
    trace_entries: int
    wall_seconds: float
    """Real time, the one thing here that differs between runs of one seed."""
    peers_direct: int = 0
    """How many peers nodes reached over a direct path at the end, each pair counted from both sides; and how many
    of those only through the relay. Both are 0 in a world whose nodes look for no direct paths."""
    peers_relayed: int = 0

    @property
    def share_direct(self) -> float | None:
        """The share of the peers beyond the LAN that were reached directly at the end; None where nobody looked."""
        known = self.peers_direct + self.peers_relayed
        return self.peers_direct / known if known else None

    def json(self) -> bytes:
        """Return the report as JSON."""
        return msgspec.json.format(msgspec.json.encode(self))


class Statistics:
    """Counts while a run goes on; a subscriber of the trace."""

    KINDS: Final = (Ask, ReportAttempt, ReportChunk, ReportFinished, ReportFailed, ReportPeer, HostCrashed)
    """What it counts."""

    def __init__(self) -> None:
        self._asked_at: dict[tuple[str, RequestId], Instant] = {}
        self._first_token: dict[tuple[str, RequestId], Duration] = {}
        self._attempts: Counter[tuple[str, RequestId]] = Counter()
        self._outcomes: Counter[str] = Counter()
        self._paths: Counter[str] = Counter()
        self._asked = 0
        self.hosts_crashed = 0
        self.peers_lost = 0

    def observe(self, entry: Entry) -> None:
        """Count an entry."""
        value, host = entry.value, entry.host
        if isinstance(value, Ask):
            self._asked += 1
            self._asked_at[host, value.request] = entry.at
        elif isinstance(value, ReportAttempt):
            self._attempts[host, value.request] += 1
        elif isinstance(value, ReportChunk):
            key = (host, value.request)
            if key in self._asked_at:
                self._first_token.setdefault(key, entry.at - self._asked_at[key])
        elif isinstance(value, ReportFinished):
            self._ended(host, value.request, "finished")
            self._paths[value.path.value] += 1
        elif isinstance(value, ReportFailed):
            self._ended(host, value.request, value.failure.value)
        elif isinstance(value, ReportPeer):
            self.peers_lost += value.state is PeerState.LOST
        elif isinstance(value, HostCrashed):
            self.hosts_crashed += 1
            for key in [key for key in self._asked_at if key[0] == host]:
                self._ended(host, key[1], ABANDONED)

    def requests(self) -> Requests:
        """Return how the requests fared so far."""
        waits = sorted(self._first_token.values())
        return Requests(
            asked=self._asked,
            finished=self._outcomes["finished"],
            outcomes=_sorted(self._outcomes),
            served_by_path=_sorted(self._paths),
            attempts=self._attempts.total(),
            retried=sum(attempts > 1 for attempts in self._attempts.values()),
            first_token_p50_ms=_quantile_ms(waits, 0.5),
            first_token_p90_ms=_quantile_ms(waits, 0.9),
        )

    def _ended(self, host: str, request: RequestId, outcome: str) -> None:
        self._asked_at.pop((host, request), None)
        self._outcomes[outcome] += 1


def judged(checkers: Sequence[Checker]) -> tuple[Check, ...]:
    """Return the verdicts of checkers that have finished."""
    return tuple(
        Check(checker.rule, not checker.count, checker.count, tuple(checker.violations)) for checker in checkers
    )


def _sorted(counter: Counter[str]) -> dict[str, int]:
    return {name: count for name, count in sorted(counter.items()) if count}


def _quantile_ms(ordered: Sequence[Duration], share: float) -> float | None:
    """Return the smallest value that at least `share` of the values do not exceed, in milliseconds."""
    if not ordered:
        return None
    rank = -int(-share * len(ordered) // 1)
    return ordered[max(0, rank - 1)] / MILLISECOND
