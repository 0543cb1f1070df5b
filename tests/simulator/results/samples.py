"""Small results to draw and to write, without a run."""

from simulator.checkers import Violation
from simulator.report import Check, Report, Requests
from simulator.results.model import (
    FORMAT,
    FORMAT_VERSION,
    Calibration,
    Dropped,
    Event,
    HostInfo,
    MadeBy,
    PathRow,
    Place,
    RequestRow,
    Results,
    SeriesRow,
    Summary,
    WorldInfo,
)
from teale_proto.contract import SECOND

NASTY = "<script>alert('$x^{2')</script>\x00\"&\N{SNOWMAN}\n=1+1"
"""What no page and no plot may take for anything but a name."""


def report(*, checks: tuple[Check, ...] = (), name: str = "sample") -> Report:
    requests = Requests(2, 1, {"finished": 1, "timeout": 1}, {"relay": 1}, 2, 0, 120.0, 120.0)
    passed = all(check.passed for check in checks)
    return Report(name, 7, passed, "d1", requests, 1, 1, checks, 10.0, 100, 200, 0.5)


def results(
    *,
    host: str = "node-1",
    checks: tuple[Check, ...] = (),
    calibration: tuple[Calibration, ...] = (),
    metrics: str = "csv",
    dropped: Dropped | None = None,
) -> Results:
    return Results(
        Summary(
            FORMAT,
            FORMAT_VERSION,
            f"teale-sim run {host}",
            "scenario.py",
            MadeBy("0", "abc", "3.11"),
            report(checks=checks, name=host),
            dropped or Dropped(),
            metrics,
        ),
        WorldInfo(
            (
                HostInfo(host, "node", (Place("internet", "198.51.100.1"),)),
                HostInfo("node-2", "node", (Place("internet", "198.51.100.2"), Place(host, "192.168.0.2"))),
                HostInfo("relay", "relay", (Place("internet", "203.0.113.1"),)),
            ),
            (Event(3 * SECOND, host, "crashed (reset)", host), Event(5 * SECOND, host, "restarted", "life 2")),
            calibration,
        ),
        (
            *series("requests_asked", "", [0, 2, 0]),
            *series("requests_finished", "", [0, 0, 1]),
            *series("peers_connected", "relay", [0, 2, 2]),
            *series("relay_connections", host, [1, 2, 2]),
            *series("relay_bytes_in", host, [0, 1000, 10]),
            *series("relay_bytes_out", host, [0, 900, 10]),
        ),
        (
            request(host, "finished", "relay"),
            RequestRow(host, host, "chat", "m", False, 2 * SECOND, None, None, "open", "", "", 0, 0, 0),
        ),
        (PathRow(host, "node-2", "relay", 1, 0, SECOND, SECOND, "connected"),),
    )


def series(metric: str, label: str, values: list[int]) -> list[SeriesRow]:
    return [SeriesRow(index * SECOND, SECOND, metric, label, value) for index, value in enumerate(values)]


def request(asker: str, outcome: str, path: str) -> RequestRow:
    return RequestRow(
        "r1", asker, "chat", "model", True, SECOND, SECOND + 120_000, 2 * SECOND, outcome, path, "node-2", 1, 10, 20
    )


def failed_check(host: str) -> Check:
    return Check(f"rule of {host}", False, 30, (Violation(2 * SECOND, host, f"said {host}"),))
