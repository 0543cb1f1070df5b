"""Sockets on loopback for servers that need several ports at once: one that is free here may be taken there."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

import pytest

FIRST_HOST: Final = "127.0.0.1"
SECOND_HOST: Final = "127.0.0.2"

_ATTEMPTS = 20


def udp(host: str, port: int = 0) -> socket.socket:
    """Open a UDP socket at an address, port 0 being a free one."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock


@contextmanager
def four_endpoints() -> Iterator[list[socket.socket]]:
    """Open sockets at two addresses and two ports, crosswise: (A, p), (B, q), (A, q), (B, p)."""
    with ExitStack() as stack:
        for _ in range(_ATTEMPTS):
            one, two = (stack.enter_context(udp(host)) for host in (FIRST_HOST, SECOND_HOST))
            try:
                three = stack.enter_context(udp(FIRST_HOST, two.getsockname()[1]))
                four = stack.enter_context(udp(SECOND_HOST, one.getsockname()[1]))
            except OSError:
                continue
            yield [one, two, three, four]
            return
    pytest.fail(f"no two ports in {_ATTEMPTS} pairs were free at both addresses")
