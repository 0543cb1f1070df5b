"""Accepts connections, and survives having too many of them.

A process that runs out of file descriptors keeps its listener: it waits a moment, says so once, and goes on.
Beyond `connections_max` newcomers are turned away at once, which tells them more than a full backlog would; and
beyond a share for each address, so that nobody alone can use up what is there for all.
"""

import errno
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
import trio

from teale_io.stream import PlainStream, address_of
from teale_proto.inputs import Address
from teale_proto.relay.traffic import address_key

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
    """A listening socket with a limit of `connections_max` connections that are open at a time.

    At most `per_address_max` of them come from one address, unless `is_exempt` says otherwise of it.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        connections_max: int,
        per_address_max: int = sys.maxsize,
        is_exempt: Callable[[str], bool] = lambda _: False,
    ) -> None:
        sock.setblocking(False)
        self._sock: Final = sock
        self._connections_max: Final = connections_max
        self._per_address_max: Final = per_address_max
        self._is_exempt: Final = is_exempt
        self._open = 0
        self._open_from: dict[str, int] = {}
        self._trouble = ""
        self.address: Final[Address] = address_of(sock.getsockname())
        """Where it listens."""

    async def serve(self, nursery: trio.Nursery, handle: Callable[[PlainStream], Awaitable[None]]) -> None:
        """Handle each connection in a task of `nursery` until cancelled; then the socket is closed.

        A stream belongs to whom it is handed to, who sees to it that it is closed, and counts until then.
        """
        with self._sock:
            while True:
                await trio.lowlevel.wait_readable(self._sock)
                try:
                    sock, name = self._sock.accept()
                except OSError as error:
                    if error.errno in EXHAUSTED:
                        self._complain("cannot accept connections", reason=error.strerror)
                        await trio.sleep(BACK_OFF_SECONDS)
                    # Any other error concerns the one connection that was about to be accepted (accept(2)).
                    continue
                if self._open >= self._connections_max:
                    self._complain("turning connections away", connections_max=self._connections_max)
                    sock.close()
                    continue
                host = address_of(name).host
                source = "" if self._is_exempt(host) else address_key(host)
                if source and self._open_from.get(source, 0) >= self._per_address_max:
                    self._complain("turning connections of one address away", remote=host)
                    sock.close()
                    continue
                self._trouble = ""
                stream = self._stream_of(sock, source)
                if stream is not None:
                    nursery.start_soon(handle, stream)

    def _stream_of(self, sock: socket.socket, source: str) -> PlainStream | None:
        try:
            stream = PlainStream(sock, on_close=lambda: self._release(source))
        except OSError:  # reset before we came to it
            sock.close()
            return None
        self._open += 1
        if source:
            self._open_from[source] = self._open_from.get(source, 0) + 1
        return stream

    def _release(self, source: str) -> None:
        self._open -= 1
        if source:
            self._open_from[source] -= 1
            if not self._open_from[source]:
                del self._open_from[source]

    def _complain(self, event: str, **details: object) -> None:
        if self._trouble != event:
            self._trouble = event
            _log.warning(event, **details)
