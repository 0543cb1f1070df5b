"""The UDP sockets of one host: which ports are open.

They are bound to no address, so they outlive a move to another network; only from where they send is another then.
"""

from typing import Final

FRESH_PORTS: Final = range(32_768, 61_000)
"""What Linux draws from for whoever asks for any port; taken one after the other, and never twice before all were."""

SOCKETS_MAX: Final = 1024
"""What systems allow a process to have open, as a rule."""


class UdpSockets:
    """The open ports of a host; those named are open from the start of each of its lives."""

    __slots__ = ("_lasting", "_open", "_opened", "opened_max")

    def __init__(self, ports: tuple[int, ...] = (), *, opened_max: int = SOCKETS_MAX) -> None:
        self._lasting: Final = ports
        self._open: dict[int, None] = dict.fromkeys(ports)
        self._opened = 0
        self.opened_max = opened_max
        """How many the system lets be open at once."""

    def __contains__(self, port: int) -> bool:
        return port in self._open

    def __len__(self) -> int:
        return len(self._open)

    @property
    def lasting(self) -> tuple[int, ...]:
        """The ports that are always open."""
        return self._lasting

    def reset(self) -> None:
        """Have what a process has when it starts."""
        self._open = dict.fromkeys(self._lasting)

    def open(self, count: int) -> tuple[int, ...]:
        """Open sockets on fresh ports and return them: fewer than were asked for where the system allows no more."""
        wanted = min(count, self.opened_max - len(self._open))
        found: list[int] = []
        for _ in FRESH_PORTS:
            if len(found) >= wanted:
                break
            port = FRESH_PORTS[self._opened % len(FRESH_PORTS)]
            self._opened += 1
            if port not in self._open:
                self._open[port] = None
                found.append(port)
        return tuple(found)

    def close(self, port: int) -> bool:
        """Close a socket, and return whether it was open."""
        if port not in self._open:
            return False
        del self._open[port]
        return True
