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
_BLOCK_BYTES: Final = 1 << 16
"""How much is hashed at once: to call the hash for each entry costs as much as the hashing."""
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

    The last `tail` entries are kept for people; every entry goes into the digest and to those who subscribed to its
    kind. An entry that nobody looks at exists as bytes only.
    """

    __slots__ = ("_hash", "_subscribers", "_unhashed", "_watching", "count", "tail")

    def __init__(self, *, tail: int = 1000) -> None:
        self._hash = blake2b(digest_size=32)
        self._unhashed = bytearray()
        self._subscribers: list[tuple[Subscriber, frozenset[type[Value]] | None]] = []
        self._watching: dict[type[Value], tuple[Subscriber, ...]] = {}
        self.count = 0
        self.tail: deque[Entry] = deque(maxlen=tail)

    def subscribe(self, subscriber: Subscriber, kinds: Iterable[type[Value]] | None = None) -> None:
        """Have `subscriber` called with every later entry, or with those whose values are of `kinds` exactly."""
        self._subscribers.append((subscriber, None if kinds is None else frozenset(kinds)))
        self._watching.clear()

    def record(self, at: Instant, host: str, value: Value) -> None:
        """Append an entry; `value` must encode to the same bytes in every process."""
        self.count += 1
        kind = type(value)
        unhashed = self._unhashed
        # msgpack says where each part ends, so no two different traces run together into the same bytes.
        _ENCODER.encode_into((at, host, kind.__name__, value), unhashed, -1)
        if len(unhashed) >= _BLOCK_BYTES:
            self._hash.update(unhashed)
            unhashed.clear()
        watching = self._watching.get(kind)
        if watching is None:
            watching = self._watching[kind] = self._watchers_of(kind)
        if watching or self.tail.maxlen:
            entry = Entry(at, host, value)
            self.tail.append(entry)
            for subscriber in watching:
                subscriber(entry)

    @property
    def digest(self) -> str:
        """The digest of everything so far, in hexadecimal."""
        digest = self._hash.copy()
        digest.update(self._unhashed)
        return digest.hexdigest()

    def _watchers_of(self, kind: type[Value]) -> tuple[Subscriber, ...]:
        return tuple(subscriber for subscriber, kinds in self._subscribers if kinds is None or kind in kinds)


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
