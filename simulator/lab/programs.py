"""The programs of a lab: each a process of its own, in the namespace of its host, with a folder of its own.

A program has lives: it is started, becomes ready, and ends, by itself or because it is told to or killed, and it may be
started again in the same folder. Every life has a journal. No program outlives the lab: the kernel kills it when the
thread that started it is gone.
"""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Final

import msgspec
import psutil

from simulator.lab.certificates import Authority
from simulator.lab.errors import LabError
from simulator.lab.plan import MODEL_PORT, NodePlan, Plan, Role, Served, Server, Setting
from teale_proto.contract import Instant
from teale_proto.inputs import NodeId

MODULES: Final = {
    Role.NODE: "teale_io.node_app",
    Role.RELAY: "teale_io.relay_app",
    Role.STUN: "teale_io.relay_app",
    Role.MODELS: "simulator.lab.model_server",
}
DIES_WITH_US: Final = ("setpriv", "--pdeathsig", "KILL")
"""The words that have the kernel end a command with whoever started it; they come with nsenter."""

READY_SECONDS: Final = 60.0
"""Within which a program must be ready, be the machine ever so busy."""
ENDING_SECONDS: Final = 8.0
"""How long a program that was told to end may take."""
LOOK_SECONDS: Final = 0.02

LOG_LINES: Final = 15
"""Of its log, so many lines are shown when a program fails."""

GB: Final = 1 << 30
NODE_BYTES: Final = 80 << 20
MODELS_BYTES: Final = 60 << 20
SERVER_BYTES: Final = 60 << 20
"""What a program needs, measured and rounded up."""

_IDENTITY: Final = ("identity.json", "identity.key")
_NO_KEYCHAIN: Final = "keyring.backends.fail.Keyring"
_CPU_TICK_US: Final = 1_000_000 // os.sysconf("SC_CLK_TCK")


def missing(plan: Plan) -> list[str]:
    """Return what this machine lacks to run the programs of a plan, in words."""
    lacking = []
    needed, free = memory_of(plan), psutil.virtual_memory().available
    if needed > free:
        lacking.append(
            f"memory: about {needed / GB:.1f} GB for {len(plan.nodes)} nodes, where {free / GB:.1f} GB are free"
        )
    if shutil.which(DIES_WITH_US[0]) is None:
        lacking.append(f"the program `{DIES_WITH_US[0]}` (util-linux)")
    needs_llama = plan.served is Served.BUILTIN and any(node.models for node in plan.nodes)
    if needs_llama and importlib.util.find_spec("llama_cpp") is None:
        lacking.append(
            "llama-cpp-python for the built-in model: pip install 'teale[llama]', or give --models described"
        )
    return lacking


def memory_of(plan: Plan) -> int:
    """Return about how many bytes the programs of a plan need."""
    holders = sum(bool(node.models) for node in plan.nodes)
    return len(plan.nodes) * NODE_BYTES + holders * MODELS_BYTES + len(plan.servers) * SERVER_BYTES


class ProgramFailed(LabError):
    """A program could not be started; the message has the end of its log."""


class Usage(msgspec.Struct, frozen=True):
    """Processor time so far, in microseconds."""

    own_us: int = 0
    children_us: int = 0
    """Of the processes that it has started: a node's models."""

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(self.own_us + other.own_us, self.children_us + other.children_us)

    def __sub__(self, other: "Usage") -> "Usage":
        return Usage(self.own_us - other.own_us, self.children_us - other.children_us)


class Life:
    """One life of a program; instants are the lab's."""

    def __init__(self, number: int, journal: Path, spawned_at: Instant) -> None:
        self.number = number
        self.journal = journal
        self.spawned_at = spawned_at
        self.ready_at: Instant | None = None
        self.ended_at: Instant | None = None
        """When it was found dead; None while it lives."""
        self.status: int | None = None
        """What it ended with; negative for a signal."""
        self.ready_usage = Usage()
        """What it had used when it was ready."""
        self.usage = Usage()
        """What it had used before it was told to end, or when it was killed."""


class Program:
    """A program on a host, in `folder`; `prefix` are the words that run a command there."""

    def __init__(self, name: str, role: Role, folder: Path, prefix: Sequence[str], options: Sequence[str] = ()) -> None:
        self.name = name
        self.role = role
        self.folder = folder
        self.lives: list[Life] = []
        self.node_id = NodeId("")
        """The id of a node that is ready."""
        self.api_port = 0
        self.beside: Program | None = None
        """The model server of a node, which lives and dies with it."""
        self._prefix = tuple(prefix)
        self._options = tuple(options)
        self._process: subprocess.Popen[bytes] | None = None
        self._is_ready = False
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    @property
    def life(self) -> Life:
        """The present or last life."""
        return self.lives[-1]

    @property
    def is_alive(self) -> bool:
        """Whether it has been started and not been found dead."""
        return self._process is not None

    @property
    def is_ready(self) -> bool:
        """Whether it lives and answers."""
        return self._is_ready

    @property
    def log(self) -> str:
        """The end of what it has written to its standard error."""
        try:
            return "\n".join(self._err.read_text(errors="replace").splitlines()[-LOG_LINES:])
        except FileNotFoundError:
            return ""

    def start(self, journal: Path, at: Instant) -> None:
        """Begin a life. Only the thread that lives as long as the lab may do this, as the program dies with it."""
        assert self._process is None, f"{self.name} is alive"
        if self.beside is not None:
            self.beside.kill(at)
            self.beside.start(journal, at)
        number = len(self.lives) + 1
        # Nothing depends on what a model server has heard: whatever it says is in the journal of its node.
        journaling = ("--journal", str(journal), "--journal-name", self.name)
        more = ("--life", str(number)) if self.role is Role.MODELS else journaling
        words = [*self._prefix, *DIES_WITH_US, sys.executable, "-m", MODULES[self.role], *self._options, *more]
        self._out.unlink(missing_ok=True)
        with self._out.open("ab") as out, self._err.open("ab") as err:
            self._process = subprocess.Popen(  # noqa: S603 - our own programs
                words,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=environ_of(self.folder),
                start_new_session=True,
            )
        self._is_ready = False
        self.lives.append(Life(number, journal, at))

    def look(self, at: Instant) -> bool:
        """Return whether anything has changed: it became ready, or has ended."""
        if self._process is None:
            return False
        status = self._process.poll()
        if status is not None:
            self._ended(status, at)
            return True
        if not self._is_ready and self._finds_itself_ready():
            self._is_ready = True
            self.life.ready_at = at
            self.life.ready_usage = usage_of(self._process.pid)
            return True
        return False

    def note_usage(self) -> None:
        """Note what it has used so far, and what its model server has, as a part of it."""
        if self._process is not None:
            self.life.usage = usage_of(self._process.pid)
            if self.beside is not None and self.beside.is_alive:
                self.beside.note_usage()
                self.life.usage += Usage(children_us=self.beside.life.usage.own_us)

    def tell_to_end(self) -> None:
        """Ask it to end, as its users do."""
        if self._process is not None:
            self.note_usage()
            # A relay would wait for its sessions to end after a SIGTERM.
            self._process.send_signal(signal.SIGTERM if self.role is Role.NODE else signal.SIGINT)

    def kill(self, at: Instant) -> None:
        """End it without a chance to say anything, and all that it has started."""
        if self._process is None:
            return
        self.note_usage()
        self._process.kill()
        self._ended(self._process.wait(), at)

    def forget_identity(self) -> None:
        """Take away its keys; what starts next is somebody else."""
        for name in _IDENTITY:
            (self.folder / name).unlink(missing_ok=True)

    def _ended(self, status: int, at: Instant) -> None:
        assert self._process is not None
        # What it has started is in its session, and may be about to notice.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process = None
        self._is_ready = False
        self.life.status, self.life.ended_at = status, at
        if self.beside is not None:
            self.beside.kill(at)

    def _finds_itself_ready(self) -> bool:
        if self.role is not Role.NODE:
            return self._out.is_file() and b"listening on " in self._out.read_bytes()
        assert self._process is not None
        runtime = runtime_of(self.folder, self._process.pid)
        if runtime is not None:
            self.node_id, self.api_port = NodeId(runtime.node_id), runtime.api_port
        return runtime is not None

    @property
    def _out(self) -> Path:
        return self.folder / "out.log"

    @property
    def _err(self) -> Path:
        return self.folder / "err.log"


class Runtime(msgspec.Struct):
    """What a running node says of itself in its runtime file."""

    pid: int
    api_port: int
    node_id: str


def runtime_of(home: Path, pid: int) -> Runtime | None:
    """Return what the node of that process says of itself; None while it says nothing."""
    with suppress(FileNotFoundError, msgspec.DecodeError):
        runtime = msgspec.json.decode((home / "node.json").read_bytes(), type=Runtime)
        # One of a former life may still be there.
        return runtime if runtime.pid == pid else None
    return None


def server_program(server: Server, folder: Path, prefix: Sequence[str], authority: Authority) -> Program:
    """Return a relay, which has a certificate, or a STUN server."""
    is_relay = server.role is Role.RELAY
    tls = ("--tls-cert", str(authority.certify(server.name, server.addresses))) if is_relay else ()
    return Program(server.name, server.role, folder, prefix, (*server.options, *tls, "--log-format", "json"))


def node_program(node: NodePlan, folder: Path, prefix: Sequence[str], seed: int, authority: Authority) -> Program:
    """Return a node, configured to trust the authority of the relays, and its model server beside it."""
    program = Program(node.name, Role.NODE, folder, prefix)
    (folder / "config.toml").write_text(toml_of({**node.settings, "wan_relay_ca": str(authority.ca_file)}))
    if node.inference is not None:
        cost = msgspec.json.encode(node.inference).decode()
        options = ("--port", str(MODEL_PORT), "--models", *node.models, "--cost", cost)
        origin = ("--seed", str(seed), "--host", node.name)
        program.beside = Program(f"{node.name}'s models", Role.MODELS, folder / "models", prefix, (*options, *origin))
    return program


def toml_of(settings: dict[str, Setting]) -> str:
    """Return flat settings as TOML."""
    # Strings without control characters, integers, switches and lists of strings are the same in JSON and in TOML.
    return "".join(f"{name} = {msgspec.json.encode(value).decode()}\n" for name, value in settings.items())


def file_name(name: str) -> str:
    """Return what a host's name makes of the name of a file."""
    return re.sub(r"[^\w.-]+", "-", name)


def wait_until_ready(programs: Iterable[Program], now: Callable[[], Instant]) -> None:
    """Wait until all are ready; raises ProgramFailed where one ends or takes too long."""
    waiting = list(programs)
    give_up_at = monotonic() + READY_SECONDS
    while waiting:
        for program in waiting:
            program.look(now())
            check(program)
        waiting = [program for program in waiting if not program.is_ready]
        if waiting and monotonic() > give_up_at:
            raise failure(waiting[0], f"was not ready within {READY_SECONDS:g} s")
        sleep(LOOK_SECONDS)


def check(program: Program) -> None:
    """Raise ProgramFailed if a program has ended before it was ready."""
    if program.lives and program.life.ended_at is not None and program.life.ready_at is None:
        raise failure(program, f"ended with status {program.life.status} before it was ready")


def failure(program: Program, what: str) -> ProgramFailed:
    """Return the error that tells what happened to a program, with the end of its log."""
    return ProgramFailed(f"{program.name} {what}:\n{program.log or '(it said nothing)'}")


def end(programs: Sequence[Program], now: Callable[[], Instant]) -> None:
    """Tell all to end, wait, and kill those that do not."""
    for program in programs:
        program.tell_to_end()
    give_up_at = monotonic() + ENDING_SECONDS
    while any(program.is_alive for program in programs) and monotonic() < give_up_at:
        for program in programs:
            program.look(now())
        sleep(LOOK_SECONDS)
    kill(programs, now)


def kill(programs: Iterable[Program], now: Callable[[], Instant]) -> None:
    """Kill all that still run."""
    for program in programs:
        program.kill(now())


def usage_of(pid: int) -> Usage:
    """Return what a process and its children have used; nothing of what is gone."""
    return Usage(_cpu_us(pid), sum(map(_cpu_us, _descendants(pid))))


def _cpu_us(pid: int) -> int:
    """Return the processor time of a process: to the microsecond by its threads, unless some have ended."""
    exact = 0
    for file in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with suppress(OSError, ValueError, IndexError):
            exact += int(file.read_text().split()[0])
    try:
        # After the name, which may contain anything: utime and stime are fields 14 and 15 (proc_pid_stat(5)).
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks = int(fields[11]) + int(fields[12])
    except (OSError, ValueError, IndexError):
        return exact // 1000
    # Ticks are cut off, so only a whole one more means that there were threads that are gone.
    return max(exact // 1000, ticks * _CPU_TICK_US)


def _descendants(pid: int) -> list[int]:
    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    except psutil.Error:
        return []


def environ_of(home: Path) -> dict[str, str]:
    """Return the environment of a program: none of the settings of whoever runs the lab, and no keychain."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("TEALE_")}
    return environ | {"TEALE_HOME": str(home), "PYTHON_KEYRING_BACKEND": _NO_KEYCHAIN}
