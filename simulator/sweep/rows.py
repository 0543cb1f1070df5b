"""One run as one row: what was set, what came of it, or why nothing came of it.

A row holds nothing that depends on the machine or the moment, so that a sweep gives the same rows wherever its runs
were done.
"""

from collections.abc import Set
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec

from simulator.fuzz.capsule import this_code
from simulator.host import CoreError
from simulator.report import Report
from simulator.scenario import Scenario, ScenarioError, from_python, run, world_of
from simulator.sweep.plan import Job
from simulator.trace import Entry
from simulator.world import World
from teale_proto.contract import Value
from teale_proto.effects import Path as PeerPath
from teale_proto.effects import SendData, SendText
from teale_proto.inputs import DataReceived

Number: TypeAlias = int | float | None

ERROR_CHARACTERS_MAX: Final = 2000

_TRAFFIC: Final = frozenset({DataReceived, SendData, SendText})


class Row(Value):
    """What came of one run."""

    number: int
    cell: int
    seed: int
    settings: dict[str, Any]
    passed: bool
    """Whether every check passed; false for a run that failed."""
    digest: str
    metrics: dict[str, Number]
    """Empty for a run that failed."""
    error: str
    """Why there is no result; "" where there is one."""


def run_job(job: Job) -> Row:
    """Do one run; whatever goes wrong with it is in the row."""
    if job.code and job.code != this_code().source:
        return failed(job, "this worker runs other code than the sweep was planned with; install the same version")
    try:
        scenario = _scenario_of(job)
        world = world_of(scenario, job.seed)
        load = RelayLoad(world.node_ids.keys())
        report = run(scenario, job.seed, world=world, subscribe=load.observe)
    except (ScenarioError, CoreError) as error:
        return failed(job, str(error))
    except Exception as error:
        return failed(job, f"a bug of the simulator: {type(error).__name__}: {error}")
    return Row(job.number, job.cell, job.seed, job.settings, report.passed, report.digest, metrics_of(report, load), "")


def failed(job: Job, why: str) -> Row:
    """Return the row of a run that came to nothing."""
    return Row(job.number, job.cell, job.seed, job.settings, False, "", {}, why[:ERROR_CHARACTERS_MAX])


class RelayLoad:
    """Counts what the relays of a world take in and send; a subscriber of the trace."""

    __slots__ = ("_nodes", "bytes_in", "bytes_out", "messages_in")

    def __init__(self, nodes: Set[str]) -> None:
        self._nodes = nodes
        """The names of the hosts that are nodes; whoever else receives data is a relay."""
        self.messages_in = 0
        self.bytes_in = 0
        self.bytes_out = 0

    def observe(self, entry: Entry) -> None:
        """Count an entry."""
        kind = type(entry.value)
        if kind in _TRAFFIC and entry.host not in self._nodes:
            size = len(entry.value.data)  # type: ignore[attr-defined]  # the three kinds have it
            if kind is DataReceived:
                self.messages_in += 1
                self.bytes_in += size
            else:
                self.bytes_out += size


def metrics_of(report: Report, load: RelayLoad) -> dict[str, Number]:
    """Return the headline figures of a run."""
    requests = report.requests
    paths = {f"served_{path.value}": requests.served_by_path.get(path.value, 0) for path in PeerPath}
    return {
        "asked": requests.asked,
        "served": requests.finished,
        "served_share": requests.finished / requests.asked if requests.asked else None,
        **paths,
        "attempts": requests.attempts,
        "retried": requests.retried,
        "first_token_p50_ms": requests.first_token_p50_ms,
        "first_token_p90_ms": requests.first_token_p90_ms,
        "relay_messages_in": load.messages_in,
        "relay_bytes_in": load.bytes_in,
        "relay_bytes_out": load.bytes_out,
        "hosts_crashed": report.hosts_crashed,
        "peers_lost": report.peers_lost,
        "violations": sum(check.violation_count for check in report.checks),
        "simulated_seconds": report.simulated_seconds,
        "events": report.events,
        "trace_entries": report.trace_entries,
    }


def figure_names() -> tuple[str, ...]:
    """Return the names of the headline figures, which are those of every run."""
    return tuple(metrics_of(World(0).report("", 0.0), RelayLoad(frozenset())))


def _scenario_of(job: Job) -> Scenario:
    if not job.spec:
        return from_python(job.program, Path(job.file))
    from simulator.spec.build import scenario_of
    from simulator.spec.world_spec import WorldSpec

    return scenario_of(msgspec.json.decode(job.spec, type=WorldSpec))
