"""Sockets on the hosts of a lab, and what is said over them."""

import socket
import time
from collections.abc import Callable

from simulator.lab.internet import LabHost
from teale_proto.inputs import Address

ANSWER_SECONDS = 10.0
"""A safety net: a test that passes has never waited so long."""
SILENCE_SECONDS = 0.25
"""As long as a test waits for what must not come, many times what would come takes."""
SERVER = "192.0.2.1"
OTHER = "192.0.2.2"
PORT = 3000


def bound(host: LabHost, address: str = "0.0.0.0", port: int = 0) -> socket.socket:
    """Return a UDP socket on a host."""

    def make() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind((address, port))
        made.settimeout(ANSWER_SECONDS)
        return made

    return host.namespace.call(make)


def hears(receiver: socket.socket, *, seconds: float = ANSWER_SECONDS) -> tuple[bytes, Address] | None:
    """Return the next datagram and whom it is from, or None when none comes."""
    receiver.settimeout(seconds)
    try:
        data, remote = receiver.recvfrom(2048)
    except TimeoutError:
        return None
    return data, Address(*remote)


def seen_from(client: socket.socket, server: socket.socket, data: bytes = b"hello") -> Address:
    """Send from a client to a server, and return where it came from."""
    client.sendto(data, server.getsockname())
    heard = hears(server)
    assert heard is not None
    assert heard[0] == data
    return heard[1]


def gets_through(sender: socket.socket, remote: Address, receiver: socket.socket) -> bool:
    """Return whether what is sent to an address comes in at a socket."""
    word = str(time.monotonic_ns()).encode()
    sender.sendto(word, (remote.host, remote.port))
    # What was under way before may come first.
    while heard := hears(receiver, seconds=SILENCE_SECONDS):
        if heard[0] == word:
            return True
    return False


def eventually(look: Callable[[], bool], what: str) -> None:
    """Wait until something is so; fail, naming it, when it never is."""
    gives_up_at = time.monotonic() + ANSWER_SECONDS
    while not look():
        assert time.monotonic() < gives_up_at, what
        time.sleep(0.01)
