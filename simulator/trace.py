"""What happened, in order, and one digest of all of it.

The digest covers every entry completely, whether or not the entry is kept: two runs that agree on it did the same
things at the same virtual instants. Real time, object identities and the order of sets must never reach it.
"""

from collections import deque
from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import Final

import msgspec

from teale_proto.contract import Instant, Value

_ENCODER: Final = msgspec.msgpack.Encoder()
_SHOWN_BYTES: Final = 24


class Entry(Value):
    """One thing that happened to one host: an input, an effect, or an act of the world."""

    at: Instant
    host: str
    value: Value

    @property
    def kind(self) -> str:
        """The name of what happened."""
        return type(self.value).__name__

    @property
    def summary(self) -> str:
        """What happened in one line; long payloads are given by their size and their beginning."""
        fields = type(self.value).__struct_fields__
        return ", ".join(f"{field}={_shown(getattr(self.value, field))}" for field in fields)


Subscriber = Callable[[Entry], None]


class Trace:
    """An append-only record of a run.

    The last `tail` entries are kept for people; every entry goes to the subscribers and into the digest.
    """

    __slots__ = ("_hash", "_subscribers", "count", "tail")

    def __init__(self, *, tail: int = 1000) -> None:
        self._hash = blake2b(digest_size=32)
        self._subscribers: list[Subscriber] = []
        self.count = 0
        self.tail: deque[Entry] = deque(maxlen=tail)

    def subscribe(self, subscriber: Subscriber) -> None:
        """Have `subscriber` called with every later entry."""
        self._subscribers.append(subscriber)

    def record(self, at: Instant, host: str, value: Value) -> None:
        """Append an entry; `value` must encode to the same bytes in every process."""
        self.count += 1
        # msgpack says where each part ends, so no two different traces run together into the same bytes.
        self._hash.update(_ENCODER.encode((at, host, type(value).__name__, value)))
        entry = Entry(at, host, value)
        self.tail.append(entry)
        for subscriber in self._subscribers:
            subscriber(entry)

    @property
    def digest(self) -> str:
        """The digest of everything so far, in hexadecimal."""
        return self._hash.hexdigest()


def line(entry: Entry) -> bytes:
    """Return an entry as one line of JSON, for a trace file."""
    shown = {"at": entry.at, "host": entry.host, "kind": entry.kind, "summary": entry.summary}
    return msgspec.json.encode(shown) + b"\n"


def lines(entries: Iterable[Entry]) -> str:
    """Return entries as text for people, one a line."""
    return "\n".join(f"{entry.at / 1e6:12.6f}  {entry.host:<10} {entry.kind}({entry.summary})" for entry in entries)


def _shown(value: object) -> str:
    if isinstance(value, bytes):
        shown = repr(value[:_SHOWN_BYTES])
        return shown if len(value) <= _SHOWN_BYTES else f"{shown}… {len(value)} bytes"
    return repr(value)
