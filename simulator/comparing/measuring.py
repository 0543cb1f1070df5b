"""Measures one run from its entries, whichever world they come from.

Entries are those of `simulator.trace`: a simulated run's as they come, a recorded run's from the trace in its results,
and a lab's from the journals of its programs. The same code measures all of them, so whatever differs is a difference
of the worlds.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, Protocol

from msgspec.structs import replace

from simulator.comparing.asked import Requests
from simulator.comparing.cast import Cast
from simulator.comparing.measured import Figure, Measured, Samples
from simulator.comparing.meetings import Meetings
from simulator.comparing.recovering import Recovering
from simulator.comparing.relay_cpu import RelayCosts, found_in_lab
from simulator.comparing.traces import entries
from simulator.comparing.traffic import Traffic
from simulator.results.model import ResultsError
from simulator.results.reading import read
from simulator.spec.units import microseconds
from simulator.spec.world_spec import WorldSpec
from simulator.trace import Entry
from teale_proto.contract import Value
from teale_proto.effects import ReportPeer


class _Part(Protocol):
    """What looks at some kinds of entries."""

    @property
    def KINDS(self) -> tuple[type[Value], ...]:  # noqa: N802 - a constant of each
        """Which."""

    def observe(self, entry: Entry) -> None:
        """Take note of an entry of one of these kinds."""

    def samples(self) -> Mapping[Figure, list[int]]:
        """Return what was measured so far."""


class Measuring:
    """Takes the entries of one run in the order of time, and says what they come to."""

    def __init__(self, spec: WorldSpec) -> None:
        self._ends = microseconds(spec.lasts)
        cast = Cast(spec)
        self._meetings = Meetings(cast)
        requests = Requests(cast, self._meetings.names)
        recovering = Recovering(cast, self._meetings, requests)
        # What a fault disturbs, and which request has ended, is looked up in the state before it; peers in that after.
        parts: list[_Part] = [recovering, self._meetings, requests, Traffic(cast)]
        if spec.costs is not None:
            parts.append(RelayCosts(cast, spec.costs))
        self._parts: Final = tuple(parts)
        self.kinds: Final[frozenset[type[Value]]] = frozenset(kind for part in parts for kind in part.KINDS)
        """The kinds of entries that matter; others may be left out."""
        self._on = {kind: [part for part in parts if kind in part.KINDS] for kind in self.kinds}
        self._on[ReportPeer].reverse()

    def observe(self, entry: Entry) -> None:
        """Take note of an entry; one of another kind is let pass, and so is what comes when the time is over."""
        # Real programs are then ended, and say good-bye.
        if entry.at > self._ends:
            return
        for part in self._on.get(type(entry.value), ()):
            part.observe(entry)

    def measured(
        self, seed: int, broken: Iterable[str] = (), more: Mapping[Figure, list[int]] | None = None
    ) -> Measured:
        """Return what the run came to so far, with the rules that were broken in it; `more` was measured elsewhere."""
        found = [
            Samples(figure.measure, figure.what, tuple(values))
            for samples in (*(part.samples() for part in self._parts), more or {})
            for figure, values in samples.items()
        ]
        return Measured(seed, tuple(found), self._meetings.paths(), tuple(broken))


def measured_from(folder: Path, spec: WorldSpec) -> Measured:
    """Measure the run whose results a directory holds.

    What a lab's relays used is among it when `spec` has costs, against which that can be held.

    Raises ResultsError where it cannot be read, keeps no trace, or is of another scenario.
    """
    report = read(folder).summary.report
    if report.scenario != spec.name:
        raise ResultsError(f"{folder}: is of the scenario {report.scenario!r}, and not of {spec.name!r}")
    measuring = Measuring(replace(spec, costs=None))
    for entry in entries(folder, measuring.kinds):
        measuring.observe(entry)
    broken = (check.rule for check in report.checks if not check.passed)
    more = found_in_lab(folder, Cast(spec)) if spec.costs is not None else None
    return measuring.measured(report.seed, broken, more)
