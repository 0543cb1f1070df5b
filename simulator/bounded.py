"""Nothing grows without end: a walk through the state of cores that compares the length of everything with a bound.

The walk knows nothing of what it walks through but that objects have attributes and collections have lengths, so that
a collection that somebody adds tomorrow is watched as well. What a `…_max` allows is taken from there; everything else
may be as large as the world gives reason for, and no larger. It visits one host at a time, now and then.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from enum import Enum
from itertools import islice, repeat
from typing import Any, Final

from simulator.checkers import Checker, Watched
from simulator.trace import Entry
from teale_proto import absence, asking, contacts, delivery, door, link, peers, serving, speaking
from teale_proto.contract import SECOND, Duration, Instant, Value
from teale_proto.inputs import Ask, Woken
from teale_proto.nat.strategy import DEFAULT_EFFORT
from teale_proto.relay import client_sessions, forwarding
from teale_proto.relay.client_states import RelayClientConfig
from teale_proto.relay.limits import RelayServerConfig

EVERY: Final[Duration] = 60 * SECOND
"""How often each host is visited, of virtual time."""

PER_THING: Final = 16
"""What each host and each request may add to a collection without a limit of its own."""

ITEMS_SEEN: Final = 64
"""Of a collection, so many elements are walked into."""

_RELAY: Final = RelayServerConfig()
_CLIENT: Final = RelayClientConfig()

BOUNDS: Final = {
    "Absence._away": absence.AWAY_MAX,
    "Asking._asked": asking.ASKS_MAX,
    "Asking._by_wire_id": asking.ASKS_MAX,
    "Asked.tried": asking.ATTEMPTS_MAX,
    "Contacts._services": contacts.SERVICES_MAX,
    "Contacts._listed": contacts.LISTED_MAX,
    "Contacts._failing": contacts.FAILING_MAX,
    "Peers._peers": peers.PEERS_MAX,
    "Conversation.unknown_kinds": speaking.UNKNOWN_KINDS_MAX,
    "Serving._jobs": serving.QUEUE_MAX,
    "ClientSessions._dismissed": client_sessions.DISMISSED_MAX,
    "ClientSessions._sessions": _CLIENT.sessions_max + peers.PEERS_MAX,
    "Forwarding._heads": forwarding.HEADS_MAX,
    "Delivery._held": delivery.IN_FLIGHT_MAX,
    "Delivery._kept": delivery.KEPT_MAX,
    "Delivery._lost": delivery.IN_FLIGHT_MAX,
    "Door._proved": door.PROVED_MAX,
    "Guesses._displaced": DEFAULT_EFFORT.guesses,
    "Punch._opened": DEFAULT_EFFORT.sockets,
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

_OF_THE_NETWORK: Final = "simulator.net.nat"
"""A gateway's core can see the box that it speaks for, whose table has a size of its own (`NatKind.sessions_max`)."""


class NothingGrows(Checker):
    """Every collection in the state of every core keeps within its bound.

    A collection without a limit of its own may have `slack` elements, and `per_thing` more for each host that there is
    and each request that was asked so far.
    """

    rule = "every collection kept within its bound"
    kinds = (Ask, Woken)

    def __init__(self, hosts: Mapping[str, Watched], *, slack: int = 64, per_thing: int = PER_THING) -> None:
        super().__init__()
        self._hosts = hosts
        self._slack = slack
        self._per_thing = per_thing
        self._asked = 0
        self._next_at: Instant = EVERY // 2
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
        inner: Iterable[tuple[str, Any]]
        if _KINDS.get(type(found)) is _Kind.OBJECT or found is core:
            inner = _attributes(found)
        else:
            yield place, found
            inner = _elements(place, found)
        for name, value in inner:
            kind = _KINDS.get(type(value)) or _kind_of(type(value))
            if kind is _Kind.NEITHER or id(value) in seen or (kind is _Kind.COLLECTION and not value):
                continue
            seen.add(id(value))
            waiting.append((name, value))


class _Kind(Enum):
    """What objects of a type are to a walk."""

    COLLECTION = "collection"
    OBJECT = "object"
    """Has attributes that may hold collections."""
    NEITHER = "neither"
    """A value that never changes, or part of the program."""


_KINDS: Final[dict[type, _Kind]] = {}
_SLOTS: Final[dict[type, tuple[tuple[str, str], ...]]] = {}
"""The slots of each type, and what to call what is found in them."""


def _kind_of(kind: type) -> _Kind:
    if issubclass(kind, dict | list | set | frozenset | deque | tuple | bytearray):
        found = _Kind.COLLECTION
    elif (
        issubclass(kind, int | float | str | bytes | Enum | Value | type)
        or kind.__module__.split(".", 1)[0] in _FOREIGN
        or kind.__module__ == _OF_THE_NETWORK
        or issubclass(kind, Callable)  # type: ignore[arg-type]  # an abstract class, which mypy takes for a form
    ):
        found = _Kind.NEITHER
    else:
        found = _Kind.OBJECT
    _KINDS[kind] = found
    return found


def _elements(place: str, found: Collection[Any]) -> Iterable[tuple[str, Any]]:
    if isinstance(found, dict):
        return zip(repeat(f"{place}[]"), islice(found.values(), ITEMS_SEEN), strict=False)
    if isinstance(found, set | frozenset | bytearray):
        # They hold names and numbers, and the order of sets is no two processes' same.
        return ()
    return zip(repeat(f"{place}[]"), islice(found, ITEMS_SEEN), strict=False)


def _attributes(found: object) -> list[tuple[str, Any]]:
    kind = type(found)
    label = kind.__name__
    slots = _SLOTS.get(kind)
    if slots is None:
        named = [getattr(base, "__slots__", ()) for base in kind.__mro__]
        each = [(names,) if isinstance(names, str) else tuple(names) for names in named]
        names = (name for names in each for name in names if not name.startswith("__"))
        slots = _SLOTS[kind] = tuple((name, f"{label}.{name}") for name in names)
    attributes = [(place, getattr(found, name, None)) for name, place in slots]
    held: dict[str, Any] | None = getattr(found, "__dict__", None)
    if held:
        attributes += [(f"{label}.{name}", value) for name, value in held.items()]
    return attributes
