"""Bugs on purpose, to see whether they are found. For tests only: nothing but `WorldSpec.planted` leads here.

Each plants one mistake of the kind that real code makes: it shows once in a hundred times, and what it breaks mends
itself, so that nobody would notice without being told.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

from simulator.rng import SplitMix64, stream
from simulator.spec.world_spec import Planted
from simulator.world import World
from teale_proto.contract import Instant
from teale_proto.effects import RelayEffect, SendData, SendText
from teale_proto.node import Node
from teale_proto.peer_news import HeartbeatWanted
from teale_proto.relay.server import RelayServer

ONE_IN: Final = 100


def plant(world: World, planted: Planted) -> None:
    """Have the cores of a world that was built, and in which nothing has happened yet, made with a bug."""
    if planted is Planted.NONE:
        return
    spoil = {Planted.FORGETS_HEARTBEATS: _forgetful, Planted.DELIVERS_TWICE: _repeating}[planted]
    for name, host in world.hosts.items():
        host.wrap_cores(_spoiler(spoil, stream(world.seed, name, "planted")))


def _spoiler(spoil: Callable[[Any, SplitMix64], Any], rng: SplitMix64) -> Callable[[Any], Any]:
    return lambda core: spoil(core, rng)


def _forgetful(core: Any, rng: SplitMix64) -> Any:
    """Have a node forget one heartbeat in a hundred: it counts it as sent, and sends nothing."""
    if not isinstance(core, Node):
        return core
    hears = core._ON_NEWS[HeartbeatWanted]  # noqa: SLF001 - a bug has no door to come in by

    def forgets(node: Node, news: HeartbeatWanted, now: Instant, out: Any) -> None:
        if rng.randrange(ONE_IN):
            hears(node, news, now, out)

    setattr(core, "_ON_NEWS", {**core._ON_NEWS, HeartbeatWanted: forgets})  # noqa: B010, SLF001
    return core


def _repeating(core: Any, rng: SplitMix64) -> Any:
    """Have a relay deliver one message in a hundred twice."""
    if not isinstance(core, RelayServer):
        return core
    handle = core.handle

    def repeats(event: Any, now: Instant) -> Sequence[RelayEffect]:
        effects: list[RelayEffect] = []
        for effect in handle(event, now):
            effects.append(effect)
            if isinstance(effect, SendData | SendText) and not rng.randrange(ONE_IN):
                effects.append(effect)
        return effects

    setattr(core, "handle", repeats)  # noqa: B010 - the class has no such method, and must not get one
    return core
