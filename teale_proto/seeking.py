"""Asking the relay for nodes, and opening sessions with those that are wanted.

The relay is asked often at first, since whoever starts several nodes expects them to meet soon, and then now and
then. A request that nobody can serve may ask once more; what it waits for is the next listing that comes.
"""

from typing import Any, Final

from teale_proto.asking import Asked
from teale_proto.contract import SECOND, Duration, Instant, Sink, Value
from teale_proto.effects import RelayState
from teale_proto.inputs import NodeId
from teale_proto.relay.client import RelayClient, RelayClientEffect
from teale_proto.rng import Rng
from teale_proto.timers import Timers
from teale_proto.wire.relay import DiscoverFilter

DISCOVER_EVERY: Final[Duration] = 30 * SECOND
DISCOVER_SOON: Final[Duration] = 10 * SECOND
DISCOVER_SOON_TIMES: Final = 3
"""How often the relay is asked after DISCOVER_SOON before it is asked every DISCOVER_EVERY."""

DISCOVERED_MAX: Final = 16
"""Nodes asked for at once: twice the sessions that a node keeps by default.

Listings are most of what a relay sends to nodes that ask for all it would list (docs/explanation/relay-scaling.md).
"""


class DiscoverDue(Value):
    """It is time to ask the relay for nodes."""


class Seeking:
    """What has been asked of one relay and has not come yet: listings, and sessions."""

    __slots__ = ("_asked_times", "_awaits_listing", "_listings", "_opening", "_relay", "_rng", "_timers")

    def __init__(self, relay: RelayClient, timers: Timers[Any], rng: Rng) -> None:
        self._relay = relay
        self._timers = timers
        self._rng = rng
        self._opening: dict[str, NodeId] = {}
        self._awaits_listing = False
        self._asked_times = 0
        self._listings = 0

    @property
    def openings(self) -> int:
        """Sessions that have been asked for and are not open yet."""
        return len(self._opening)

    @property
    def may_bring_news(self) -> bool:
        """Whether the relay is about to tell us of nodes."""
        return self._awaits_listing or self._relay.state in (RelayState.CONNECTING, RelayState.REGISTERING)

    def registered(self, now: Instant, out: Sink[RelayClientEffect]) -> None:
        """Begin to ask: the relay knows us now."""
        self._asked_times = 0
        self.ask(now, out)

    def ask(self, now: Instant, out: Sink[RelayClientEffect]) -> None:
        """Ask for any nodes, and see to it that this is done again."""
        self._awaits_listing |= self._relay.discover(DiscoverFilter(max_peers=DISCOVERED_MAX), now, out)
        self._asked_times += 1
        interval = DISCOVER_SOON if self._asked_times <= DISCOVER_SOON_TIMES else DISCOVER_EVERY
        self._timers.set(DiscoverDue(), now + interval + int(self._rng.random() * SECOND))

    def ask_for(self, asked: Asked, now: Instant, out: Sink[RelayClientEffect]) -> bool:
        """Ask once on behalf of a request; return whether a listing that may help it is still to come."""
        if self._relay.state is not RelayState.CONNECTED:
            return False
        if asked.listing is None:
            asked.listing = self._listings + 1
            wanted = DiscoverFilter(model_id=asked.ask.model, max_peers=DISCOVERED_MAX)
            self._awaits_listing = self._relay.discover(wanted, now, out)
            if not self._awaits_listing:
                # The relay answers only so many questions; nodes may have come since the last.
                self._timers.set(DiscoverDue(), max(now + 1, self._relay.discover_at))
        return self._listings < asked.listing

    def listed(self) -> None:
        """Note that a listing came."""
        self._awaits_listing = False
        self._listings += 1

    def no_listing(self) -> None:
        """Note that the listing we asked for will not come."""
        self._awaits_listing = False

    def open(self, node: NodeId, now: Instant, out: Sink[RelayClientEffect]) -> None:
        """Ask for a session with a node; the relay must be connected."""
        self._opening[self._relay.open_session(node, now, out)] = node

    def is_opening(self, node: NodeId) -> bool:
        """Whether a session with a node has been asked for."""
        return node in self._opening.values()

    def settled(self, session: str) -> bool:
        """Note that a session opened or failed; return whether it was we who had asked for it."""
        return self._opening.pop(session, None) is not None
