"""How much may come in, and from whom: one gate that every message passes, whichever way it is then handled.

There are three scopes: the client (its connection), its address, and all together. A message passes if all three
have room for it, and only then is it charged to any. The gate also keeps the counters, so that what is limited,
logged and shown is the same.
"""

from collections.abc import Mapping
from enum import Enum
from ipaddress import IPv6Address, ip_address

from teale_proto.contract import Duration, Instant, Value
from teale_proto.errors import LocalError
from teale_proto.relay.limits import Flow, FlowLimit, RateLimit, RelayServerConfig, Traffic
from teale_proto.relay.snapshots import MessageCounter


class Scope(Enum):
    """Whose limit it is."""

    CLIENT = "client"
    ADDRESS = "address"
    TOTAL = "total"


class Excess(Value):
    """A message that came too fast: whose limit it exceeds, and when the same message would pass."""

    scope: Scope
    wait: Duration


class TrafficLimit:
    """What is left of one scope's messages and bytes."""

    __slots__ = ("_messages", "_size_bytes")

    def __init__(self, traffic: Traffic) -> None:
        self._messages = _limit(traffic.messages)
        self._size_bytes = _limit(traffic.size_bytes)

    def take(self, messages: int, size_bytes: int, now: Instant) -> Duration:
        """Take that much and return 0, or take nothing and return how long to wait for it."""
        flow = self._messages
        if flow is not None and not flow.take(messages, now):
            wait = flow.wait(messages, now)
            return wait if self._size_bytes is None else max(wait, self._size_bytes.wait(size_bytes, now))
        if self._size_bytes is not None and not self._size_bytes.take(size_bytes, now):
            if flow is not None:
                flow.give_back(messages)
            return self._size_bytes.wait(size_bytes, now)
        return 0

    def give_back(self, messages: int, size_bytes: int) -> None:
        """Undo the last `take`."""
        if self._messages is not None:
            self._messages.give_back(messages)
        if self._size_bytes is not None:
            self._size_bytes.give_back(size_bytes)

    def is_full(self, now: Instant) -> bool:
        """Return whether nothing is known here that a new limit would not know."""
        return all(limit is None or limit.is_full(now) for limit in (self._messages, self._size_bytes))


class AddressUse:
    """One address: its connections, and what is left of its traffic."""

    __slots__ = ("connections", "key", "traffic")

    def __init__(self, key: str, traffic: TrafficLimit) -> None:
        self.key = key
        self.connections = 0
        self.traffic = traffic


class Source:
    """One connection as the gate sees it."""

    __slots__ = ("address", "excesses", "messages", "size_bytes", "told_until", "traffic")

    def __init__(self, address: AddressUse, config: RelayServerConfig) -> None:
        self.address = address
        self.traffic = TrafficLimit(config.client_traffic)
        self.excesses = RateLimit(config.excesses)
        self.told_until: Instant = 0
        """Until then it knows that it is too fast."""
        self.messages = 0
        self.size_bytes = 0

    def inherit(self, former: "Source") -> None:
        """Go on with the allowances of a connection that this one replaces."""
        self.traffic = former.traffic
        self.excesses = former.excesses
        self.told_until = former.told_until


class Gate:
    """The limits of all three scopes, and the counters. Raises LocalError for limits that no message could meet."""

    def __init__(self, config: RelayServerConfig) -> None:
        for traffic in (config.client_traffic, config.address_traffic, config.total_traffic):
            _check(traffic, config.message_bytes_max)
        self._config = config
        self._total = TrafficLimit(config.total_traffic)
        self._addresses: dict[str, AddressUse] = {}
        # Those without a connection, the longest unused first; they are in `_addresses` too.
        self._idle: dict[str, AddressUse] = {}
        self._counter = MessageCounter()
        self._size_bytes = 0
        self._excesses = dict.fromkeys(Scope, 0)

    @property
    def messages(self) -> int:
        """How many messages have passed."""
        return self._counter.total

    @property
    def size_bytes(self) -> int:
        """How many bytes have passed."""
        return self._size_bytes

    @property
    def excesses(self) -> Mapping[Scope, int]:
        """How many messages were refused, by the scope whose limit they met first."""
        return self._excesses

    def messages_last_minute(self, now: Instant) -> int:
        """Return how many messages passed in the last 60 seconds."""
        return self._counter.last_minute(now)

    def enter(self, host: str, now: Instant) -> Source | None:
        """Admit one connection from an address; None where it has as many as it may."""
        key = address_key(host)
        use = self._addresses.get(key)
        if use is None:
            use = self._addresses[key] = AddressUse(key, TrafficLimit(self._config.address_traffic))
        elif use.connections >= self._config.connections_per_address_max:
            return None
        self._idle.pop(key, None)
        use.connections += 1
        self._forget_idle(now)
        return Source(use, self._config)

    def leave(self, source: Source, now: Instant) -> None:
        """Take note that a connection which `enter` admitted has ended."""
        use = source.address
        use.connections -= 1
        if use.connections == 0:
            self._idle[use.key] = use
            self._forget_idle(now)

    def admit(self, source: Source, messages: int, size_bytes: int, now: Instant) -> Excess | None:
        """Charge and count what came in and return None, or do neither and return why it may not pass.

        Several messages that came in together may be asked for at once: they pass or exceed together.
        """
        client, address = source.traffic, source.address.traffic
        if wait := client.take(messages, size_bytes, now):
            return Excess(Scope.CLIENT, wait)
        if wait := address.take(messages, size_bytes, now):
            client.give_back(messages, size_bytes)
            return Excess(Scope.ADDRESS, wait)
        if wait := self._total.take(messages, size_bytes, now):
            client.give_back(messages, size_bytes)
            address.give_back(messages, size_bytes)
            return Excess(Scope.TOTAL, wait)
        source.messages += messages
        source.size_bytes += size_bytes
        self._size_bytes += size_bytes
        self._counter.count(now, messages)
        return None

    def count_refused(self, excess: Excess) -> None:
        """Count one message that was refused, and not merely asked about together with others."""
        self._excesses[excess.scope] += 1

    def _forget_idle(self, now: Instant) -> None:
        """Forget who has nothing left to remember; and beyond the limit, the longest unused."""
        while self._idle:
            key, use = next(iter(self._idle.items()))
            if len(self._idle) <= self._config.idle_addresses_max and not use.traffic.is_full(now):
                return
            del self._idle[key], self._addresses[key]


def address_key(host: str) -> str:
    """Return what counts as one address: an IPv4 address, or the /64 that one IPv6 customer has to himself.

    What is no address (a host name in a simulated world) stands for itself.
    """
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if not isinstance(address, IPv6Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return f"{IPv6Address(int(address) >> 64 << 64)}/64"


def _limit(flow: Flow | None) -> FlowLimit | None:
    return None if flow is None else FlowLimit(flow)


def _check(traffic: Traffic, message_bytes_max: int) -> None:
    for flow, least in ((traffic.messages, 1), (traffic.size_bytes, message_bytes_max)):
        if flow is not None and (flow.per_second < 1 or flow.burst < least):
            raise LocalError(f"a limit of traffic needs at least 1 a second, and here a burst of at least {least}")
