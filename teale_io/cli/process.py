"""The node as a process of this machine: find it, start it detached, wait for it to come and to go.

The runtime file says which process it is. After a crash it may name a process that is gone, or one that has since
got the same number, or an API port that another node has taken; all of these are recognised, and the file removed.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import httpx
import msgspec
import psutil

from teale_io.paths import Paths, Runtime, make_private_folder, read_runtime, remove_runtime

NODE_COMMAND: Final = (sys.executable, "-m", "teale_io.node_app")

PROBE_SECONDS: Final = 3.0
POLL_SECONDS: Final = 0.05
LOG_SIZE_MAX: Final = 10 << 20
"""Bytes of log after which a start begins a new file; one old one is kept."""

_CLOCK_SLACK_SECONDS: Final = 2.0


class FoundNode(msgspec.Struct, frozen=True):
    """A node of this home whose process is alive."""

    runtime: Runtime
    is_answering: bool


class _Identified(msgspec.Struct):
    node_id: str


def find_node(paths: Paths) -> FoundNode | None:
    """Return the running node of this home; a runtime file that means none is removed."""
    runtime = read_runtime(paths)
    if runtime is not None and is_alive(runtime.pid):
        answering_id = _ask_node_id(runtime)
        if answering_id == runtime.node_id:
            return FoundNode(runtime, is_answering=True)
        if not answering_id and _wrote_runtime_file(paths, runtime.pid):
            return FoundNode(runtime, is_answering=False)
    if read_runtime(paths) == runtime:  # and no node has come up in the meantime
        remove_runtime(paths)
    return None


def is_alive(pid: int) -> bool:
    """Whether a process of that number runs; one that has ended and that nobody waited for does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.AccessDenied:
        return True
    except (psutil.NoSuchProcess, ValueError, OverflowError):
        return False


def wait_until_gone(pid: int, seconds: float) -> bool:
    """Wait until a process has ended; False when it takes longer than `seconds`."""
    return _wait_until(lambda: not is_alive(pid), seconds)


def ask_to_terminate(paths: Paths, pid: int) -> None:
    """Ask a process to end, unless it is not the one that wrote the runtime file."""
    if _wrote_runtime_file(paths, pid):
        psutil.Process(pid).terminate()


class NodeProcess:
    """A node that was just started in the background."""

    def __init__(self, paths: Paths, command: Sequence[str], environ: Mapping[str, str]) -> None:
        """Start `command` detached from this terminal, its output going to the log file."""
        self._paths = paths
        make_private_folder(paths.home)
        make_private_folder(paths.log_file.parent)
        _begin_new_log_if_long(paths.log_file)
        descriptor = os.open(paths.log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            self._log_from = os.fstat(descriptor).st_size
            self._process = subprocess.Popen(  # noqa: S603 - our own command, no shell
                command,
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                cwd=paths.home,
                env=dict(environ),
                start_new_session=True,
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),  # Windows only
            )
        finally:
            os.close(descriptor)

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    def exit_status(self) -> int | None:
        """Return how the process ended, None while it runs; the signal's number, negative, where one ended it."""
        return self._process.poll()

    def wait_until_up(self, seconds: float) -> Runtime | None:
        """Return where the API is once it answers; None when the process ends before or it takes too long."""
        up: list[Runtime] = []

        def is_decided() -> bool:
            runtime = read_runtime(self._paths)
            if runtime is not None and _is_healthy(runtime):
                up.append(runtime)
            return bool(up) or self.exit_status() is not None

        _wait_until(is_decided, seconds)
        return up[0] if up else None

    def last_log_lines(self, count: int) -> list[str]:
        """Return the last lines that this process wrote to the log."""
        with self._paths.log_file.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(self._log_from, size - 65_536))
            lines = log.read().decode("utf-8", "replace").splitlines()
        return [line for line in lines if line.strip()][-count:]


def run_in_foreground(command: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run the node in place of this process; where that is not possible, beside it, and return its exit status."""
    sys.stdout.flush()
    sys.stderr.flush()
    if os.name == "posix":
        os.execve(command[0], list(command), dict(environ))  # noqa: S606 - no shell wanted
    return subprocess.run(list(command), env=dict(environ), check=False).returncode  # noqa: S603 - our own command


def _wait_until(is_true: Callable[[], bool], seconds: float) -> bool:
    give_up_at = time.monotonic() + seconds
    while not is_true():
        if time.monotonic() >= give_up_at:
            return False
        time.sleep(POLL_SECONDS)
    return True


def _ask_node_id(runtime: Runtime) -> str | None:
    """Return the id of the node that answers where the runtime file points, "" for nonsense, None for silence."""
    try:
        response = httpx.get(f"{runtime.api_url}/api/status", timeout=PROBE_SECONDS, trust_env=False)
    except (httpx.HTTPError, httpx.InvalidURL):
        return None
    try:
        return msgspec.json.decode(response.content, type=_Identified).node_id
    except msgspec.DecodeError:
        return ""


def _is_healthy(runtime: Runtime) -> bool:
    try:
        return httpx.get(f"{runtime.api_url}/health", timeout=PROBE_SECONDS, trust_env=False).is_success
    except (httpx.HTTPError, httpx.InvalidURL):
        return False


def _wrote_runtime_file(paths: Paths, pid: int) -> bool:
    """Whether the process is old enough to have written the file; one that got the number later is not."""
    try:
        created = psutil.Process(pid).create_time()
        return bool(created <= paths.runtime_file.stat().st_mtime + _CLOCK_SLACK_SECONDS)
    except (psutil.Error, OSError):
        return False


def _begin_new_log_if_long(log_file: Path) -> None:
    try:
        if log_file.stat().st_size > LOG_SIZE_MAX:
            log_file.replace(log_file.with_name(log_file.name + ".1"))
    except FileNotFoundError:
        pass
