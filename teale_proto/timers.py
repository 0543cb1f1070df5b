"""All the deadlines of one core, under typed keys.

Setting a key again moves it; a key fires once. Entries that were moved or cancelled stay in the heap until
they surface, which keeps every operation at O(log n) without searching.
"""

from collections.abc import Hashable
from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

from teale_proto.contract import NEVER, Duration, Instant

K = TypeVar("K", bound=Hashable)


class Timers(Generic[K]):
    """A set of deadlines, at most one per key."""

    __slots__ = ("_at", "_heap", "_sequence")

    def __init__(self) -> None:
        self._at: dict[K, tuple[Instant, int, K]] = {}
        self._heap: list[tuple[Instant, int, K]] = []
        """The same entries, and those that they have replaced."""
        self._sequence = 0

    @property
    def deadline(self) -> Instant:
        """The earliest deadline, or NEVER."""
        heap = self._heap
        # Asked for after every input of every core, and seldom is there anything to drop.
        if heap and self._at.get(heap[0][2]) is not heap[0]:
            self._drop_stale()
        return heap[0][0] if heap else NEVER

    def set(self, key: K, at: Instant) -> None:
        """Make `key` due at `at`, whatever it was set to before."""
        self._sequence += 1
        # The sequence number breaks ties in the order of setting, so keys are never compared.
        self._at[key] = entry = (at, self._sequence, key)
        heappush(self._heap, entry)
        if len(self._heap) > 64 and len(self._heap) > 4 * len(self._at):
            self._heap = list(self._at.values())
            heapify(self._heap)

    def cancel(self, key: K) -> None:
        """Forget `key`; it need not be set."""
        self._at.pop(key, None)

    def remaining(self, key: K, now: Instant) -> Duration | None:
        """Return how long until `key` is due (negative when overdue), or None when it is not set."""
        entry = self._at.get(key)
        return None if entry is None else entry[0] - now

    def pop_due(self, now: Instant) -> K | None:
        """Remove and return one key that is due at `now`, the earliest first; None when there is none."""
        self._drop_stale()
        if not self._heap or self._heap[0][0] > now:
            return None
        key = heappop(self._heap)[2]
        del self._at[key]
        return key

    def __len__(self) -> int:
        return len(self._at)

    def _drop_stale(self) -> None:
        heap, current = self._heap, self._at
        while heap and current.get(heap[0][2]) is not heap[0]:
            heappop(heap)
