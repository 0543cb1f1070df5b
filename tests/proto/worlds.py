"""Small worlds that tests begin with: a LAN, a relay, and what one asks and reads there."""

from typing import Any

import msgspec

from teale_proto.contract import SECOND
from teale_proto.effects import (
    Path,
    ReportAttempt,
    ReportChunk,
)
from teale_proto.inputs import (
    Ask,
    Task,
)
from teale_proto.node import Node
from tests.proto.world import RELAY_URL, World

BODY = b'{"model":"m","messages":[{"role":"user","content":"what is a secret?"}]}'
WAN = {"lan_enabled": False, "wan_enabled": True, "wan_relay_url": RELAY_URL}


def ask(request: str = "r", model: str = "m", **more: Any) -> Ask:
    body = msgspec.json.encode({"model": model, "messages": [{"role": "user", "content": "what is a secret?"}]})
    return Ask(request, Task.CHAT, model, more.pop("body", body), **more)


def lan(*names: str, serving: str = "", started: bool = True, **config: Any) -> World:
    """Return a world whose nodes share a LAN; those in `serving` have the model."""
    world = World()
    for number, name in enumerate(names, 1):
        world.add_node(name, number, lan="home", models=("m",) if name in serving else (), **config)
    if started:
        world.start(*names)
        world.run_for(5 * SECOND)
    return world


def wan(*names: str, serving: str = "", **config: Any) -> World:
    """Return a world whose nodes share a relay; those in `serving` have the model."""
    world = World()
    world.add_relay()
    for number, name in enumerate(names, 1):
        world.add_node(name, number, models=("m",) if name in serving else (), **(WAN | config))
    world.start(*names)
    world.run_for(60 * SECOND)
    return world


def paths(world: World, name: str) -> list[tuple[str, Path]]:
    return [(status.display_name, status.path) for status in world.node(name).peers()]


def content(world: World, name: str, request: str = "r") -> str:
    chunks = [msgspec.json.decode(r.chunk) for r in world.of(name, ReportChunk) if r.request == request]
    return "".join(item["choices"][0]["delta"]["content"] for item in chunks)


def servers(world: World, name: str) -> list[str]:
    by_id = {world.node(other).node_id: other for other in world.cores if isinstance(world.cores[other], Node)}
    return [by_id[report.server] for report in world.of(name, ReportAttempt)]
