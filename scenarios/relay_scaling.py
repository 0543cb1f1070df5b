"""Forty nodes, each alone behind its own line, and a relay that carries all they say to each other.

Half of them hold one of a few models, whose popularity follows Zipf's law; requests come as a Poisson process. It is
the smallest world of the relay-scaling study, with real nodes and real encryption: what the study's light clients say
to a relay is checked against what these nodes say.
"""

from typing import Final

import msgspec

from simulator.backend import ANSWER_MARKER, CostModel
from simulator.checkers import EnoughServed, NothingInPlain
from simulator.net.link import Link
from simulator.net.network import INTERNET
from simulator.rng import exponential, weighted
from simulator.scenario import Scenario
from simulator.world import RELAY_PORT, World, request_ids
from teale_proto.contract import MILLISECOND, SECOND
from teale_proto.effects import Path
from teale_proto.inputs import Ask, Task
from teale_proto.node import NodeConfig
from teale_proto.relay.server import RelayServerConfig
from teale_proto.wire.relay import Hardware

RELAY: Final = "relay.example"
NODES: Final = 40
MODELS: Final = {f"model-{rank}": 1 / rank for rank in range(1, 6)}
"""Each with its popularity."""
REQUESTS_PER_NODE_HOUR: Final = 60
STARTED_BY: Final = 5 * SECOND
ASKED_FROM: Final = 40 * SECOND
ASKED_UNTIL: Final = 120 * SECOND
ENDS: Final = 150 * SECOND
PROMPT_MARKER: Final = "simulated-prompt-word"

HOME: Final = Link(latency=15 * MILLISECOND, jitter=5 * MILLISECOND, loss=0.002, uplink_bytes_per_second=2_500_000)
DATA_CENTRE: Final = Link(latency=2 * MILLISECOND)
COST: Final = CostModel(tokens_min=20, tokens_max=120)


def build(world: World) -> None:
    """Fill the world and schedule what happens."""
    world.network.add_segment(INTERNET, discovery=False)
    world.add_relay(RELAY, "203.0.113.1", DATA_CENTRE, RelayServerConfig(names=(RELAY,)))
    world.start(RELAY, at=0)
    rng = world.rng("nodes")
    for number in range(NODES):
        config = NodeConfig(
            display_name=_name(number),
            hardware=Hardware(chip_name="simulated", total_ram_gb=16.0),
            lan_enabled=False,
            wan_enabled=True,
            wan_relay_url=f"ws://{RELAY}:{RELAY_PORT}/ws",
            max_concurrent_requests=4,
        )
        held = (weighted(rng, MODELS),) if number % 2 else ()
        world.add_node(_name(number), config, [(INTERNET, f"198.51.100.{number + 1}", HOME)], models=held, cost=COST)
        world.start(_name(number), at=rng.randrange(STARTED_BY))
    asked = _ask(world)
    world.check(NothingInPlain((PROMPT_MARKER, ANSWER_MARKER)))
    # Rare models may have no holder at all among forty nodes.
    world.check(EnoughServed(asked // 2, path=Path.RELAY))


def _name(number: int) -> str:
    return f"node-{number:02}"


def _ask(world: World) -> int:
    rng, times = world.rng("asks"), []
    at = float(ASKED_FROM)
    while (at := at + exponential(rng, 3600 * SECOND / (NODES * REQUESTS_PER_NODE_HOUR))) < ASKED_UNTIL:
        times.append(round(at))
    for when, request in zip(times, request_ids("ask", len(times)), strict=True):
        model = weighted(rng, MODELS)
        words = " ".join(f"{PROMPT_MARKER}-{word}" for word in range(rng.between(5, 200)))
        body = {"model": model, "messages": [{"role": "user", "content": words}], "stream": True}
        ask = Ask(request, Task.CHAT, model, msgspec.json.encode(body), streaming=True, timeout=30 * SECOND)
        world.ask(_name(rng.randrange(NODES)), ask, at=when)
    return len(times)


SCENARIO: Final = Scenario(
    name="relay_scaling",
    summary="A relay and 40 nodes, half with one of five models, that reach each other through the relay alone.",
    lasts=ENDS,
    build=build,
)
