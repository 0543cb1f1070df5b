"""Finds nodes on the LAN, and lets them find this one: the trio half of discovery.

Two kinds of values cross to and from the thread of `mdns`: the newest advertisement one way, and the newest of
what was seen under each name the other way, so that neither side can flood the other.
"""

from collections.abc import Callable
from typing import Any

import trio

from teale_io.mdns import DiscoveryOptions, Mdns, Sighting
from teale_io.runner import Performers
from teale_proto.effects import Advertise
from teale_proto.inputs import NodeId


class Discovery:
    """Advertises one node and browses for others.

    `own` is its node id, whose own advertisements are not news. `feed` takes ServiceFound and ServiceLost.
    """

    def __init__(self, *, feed: Callable[[Any], object], own: NodeId, options: DiscoveryOptions | None = None) -> None:
        self._feed = feed
        self._news: dict[str, Sighting] = {}
        self._any_news = trio.Event()
        self._token: trio.lowlevel.TrioToken | None = None
        self._mdns = Mdns(own, options or DiscoveryOptions(), self._hand_over)

    @property
    def performers(self) -> Performers:
        """What carries out Advertise."""
        return {Advertise: lambda effect: self._mdns.publish(effect.record)}

    async def run(self) -> None:
        """Discover until cancelled; then say good-bye to the LAN."""
        self._token = trio.lowlevel.current_trio_token()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._pass_on)
            # The thread is waited for even when cancelled: it still has its good-byes to say.
            nursery.start_soon(trio.to_thread.run_sync, self._mdns.run)
            try:
                await trio.sleep_forever()
            finally:
                self._mdns.stop()

    def _hand_over(self, sighting: Sighting) -> None:
        assert self._token is not None
        self._token.run_sync_soon(self._note, sighting)

    def _note(self, sighting: Sighting) -> None:
        # A sighting that replaces another goes to the end, so that what comes first was seen first.
        self._news.pop(sighting.name, None)
        self._news[sighting.name] = sighting
        self._any_news.set()

    async def _pass_on(self) -> None:
        while True:
            await self._any_news.wait()
            self._any_news = trio.Event()
            news, self._news = self._news, {}
            for sighting in news.values():
                self._feed(sighting)
