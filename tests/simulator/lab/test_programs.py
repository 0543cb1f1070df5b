"""Programs: how they are configured, started, found ready, measured, told to end, and never left behind."""

import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from time import monotonic, sleep

import pytest

from simulator.backend import CostModel
from simulator.lab.certificates import Authority
from simulator.lab.plan import NodePlan, Role, Setting, plan_of
from simulator.lab.programs import (
    Program,
    ProgramFailed,
    end,
    file_name,
    missing,
    node_program,
    toml_of,
    usage_of,
    wait_until_ready,
)
from simulator.spec.population import Population
from simulator.spec.world_spec import WorldSpec

OPTIONS = ("--port", "0", "--models", "model-1")
"""Of a model server, which is the quickest of our programs to start."""


def now() -> int:
    return round(monotonic() * 1e6)


def models(folder: Path, *options: str) -> Program:
    return Program("models", Role.MODELS, folder, (), options or OPTIONS)


def is_there(pid: int) -> bool:
    """Whether a process exists that is not merely waiting to be counted among the dead."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def pid_of(program: Program) -> int:
    assert program._process is not None
    return program._process.pid


def test_a_program_is_ready_when_it_listens_and_may_have_several_lives(tmp_path: Path) -> None:
    program = models(tmp_path / "home")
    for number in (1, 2):
        program.start(tmp_path / "journal", now())
        wait_until_ready([program], now)
        assert program.is_ready
        assert program.life.number == number
        assert program.life.ready_at is not None
        assert program.life.ready_usage.own_us > 0
        program.kill(now())
        assert not program.is_alive
        assert program.life.status == -signal.SIGKILL
    first, second = program.lives
    assert first.ended_at is not None
    assert first.ended_at <= second.spawned_at


def test_a_program_that_cannot_start_is_told_of_with_the_end_of_its_log(tmp_path: Path) -> None:
    program = models(tmp_path, "--port", "none")
    program.start(tmp_path / "journal", now())
    with pytest.raises(ProgramFailed, match=r"(?s)models ended with status 2 before it was ready:.*invalid int value"):
        wait_until_ready([program], now)


def test_programs_that_are_told_to_end_end(tmp_path: Path) -> None:
    programs = [models(tmp_path / "one"), models(tmp_path / "other")]
    for program in programs:
        program.start(tmp_path / "journal", now())
    wait_until_ready(programs, now)
    end(programs, now)
    assert [program.is_alive for program in programs] == [False, False]
    assert all(program.life.usage.own_us for program in programs)


def test_what_a_node_has_beside_it_lives_and_dies_with_it(tmp_path: Path) -> None:
    node = Program("node", Role.MODELS, tmp_path / "node", (), OPTIONS)
    beside = node.beside = models(tmp_path / "beside")
    node.start(tmp_path / "journal", now())
    wait_until_ready([node, beside], now)
    node.note_usage()
    assert node.life.usage.children_us > 0
    node.kill(now())
    assert not beside.is_alive


PARENT = f"""
import sys
from pathlib import Path
from time import sleep
from simulator.lab.plan import Role
from simulator.lab.programs import Program, wait_until_ready
program = Program("models", Role.MODELS, Path(sys.argv[1]), (), {OPTIONS!r})
program.start(Path("journal"), 0)
wait_until_ready([program], lambda: 0)
print(program._process.pid, flush=True)
sleep(60)
"""


def test_no_program_outlives_whoever_started_it_however_that_ends(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_there(pid)
        parent.kill()
    give_up_at = monotonic() + 10
    while is_there(pid):
        assert monotonic() < give_up_at, "it is still there"
        sleep(0.02)


def test_processor_time_is_that_of_a_process_and_of_its_children() -> None:
    usage = usage_of(os.getpid())
    assert abs(usage.own_us - sum(os.times()[:2]) * 1e6) < 1e6
    burning = [sys.executable, "-c", "for number in iter(int, 1): pass"]
    with subprocess.Popen(burning) as child:
        try:
            give_up_at = monotonic() + 10
            while usage_of(os.getpid()).children_us < 50_000:
                assert monotonic() < give_up_at
                sleep(0.02)
        finally:
            child.kill()
    assert usage_of(child.pid).own_us == 0


def test_a_node_is_configured_by_a_file_and_its_model_server_by_words(tmp_path: Path) -> None:
    settings: dict[str, Setting] = {
        "display_name": 'a "b"',
        "wan_enabled": True,
        "api_port": 0,
        "wan_stun": ["192.0.2.1:3478"],
    }
    plan = NodePlan("node-0", "site", settings, True, ("model-1",), CostModel(tokens_max=99))
    program = node_program(plan, tmp_path / "node", ("nowhere",), seed=3, authority=Authority(tmp_path))
    trusting = {**settings, "wan_relay_ca": str(tmp_path / "authority.pem")}
    assert tomllib.loads((tmp_path / "node" / "config.toml").read_text()) == trusting
    assert program.beside is not None
    assert program.beside.role is Role.MODELS


def test_a_machine_with_too_little_memory_is_found_out_before_it_swaps() -> None:
    spec = WorldSpec(name="x", populations=(Population(count=10_000, access="public"),), stun=0)
    [lacking] = [each for each in missing(plan_of(spec, 1)) if each.startswith("memory: ")]
    assert "10000 nodes" in lacking


def test_a_disk_that_is_lost_takes_the_keys_with_it(tmp_path: Path) -> None:
    program = models(tmp_path)
    for name in ("identity.json", "identity.key", "config.toml"):
        (tmp_path / name).touch()
    program.forget_identity()
    assert [path.name for path in tmp_path.iterdir()] == ["config.toml"]


def test_names_of_hosts_become_names_of_files() -> None:
    assert file_name("../home of/ann-0") == "..-home-of-ann-0"
    assert toml_of({"a": 1, "b": ["x"]}) == 'a = 1\nb = ["x"]\n'
