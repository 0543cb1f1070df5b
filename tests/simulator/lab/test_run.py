"""A whole lab, with real programs behind the kernel's NATs; and that nothing of one is left, however it ends."""

import gzip
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import msgspec
import pytest

from simulator.lab.plan import plan_of
from simulator.lab.programs import ProgramFailed
from simulator.lab.run import run
from simulator.lab.scratch import PREFIX
from simulator.report import Report
from simulator.scenario import load
from tests.simulator.lab.test_programs import is_there

COMMAND = [sys.executable, "-m", "simulator.cli", "lab", "run", "lab_first", "--seed", "1", "--models", "described"]
pytestmark = pytest.mark.usefixtures("means")


def test_a_scenario_runs_with_real_programs_and_leaves_the_results_of_any_run(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = subprocess.run(
        [*COMMAND, "--out", str(out), "--trace", "--keep-journals", "--json"],
        env=_environ(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = msgspec.json.decode(done.stdout, type=Report)
    assert report.requests.outcomes == {"finished": 3}
    assert report.requests.served_by_path == {"direct": 2, "relay": 1}
    assert (report.peers_direct, report.peers_relayed) == (2, 1)
    summary = msgspec.json.decode((out / "summary.json").read_bytes())
    assert summary["world"] == "lab"
    assert summary["command"] == "teale-sim lab run lab_first --seed 1 --models described"
    _check_lab(msgspec.json.decode((out / "lab.json").read_bytes()))
    _check_trace(out / "trace.jsonl.gz")
    hosts = {host["name"]: host for host in msgspec.json.decode((out / "world.json").read_bytes())["hosts"]}
    assert (hosts["asker-0"]["role"], hosts["asker-0"]["behind"]) == ("node", "EIM+APDF")
    assert (hosts["relay-0"]["role"], hosts["stun-0"]["role"]) == ("relay", "server")
    assert len(list((out / "journals").glob("*.journal"))) == 5
    assert (out / "report.html").is_file()
    assert not list(tmp_path.glob(f"{PREFIX}*"))


def _check_lab(lab: dict[str, Any]) -> None:
    assert lab["replayed_alike"] is True
    programs = {program["name"]: program for program in lab["programs"]}
    assert set(programs) == {"relay-0", "stun-0", "asker-0", "server-0", "guest-0"}
    for program in programs.values():
        [life] = program["lives"]
        assert 0 < life["cpu_us_to_start"] < life["cpu_us"]
        assert life["startup"] > 0
        assert program["traffic"]["packets_sent"] > 0
    assert programs["server-0"]["lives"][0]["models_cpu_us"] > 0
    assert programs["relay-0"]["messages_in"] > 20
    assert [reply["heard"] for reply in lab["replies"]] == ["answered"] * 3


def _check_trace(path: Path) -> None:
    with gzip.open(path) as lines:
        entries = [msgspec.json.decode(line) for line in lines]
    assert [entry["at"] for entry in entries] == sorted(entry["at"] for entry in entries)
    kinds = Counter(entry["kind"] for entry in entries)
    assert kinds["HostStarted"] == 5
    assert kinds["NatRebooted"] == 1
    asked = [entry["value"]["request"] for entry in entries if entry["kind"] == "Ask"]
    assert asked == ["ask-guest-0-7000000", "ask-asker-0-11000000", "ask-asker-0-16000000"]


@contextmanager
def going_on(folder: Path) -> Iterator[tuple["subprocess.Popen[str]", list[int]]]:
    """Run a lab in a process until a node is up in it; yields that and the ids of all processes of it."""
    with subprocess.Popen(COMMAND, env=_environ(folder), stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            for line in process.stderr:
                if "server-0 is up" in line:
                    break
            else:
                pytest.fail("the lab ended by itself")
            yield process, _descendants(process.pid)
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_nothing_is_left_of_a_lab_that_is_ended(number: signal.Signals, tmp_path: Path) -> None:
    with going_on(tmp_path) as (process, family):
        namespaces = {_namespace(pid) for pid in family} - {_namespace(os.getpid()), None}
        # A node and what answers beside it, two servers and the forwarder; the other nodes come later.
        assert len(family) >= 5
        assert len(namespaces) >= 3
        process.send_signal(number)
        status = process.wait(30)
    assert status == (-9 if number is signal.SIGKILL else 130)
    give_up_at = monotonic() + 10
    while left := [pid for pid in family if is_there(pid)]:
        assert monotonic() < give_up_at, f"still there: {left}"
        sleep(0.02)
    # What holds a namespace is a process or a descriptor, and those were all of them.
    assert not namespaces & set(map(_namespace, _all_processes()))
    if number is not signal.SIGKILL:
        assert not list(tmp_path.glob(f"{PREFIX}*"))


def test_a_program_that_does_not_start_ends_the_lab_with_its_log(tmp_path: Path) -> None:
    spec = load("lab_first").spec
    assert spec is not None
    plan = plan_of(spec, 1)
    nodes = [msgspec.structs.replace(node, settings={**node.settings, "misspelt": True}) for node in plan.nodes]
    with pytest.raises(ProgramFailed, match=r"server-0 ended with status .* before it was ready:\n.*misspelt"):
        run(msgspec.structs.replace(plan, nodes=tuple(nodes)), tmp_path)


def _environ(folder: Path) -> dict[str, str]:
    return os.environ | {"TMPDIR": str(folder)}


def _namespace(pid: int) -> str | None:
    try:
        return os.readlink(f"/proc/{pid}/ns/net")
    except OSError:
        return None


def _all_processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _descendants(pid: int) -> list[int]:
    parents: dict[int, list[int]] = {}
    for each in _all_processes():
        try:
            parent = int(Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        parents.setdefault(parent, []).append(each)
    found = [pid]
    for each in found:
        found += parents.get(each, [])
    return found[1:]
