"""What two nodes tell each other of their requests, each message once and in order, over any conversation they have.

A conversation keeps order and loses nothing until it ends; what was then under way in it may or may not have
arrived. So each side numbers what it says, from 1, and keeps it until the other has acknowledged it; whatever was
last sent over a conversation that ended or fell silent is sent again over another one. The receiver passes on what
comes next in line, holds back what is ahead of it, which happens when a faster path overtakes a slower one, and
drops what it has had. Acknowledgements are cumulative, and are owed after so many messages or bytes, and otherwise
with the next heartbeat.

No more is under way than the other side has to hold back, so nobody who keeps to these rules is ever refused for
what it sends. More than that waits here, and more than may wait here is the end of the peer.

One object belongs to one start of a peer, and exists only once something was said: a peer that is merely connected
costs nothing here.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Final, TypeAlias

from teale_proto.errors import PeerError
from teale_proto.inputs import Handle
from teale_proto.wire.cluster import ClusterMessage
from teale_proto.wire.codec import Unknown
from teale_proto.wire.numbered import PREFIX_BYTES, numbered

IN_FLIGHT_MAX: Final = 4096
"""Messages that one side has sent and the other has not acknowledged; so many may be held back."""

IN_FLIGHT_BYTES_MAX: Final = 9 * 2**20
"""Bytes of those messages: room for one of any size beside those whose acknowledgement is not owed yet."""

KEPT_MAX: Final = 65_536
"""Messages that are kept, sent or not; with one more, the peer counts as lost."""

KEPT_BYTES_MAX: Final = 64 * 2**20
"""Bytes of the messages that are kept, sent or not; with more, the peer counts as lost."""

OWED_MAX: Final = 64
"""Messages after which an acknowledgement is sent at once, and not with the next heartbeat."""

OWED_BYTES_MAX: Final = 256 * 1024
"""Bytes after which an acknowledgement is sent at once, and not with the next heartbeat."""

Said: TypeAlias = ClusterMessage | Unknown


class DeliveryError(PeerError):
    """The other side broke the rules of numbers: from here on, nobody knows what it has and has not heard."""


class Delivery:
    """Both directions of what is said between this node and one start of another."""

    __slots__ = (
        "_acknowledged",
        "_flight_bytes",
        "_held",
        "_held_bytes",
        "_kept",
        "_kept_bytes",
        "_lost",
        "_next",
        "_owed",
        "_owed_bytes",
        "_received",
        "_unsent",
    )

    def __init__(self) -> None:
        self._next = 1
        self._unsent = 1
        """The first number that has never been sent; from there on, all wait."""
        self._acknowledged = 0
        self._kept: dict[int, tuple[Handle | None, bytes]] = {}
        """By number, ascending: the conversation that it went out over, if one that still stands, and the message."""
        self._kept_bytes = 0
        self._flight_bytes = 0
        self._lost: list[int] = []
        """Numbers that were sent and must be sent again, ascending."""
        self._received = 0
        """Everything up to this number has been passed on."""
        self._held: dict[int, tuple[Said, int]] = {}
        """What came too early, by number, with its size."""
        self._held_bytes = 0
        self._owed = 0
        self._owed_bytes = 0

    # What we say.

    @property
    def unacknowledged(self) -> int:
        """How many messages the other side may not have heard."""
        return len(self._kept)

    def at_once(self, payload: bytes, over: Handle) -> bytes | None:
        """Number and keep a message where it may go out over a conversation now; return what does, or None."""
        number, size = self._next, len(payload) + PREFIX_BYTES
        in_flight = number - 1 - self._acknowledged
        if (
            number != self._unsent
            or self._lost
            or in_flight >= IN_FLIGHT_MAX
            or self._flight_bytes + size > IN_FLIGHT_BYTES_MAX
        ):
            return None
        record = numbered(number, payload)
        self._kept[number] = (over, record)
        self._kept_bytes += size
        self._flight_bytes += size
        self._next = self._unsent = number + 1
        return record

    def keep(self, payload: bytes) -> bool:
        """Number an encoded message and keep it, to be sent by `due`; return False where too many are kept."""
        if len(self._kept) >= KEPT_MAX or self._kept_bytes + len(payload) > KEPT_BYTES_MAX:
            return False
        record = numbered(self._next, payload)
        self._kept[self._next] = (None, record)
        self._kept_bytes += len(record)
        self._next += 1
        return True

    def due(self, over: Handle) -> list[bytes]:
        """Return what must go out now, in order, and note that it went out over the conversation `over`."""
        if self._unsent == self._next and not self._lost:
            return []
        records: list[bytes] = []
        room = IN_FLIGHT_MAX - (self._unsent - 1 - self._acknowledged - len(self._lost))
        for number in chain(self._lost, range(self._unsent, self._next)):
            record = self._kept[number][1]
            if room <= 0 or self._flight_bytes + len(record) > IN_FLIGHT_BYTES_MAX:
                break
            room -= 1
            self._flight_bytes += len(record)
            self._kept[number] = (over, record)
            records.append(record)
            self._unsent = max(self._unsent, number + 1)
        # For these there was room before, and nothing that is new has gone out since.
        self._lost.clear()
        return records

    def went_silent(self, over: Handle) -> None:
        """Note that what was sent over a conversation may never have arrived."""
        lost = [number for number, (path, _) in self._kept.items() if path == over]
        for number in lost:
            record = self._kept[number][1]
            self._kept[number] = (None, record)
            self._flight_bytes -= len(record)
        # Those that were lost before went out earlier or later; the receiver wants the lowest first.
        self._lost = sorted(self._lost + lost)
        # What was acknowledged there may be lost as well.
        self._owed += 1

    def acknowledged(self, up_to: int) -> None:
        """Forget what the other side has; raises DeliveryError where it names what was never sent."""
        if up_to >= self._unsent:
            raise DeliveryError("it acknowledges what was never sent")
        for number in range(self._acknowledged + 1, up_to + 1):
            path, record = self._kept.pop(number)
            self._kept_bytes -= len(record)
            if path is not None:
                self._flight_bytes -= len(record)
        if self._lost:
            self._lost = [number for number in self._lost if number > up_to]
        # An older one that comes over a slower path says nothing new.
        self._acknowledged = max(self._acknowledged, up_to)

    # What we hear.

    def take(self, number: int, message: Said, size_bytes: int) -> Sequence[Said]:
        """Take a message; return those whose turn has come, in order.

        Raises DeliveryError where more would have to be held back than the rules allow.
        """
        self._owed += 1
        self._owed_bytes += size_bytes
        if number == self._received + 1:
            self._received = number
            return self._in_line(message) if self._held else (message,)
        if number <= self._received or number in self._held:
            return ()
        if number > self._received + IN_FLIGHT_MAX or self._held_bytes + size_bytes > IN_FLIGHT_BYTES_MAX:
            raise DeliveryError("it is too far ahead with what it says")
        self._held[number] = (message, size_bytes)
        self._held_bytes += size_bytes
        return ()

    def _in_line(self, message: Said) -> list[Said]:
        ready = [message]
        while (held := self._held.pop(self._received + 1, None)) is not None:
            self._received += 1
            self._held_bytes -= held[1]
            ready.append(held[0])
        return ready

    def acknowledgement(self, *, at_once: bool) -> int | None:
        """Return up to which number to acknowledge, or None where nothing is owed; `at_once` does not wait for more."""
        if not self._owed or not (at_once or self._owed >= OWED_MAX or self._owed_bytes >= OWED_BYTES_MAX):
            return None
        self._owed = self._owed_bytes = 0
        return self._received

    def rest(self) -> None:
        """Drop what is held back, while there is no conversation: whoever sent it has kept it."""
        self._held.clear()
        self._held_bytes = 0
