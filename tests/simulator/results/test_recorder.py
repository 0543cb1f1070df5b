"""A whole run, recorded."""

import gzip
import os
import re
import resource
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from scenarios.first_light import ASKS, RELAY, SCENARIO
from simulator import scenario
from simulator.net.nat import NatKind
from simulator.report import Report
from simulator.results.drawing import redraw
from simulator.results.model import Place, Results, ResultsError
from simulator.results.reading import read
from simulator.results.recorder import Recorder, Source, source_of
from simulator.results.tables import Metrics
from simulator.scenario import Scenario
from simulator.spec.access import CARRIER_GRADE
from simulator.world import World
from teale_proto.contract import NEVER, SECOND, Instant, Value
from teale_proto.effects import SendDatagram
from teale_proto.inputs import WAKE, Address
from teale_proto.nat.kinds import Filtering
from tests.simulator.results.captures import packets

SHORT = SCENARIO._replace(lasts=60 * SECOND)
"""Ends in the middle of things: requests are open, and checks fail."""


class Asker:
    """A core that asks a STUN server for its address when it is born."""

    deadline = NEVER

    def handle(self, event: Value, now: Instant) -> Sequence[Value]:
        if event != WAKE:
            return ()
        request = bytes.fromhex("000100002112a442") + bytes(12)
        return (SendDatagram(Address("192.168.0.2", 5000), Address("203.0.113.5", 3478), request),)


RECORD = """
import sys
from pathlib import Path
from tests.simulator.results.test_recorder import SHORT, recorded
recorded(SHORT, Path(sys.argv[1]), everything=True)
"""


def recorded(what: Scenario, folder: Path, *, everything: bool = False, seed: int = 1) -> tuple[Report, Results]:
    world = World(seed)
    with Recorder(world, folder, trace=everything, capture=everything) as recording:
        report = scenario.run(what, seed, world=world)
        command = f"teale-sim run {what.name} --seed {seed}"
        return report, recording.finish(report, command=command, source=source_of(what))


def little(name: str = "little") -> Scenario:
    return Scenario(name, "Nothing much.", 5 * SECOND, lambda world: None)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same run, recorded twice by processes with different hash seeds."""
    folders = tuple(tmp_path_factory.mktemp("runs") / f"hash-{number}" for number in (0, 4242))
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", RECORD, folder],
            env=os.environ | {"PYTHONHASHSEED": folder.name.partition("-")[2]},
            cwd=Path(__file__).parents[3],
        )
        for folder in folders
    ]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    return folders[0], folders[1]


def timeless(data: bytes) -> bytes:
    """Leave out what the clock of this machine brought in, and the state of the clone."""
    data = re.sub(rb'"wall_seconds": [0-9.e-]+|"commit": "[^"]*"', b"", data)
    return re.sub(rb"in [0-9.e-]+ s of real time|commit [0-9a-z-]+", b"", data)


def test_the_same_seed_gives_the_same_bytes_in_every_process(runs: tuple[Path, Path]) -> None:
    names = [sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()) for run in runs]
    assert names[0] == names[1]
    assert {"capture.pcapng", "trace.jsonl.gz", "summary.json", "report.html", "scenario.py"} <= set(names[0])
    for name in names[0]:
        first, second = ((run / name).read_bytes() for run in runs)
        if name in {"summary.json", "report.html"}:
            first, second = timeless(first), timeless(second)
        assert first == second, name


def test_recording_changes_nothing_and_the_summary_holds_the_report(runs: tuple[Path, Path]) -> None:
    report = scenario.run(SHORT, 1)
    stored = read(runs[0]).summary
    assert msgspec.structs.replace(stored.report, wall_seconds=0) == msgspec.structs.replace(report, wall_seconds=0)
    assert stored.command == "teale-sim run first_light --seed 1"
    assert (runs[0] / stored.source).read_text() == (Path(__file__).parents[3] / "scenarios/first_light.py").read_text()
    assert stored.made_by.python == sys.version.split()[0]


def test_the_tables_say_what_the_report_says(runs: tuple[Path, Path]) -> None:
    results = read(runs[0])
    requests = results.summary.report.requests
    outcomes = [row.outcome for row in results.requests]
    assert len(outcomes) == requests.asked <= ASKS
    assert outcomes.count("finished") == requests.finished > 20
    assert outcomes.count("open") > 0
    assert sum(row.attempts for row in results.requests) == requests.attempts
    for metric, total in (("requests_finished", requests.finished), ("peers_lost", results.summary.report.peers_lost)):
        assert sum(results.points(metric)[1]) == total
    assert results.labels("relay_connections") == [RELAY]
    assert results.points("relay_connections", RELAY)[1][10] == 20
    assert {host.role for host in results.world.hosts} == {"node", "relay"}
    assert len(results.world.events) == results.summary.report.hosts_crashed


def test_the_trace_holds_every_entry_whole(runs: tuple[Path, Path]) -> None:
    lines = gzip.decompress((runs[0] / "trace.jsonl.gz").read_bytes()).splitlines()
    assert len(lines) == read(runs[0]).summary.report.trace_entries
    first = msgspec.json.decode(lines[0])
    assert first == {"at": 0, "host": RELAY, "kind": "HostStarted", "value": {"life": 1}}
    assert max(len(line) for line in lines) > 2000


def test_the_capture_holds_what_the_hosts_sent(runs: tuple[Path, Path]) -> None:
    seen = packets((runs[0] / "capture.pcapng").read_bytes())
    assert read(runs[0]).summary.dropped.packets == 0
    assert {each.protocol for each in seen} == {6}
    times = [each.at for each in seen]
    assert times == sorted(times)
    following: dict[tuple[object, object], int] = {}
    for each in seen:
        ends = (each.source, each.target)
        assert following.get(ends, 0) == each.sequence
        following[ends] = each.sequence + len(each.data) + (1 if each.flags & 2 else 0)
    relay_bytes = sum(len(each.data) for each in seen if "203.0.113.1" in (each.source[0], each.target[0]))
    series = read(runs[0]).series
    assert relay_bytes > sum(row.value for row in series if row.metric == "relay_bytes_out")


def test_drawing_anew_from_what_is_stored_gives_the_same_files(runs: tuple[Path, Path]) -> None:
    before = {path: path.read_bytes() for path in runs[1].rglob("*") if path.is_file()}
    redraw(runs[1])
    assert {path: path.read_bytes() for path in runs[1].rglob("*") if path.is_file()} == before


def test_an_ended_run_replaces_the_former_one_and_one_that_fails_leaves_it(tmp_path: Path) -> None:
    recorded(little("one"), tmp_path / "run")
    recorded(little("two"), tmp_path / "run")
    assert read(tmp_path / "run").summary.report.scenario == "two"
    with pytest.raises(ZeroDivisionError), Recorder(World(1), tmp_path / "run", trace=True):
        _ = 1 / 0
    assert read(tmp_path / "run").summary.report.scenario == "two"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_directory_with_something_else_is_refused_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "letter").write_text("dear")
    with pytest.raises(ResultsError, match="will not be replaced"):
        Recorder(World(1), tmp_path)


def test_what_is_not_installed_is_said_before_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ResultsError, match="pyarrow"):
        Recorder(World(1), tmp_path / "run", metrics=Metrics.PARQUET)
    assert list(tmp_path.iterdir()) == []


@contextmanager
def no_file_larger_than(size_bytes: int) -> Iterator[None]:
    """Let writing fail as on a full disk."""
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, former[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)


@pytest.mark.parametrize("everything", [True, False])
def test_a_full_disk_is_a_clear_error_and_leaves_nothing(tmp_path: Path, everything: bool) -> None:
    lasts = SHORT._replace(lasts=10 * SECOND)
    with no_file_larger_than(20_000), pytest.raises(ResultsError, match="run: cannot be written: File too large"):
        recorded(lasts, tmp_path / "run", everything=everything)
    assert list(tmp_path.iterdir()) == []


def test_a_scenario_without_a_file_has_no_source() -> None:
    namespace: dict[str, object] = {}
    exec("def build(world): pass", namespace)
    build = namespace["build"]
    assert callable(build)
    assert source_of(Scenario("made", "", 1, build)) is None
    source = source_of(SCENARIO)
    assert isinstance(source, Source)
    assert source.name == "scenario.py"


def test_what_is_recorded_needs_no_plotting_library_until_the_end() -> None:
    code = (
        "import sys, simulator.results.recorder; sys.exit(bool({'matplotlib', 'numpy', 'pyarrow'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_hosts_are_kept_with_what_stands_before_them_and_datagrams_are_captured(tmp_path: Path) -> None:
    def build(world: World) -> None:
        carrier = world.add_site("carrier", [CARRIER_GRADE], discovery=False)
        home = world.add_site("home", [NatKind(filtering=Filtering.ADDRESS_DEPENDENT)], behind=carrier)
        wall = world.add_site("wall", [NatKind(translates=False, udp_blocked=True)])
        server = world.add_stun("stun", ["203.0.113.5"])
        host = world.add_host("inside", lambda rng, now: Asker(), site=home, addresses=["192.168.0.2"], birth=(WAKE,))
        world.add_host("walled", lambda rng, now: Asker(), site=wall, addresses=["198.51.100.9"])
        for name in (server.name, host.name):
            world.start(name, at=0)

    report, results = recorded(Scenario("sites", "", SECOND, build), tmp_path / "run", everything=True)
    assert report.passed
    behind = {host.name: (host.role, host.behind) for host in results.world.hosts}
    assert behind == {
        "stun": ("server", ""),
        "inside": ("server", "EIM+ADF behind EIM+APDF"),
        "walled": ("server", "firewall without UDP"),
    }
    assert results.world.hosts[1].places == (Place("home", "192.168.0.2"),)
    sent = packets((tmp_path / "run" / "capture.pcapng").read_bytes())
    assert [(each.protocol, each.source, each.target) for each in sent[:1]] == [
        (17, ("192.168.0.2", 5000), ("203.0.113.5", 3478))
    ]
    assert len(sent) == 2
