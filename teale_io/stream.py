"""A TCP stream for trio that waits only when the kernel makes it wait.

trio's own stream gives up its turn on every call; with many small messages those turns cost more than the
messages. This one hands over everything that has arrived in one read, and offers `receive_now` and `send_now`
beside trio's interface, which TLS and everything else can be layered on.
"""

import socket
from collections.abc import Callable
from typing import Any, Final

import trio

from teale_proto.inputs import Address

READ_BYTES: Final = 64 * 1024
"""More would be slower: Python takes memory for all that may come, and gives back what did not."""


def address_of(name: tuple[Any, ...]) -> Address:
    """Return a socket's name as an Address; IPv4 in IPv6's clothes is IPv4, and a link-local scope stays."""
    host: str = name[0]
    return Address(host.removeprefix("::ffff:") if "." in host else host, name[1])


class PlainStream(trio.abc.HalfCloseableStream):
    """A connected TCP socket; its operations raise BrokenResourceError, or OSError where nothing was awaited.

    `on_close` is called once, when it is closed.
    """

    __slots__ = ("_drained", "_on_close", "sock")

    def __init__(self, sock: socket.socket, *, on_close: Callable[[], object] | None = None) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock: Final = sock
        self._on_close = on_close
        self._drained = False

    @property
    def remote(self) -> Address:
        """The other end; raises OSError when the connection is already gone."""
        return address_of(self.sock.getpeername())

    @property
    def local(self) -> Address:
        """Our end; raises OSError when the socket is closed."""
        return address_of(self.sock.getsockname())

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return everything that has arrived, up to a bound; b"" at the end of the stream."""
        wanted = READ_BYTES if max_bytes is None else max_bytes
        if not self._drained:
            # A peer that never pauses must not keep everybody else from running.
            await trio.lowlevel.checkpoint()
        while True:
            if self._drained:
                await trio.lowlevel.wait_readable(self.sock)
            try:
                data = self.sock.recv(wanted)
            except (BlockingIOError, InterruptedError):
                self._drained = True
                continue
            except OSError as error:
                raise self._broken(error) from error
            # A short read says that the kernel has no more, so the next one need not ask.
            self._drained = 0 < len(data) < wanted
            return data

    def receive_now(self, buffer: bytearray) -> int | None:
        """Put what has arrived into `buffer` and return how much it was; 0 is the end, None nothing. Raises OSError."""
        try:
            return self.sock.recv_into(buffer)
        except (BlockingIOError, InterruptedError):
            return None

    def send_now(self, data: bytes | memoryview) -> int:
        """Send what fits into the kernel's buffer and return how many bytes did; raises OSError."""
        try:
            return self.sock.send(data)
        except (BlockingIOError, InterruptedError):
            return 0

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send everything, waiting as often as the kernel asks for it."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self.sock.send(rest) :]
            except (BlockingIOError, InterruptedError):
                await trio.lowlevel.wait_writable(self.sock)
            except OSError as error:
                raise self._broken(error) from error

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the kernel takes bytes again."""
        await trio.lowlevel.wait_writable(self.sock)

    async def send_eof(self) -> None:
        """Say that nothing more comes from here."""
        await trio.lowlevel.checkpoint()
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise self._broken(error) from error

    def close_now(self) -> None:
        """Close; whoever waits on the stream gets ClosedResourceError."""
        if self.sock.fileno() < 0:
            return
        trio.lowlevel.notify_closing(self.sock)
        self.sock.close()
        if self._on_close is not None:
            self._on_close()

    async def aclose(self) -> None:
        """Close, as `close_now` does."""
        self.close_now()
        await trio.lowlevel.checkpoint()

    def _broken(self, error: OSError) -> Exception:
        if self.sock.fileno() < 0:
            return trio.ClosedResourceError("this stream is closed")
        return trio.BrokenResourceError(error.strerror or str(error))
