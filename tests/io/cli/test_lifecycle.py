"""`teale up` and `down` as processes of their own, with a process that behaves like a node."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress

import psutil
import pytest

from teale_io.cli.process import is_alive, wait_until_gone
from teale_io.keychain import read_marker
from teale_io.paths import Paths, Runtime, read_runtime, write_runtime
from tests.io.cli.conftest import Ended, Teale
from tests.io.cli.terminal import ROOT, SAFETY_SECONDS, Terminal, environ_of
from tests.io.status import ALICE

Process = Callable[..., Ended]


@pytest.fixture
def teale_process(paths: Paths, teale_command: Teale) -> Iterator[Process]:
    teale_command("config", "set", "identity_storage", "plain-file")

    def run(*words: str, manner: str = "", **environ: str) -> Ended:
        done = subprocess.run(
            [sys.executable, "-m", "tests.io.cli.run_teale", manner, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=environ_of(paths, **environ),
            timeout=SAFETY_SECONDS,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    yield run
    _end_nodes_of(paths)


def _end_nodes_of(paths: Paths) -> None:
    """End what a test left running: the fake nodes whose log is in its home, and no others."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            ours = "tests.io.cli.fake_node" in process.cmdline()
            if ours and process.environ().get("TEALE_HOME") == str(paths.home):
                process.kill()
                wait_until_gone(process.pid, SAFETY_SECONDS)


def running_pid(paths: Paths) -> int:
    runtime = read_runtime(paths)
    assert runtime is not None
    return runtime.pid


def test_up_starts_a_node_that_outlives_it_and_down_ends_it(teale_process: Process, paths: Paths) -> None:
    up = teale_process("up")
    assert up.code == 0, up.err
    marker = read_marker(paths)
    assert marker is not None
    assert f"node id: {marker.node_id}\n" in up.out
    runtime = read_runtime(paths)
    assert runtime is not None
    assert f"OPENAI_BASE_URL={runtime.api_url}/v1" in up.err
    assert is_alive(runtime.pid)
    assert os.getsid(runtime.pid) != os.getsid(0), "closing the terminal does not end it"

    again = teale_process("up", "--json")
    assert (again.code, again.document["started"], again.document["pid"]) == (0, False, runtime.pid)
    assert "already running" in teale_process("up").out
    assert teale_process("status", "--json").document == {"node_id": marker.node_id}

    assert teale_process("down").out == "The node has stopped.\n"
    assert not is_alive(runtime.pid)
    assert not paths.runtime_file.exists()
    assert teale_process("status").code == 3


def test_down_without_a_node_is_no_error(teale_process: Process) -> None:
    assert teale_process("down").out == "No node is running here.\n"
    assert teale_process("down", "--json").document == {"stopped": False}


def test_a_node_that_cannot_start_is_reported_with_its_last_words(teale_process: Process, paths: Paths) -> None:
    ended = teale_process("up", "--json", manner="fail")
    assert ended.code == 1
    message = ended.document["error"]["message"]
    assert "ended with status 1" in message
    assert "lan_port 11436 is in use" in message
    assert str(paths.log_file) in message


def test_only_the_last_words_of_this_start_are_shown(teale_process: Process, paths: Paths) -> None:
    paths.log_file.write_text("yesterday's trouble\n")
    ended = teale_process("up", manner="fail")
    assert "lan_port 11436 is in use" in ended.err
    assert "yesterday" not in ended.err


def test_a_node_that_takes_too_long_is_a_timeout_that_says_where_to_look(teale_process: Process, paths: Paths) -> None:
    ended = teale_process("up", "--wait", "0.1", manner="hang")
    assert ended.code == 6
    assert str(paths.log_file) in ended.err


def test_a_runtime_file_of_a_crash_does_not_keep_a_node_from_starting(teale_process: Process, paths: Paths) -> None:
    assert teale_process("up").code == 0
    first = running_pid(paths)
    os.kill(first, signal.SIGKILL)
    assert wait_until_gone(first, SAFETY_SECONDS)
    assert teale_process("up", "--json").document["started"] is True
    assert running_pid(paths) != first
    assert teale_process("down").code == 0


def test_two_starts_at_once_make_one_node(teale_process: Process, paths: Paths) -> None:
    starts = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.io.cli.run_teale", "", "up", "--json"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=environ_of(paths),
        )
        for _ in range(2)
    ]
    documents = [json.loads(start.communicate(timeout=SAFETY_SECONDS)[0]) for start in starts]
    assert sorted(document["started"] for document in documents) == [False, True]
    assert documents[0]["pid"] == documents[1]["pid"]


def test_a_node_that_refuses_to_stop_gets_a_signal(teale_process: Process, paths: Paths) -> None:
    assert teale_process("up", manner="deaf").code == 0
    pid = running_pid(paths)
    assert teale_process("down", manner="deaf").code == 0
    assert not is_alive(pid)


def test_down_leaves_a_stranger_with_the_nodes_old_number_alone(teale_process: Process, paths: Paths) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        with socket.create_server(("127.0.0.1", 0)) as unrelated:
            free_port = unrelated.getsockname()[1]
        write_runtime(paths, Runtime(stranger.pid, "127.0.0.1", free_port, ALICE))
        os.utime(paths.runtime_file, (1, 1))
        assert teale_process("down").out == "No node is running here.\n"
        assert stranger.poll() is None
        stranger.communicate(b"\n")


def test_the_log_is_private_and_an_overlong_one_is_put_aside(teale_process: Process, paths: Paths) -> None:
    with paths.log_file.open("wb") as log:
        log.truncate((10 << 20) + 1)
    assert teale_process("up").code == 0
    assert paths.log_file.stat().st_size < 1000
    assert paths.log_file.stat().st_mode & 0o077 == 0
    assert paths.log_file.with_name("node.log.1").stat().st_size == (10 << 20) + 1


def test_in_the_foreground_the_node_takes_the_commands_place(teale_process: Process, paths: Paths) -> None:
    ended = teale_process("up", "--foreground", manner="fail")
    assert ended.code == 1
    assert ended.out.startswith("starting ")
    assert "lan_port 11436 is in use" in ended.err


def test_without_a_place_for_the_secret_nothing_is_started(teale_process: Process, teale_command: Teale) -> None:
    teale_command("config", "set", "identity_storage", "auto")
    ended = teale_process("up")
    assert ended.code == 8
    assert "TEALE_PASSPHRASE" in ended.err


def test_a_passphrase_typed_once_reaches_the_node(teale_process: Process, paths: Paths, teale_command: Teale) -> None:
    teale_command("config", "set", "identity_storage", "encrypted-file")
    with Terminal(paths, "", "up") as terminal:
        terminal.expect("Passphrase for the new secret key: ")
        terminal.type("correct horse\n")
        terminal.expect("Repeat for confirmation: ")
        terminal.type("correct horse\n")
        assert "correct" not in terminal.expect("node id: ")
        assert terminal.ended() == 0
    assert psutil.Process(running_pid(paths)).environ()["TEALE_PASSPHRASE"] == "correct horse"
    assert teale_process("down").code == 0
    assert teale_process("up", TEALE_PASSPHRASE="wrong horse").code == 8
    assert teale_process("up", TEALE_PASSPHRASE="correct horse").code == 0
