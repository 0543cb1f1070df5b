"""Nothing grows without end: a walk through the state of cores that compares the length of everything with a bound.

The walk knows nothing of what it walks through but that objects have attributes and collections have lengths, so that
a collection that somebody adds tomorrow is watched as well. What a `…_max` allows is taken from there; everything else
may be as large as the world gives reason for, and no larger. It visits one host at a time, now and then.
"""

from collections import deque
from collections.abc import Collection, Iterator, Mapping
from enum import Enum
from itertools import islice
from typing import Any, Final

from simulator.checkers import Checker, Watched
from simulator.trace import Entry
from teale_proto import asking, contacts, door, link, peers, serving
from teale_proto.contract import SECOND, Duration, Instant, Value
from teale_proto.inputs import Ask, Woken
from teale_proto.relay import client_sessions, forwarding
from teale_proto.relay.client_states import RelayClientConfig
from teale_proto.relay.limits import RelayServerConfig

EVERY: Final[Duration] = 40 * SECOND
"""How often each host is visited, of virtual time."""

ITEMS_SEEN: Final = 64
"""Of a collection, so many elements are walked into."""

_RELAY: Final = RelayServerConfig()
_CLIENT: Final = RelayClientConfig()

BOUNDS: Final = {
    "Asking._asked": asking.ASKS_MAX,
    "Asking._by_wire_id": asking.ASKS_MAX,
    "Asked.tried": asking.ATTEMPTS_MAX,
    "Contacts._services": contacts.SERVICES_MAX,
    "Contacts._listed": contacts.LISTED_MAX,
    "Contacts._failing": contacts.FAILING_MAX,
    "Peers._peers": peers.PEERS_MAX,
    "Conversation.unknown_kinds": peers.UNKNOWN_KINDS_MAX,
    "Serving._jobs": serving.QUEUE_MAX,
    "ClientSessions._dismissed": client_sessions.DISMISSED_MAX,
    "ClientSessions._sessions": _CLIENT.sessions_max + peers.PEERS_MAX,
    "Forwarding._heads": forwarding.HEADS_MAX,
    "Door._proved": door.PROVED_MAX,
    "RelayServer._strangers": _RELAY.strangers_max,
    "Gate._idle": _RELAY.idle_addresses_max,
}
"""The limits that the code itself sets, by class and attribute."""

BUFFER_MAX: Final = 2 * link.MESSAGE_MAX
"""Bytes that any one buffer may hold."""

_FOREIGN: Final = frozenset(
    {"builtins", "cryptography", "nacl", "noise", "msgspec", "collections", "itertools", "_cffi_backend"}
)
"""Packages whose objects are not walked into."""


class NothingGrows(Checker):
    """Every collection in the state of every core keeps within its bound.

    A collection without a limit of its own may have `slack` elements, and `per_thing` more for each host that there is
    and each request that was asked so far.
    """

    rule = "every collection kept within its bound"
    kinds = (Ask, Woken)

    def __init__(self, hosts: Mapping[str, Watched], *, slack: int = 64, per_thing: int = 16) -> None:
        super().__init__()
        self._hosts = hosts
        self._slack = slack
        self._per_thing = per_thing
        self._asked = 0
        self._next_at: Instant = EVERY
        self._turn = 0
        self._told: set[tuple[str, str]] = set()

    def observe(self, entry: Entry) -> None:
        """Visit the next host when it is time."""
        if type(entry.value) is Ask:
            self._asked += 1
        if entry.at >= self._next_at and self._hosts:
            names = list(self._hosts)
            self._turn = (self._turn + 1) % len(names)
            self._next_at = entry.at + EVERY // len(names)
            self._visit(names[self._turn], entry.at)

    def finish(self, now: Instant) -> None:
        """Visit everybody."""
        for name in self._hosts:
            self._visit(name, now)

    def _visit(self, name: str, now: Instant) -> None:
        core = self._hosts[name].core
        if core is None:
            return
        allowed = self._slack + self._per_thing * (len(self._hosts) + self._asked)
        for place, found in collections_of(core):
            is_buffer = isinstance(found, bytes | bytearray)
            bound = BUFFER_MAX if is_buffer else BOUNDS.get(place, allowed)
            if len(found) > bound and (name, place) not in self._told:
                self._told.add((name, place))
                self.violated(now, name, f"{place} holds {len(found)}, and may hold {bound}")


def collections_of(core: object) -> Iterator[tuple[str, Collection[Any]]]:
    """Yield every collection that an object holds, directly or not, as `Class.attribute`, each once."""
    seen = {id(core)}
    # What is still to be looked into, and where it was found.
    waiting: deque[tuple[str, Any]] = deque([(type(core).__name__, core)])
    while waiting:
        place, found = waiting.popleft()
        if isinstance(found, dict | list | set | frozenset | deque | tuple | bytearray):
            yield place, found
            inner = [] if isinstance(found, bytearray) else _elements(place, found)
        else:
            inner = _attributes(found)
        for name, value in inner:
            if id(value) not in seen and _is_state(value):
                seen.add(id(value))
                waiting.append((name, value))


def _elements(place: str, found: Collection[Any]) -> list[tuple[str, Any]]:
    if isinstance(found, set | frozenset):
        # They hold names and numbers, and their order is no two processes' same.
        return []
    values = found.values() if isinstance(found, dict) else found
    return [(f"{place}[]", value) for value in islice(values, ITEMS_SEEN)]


def _attributes(found: object) -> list[tuple[str, Any]]:
    kind = type(found)
    names = _SLOTS.get(kind)
    if names is None:
        slots = [getattr(base, "__slots__", ()) for base in kind.__mro__]
        each = [(slot,) if isinstance(slot, str) else tuple(slot) for slot in slots]
        names = _SLOTS[kind] = tuple(name for names in each for name in names if not name.startswith("__"))
    held = getattr(found, "__dict__", None) or {}
    label = kind.__name__
    attributes = [(f"{label}.{name}", value) for name, value in held.items()]
    # A slot may be empty.
    return attributes + [(f"{label}.{name}", getattr(found, name)) for name in names if hasattr(found, name)]


_SLOTS: Final[dict[type, tuple[str, ...]]] = {}


def _is_state(value: object) -> bool:
    """Whether something can hold what grows: neither a value that never changes nor part of the program."""
    if isinstance(value, dict | list | set | frozenset | deque | tuple | bytearray):
        return bool(value)
    if value is None or isinstance(value, int | float | str | bytes | Enum | Value | type):
        return False
    module = type(value).__module__.split(".", 1)[0]
    return module not in _FOREIGN and not callable(value)
