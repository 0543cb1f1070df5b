"""The programs that are measured: real relays and nodes, each in a process of its own that ends with its context."""

import ctypes
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TypeVar

import msgspec

from simulator.backend import CostModel
from simulator.calibrating.clocks import ProcessClock
from simulator.lab.certificates import Authority
from simulator.lab.programs import environ_of, runtime_of, toml_of
from teale_proto.inputs import NodeId

T = TypeVar("T")
P = TypeVar("P", bound="Program")

LOOPBACK: Final = "127.0.0.1"
READY_SECONDS: Final = 60.0
PLENTY: Final = 10**9
_PR_SET_PDEATHSIG: Final = 1


class CalibrationError(Exception):
    """Something could not be measured; the text says what, and why."""


class Program:
    """One process of our programs, with its output in a file."""

    def __init__(self, module: str, arguments: Sequence[str] = (), *, home: Path, journal: bool) -> None:
        self.journal: Final = home / "journal"
        """Where its journal is, if it writes one."""
        journaling = ["--journal", str(self.journal)] if journal else []
        self.name: Final = module.rpartition(".")[2].removesuffix("_app")
        self.home: Final = home
        self._log = (home / "output.log").open("wb")
        self._process = subprocess.Popen(  # noqa: S603 - our own programs
            [sys.executable, "-m", module, *arguments, *journaling],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=environ_of(home),
            preexec_fn=_dies_with_us,
        )
        self.cpu: Final = ProcessClock(self._process.pid)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def output(self) -> str:
        """What it has printed."""
        return (self.home / "output.log").read_text(errors="replace")

    def wait_for(self, what: str, look: Callable[[], T | None]) -> T:
        """Return the first thing that `look` finds; raises CalibrationError where the program ends or time runs out."""
        give_up_at = time.monotonic() + READY_SECONDS
        while not (found := look()):
            if self._process.poll() is not None:
                last = "".join(self.output.strip().splitlines()[-1:])
                raise CalibrationError(f"{self.name} ended with exit code {self._process.returncode}: {last[:300]}")
            if time.monotonic() > give_up_at:
                raise CalibrationError(f"{self.name}: no {what} after {READY_SECONDS:g} s")
            time.sleep(0.01)  # and looks again
        return found

    def end(self) -> None:
        """End it at once: nothing of it is to be kept."""
        self._process.kill()
        self._process.wait()
        self._log.close()

    def __enter__(self: P) -> P:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()


class Relay(Program):
    """A relay on a free port, as people run it but for its limits: it counts, and never says no.

    It has a certificate, as those that are reached over the internet do.
    """

    def __init__(self, home: Path, *, journal: bool = False, host: str = LOOPBACK, alternate: str = "") -> None:
        whose = ("client", "address", "total")
        limits = [f"--{each}-{what}={PLENTY}" for each in whose for what in ("messages", "bytes")]
        authority = Authority(home)
        certified = f"--tls-cert={authority.certify('relay', [host])}"
        alone = [f"--host={host}", "--port=0", certified, "--log-level=error", "--connections-per-address=0"]
        if alternate:
            alone.append(f"--stun-alternate={alternate}")
        self.host: Final = host
        self.ca_file: Final = authority.ca_file
        """What its clients are to trust."""
        super().__init__("teale_io.relay_app", [*alone, *limits], home=home, journal=journal)
        found = self._started(lambda: re.search(r"wss://[0-9.]+:(\d+)/ws", self.output))
        self.port: Final = int(found[1])
        self.start_us: Final = self.cpu.read_us()

    def _started(self, look: Callable[[], T | None]) -> T:
        try:
            return self.wait_for("port", look)
        except BaseException:
            self.end()
            raise

    @property
    def url(self) -> str:
        """Where it is reached."""
        return f"wss://{self.host}:{self.port}/ws"

    @property
    def settings(self) -> dict[str, Any]:
        """What nodes have to know to use it."""
        return {"wan_enabled": True, "wan_relay_url": self.url, "wan_relay_ca": str(self.ca_file)}


class ModelServer(Program):
    """The model server of labs, which takes the time that `cost` says."""

    def __init__(self, home: Path, model: str, cost: CostModel) -> None:
        arguments = ["--port=0", "--models", model, "--cost", msgspec.json.encode(cost).decode()]
        super().__init__("simulator.lab.model_server", arguments, home=home, journal=False)
        try:
            found = self.wait_for("port", lambda: re.search(r"http://127\.0\.0\.1:\d+/v1", self.output))
        except BaseException:
            self.end()
            raise
        self.url: Final = found[0]


class Node(Program):
    """A node with a folder of its own; `settings` are those of its configuration."""

    def __init__(self, home: Path, *, journal: bool = False, **settings: Any) -> None:
        self.lan_port: Final = _free_port() if settings.get("lan_enabled") else 0
        given = {
            "display_name": "calibration",
            "api_port": 0,
            "lan_enabled": False,
            "lan_host": LOOPBACK,
            "lan_interfaces": [LOOPBACK],
            "lan_port": self.lan_port,
            "heartbeat_seconds": 30,
            "identity_storage": "plain-file",
            "log_level": "error",
            "builtin_model": False,
            **settings,
        }
        (home / "config.toml").write_text(toml_of(given), encoding="utf-8")
        super().__init__("teale_io.node_app", home=home, journal=journal)
        try:
            runtime = self.wait_for("API", lambda: runtime_of(home, self.pid))
        except BaseException:
            self.end()
            raise
        self.api_port: Final = runtime.api_port
        self.node_id: Final = NodeId(runtime.node_id)
        self.start_us: Final = self.cpu.read_us()


class Folders:
    """Folders for programs, all of which are gone at the end."""

    def __init__(self) -> None:
        self._whole = tempfile.TemporaryDirectory(prefix="teale-calibrate-")
        self._count = 0

    def new(self) -> Path:
        """Return one more, for its owner alone."""
        self._count += 1
        folder = Path(self._whole.name) / str(self._count)
        folder.mkdir(mode=0o700)
        return folder

    def __enter__(self) -> "Folders":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._whole.cleanup()


def has_fast_aes() -> bool:
    """Return whether this processor has instructions for AES, and programs therefore prefer it."""
    try:
        return re.search(r"^flags\s*:.*\baes\b", Path("/proc/cpuinfo").read_text(), re.MULTILINE) is not None
    except OSError:
        return False


def _free_port() -> int:
    with socket.create_server((LOOPBACK, 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


_C: Final = ctypes.CDLL(None)


def _dies_with_us() -> None:
    """Have the kernel end the new process when ours is gone, however it went."""
    _C.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
