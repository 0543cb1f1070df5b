"""What makes a stream of datagrams: one half keeps what it sent until that has arrived, the other puts it in order.

Loss is found as RFC 9002 has it: by three later packets, by a packet that was answered 9/8 of a round trip later, or by
a timer. So much may be under way as NewReno allows (section 7 there), up to a window. Neither half knows an engine:
the time comes from outside.
"""

from collections import deque
from typing import Final, NamedTuple

from simulator.net.quic_packets import SEGMENT_BYTES, Ranges
from teale_proto.contract import MILLISECOND, NEVER, Duration, Instant

WINDOW_BYTES: Final = 1 << 20
"""The most that is under way, and that waits at the receiver for something in front of it."""

FIRST_WINDOW_BYTES: Final = 10 * SEGMENT_BYTES
LEAST_WINDOW_BYTES: Final = 2 * SEGMENT_BYTES

FIRST_ROUND_TRIP: Final[Duration] = 333 * MILLISECOND
"""What is assumed before anything was measured (RFC 9002, section 6.2.2)."""
GRANULARITY: Final[Duration] = MILLISECOND
PACKETS_LATER: Final = 3
PERSISTENT: Final = 3
"""Timers that go off one after the other until the window is taken back to the least."""

RANGES_KEPT: Final = 32


class Segment(NamedTuple):
    """A piece of the stream, or nothing at its place; with `ends`, the stream is over behind it."""

    offset: int
    data: bytes
    ends: bool


class _Sent(NamedTuple):
    at: Instant
    segment: Segment


class Outgoing:
    """What is to be sent, what was sent and is not acknowledged, and what that says about the way."""

    __slots__ = (
        "_ack_delay",
        "_ends",
        "_last_at",
        "_lost",
        "_offset",
        "_recovers_until",
        "_round_trip",
        "_slow_start_until",
        "_spread",
        "_under_way",
        "_unsent",
        "_window",
        "number",
        "timeouts",
        "under_way_bytes",
    )

    def __init__(self, *, ack_delay: Duration) -> None:
        self.number = 0
        """That of the next packet."""
        self.timeouts = 0
        """How often the timer has gone off since something was acknowledged."""
        self.under_way_bytes = 0
        self._ack_delay = ack_delay
        self._offset = 0
        self._ends = False
        self._unsent = bytearray()
        self._lost: deque[Segment] = deque()
        self._under_way: dict[int, _Sent] = {}
        self._last_at: Instant = 0
        self._round_trip: Duration = FIRST_ROUND_TRIP
        self._spread: Duration = 0
        self._window = FIRST_WINDOW_BYTES
        self._slow_start_until = WINDOW_BYTES
        self._recovers_until: Instant = -1

    @property
    def is_idle(self) -> bool:
        """Whether everything that was given to it has been acknowledged."""
        return not (self._unsent or self._lost or self._under_way or self._ends)

    @property
    def is_waiting(self) -> bool:
        """Whether something is under way that will be acknowledged."""
        return bool(self._under_way)

    @property
    def timeout_at(self) -> Instant:
        """When to give up waiting for an acknowledgement (RFC 9002, section 6.2)."""
        if not self._under_way:
            return NEVER
        spread = 4 * self._spread if self._spread else 2 * self._round_trip
        wait = self._round_trip + max(spread, GRANULARITY) + self._ack_delay
        return self._last_at + (wait << min(self.timeouts, 10))

    def write(self, data: bytes) -> None:
        """Take bytes of the stream."""
        self._unsent += data

    def end(self) -> None:
        """Let the stream end behind what it has."""
        self._ends = True

    def next(self, *, size_max: int = SEGMENT_BYTES) -> Segment | None:
        """Return what is to be sent now, or None where there is nothing or the window is full."""
        if self.under_way_bytes >= self._window:
            return None
        if self._lost:
            return self._lost.popleft()
        if not self._unsent and not self._ends:
            return None
        data = bytes(self._unsent[:size_max])
        del self._unsent[:size_max]
        ends = self._ends and not self._unsent
        segment = Segment(self._offset, data, ends)
        self._offset += len(data)
        if ends:
            self._ends = False
        return segment

    def sent(self, segment: Segment, now: Instant) -> None:
        """Note that a segment left in a packet with the present number, whose turn is over."""
        self._under_way[self.number] = _Sent(now, segment)
        self.under_way_bytes += len(segment.data)
        self._last_at = now

    def acknowledged(self, ranges: Ranges, now: Instant) -> None:
        """Take an acknowledgement: forget what arrived, and find what did not."""
        if not ranges or not self._under_way:
            return
        highest = ranges[0][1]
        answered: Instant | None = None
        arrived = 0
        missing = []
        for number in self._up_to(highest):
            if any(first <= number <= last for first, last in ranges):
                sent = self._under_way.pop(number)
                arrived += len(sent.segment.data)
                answered = sent.at if number == highest else answered
            else:
                missing.append(number)
        if answered is not None:
            self.measured(now - answered)
        if arrived or answered is not None:
            self.timeouts = 0
            self._grow(arrived)
        self.under_way_bytes -= arrived
        for number in missing:
            sent = self._under_way[number]
            if number <= highest - PACKETS_LATER or sent.at + self._round_trip * 9 // 8 <= now:
                self._lose(number)
                self._shrink(sent.at, now)

    def measured(self, took: Duration) -> None:
        """Learn from one round trip (RFC 9002, section 5.3)."""
        if not self._spread:
            self._round_trip, self._spread = max(took, 1), max(took // 2, 1)
            return
        self._spread = max((3 * self._spread + abs(self._round_trip - took)) // 4, 1)
        self._round_trip = max((7 * self._round_trip + took) // 8, 1)

    def timed_out(self) -> None:
        """Take the oldest segment that is under way for lost; whoever calls sends it whatever the window says."""
        self.timeouts += 1
        self._lose(next(iter(self._under_way)))
        if self.timeouts == PERSISTENT:
            self._window = LEAST_WINDOW_BYTES

    def probe(self) -> Segment:
        """Return what is sent to find out whether the other side is there: what was lost, or nothing."""
        return self._lost.popleft() if self._lost else Segment(self._offset, b"", ends=False)

    def on_new_way(self) -> None:
        """Forget what was learnt about the way, for it leads along another one now (RFC 9000, section 9.4)."""
        self._window, self._slow_start_until = FIRST_WINDOW_BYTES, WINDOW_BYTES
        self._round_trip, self._spread = FIRST_ROUND_TRIP, 0
        self.timeouts = 0

    def _up_to(self, highest: int) -> list[int]:
        found = []
        for number in self._under_way:
            if number > highest:
                break
            found.append(number)
        return found

    def _lose(self, number: int) -> None:
        segment = self._under_way.pop(number).segment
        self.under_way_bytes -= len(segment.data)
        if segment.data or segment.ends:
            self._lost.append(segment)

    def _grow(self, arrived: int) -> None:
        if 2 * self.under_way_bytes < self._window:
            # The window was not what held the sender back (RFC 9002, section 7.8).
            return
        if self._window < self._slow_start_until:
            self._window += arrived
        else:
            self._window += SEGMENT_BYTES * arrived // self._window
        self._window = min(self._window, WINDOW_BYTES)

    def _shrink(self, sent_at: Instant, now: Instant) -> None:
        # Once for what was sent before anybody knew of the first loss.
        if sent_at > self._recovers_until:
            self._recovers_until = now
            self._slow_start_until = self._window = max(self._window // 2, LEAST_WINDOW_BYTES)


class Incoming:
    """What came in: in order for the host, and by packet numbers for the other side."""

    __slots__ = ("_early", "_early_bytes", "_next", "_ranges", "ended")

    def __init__(self) -> None:
        self.ended = False
        """Whether all of the stream has come."""
        self._next = 0
        self._early: dict[int, Segment] = {}
        self._early_bytes = 0
        self._ranges: list[tuple[int, int]] = []

    @property
    def highest(self) -> int:
        """The highest packet number so far; -1 before any."""
        return self._ranges[-1][1] if self._ranges else -1

    def ranges(self, count: int) -> Ranges:
        """Return the highest ranges of packet numbers that have come, to be acknowledged."""
        return tuple(reversed(self._ranges[-count:]))

    def note(self, number: int) -> bool:
        """Note a packet number, and return whether it is the next one: the one after the highest so far."""
        ranges = self._ranges
        if not ranges or number > ranges[-1][1] + 1:
            ranges.append((number, number))
            del ranges[:-RANGES_KEPT]
            return number == 0
        first, last = ranges[-1]
        if number == last + 1:
            ranges[-1] = (first, number)
            return True
        self._fill(number)
        return False

    def take(self, segment: Segment) -> bytes:
        """Take a segment, and return what can now be read."""
        if not segment.data and not segment.ends:
            return b""
        if segment.offset != self._next:
            is_new = segment.offset > self._next and segment.offset not in self._early
            if is_new and self._early_bytes + len(segment.data) <= WINDOW_BYTES:
                self._early[segment.offset] = segment
                self._early_bytes += len(segment.data)
            return b""
        if self.ended:
            return b""
        pieces = []
        following: Segment | None = segment
        while following is not None:
            pieces.append(following.data)
            self._next += len(following.data)
            self.ended = following.ends
            following = None if self.ended else self._early.pop(self._next, None)
            if following is not None:
                self._early_bytes -= len(following.data)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _fill(self, number: int) -> None:
        """Note a packet number that is lower than the highest."""
        ranges = self._ranges
        for place in range(len(ranges) - 1, -1, -1):
            first, last = ranges[place]
            if first <= number <= last:
                return
            if number > last:
                ranges.insert(place + 1, (number, number))
                break
        else:
            ranges.insert(0, (number, number))
            place = -1
        self._join(place + 1)
        del ranges[:-RANGES_KEPT]

    def _join(self, place: int) -> None:
        """Join a range with those that it touches."""
        ranges = self._ranges
        if place + 1 < len(ranges) and ranges[place + 1][0] == ranges[place][1] + 1:
            ranges[place : place + 2] = [(ranges[place][0], ranges[place + 1][1])]
        if place > 0 and ranges[place - 1][1] + 1 == ranges[place][0]:
            ranges[place - 1 : place + 1] = [(ranges[place - 1][0], ranges[place][1])]
