"""What the study assumes, each figure with its source or the word "assumption", and the designs that it compares."""

from typing import Annotated, Final

from msgspec import Meta, field

from simulator.relay_cost import BUN, OURS, Prices, RelayProfile
from simulator.spec.units import Chance, Count, Positive, Seconds
from simulator.study.reach import Paths
from teale_proto.contract import SECOND, Value
from teale_proto.node import OPENINGS_MAX
from teale_proto.seeking import DISCOVER_EVERY, DISCOVER_SOON, DISCOVER_SOON_TIMES, DISCOVERED_MAX

OPENED_FOR_A_REQUEST: Final = OPENINGS_MAX
"""Connections opened at once on behalf of a request."""

JITTER_SECONDS: Final = 0.5
"""What the jitter of `teale_proto.seeking` adds to its intervals, on average."""
SOON_SECONDS: Final = DISCOVER_SOON / SECOND + JITTER_SECONDS
SOON_TIMES: Final = DISCOVER_SOON_TIMES
"""How often a node that has just come asks again after so short a time."""

AtLeastOne = Annotated[int, Meta(ge=1)]

MIXTURE: Final = {"home": 0.70, "cellular": 0.10, "corporate": 0.15, "cloud": 0.05}


class Parameters(Value, forbid_unknown_fields=True):
    """The population and what it does; the same for every design."""

    mixtures: dict[str, Seconds] = field(default_factory=lambda: dict(MIXTURE))
    """Assumption. What the mixtures hold is in `simulator.spec.access`, with sources."""
    holders: Chance = 0.5
    """Share of nodes that serve a model. Assumption: a laptop asks, a desktop serves, many do both."""
    models: AtLeastOne = 200
    """Models that are in use. Assumption."""
    zipf: Seconds = 1.0
    """Popularity of model n is 1 / n ** zipf, for those who ask and those who serve. Assumption, after web caching."""

    session_median: Positive = 3600.0
    """Seconds from coming to going. Assumption."""
    session_sigma: Seconds = 1.0

    requests_per_hour: Positive = 4.0
    """Of one node that is there. Assumption."""
    peak_factor: Positive = 1.6
    """The busiest hour against the mean. Assumption: a sine of the day with a swing of 0.6."""
    prompt_words_median: Positive = 60.0
    prompt_words_sigma: Seconds = 1.0
    tokens_median: Positive = 200.0
    """Pieces of a streamed answer, each a message. Assumption."""
    tokens_sigma: Seconds = 0.8
    tokens_max: AtLeastOne = 4000
    tokens_per_second: Positive = 40.0

    peers_held: Count = 8
    """Sessions that a node keeps with nodes that hold models: `NodeConfig.wan_peers_max`."""
    heartbeat: Positive = 15.0
    """Seconds; each side sends one and answers the other's: `teale_proto.liveness`."""
    discover_every: Positive = DISCOVER_EVERY / SECOND + JITTER_SECONDS
    """Seconds: `teale_proto.seeking`, with its jitter."""
    ping_every: Positive = 25.0
    """Seconds: `RelayClientConfig.ping_interval`."""
    candidates: AtLeastOne = 3
    """`iceCandidate` messages that each side sends for an attempt at a direct path. Assumption."""

    @property
    def soon_extra(self) -> float:
        """Questions that a node asks besides the regular ones because it asks more often when it has just come."""
        return SOON_TIMES * max(0.0, 1 - SOON_SECONDS / self.discover_every)

    @property
    def beats_per_second(self) -> float:
        """Messages a second that keep one session alive: two heartbeats and their answers."""
        return 4 / self.heartbeat


class Design(Value, forbid_unknown_fields=True):
    """One way to build and use a relay."""

    name: str
    profile: RelayProfile
    paths: Paths
    peers_max: Count | None = 50
    """Entries in one answer to `discover`; None is everybody."""
    asks_for: Count | None = DISCOVERED_MAX
    """How many nodes a node asks for in each `discover`; None is as many as the relay gives."""
    broadcasts: bool = False
    """Whether everybody is told who comes and goes."""
    binary: bool = True
    """Whether data travel as they are, and not as base64 in JSON."""
    prefers_direct: bool = False
    """Whether nodes choose, among those that hold the model, one that they can reach directly."""

    def listed(self, others: int) -> int:
        """Return how many nodes an answer lists where so many others fit."""
        return min(others, *(limit for limit in (self.peers_max, self.asks_for) if limit is not None), others)


DEPLOYED: Final = Design("deployed", BUN, Paths(), peers_max=None, asks_for=None, broadcasts=True, binary=False)
"""Full lists, broadcasts, JSON. Its nodes get the same direct paths as ours, so that relays are compared alone."""
SHIPPED: Final = Design("ours, all relayed", OURS, Paths(direct=False))
"""As our nodes are today: no direct paths over the internet."""
PUNCHING: Final = Design("ours", OURS, Paths())
BIRTHDAY: Final = Design("ours, birthday", OURS, Paths(birthday=True))
PREFERRING: Final = Design("ours, birthday, direct preferred", OURS, Paths(birthday=True), prefers_direct=True)

FORMER: Final = Design("ours, birthday, asking for 50", OURS, Paths(birthday=True), asks_for=None)
"""As nodes asked until this study was made: for all that the relay would list."""

DESIGNS: Final = (DEPLOYED, SHIPPED, PUNCHING, BIRTHDAY, PREFERRING, FORMER)
PRICES: Final = Prices()
