"""Waits for all sockets of a process in one task.

A task that waits costs three kilobytes and a message that has to wake one two turns of trio's loop; ten thousand
connections that are mostly silent should cost neither. What is due after every round, such as sending what the
round gave rise to, is done before anybody else gets a turn.
"""

import selectors
import socket
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

import trio

SOCKETS_PER_TURN: Final = 64
"""So many sockets are served before other tasks have their turn."""

T = TypeVar("T")


class Poller(Generic[T]):
    """Calls `read` for every socket that has something to read, with whatever it was added for.

    `read` may add and remove sockets; it may be called once more for a socket that was removed.
    """

    __slots__ = ("_read", "_selector")

    def __init__(self, read: Callable[[T], object]) -> None:
        self._read: Final = read
        self._selector: Final = selectors.DefaultSelector()

    def add(self, sock: socket.socket, owner: T) -> None:
        """Begin to watch a socket."""
        self._selector.register(sock, selectors.EVENT_READ, owner)

    def remove(self, sock: socket.socket) -> None:
        """Stop to watch a socket that was added; to be called before it is closed."""
        self._selector.unregister(sock)

    async def run(self, after_each_turn: Callable[[], object]) -> None:
        """Serve the sockets until cancelled."""
        with self._selector:
            while True:
                await trio.lowlevel.wait_readable(self._selector.fileno())
                ready: list[tuple[Any, int]] = self._selector.select(0)
                for start in range(0, len(ready), SOCKETS_PER_TURN):
                    if start:
                        await trio.lowlevel.checkpoint()
                    for key, _ in ready[start : start + SOCKETS_PER_TURN]:
                        self._read(key.data)
                    after_each_turn()
