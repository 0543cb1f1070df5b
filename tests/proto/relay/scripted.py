"""A relay client whose relay says whatever the test wants."""

from itertools import count
from random import Random
from typing import Any, TypeVar

import msgspec

from teale_proto.contract import Duration, Instant
from teale_proto.effects import NodeEffect, SendText
from teale_proto.relay.client import RelayClient, RelayNews
from teale_proto.secure.identity import Identity
from teale_proto.timers import Timers
from teale_proto.wire.codec import Flavour
from teale_proto.wire.relay import RELAY_CODEC, RegisterAck, RelayMessage
from tests.proto.relay.relays import CAPABILITIES, HOST

M = TypeVar("M", bound=RelayMessage)


class ScriptedRelay:
    """A started client, the time, and what came of it."""

    def __init__(self, of: Identity, **settings: Any) -> None:
        self.now: Instant = 0
        self.identity = of
        self.timers: Timers[Any] = Timers()
        self.out: list[NodeEffect] = []
        self.news: list[RelayNews] = []
        self.client = RelayClient(
            of,
            url=f"wss://{HOST}/ws",
            host=HOST,
            display_name="a client",
            capabilities=CAPABILITIES,
            timers=self.timers,
            rng=Random(3),
            connection_ids=count(1, 2),
            **settings,
        )
        self.client.start(0, self.out)

    @property
    def texts(self) -> list[bytes]:
        return [effect.data for effect in self.out if isinstance(effect, SendText)]

    def said(self, kind: type[M]) -> list[M]:
        """Return what the client said of one kind."""
        decoded = (RELAY_CODEC.decode(text)[0] for text in self.texts)
        return [message for message in decoded if isinstance(message, kind)]

    def take_news(self) -> list[RelayNews]:
        news = list(self.news)
        self.news.clear()
        return news

    def accept(self) -> None:
        self.client.opened(self.now, self.out)

    def acknowledge(self) -> None:
        self.say(RegisterAck(self.identity.node_id, 0.0, 300))

    def say(self, message: RelayMessage, flavour: Flavour = Flavour.DOCUMENTED) -> None:
        self.say_bytes(RELAY_CODEC.encode(message, flavour))

    def say_json(self, value: Any) -> None:
        self.say_bytes(msgspec.json.encode(value))

    def say_bytes(self, data: bytes) -> None:
        self.news += self.client.received(data, self.now, self.out)

    def advance(self, duration: Duration) -> None:
        until = self.now + duration
        while self.timers.deadline <= until:
            self.now = max(self.now, self.timers.deadline)
            while (key := self.timers.pop_due(self.now)) is not None:
                self.news += self.client.fired(key, self.now, self.out)
            assert self.timers.deadline > self.now
        self.now = until


def connected(of: Identity, **settings: Any) -> ScriptedRelay:
    """Return a relay whose client has registered, with nothing on record yet."""
    relay = ScriptedRelay(of, **settings)
    relay.accept()
    relay.acknowledge()
    relay.out.clear()
    relay.news.clear()
    return relay
