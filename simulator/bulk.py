"""Worlds of a hundred thousand nodes, filled in a loop.

Nodes here have nothing to do but to keep each other alive, which is what there is most of in a large network: each has
one other node that it exchanges heartbeats with, either in its own home or through a relay.
"""

from typing import Final

from simulator.net.link import Link
from simulator.net.network import INTERNET
from simulator.world import RELAY_PORT, World
from teale_proto.contract import MILLISECOND, SECOND, Duration
from teale_proto.node import NodeConfig
from teale_proto.relay.server import RelayServerConfig

HOME: Final = Link(latency=MILLISECOND // 2)
LINE: Final = Link(latency=20 * MILLISECOND)
DATA_CENTRE: Final = Link(latency=2 * MILLISECOND)
MODEL: Final = "bulk-model"
LISTINGS: Final = 4
"""How many nodes a relay names at once. Nodes ask for 16, and to read them would be most of all work here."""


def add_homes(world: World, nodes: int, *, within: Duration = 5 * SECOND) -> list[str]:
    """Add nodes, two to a home, that find each other there and come up one after the other; return their names."""
    config = NodeConfig(display_name="node")
    names = [f"node-{number}" for number in range(nodes)]
    for number, name in enumerate(names):
        home = f"home-{number // 2}"
        if number % 2 == 0:
            world.network.add_segment(home, discovery=True)
        world.add_node(name, config, [(home, f"192.168.1.{number % 2 + 1}", HOME)])
        world.start(name, at=number * within // nodes)
    return names


def add_clients(
    world: World, nodes: int, *, relays: int = 1, sessions: int = 1, within: Duration = 5 * SECOND
) -> list[str]:
    """Add relays, and nodes spread over them, every other one of which keeps `sessions` with some of the rest.

    Returns the names of the nodes.
    """
    config = RelayServerConfig(
        names=tuple(_relay(number) for number in range(relays)),
        registrations_max=nodes,
        strangers_max=nodes,
        sessions_max=nodes * sessions,
        peers_max=LISTINGS,
    )
    for number in range(relays):
        world.add_relay(_relay(number), f"203.0.113.{number + 1}", DATA_CENTRE, config)
        world.start(_relay(number), at=0)
    # Those that have the model wait to be asked; it is with them that the others keep sessions.
    configs = [[_client(relay, peers) for peers in (0, sessions)] for relay in range(relays)]
    names = [f"node-{number}" for number in range(nodes)]
    for number, name in enumerate(names):
        pair, side = divmod(number, 2)
        address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
        models = () if side else (MODEL,)
        world.add_node(name, configs[pair % relays][side], [(INTERNET, address, LINE)], models=models, direct=False)
        world.start(name, at=number * within // nodes)
    return names


def _relay(number: int) -> str:
    return f"relay-{number}.example"


def _client(relay: int, peers_max: int) -> NodeConfig:
    url = f"ws://{_relay(relay)}:{RELAY_PORT}/ws"
    return NodeConfig(
        display_name="node", lan_enabled=False, wan_enabled=True, wan_relay_url=url, wan_peers_max=peers_max
    )
