"""A local network of one's own: machines are network namespaces, and a bridge in one more is the switch.

Nothing of it touches the network of the machine that runs the tests, and a machine there is not reached from here;
a socket is, if the thread that makes it has gone there for that moment.
"""

import ctypes
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import pytest

from tests.e2e.harness import SAFETY_SECONDS, Node, Stage, write_config
from tests.e2e.taps import ETH_P_ALL, Proxy

T = TypeVar("T")

CLONE_NEWNET = 0x4000_0000
"""From <linux/sched.h>: the namespace is one of networks."""

SO_RCVBUFFORCE = 33
"""From <asm/socket.h>; Python's `socket` does not name it."""

RECEIVE_BUFFER_BYTES = 8 << 20
HEARTBEAT_SECONDS = 5

_numbers = count()


class Lan:
    """Machines by these names, each at 10.77.0.N; a context that skips the test where there can be none."""

    def __init__(self, *machines: str) -> None:
        # Namespaces outlive those who made them, so the name tells whose they were.
        self._prefix = f"teale-e2e-{os.getpid()}-{next(_numbers)}-"
        self._switch = f"{self._prefix}switch"
        self.machines = machines
        self._made: list[str] = []

    def __enter__(self) -> "Lan":
        if shutil.which("ip") is None or os.geteuid() != 0:
            pytest.skip("network namespaces need root and the ip command")
        try:
            self._make(self._switch)
            for number, machine in enumerate(self.machines, 1):
                self._plug(machine, number)
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._remove()

    def prefix(self, machine: str) -> tuple[str, ...]:
        """Return the words that run a command on a machine; its process id stays what it is."""
        return ("ip", "netns", "exec", self._prefix + machine)

    def connect(self, machine: str, port: int) -> socket.socket:
        """Connect to a port of a machine's own loopback interface."""
        return self._there(
            self._prefix + machine, lambda: socket.create_connection(("127.0.0.1", port), SAFETY_SECONDS)
        )

    def listen_in(self, machine: str) -> socket.socket:
        """Return a raw socket that sees every frame on the cable between a machine and the switch."""

        def listen() -> socket.socket:
            wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
            wire.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES)
            wire.bind((machine, ETH_P_ALL))
            return wire

        return self._there(self._switch, listen)

    def cut(self, machine: str) -> None:
        """Take a machine's cable out of the switch; it still has its link, and nobody is told."""
        _ip("-n", self._switch, "link", "set", machine, "nomaster")

    def mend(self, machine: str) -> None:
        """Put it back."""
        _ip("-n", self._switch, "link", "set", machine, "master", "bridge")

    def _make(self, namespace: str) -> None:
        made = subprocess.run(["ip", "netns", "add", namespace], capture_output=True, text=True, check=False)
        if made.returncode:
            pytest.skip(f"network namespaces are not allowed here: {made.stderr.strip()}")
        self._made.append(namespace)
        if namespace == self._switch:
            # A bridge that listens for who wants which multicast would keep mDNS back until somebody has asked.
            _ip("-n", namespace, "link", "add", "bridge", "type", "bridge", "mcast_snooping", "0")
            _ip("-n", namespace, "link", "set", "bridge", "up")

    def _plug(self, machine: str, number: int) -> None:
        there = self._prefix + machine
        self._make(there)
        # The end in the switch bears the machine's name.
        _ip("-n", self._switch, "link", "add", machine, "type", "veth", "peer", "name", "lan", "netns", there)
        _ip("-n", self._switch, "link", "set", machine, "master", "bridge", "up")
        _ip("-n", there, "link", "set", "lo", "up")
        # With an address that the kernel chose, it would first ask around for a second or two whether it is free.
        _ip("-n", there, "link", "set", "lan", "addrgenmode", "none", "up")
        _ip("-n", there, "addr", "add", f"fe80::{number}/64", "dev", "lan", "nodad")
        _ip("-n", there, "addr", "add", f"10.77.0.{number}/24", "dev", "lan")
        _ip("-n", there, "route", "add", "default", "dev", "lan")

    def _remove(self) -> None:
        for namespace in self._made:
            _ip("netns", "del", namespace)
        self._made.clear()

    def _there(self, namespace: str, make: Callable[[], T]) -> T:
        """Return what `make` returns in a namespace: in a thread of its own, which ends there."""
        made: list[T] = []
        errors: list[Exception] = []

        def go() -> None:
            try:
                _enter(namespace)
                made.append(make())
            except Exception as error:
                errors.append(error)

        thread = threading.Thread(target=go)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return made[0]


@contextmanager
def place(lan: Lan, stage: Stage, settings_of: Mapping[str, Mapping[str, object]]) -> Iterator[list[Node]]:
    """Start a node on each machine, all at once, with the settings given; the context holds the ways to their APIs."""
    with ExitStack() as stack:

        def reach(machine: str, port: int) -> int:
            return stack.enter_context(Proxy(lambda: lan.connect(machine, port))).port

        started = []
        for machine in lan.machines:
            common = {"display_name": machine, "lan_enabled": True, "heartbeat_seconds": HEARTBEAT_SECONDS}
            write_config(stage.home(machine), **common, **settings_of[machine])
            started.append(stage.start(machine, prefix=lan.prefix(machine), reach=partial(reach, machine)))
        yield stage.up(started)


def _enter(namespace: str) -> None:
    """Move this thread, and no other, into a namespace; `os.setns` comes with Python 3.12."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/run/netns", namespace).open() as there:
        if libc.setns(there.fileno(), CLONE_NEWNET):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"
    return done.stdout.strip()
