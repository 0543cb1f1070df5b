"""Discovery that comes back: when it falls over, it is started anew with what was last advertised.

What the fallen one had seen is reported as lost, since nobody would report its end any more; what is still there
is seen again.
"""

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

from teale_io.restarting import FIRST, keep_running
from teale_io.runner import Performers
from teale_proto.contract import Duration
from teale_proto.effects import Advertise
from teale_proto.inputs import ServiceFound, ServiceLost

Feed: TypeAlias = Callable[[Any], object]
"""Takes ServiceFound and ServiceLost."""


class Discovers(Protocol):
    """What is kept running: `teale_io.discovery.Discovery`."""

    @property
    def performers(self) -> Performers:
        """What carries out Advertise."""

    async def run(self) -> None:
        """Discover until cancelled."""


class KeptDiscovery:
    """Keeps what `discover` makes running, and makes another when it falls over; `first` is the first pause."""

    def __init__(self, *, feed: Feed, discover: Callable[[Feed], Discovers], first: Duration = FIRST) -> None:
        self._feed = feed
        self._discover = discover
        self._first = first
        self._current: Discovers | None = None
        self._advertised: Advertise | None = None
        # A dict for its order; as large as discovery lets it become.
        self._seen: dict[str, None] = {}

    @property
    def performers(self) -> Performers:
        """What carries out Advertise."""
        return {Advertise: self._advertise}

    async def run(self) -> None:
        """Discover until cancelled."""
        await keep_running("discovery", self._run, fell=self._fell, first=self._first)

    async def _run(self) -> None:
        current = self._current = self._discover(self._note)
        if self._advertised is not None:
            current.performers[Advertise](self._advertised)
        await current.run()

    def _advertise(self, effect: Advertise) -> None:
        self._advertised = effect
        if self._current is not None:
            self._current.performers[Advertise](effect)

    def _note(self, sighting: ServiceFound | ServiceLost) -> None:
        if isinstance(sighting, ServiceFound):
            self._seen[sighting.name] = None
        else:
            self._seen.pop(sighting.name, None)
        self._feed(sighting)

    def _fell(self) -> None:
        self._current = None
        seen, self._seen = self._seen, {}
        for name in seen:
            self._feed(ServiceLost(name))
