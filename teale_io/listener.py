"""Accepts connections, and survives having too many of them.

A process that runs out of file descriptors keeps its listener: it waits a moment, says so once, and goes on.
Beyond `connections_max` newcomers are turned away at once, which tells them more than a full backlog would.
"""

import errno
import socket
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
import trio

from teale_io.stream import PlainStream, address_of
from teale_proto.inputs import Address

BACKLOG: Final = 1024
EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
BACK_OFF_SECONDS: Final = 0.1

_log = structlog.get_logger()


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket; "" is every interface, port 0 a free one. Raises OSError."""
    if not host and socket.has_dualstack_ipv6():
        return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=BACKLOG)
    family, *_, name = socket.getaddrinfo(host or "0.0.0.0", port, type=socket.SOCK_STREAM)[0]  # noqa: S104
    return socket.create_server(name, family=family, backlog=BACKLOG)


class Listener:
    """A listening socket with a limit of `connections_max` connections that are being handled at a time."""

    def __init__(self, sock: socket.socket, *, connections_max: int) -> None:
        sock.setblocking(False)
        self._sock: Final = sock
        self._connections_max: Final = connections_max
        self._handling = 0
        self._trouble = ""
        self.address: Final[Address] = address_of(sock.getsockname())
        """Where it listens."""

    async def serve(self, nursery: trio.Nursery, handle: Callable[[PlainStream], Awaitable[None]]) -> None:
        """Handle each connection in a task of `nursery` until cancelled; then the socket is closed."""
        with self._sock:
            while True:
                await trio.lowlevel.wait_readable(self._sock)
                try:
                    sock, _ = self._sock.accept()
                except OSError as error:
                    if error.errno in EXHAUSTED:
                        self._complain("cannot accept connections", reason=error.strerror)
                        await trio.sleep(BACK_OFF_SECONDS)
                    # Any other error concerns the one connection that was about to be accepted (accept(2)).
                    continue
                if self._handling >= self._connections_max:
                    self._complain("turning connections away", connections_max=self._connections_max)
                    sock.close()
                    continue
                self._trouble = ""
                self._handling += 1
                nursery.start_soon(self._handle, handle, sock)

    async def _handle(self, handle: Callable[[PlainStream], Awaitable[None]], sock: socket.socket) -> None:
        try:
            stream = _stream_of(sock)
            if stream is not None:
                await handle(stream)
        finally:
            sock.close()
            self._handling -= 1

    def _complain(self, event: str, **details: object) -> None:
        if self._trouble != event:
            self._trouble = event
            _log.warning(event, **details)


def _stream_of(sock: socket.socket) -> PlainStream | None:
    try:
        return PlainStream(sock)
    except OSError:  # reset before we came to it
        return None
