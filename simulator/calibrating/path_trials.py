"""What a direct path costs: a node that comes, finds one, and goes, beside one that is content with the relay.

QUIC between two nodes goes over a real address of this machine, since nodes do not believe in loopback addresses of
each other. Where there is none, this is left out.
"""

import socket
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any, Final

from simulator.calibrating.api import Api
from simulator.calibrating.figures import Samples
from simulator.calibrating.measuring import Meter
from simulator.calibrating.programs import MODEL, Folders, Node, Relay

ALTERNATE: Final = "127.0.0.2"
"""A second address for the STUN server, without which nodes do not know what they are behind."""
SETTLES_SECONDS: Final = 0.25
"""After which a new path has been taken into use."""
_ANYWHERE: Final = ("192.0.2.1", 9)


def own_address() -> str | None:
    """Return the IPv4 address from which this machine would send to others; nothing is sent to find out."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(_ANYWHERE)
        except OSError:
            return None
        host: str = sock.getsockname()[0]
    return None if host.startswith("127.") else host


class PathTrials:
    """A resident node with a model, its relay, and visitors."""

    def __init__(self, resident: Node, relay: Relay, folders: Folders, samples: Samples, *, journals: bool) -> None:
        self._resident: Final = resident
        self._relay: Final = relay
        self._folders: Final = folders
        self._samples: Final = samples
        self._journals: Final = journals
        self._meter: Final = Meter(resident, samples)

    def warm_up(self) -> None:
        """Let the resident have its first direct path, which costs more than any later one."""
        relayed = self._meter.cost_us(lambda: self._visit(direct=False))
        first = self._meter.cost_us(lambda: self._visit(direct=True))
        self._samples.add("node first direct path, µs", first - relayed)

    def round(self) -> None:
        """Measure everything once."""
        costs = [self._meter.cost_us(lambda direct=direct: self._visit(direct=direct)) for direct in (True, False)]  # type: ignore[misc]
        self._samples.add("node direct path, µs", costs[0] - costs[1])

    def _visit(self, *, direct: bool) -> None:
        settings: dict[str, Any] = {"wan_enabled": True, "wan_relay_url": self._relay.url, "wan_direct": direct}
        with Node(self._folders.new(), journal=self._journals, **settings) as visitor:
            self._samples.add("node start, µs", visitor.start_us)
            with closing(Api(visitor)) as api:
                visitor.wait_for("path to the other node", _has_path(api, "direct" if direct else "relay"))
            time.sleep(SETTLES_SECONDS)


def _has_path(api: Api, path: str) -> Callable[[], bool]:
    def look() -> bool:
        return any(peer["path"] == path for peer in api.get("/api/peers")["connected"])

    return look


def resident(folders: Folders, relay: Relay, *, journal: bool) -> Node:
    """Return a node that visitors look for."""
    settings: dict[str, Any] = {"wan_enabled": True, "wan_relay_url": relay.url, "wan_direct": True}
    node = Node(folders.new(), journal=journal, builtin_model=True, **settings)
    try:
        with closing(Api(node)) as api:
            node.wait_for("model", lambda: MODEL in api.get("/api/status")["loaded_models"])
    except BaseException:
        node.end()
        raise
    return node


def relay_for_paths(folders: Folders, address: str, *, journal: bool) -> Relay:
    """Return a relay, with STUN, at an address that nodes believe in."""
    return Relay(folders.new(), journal=journal, host=address, alternate=ALTERNATE)
