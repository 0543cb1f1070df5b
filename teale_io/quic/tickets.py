"""Session tickets, by which a repeat connection begins without waiting: a bounded number, in memory only.

A ticket is good for one connection. The side that gave it out forgets it when it is shown, so that recorded early
data means nothing the second time (RFC 8446, section 8.1); the side that got it forgets it when it is used, so
that nobody can tell two connections to be of one node (appendix C.4).
"""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, Final, Generic, TypeVar

from teale_proto.inputs import NodeId

GIVEN_MAX: Final = 512
KEPT_MAX: Final = 256
"""So many tickets take about half a mebibyte on each side."""

K = TypeVar("K")


class _Shelf(Generic[K]):
    """A bounded number of tickets; the oldest makes room."""

    __slots__ = ("_max", "_tickets")

    def __init__(self, tickets_max: int) -> None:
        self._max: Final = tickets_max
        self._tickets: OrderedDict[K, Any] = OrderedDict()

    def __len__(self) -> int:
        return len(self._tickets)

    def __iter__(self) -> Iterator[K]:
        return iter(tuple(self._tickets))

    def put(self, key: K, ticket: Any) -> None:
        """Keep a ticket."""
        self._tickets.pop(key, None)
        self._tickets[key] = ticket
        if len(self._tickets) > self._max:
            self._tickets.popitem(last=False)

    def take(self, key: K) -> Any:
        """Return a ticket and forget it; None where there is none."""
        return self._tickets.pop(key, None)


class Tickets:
    """What an endpoint has given to clients, by the bytes that they show, and got from servers, by node."""

    __slots__ = ("given", "kept")

    def __init__(self, *, given_max: int = GIVEN_MAX, kept_max: int = KEPT_MAX) -> None:
        self.given: Final[_Shelf[bytes]] = _Shelf(given_max)
        self.kept: Final[_Shelf[NodeId]] = _Shelf(kept_max)
