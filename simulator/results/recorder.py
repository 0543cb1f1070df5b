"""Keeps a run: watches a world while it goes on, and writes one directory at its end.

    with Recorder(world, Path("results/one"), trace=True) as recorder:
        report = scenario.run(SCENARIO, seed, world=world)
        recorder.finish(report, command="teale-sim run first_light --seed 1", source=source_of(SCENARIO))

A world is a simulated one, or whatever else has a trace (`Recorded`). A run that is not recorded pays nothing. One that
is keeps its tables in bounded memory; trace and capture go to the disk as they come. When that fails in the middle of a
run, the run goes on, and `finish` raises.
"""

import gzip
import inspect
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, NamedTuple, Protocol, Self

import msgspec

from simulator.report import Report
from simulator.results import folder as folders
from simulator.results import tables, topology
from simulator.results.capture import Capture
from simulator.results.model import (
    FORMAT,
    FORMAT_VERSION,
    Calibration,
    HostInfo,
    Results,
    ResultsError,
    Summary,
    WorldInfo,
)
from simulator.results.observing import Observer
from simulator.results.provenance import made_by
from simulator.results.tables import Metrics
from simulator.results.tapping import Tap
from simulator.scenario import Scenario
from simulator.trace import Entry, Trace
from simulator.world import EPOCH, World
from teale_proto.contract import Instant
from teale_proto.inputs import NodeId

_ENCODER: Final = msgspec.json.Encoder()


class Source(NamedTuple):
    """A scenario as it was run: the name of its file in the results, and what is in it."""

    name: str
    data: bytes


def source_of(scenario: Scenario) -> Source | None:
    """Return the Python file that a scenario came from; None for one that came from no file, or is a description."""
    try:
        path = Path(inspect.getsourcefile(scenario.build) or "")
        return Source("scenario.py", path.read_bytes())
    except (OSError, TypeError):
        return None


class Recorded(Protocol):
    """A world as far as it is recorded."""

    @property
    def kind(self) -> str:
        """What kind of world it is, in a word."""

    @property
    def trace(self) -> Trace:
        """What happens in it."""

    @property
    def node_ids(self) -> Mapping[str, NodeId]:
        """The node id that each host has now, if it is a node."""

    @property
    def now(self) -> Instant:
        """How far it has come."""

    def host_infos(self, serving: frozenset[str]) -> tuple[HostInfo, ...]:
        """Return who is in it; `serving` are those that accepted connections and are no nodes."""


class _Simulated:
    """A simulated world as the recorder sees it."""

    kind: Final = "simulated"

    def __init__(self, world: World) -> None:
        self.trace: Final = world.trace
        self.node_ids: Final = world.node_ids
        self._world = world

    @property
    def now(self) -> Instant:
        return self._world.engine.now

    def host_infos(self, serving: frozenset[str]) -> tuple[HostInfo, ...]:
        return topology.hosts_of(self._world, serving)


class Recorder:
    """Watches `world`, which must not have run yet, for a directory `folder`. Only a simulated one has a `capture`.

    Raises ResultsError when the directory holds something other than results or cannot be written, or when what
    `metrics` needs is not installed.
    """

    def __init__(
        self,
        world: World | Recorded,
        folder: Path,
        *,
        trace: bool = False,
        capture: bool = False,
        metrics: Metrics = Metrics.CSV,
    ) -> None:
        if not tables.can_write(metrics):
            raise ResultsError(tables.WITHOUT_PYARROW)
        self._world: Recorded = _Simulated(world) if isinstance(world, World) else world
        self._simulated = world if isinstance(world, World) else None
        self._metrics = metrics
        self._observer = Observer(world.node_ids.get)
        self._draft = folders.Draft(folder)
        self._files: list[BinaryIO] = []
        self._failure: OSError | None = None
        world.trace.subscribe(self._observer.observe)
        self._trace: gzip.GzipFile | None = None
        self._tap: Tap | None = None
        try:
            if trace:
                self._trace = self._opened_trace()
            if capture and self._simulated is not None:
                self._tap = self._opened_capture(self._simulated)
        except OSError as error:
            self._abandon()
            raise ResultsError(f"{folder}: cannot be written: {error.strerror or error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._abandon()

    def finish(
        self,
        report: Report,
        *,
        command: str,
        source: Source | None = None,
        calibration: Sequence[Calibration] = (),
        more: Mapping[str, bytes] | None = None,
    ) -> Results:
        """Write everything and return it; `command` is what repeats the run, and `more` are files of the caller's own.

        Raises ResultsError where the directory cannot be written; then there is none.
        """
        try:
            self._close()
            failure = self._failure if self._tap is None else self._failure or self._tap.failure
            if failure is not None:
                raise failure
            results = self._results(report, command, source, tuple(calibration))
            if source is not None:
                (self._draft.path / source.name).write_bytes(source.data)
            for name, data in (more or {}).items():
                (self._draft.path / name).parent.mkdir(exist_ok=True)
                (self._draft.path / name).write_bytes(data)
            write(self._draft.path, results)
            # Only here: drawing needs matplotlib, which takes longer to load than many a run.
            from simulator.results.drawing import draw

            draw(self._draft.path, results)
            self._draft.publish()
        except OSError as error:
            raise ResultsError(f"{self._draft.target}: cannot be written: {error.strerror or error}") from error
        finally:
            self._abandon()
        return results

    def _results(
        self, report: Report, command: str, source: Source | None, calibration: tuple[Calibration, ...]
    ) -> Results:
        observer, world = self._observer, self._world
        skipped = 0 if self._tap is None else self._tap.skipped
        summary = Summary(
            format=FORMAT,
            format_version=FORMAT_VERSION,
            command=command,
            source="" if source is None else source.name,
            made_by=made_by(),
            report=report,
            dropped=observer.dropped(packets=skipped),
            metrics=self._metrics.value,
            world=world.kind,
        )
        hosts = world.host_infos(frozenset(observer.serving))
        return Results(
            summary,
            WorldInfo(hosts, tuple(observer.events), calibration),
            tuple(observer.series.rows(world.now)),
            tuple(observer.requests()),
            tuple(observer.paths()),
        )

    # What goes to the disk as it comes.

    def _opened(self, name: str) -> BinaryIO:
        file = (self._draft.path / name).open("wb")
        self._files.append(file)
        return file

    def _opened_trace(self) -> gzip.GzipFile:
        # Neither a name nor a time in the header: the same run gives the same bytes.
        file = gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=self._opened(folders.TRACE), mtime=0)
        self._world.trace.subscribe(self._trace_entry)
        return file

    def _trace_entry(self, entry: Entry) -> None:
        assert self._trace is not None
        if self._failure is not None or self._trace.closed:
            return
        shown = {"at": entry.at, "host": entry.host, "kind": entry.kind, "value": entry.value}
        try:
            self._trace.write(_ENCODER.encode(shown) + b"\n")
        except OSError as error:
            self._failure = error

    def _opened_capture(self, world: World) -> Tap:
        tap = Tap(Capture(self._opened(folders.CAPTURE), unix_time_at_zero=EPOCH))
        network = world.network
        network.taps.append(tap.stream)
        network.datagrams.taps.append(tap.datagram)
        return tap

    def _close(self) -> None:
        files, self._files = self._files, []
        with ExitStack() as stack:
            # All of them, also when one fails.
            for file in files:
                stack.callback(file.close)
            if self._trace is not None:
                self._trace.close()
            if self._tap is not None and self._simulated is not None and files:
                self._tap.finish(topology.addresses_of(self._simulated))

    def _abandon(self) -> None:
        """Leave nothing behind; after `publish` there is nothing left to remove."""
        if self._tap is not None:
            self._tap.is_done = True
        for file in self._files:
            with suppress(OSError):
                file.close()
        self._files = []
        self._draft.discard()


def write(folder: Path, results: Results) -> None:
    """Write what can be read back: summary, world and tables."""
    summary, world = results.summary, results.world
    (folder / folders.SUMMARY).write_bytes(_pretty(summary))
    (folder / folders.WORLD).write_bytes(_pretty(world))
    metrics = Metrics(summary.metrics)
    rows = {"series": results.series, "requests": results.requests, "paths": results.paths}
    for table, kind in folders.TABLES.items():
        tables.write(folders.table_path(folder, table, metrics.value), kind, rows[table], metrics)


def _pretty(value: msgspec.Struct) -> bytes:
    return msgspec.json.format(_ENCODER.encode(value)) + b"\n"
