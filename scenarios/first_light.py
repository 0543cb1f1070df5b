"""A relay and twenty nodes, five of which hold the model; a third of them are lost in the middle.

Eight nodes share two LANs, the others are alone behind their links; all of them know the relay. A hundred
requests come from everywhere over one minute. In its middle, seven nodes die within ten seconds, some by
reset and some without a word, two of them holders of the model. Requests that had no token yet go elsewhere,
others end with an honest error, and nothing that matters may break.
"""

from typing import Final

import msgspec

from simulator.backend import ANSWER_MARKER, CostModel
from simulator.checkers import EnoughServed, LostNodesLeavePools, NothingInPlain
from simulator.events import Crash
from simulator.net.link import Link
from simulator.net.network import INTERNET
from simulator.scenario import Scenario
from simulator.world import RELAY_PORT, Place, World, request_ids
from teale_proto.contract import MILLISECOND, SECOND, Duration
from teale_proto.effects import Path
from teale_proto.inputs import Ask, Task
from teale_proto.node import NodeConfig
from teale_proto.relay.server import RelayServerConfig
from teale_proto.wire.relay import Hardware

RELAY: Final = "relay.example"
MODEL: Final = "sim-model"
HEARTBEAT: Final[Duration] = 15 * SECOND
PROMPT_MARKER: Final = "simulated-prompt-word"

NODES: Final = 20
HOLDERS: Final = 5
LOST: Final = 7
LOST_HOLDERS: Final = 2
ASKS: Final = 100

STARTED_BY: Final = 5 * SECOND
ASKED_FROM: Final = 20 * SECOND
ASKED_UNTIL: Final = 80 * SECOND
LOST_FROM: Final = 45 * SECOND
LOST_UNTIL: Final = 55 * SECOND
ENDS: Final = 180 * SECOND

COST: Final = CostModel(tokens_min=20, tokens_max=240)

LANS: Final = {"lan-a": (0, 5, 6, 7), "lan-b": (1, 8, 9, 10)}
"""Which nodes share a LAN; the first of each holds the model, as do nodes 2 to 4."""

HOME: Final = Link(
    latency=15 * MILLISECOND,
    jitter=5 * MILLISECOND,
    loss=0.005,
    uplink_bytes_per_second=2_500_000,
    downlink_bytes_per_second=12_500_000,
)
SWITCH: Final = Link(latency=100, jitter=50, uplink_bytes_per_second=125_000_000, downlink_bytes_per_second=125_000_000)
DATA_CENTRE: Final = Link(latency=2 * MILLISECOND)


def build(world: World) -> None:
    """Fill the world and schedule what happens."""
    world.network.add_segment(INTERNET, discovery=False)
    for lan in LANS:
        world.network.add_segment(lan, discovery=True)
    world.add_relay(RELAY, "203.0.113.1", DATA_CENTRE, RelayServerConfig(names=(RELAY,)))
    world.start(RELAY, at=0)
    _add_nodes(world)
    lost = _lose_nodes(world)
    _ask(world, lost)
    hosts = {node: name for name, node in world.node_ids.items()}
    world.check(LostNodesLeavePools(hosts, heartbeat=HEARTBEAT))
    marks = (PROMPT_MARKER, ANSWER_MARKER)
    world.check(NothingInPlain(marks, at=RELAY))
    world.check(NothingInPlain(marks))
    world.check(EnoughServed(ASKS * 4 // 5))
    world.check(EnoughServed(ASKS // 4, path=Path.RELAY))


def _name(number: int) -> str:
    return f"node-{number:02}"


def _add_nodes(world: World) -> None:
    rng = world.rng("start")
    for number in range(NODES):
        config = NodeConfig(
            display_name=_name(number),
            hardware=Hardware(chip_name="simulated", total_ram_gb=16.0, tier=2 if number < HOLDERS else 4),
            heartbeat=HEARTBEAT,
            lan_enabled=any(number in members for members in LANS.values()),
            wan_enabled=True,
            wan_relay_url=f"ws://{RELAY}:{RELAY_PORT}/ws",
            max_concurrent_requests=4,
        )
        holds = number < HOLDERS
        world.add_node(_name(number), config, _places(number), models=(MODEL,) if holds else (), cost=COST)
        world.start(_name(number), at=rng.randrange(STARTED_BY))


def _places(number: int) -> list[Place]:
    places = [(INTERNET, f"198.51.100.{number + 1}", HOME)]
    for index, (lan, members) in enumerate(LANS.items()):
        if number in members:
            places.append((lan, f"192.168.{index}.{number + 1}", SWITCH))
    return places


def _lose_nodes(world: World) -> frozenset[int]:
    rng = world.rng("losses")
    lost = rng.sample(range(HOLDERS), LOST_HOLDERS) + rng.sample(range(HOLDERS, NODES), LOST - LOST_HOLDERS)
    for turn, number in enumerate(lost):
        how = Crash.VANISH if turn % 2 else Crash.RESET
        world.crash(_name(number), how, at=LOST_FROM + rng.randrange(LOST_UNTIL - LOST_FROM))
    return frozenset(lost)


def _ask(world: World, lost: frozenset[int]) -> None:
    rng = world.rng("asks")
    for number, request in enumerate(request_ids("ask", ASKS)):
        at = ASKED_FROM + rng.randrange(ASKED_UNTIL - ASKED_FROM)
        # Whoever will be lost asks only before that, so that there are always a hundred requests.
        asker = rng.choice([each for each in range(NODES) if at < LOST_FROM or each not in lost])
        words = " ".join(f"{PROMPT_MARKER}-{word}" for word in range(rng.between(5, 200)))
        body = {"model": MODEL, "messages": [{"role": "user", "content": words}], "stream": bool(number % 4)}
        streaming = bool(number % 4)
        ask = Ask(request, Task.CHAT, MODEL, msgspec.json.encode(body), streaming=streaming, timeout=60 * SECOND)
        world.ask(_name(asker), ask, at=at)


SCENARIO: Final = Scenario(
    name="first_light",
    summary="A relay and 20 nodes, 5 with the model; 100 requests; a third of the nodes lost in the middle.",
    lasts=ENDS,
    build=build,
)
