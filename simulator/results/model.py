"""What a directory of results holds, as values.

Instants and durations are integers in microseconds of virtual time, as in the run itself, so that what is stored is
exact. The plots and the page are drawn from these values alone: they look the same drawn after the run or years later.
"""

from typing import Final

from simulator.report import Report
from teale_proto.contract import SECOND, Duration, Instant, Value

FORMAT: Final = "teale-sim results"
FORMAT_VERSION: Final = 1


class ResultsError(Exception):
    """Results that cannot be written or read; the text says where and why."""


class MissingResults(ResultsError):
    """There is no such directory, or it is none that `teale-sim` wrote."""


class DamagedResults(ResultsError):
    """A file of the directory is missing, or not what it should be."""


class NewerResults(ResultsError):
    """A later version of the program wrote the directory."""


class SeriesRow(Value):
    """One interval of one time series."""

    at: Instant
    """When the interval began."""
    interval: Duration
    metric: str
    label: str
    """Which relay or path it is of; "" for the whole world."""
    value: int
    """For what happens, how often it did in the interval; for what lasts, how much there was at its end."""


class RequestRow(Value):
    """One request, from the side of who asked."""

    request: str
    asker: str
    task: str
    model: str
    streaming: bool
    asked_at: Instant
    first_token_at: Instant | None
    ended_at: Instant | None
    outcome: str
    """`finished`, a failure's name, `asker_lost`, or `open` when the run was over first."""
    path: str
    """Over which path it was served or last tried; "" when it was sent to nobody."""
    server: str
    """The host that served it or was asked last; "" for none."""
    attempts: int
    tokens_in: int
    tokens_out: int


class PathRow(Value):
    """What one host had to do with one peer over one kind of path."""

    host: str
    peer: str
    path: str
    connected: int
    """How often the peer became reachable on it."""
    lost: int
    first_at: Instant
    last_at: Instant
    state: str
    """The last that was reported."""


class Event(Value):
    """Something that was done to the world: a crash, a restart, a partition."""

    at: Instant
    host: str
    kind: str
    detail: str


class Place(Value):
    """Where a host is attached."""

    segment: str
    address: str


class HostInfo(Value):
    """A host of the world."""

    name: str
    role: str
    """`node`, `relay` for what accepted connections and is no node, or `server` for any other."""
    places: tuple[Place, ...]
    behind: str = ""
    """What stands between it and the internet, in a few words; "" for nothing."""


class Calibration(Value):
    """A figure of the run beside the published one."""

    figure: str
    """What it is, as in "hole punching succeeds"."""
    measured: float
    published_low: float
    published_high: float
    """Equal to `published_low` where one number was published."""
    unit: str
    source: str


class MadeBy(Value):
    """Which program made the results."""

    version: str
    commit: str
    """"" where it is not known."""
    python: str


class Dropped(Value):
    """What was not kept, so that memory stayed bounded; nought, as a rule."""

    requests: int = 0
    paths: int = 0
    events: int = 0
    packets: int = 0
    """Left out of the capture: what has no IP address or fits into no packet."""


class Summary(Value):
    """What `summary.json` holds."""

    format: str
    format_version: int
    command: str
    """What repeats the run."""
    source: str
    """The name of the file with the scenario as it was run; "" for none."""
    made_by: MadeBy
    report: Report
    dropped: Dropped
    metrics: str
    """How the tables are stored: `csv` or `parquet`."""
    world: str = "simulated"
    """What kind of world it was: `simulated`, or `lab` for one of real programs."""


class WorldInfo(Value):
    """What `world.json` holds: who was there, what was done to them, and what was to be compared."""

    hosts: tuple[HostInfo, ...]
    events: tuple[Event, ...]
    calibration: tuple[Calibration, ...] = ()


class Results(Value):
    """Everything that plots and page are made of."""

    summary: Summary
    world: WorldInfo
    series: tuple[SeriesRow, ...]
    requests: tuple[RequestRow, ...]
    paths: tuple[PathRow, ...]

    @property
    def seconds(self) -> float:
        """How long the run was, in seconds of virtual time."""
        return self.summary.report.simulated_seconds

    def labels(self, metric: str) -> list[str]:
        """Return the labels that a time series has, sorted."""
        return sorted({row.label for row in self.series if row.metric == metric})

    def points(self, metric: str, label: str = "") -> tuple[list[float], list[int], float]:
        """Return the beginnings of the intervals in seconds, the values, and the length of an interval in seconds."""
        rows = [row for row in self.series if row.metric == metric and row.label == label]
        width = rows[0].interval / SECOND if rows else 1.0
        return [row.at / SECOND for row in rows], [row.value for row in rows], width
