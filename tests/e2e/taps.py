"""Two ways to listen in: a proxy that keeps all that passes through it, and a raw socket on a wire.

A proxy also reaches what cannot be reached from here, such as the loopback interface of another network namespace:
it connects by whatever function it is given.
"""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType

from tests.e2e.harness import SAFETY_SECONDS

ETH_P_ALL = 3
FRAME_BYTES_MAX = 1 << 16
"""A virtual wire carries segments that no real one would: nobody cuts them for it."""


class Passage:
    """One connection through a proxy, and what went each way."""

    def __init__(self, near: socket.socket, far: socket.socket) -> None:
        self._ends = (near, far)
        self.up = bytearray()
        """What the client sent."""
        self.down = bytearray()

    def carry(self) -> None:
        """Pass on both ways until both have ended."""
        near, far = self._ends
        with near, far:
            back = threading.Thread(target=self._pump, args=(far, near, self.down))
            back.start()
            self._pump(near, far, self.up)
            back.join()

    def end(self) -> None:
        """Have `carry` return."""
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket, record: bytearray) -> None:
        # Either side may be killed at any time; the other one is then to see an end, as without us.
        with suppress(OSError):
            while data := source.recv(FRAME_BYTES_MAX):
                record += data
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


class Proxy:
    """Listens on a port of the loopback interface and carries each connection to where `connect` leads; a context."""

    def __init__(self, connect: Callable[[], socket.socket]) -> None:
        self._connect = connect
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.passages: list[Passage] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> "Proxy":
        self._start(self._accept)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        for passage in self.passages:
            passage.end()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, name=f"proxy {self.port}")
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                try:
                    far = self._connect()
                except OSError:
                    near.close()
                    continue
                passage = Passage(near, far)
                self.passages.append(passage)
                self._start(passage.carry)


def proxy_to(port: int) -> Proxy:
    """Return a proxy to another port of the loopback interface."""
    return Proxy(lambda: socket.create_connection(("127.0.0.1", port), SAFETY_SECONDS))


class Sniffer:
    """Keeps every frame that a raw socket sees, from the beginning of a context to its end."""

    def __init__(self, wire: socket.socket) -> None:
        self._wire = wire
        self._thread = threading.Thread(target=self._listen, name="sniffer")
        self._stopping = threading.Event()
        self.frames: list[bytes] = []

    def __enter__(self) -> "Sniffer":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stopping.set()
        self._thread.join()
        self._wire.close()

    def _listen(self) -> None:
        # Nothing wakes a raw socket but a frame, so now and then it is asked whether it is still needed.
        self._wire.settimeout(0.1)
        while not self._stopping.is_set():
            with suppress(TimeoutError):
                self.frames.append(self._wire.recv(FRAME_BYTES_MAX))
