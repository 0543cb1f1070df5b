"""The pages of a relay: is it up, who is there, how busy is it."""

from collections.abc import Callable
from typing import Final

import msgspec

from teale_io.clock import now
from teale_io.websocket_server import Page
from teale_proto.contract import SECOND, Value
from teale_proto.relay.server import RelayServer
from teale_proto.wire.fields import wire_name


class _Health(Value):
    ok: bool
    peers: int


class _Peer(Value, rename=wire_name):
    node_id: str
    display_name: str
    loaded_models: tuple[str, ...]
    is_available: bool
    proved: bool


class _Metrics(Value, rename=wire_name):
    """The names are those of the deployed relay."""

    peers: int
    messages_per_minute: int
    relay_sessions_active: int
    uptime_seconds: int
    total_messages: int


def health(relay: RelayServer) -> Value:
    """Return whether the relay is up, and how many nodes are registered."""
    return _Health(ok=True, peers=relay.health().peers)


def peers(relay: RelayServer) -> list[_Peer]:
    """Return the registered nodes, by shortened ids."""
    return [
        _Peer(
            node_id=listing.node_id,
            display_name=listing.display_name,
            loaded_models=listing.loaded_models,
            is_available=listing.is_available,
            proved=listing.proved,
        )
        for listing in relay.listings()
    ]


def metrics(relay: RelayServer) -> Value:
    """Return the counters."""
    counted = relay.metrics(now())
    return _Metrics(
        peers=counted.peers,
        messages_per_minute=counted.messages_last_minute,
        relay_sessions_active=counted.sessions,
        uptime_seconds=counted.uptime // SECOND,
        total_messages=counted.messages,
    )


_PAGES: Final = {"/health": health, "/peers": peers, "/metrics": metrics}


def pages(relay: RelayServer) -> Callable[[str], Page | None]:
    """Return what answers a GET of a path."""

    def page(path: str) -> Page | None:
        make = _PAGES.get(path)
        return None if make is None else Page(msgspec.json.encode(make(relay)))

    return page
