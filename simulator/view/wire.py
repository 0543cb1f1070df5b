"""What was sent on one connection, put together with what arrived at its other end.

Both ends are in the trace, with the bytes. So what arrived is the head of what is under way: of what overtakes, or of
what may be overtaken (`bulk`). A stream cuts its data anew; a message of it has arrived when its last byte has.
"""

from collections import deque
from typing import Final

from teale_proto.contract import Instant

FOUND_AGAIN_BYTES: Final = 8
"""So many bytes of a message are enough to know it again in the middle of a stream."""
UNDER_WAY_MAX: Final = 4096
"""Messages of one direction that may be under way; of more, the oldest count as lost."""


class Sent:
    """One message under way."""

    __slots__ = ("arrived_at", "at", "data", "host", "is_untold", "of", "size_bytes", "to")

    def __init__(self, at: Instant, host: str, to: str, data: bytes) -> None:
        self.at = at
        self.host = host
        self.to = to
        self.size_bytes = len(data)
        self.data: bytes | None = data
        """None once it has arrived, or is lost."""
        self.arrived_at: Instant | None = None
        self.is_untold = False
        """Whether the trace does not tell if it arrived, since what did arrive was not to be told apart."""
        self.of: Carried = Carried()


class Carried:
    """For which request a message was sent; a relay passes on what it got, so all hops share one of these."""

    __slots__ = ("is_mixed", "request")

    def __init__(self) -> None:
        self.request: int | None = None
        self.is_mixed = False

    def note(self, request: int) -> None:
        """Take note of a request that the message was sent for, or that followed from it; of two, it is neither's."""
        if self.request is not None and self.request != request:
            self.is_mixed = True
        self.request = request


class Direction:
    """One direction of one connection."""

    __slots__ = ("_arrived", "_is_lost", "_queues")

    def __init__(self) -> None:
        self._queues: tuple[deque[Sent], deque[Sent]] = (deque(), deque())
        self._arrived = b""
        self._is_lost = False

    def send(self, sent: Sent, *, bulk: bool) -> None:
        """Take note of a message that goes off."""
        if not sent.size_bytes:
            sent.arrived_at, sent.data = sent.at, None
            return
        # Until it has arrived; while the thread is lost, nobody knows.
        sent.is_untold = self._is_lost
        queue = self._queues[bulk]
        queue.append(sent)
        if len(queue) > UNDER_WAY_MAX:
            queue.popleft().data = None

    def receive(self, at: Instant, data: bytes, *, whole: bool) -> list[Sent]:
        """Return the messages that are complete with these bytes; `whole` where they are one message."""
        if whole:
            return self._message(at, data)
        if self._is_lost and not self._found_again(data):
            return []
        self._arrived += data
        done: list[Sent] = []
        while self._arrived:
            # A head that fits whole comes before one that may still.
            queue = next((each for each in self._queues if each and self._arrived.startswith(_data(each[0]))), None)
            if queue is None:
                break
            sent = queue.popleft()
            self._arrived = self._arrived[sent.size_bytes :]
            done.append(_completed(sent, at))
        if self._arrived and not any(each and _data(each[0]).startswith(self._arrived) for each in self._queues):
            self._is_lost = True
            self._arrived = b""
            for queue in self._queues:
                for sent in queue:
                    sent.is_untold = True
        return done

    def _found_again(self, data: bytes) -> bool:
        """After bytes that nobody is known to have sent, go on with the first message that these begin with."""
        for queue in self._queues:
            for index, sent in enumerate(queue):
                known = _data(sent)
                if data.startswith(known) or (len(data) >= FOUND_AGAIN_BYTES and known.startswith(data)):
                    for _ in range(index):
                        _given_up(queue.popleft())
                    self._is_lost = False
                    return True
        return False

    def _message(self, at: Instant, data: bytes) -> list[Sent]:
        for queue in self._queues:
            for index, sent in enumerate(queue):
                if sent.data == data:
                    for _ in range(index):  # what it has overtaken never came
                        queue.popleft().data = None
                    return [_completed(queue.popleft(), at)]
        return []


def _given_up(sent: Sent) -> None:
    sent.is_untold, sent.data = True, None


def _data(sent: Sent) -> bytes:
    assert sent.data is not None, "it is under way"
    return sent.data


def _completed(sent: Sent, at: Instant) -> Sent:
    sent.arrived_at, sent.data, sent.is_untold = at, None, False
    return sent
