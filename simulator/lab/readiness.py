"""Waiting for what comes up by itself: cables and bridges take a moment, sometimes a second, until packets pass."""

import select
import socket
import time
from typing import Final

from simulator.lab.errors import LabError
from simulator.lab.namespaces import Namespace

_READY_SECONDS: Final = 10.0
_ECHO: Final = bytes((8, 0, 0xF7, 0xFF, 0, 0, 0, 0))
"""An ICMP echo request (RFC 792)."""


def wait_for_link(namespace: Namespace, interface: str) -> None:
    """Wait until an interface between routers carries packets."""
    gives_up_at = time.monotonic() + _READY_SECONDS
    while not namespace.is_running(interface):
        if time.monotonic() > gives_up_at:
            raise LabError(f"an interface between routers does not come up within {_READY_SECONDS:g} s")
        time.sleep(0.002)  # and looks again


def wait_for_echo(address: str) -> None:
    """Ask a router whether it is there until it is; bridges and cables take a moment."""
    gives_up_at = time.monotonic() + _READY_SECONDS
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as echo:
        while time.monotonic() < gives_up_at:
            echo.sendto(_ECHO, (address, 0))
            if select.select((echo,), (), (), 0.01)[0] and echo.recv(1024):
                return
    raise LabError(f"the router {address} does not answer within {_READY_SECONDS:g} s")
