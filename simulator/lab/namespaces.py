"""Network namespaces without names: each is held by a file descriptor, and gone with the process that holds it.

A thread of its own makes one, or enters one for as long as a call takes; what a process is started from there is
there, too, and nobody else notices. Other processes get there by the descriptor's path in /proc.
"""

import ctypes
import os
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterable, Mapping
from fcntl import ioctl
from pathlib import Path
from typing import Final, TypeVar

from simulator.lab.errors import LabError

T = TypeVar("T")

CLONE_NEWNET: Final = 0x4000_0000
"""From <linux/sched.h>: the namespace is one of networks."""

_OWN: Final = "/proc/thread-self/ns/net"
_SIOCGIFFLAGS: Final = 0x8913
_IFF_RUNNING: Final = 0x40
"""From <linux/sockios.h> and <linux/if.h>."""

_SYSTEM: Final = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
"""Where programs are: those of the system are not on everybody's path."""

_libc: Final = ctypes.CDLL(None, use_errno=True)


def tool(name: str) -> str | None:
    """Return where a program is, if it is anywhere."""
    return shutil.which(name, path=_SYSTEM)


class Namespace:
    """One network namespace, empty but for its loopback interface."""

    def __init__(self) -> None:
        """Make it; raises OSError where that is not allowed."""

        def make() -> int:
            _check(_libc.unshare(CLONE_NEWNET))
            return os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)

        self._descriptor = _in_a_thread(make)

    @property
    def path(self) -> str:
        """Where other processes find it, for as long as it is open."""
        return f"/proc/{os.getpid()}/fd/{self._descriptor}"

    @property
    def prefix(self) -> tuple[str, ...]:
        """The words that run a command there; its process id stays what it is."""
        return (tool("nsenter") or "nsenter", f"--net={self.path}")

    def call(self, act: Callable[[], T]) -> T:
        """Return what `act` returns there."""

        def go() -> T:
            _check(_libc.setns(self._descriptor, CLONE_NEWNET))
            return act()

        return _in_a_thread(go)

    def ip(self, lines: Iterable[str]) -> None:
        """Carry out commands of `ip` there, one a line; raises LabError when one fails."""
        self._feed("ip", ("-batch", "-"), "\n".join(lines))

    def nft(self, rules: str) -> None:
        """Load rules for nftables there, all of them or none; raises LabError when they are wrong."""
        self._feed("nft", ("-f", "-"), rules)

    def sysctl(self, settings: Mapping[str, int]) -> None:
        """Set parameters of the network, such as "ipv4/ip_forward"; what this kernel does not have is left out."""

        def write() -> None:
            for name, number in settings.items():
                path = Path("/proc/sys/net", name)
                if path.exists():
                    path.write_text(str(number))

        self.call(write)

    def is_running(self, interface: str) -> bool:
        """Return whether an interface carries packets."""

        def ask() -> bool:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
                answer = ioctl(any_socket, _SIOCGIFFLAGS, struct.pack("16sh14x", interface.encode(), 0))
            flags: int = struct.unpack_from("16sh", answer)[1]
            return bool(flags & _IFF_RUNNING)

        return self.call(ask)

    def devices(self) -> dict[str, list[int]]:
        """Return the counters of its interfaces, in the order of /proc/net/dev."""
        table = self.call(Path("/proc/thread-self/net/dev").read_text)
        rows = (line.split(":", 1) for line in table.splitlines() if ":" in line)
        return {name.strip(): [int(number) for number in numbers.split()] for name, numbers in rows}

    def close(self) -> None:
        """Let go of it; it is gone when nothing runs there any more."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _feed(self, program: str, arguments: tuple[str, ...], text: str) -> None:
        self.call(lambda: _run(tool(program) or program, arguments, text))


def enter_new_network(lines: Iterable[str]) -> None:
    """Move the calling thread, and what it starts, into a new namespace made up by these lines for `ip`, for good.

    Raises OSError where that is not allowed, and LabError where `ip` fails.
    """
    _check(_libc.unshare(CLONE_NEWNET))
    _run(tool("ip") or "ip", ("-batch", "-"), "".join(f"{line}\n" for line in lines))


def _run(program: str, arguments: tuple[str, ...], text: str) -> None:
    """Feed a program; raises LabError where it fails."""
    done = subprocess.run([program, *arguments], input=text, capture_output=True, text=True, check=False)  # noqa: S603 - ours
    if done.returncode:
        raise LabError(f"`{Path(program).name}` failed: {done.stderr.strip()}")


def _in_a_thread(act: Callable[[], T]) -> T:
    """Return what `act` returns in a thread that ends with it, or raise what it raises."""
    made: list[T] = []
    errors: list[BaseException] = []

    def go() -> None:
        try:
            made.append(act())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=go, name="lab namespace")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return made[0]


def _check(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
