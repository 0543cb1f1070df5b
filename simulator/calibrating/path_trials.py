"""What a direct path costs: a node that comes, finds one, and goes, beside one that is content with the relay.

And how long two nodes need for one of which both have just been started: what a process does for the first time takes
longer, and in most worlds every direct path is somebody's first.

QUIC between two nodes goes over a real address of this machine, since nodes do not believe in loopback addresses of
each other. Where there is none, this is left out.
"""

import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from typing import Final

from simulator.calibrating.api import Api
from simulator.calibrating.figures import Samples
from simulator.calibrating.first_uses import first_uses
from simulator.calibrating.measuring import Meter, Plan, middle
from simulator.calibrating.model_trials import FEW_TOKENS, UPSTREAM_COST, UPSTREAM_MODEL, USUAL_WORDS, question
from simulator.calibrating.programs import LOOPBACK, Folders, ModelServer, Node, Relay

ALTERNATE: Final = "127.0.0.2"
"""A second address for the STUN server, without which nodes do not know what they are behind."""
SETTLES_SECONDS: Final = 0.25
"""After which a new path has been taken into use."""
ASKED_PAUSE_SECONDS: Final = 0.02
"""After each answer, so that all that belongs to it has been done when processor times are read."""
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

    def __init__(
        self, stack: ExitStack, relay: Relay, server: ModelServer, folders: Folders, plan: Plan, samples: Samples
    ) -> None:
        """Start a resident at `relay`, with the models of `server`, for as long as the stack."""
        self._server: Final = server
        self._relay: Final = relay
        self._meeting: Final = stack.enter_context(relay_for_paths(folders, relay.host, journal=plan.as_in_lab))
        """Where there is nobody but two who meet."""
        resident = stack.enter_context(resident_of(relay, folders, server, journal=plan.as_in_lab))
        self._folders: Final = folders
        self._plan: Final = plan
        self._samples: Final = samples
        self._meter: Final = Meter(resident, samples)

    def warm_up(self) -> None:
        """Let the resident have its first direct path, which costs more than any later one."""
        self._visit(direct=True)

    def round(self) -> None:
        """Measure everything once."""
        add = self._samples.add
        relayed, direct = (self._visit(direct=direct, asks=direct) for direct in (False, True))
        add("node direct path, µs", direct - relayed)
        self._meet()

    def _visit(self, *, direct: bool, asks: bool = False) -> float:
        """Let a node come and go; return what it costs the resident that it comes."""
        settings = {**self._relay.settings, "wan_direct": direct}
        before = self._meter.now_us()
        with (
            Node(self._folders.new(), journal=self._plan.as_in_lab, **settings) as visitor,
            closing(Api(visitor)) as api,
        ):
            self._samples.add("node start, µs", visitor.start_us)
            visitor.wait_for("path to the other node", _has_path(api, "direct" if direct else "relay"))
            time.sleep(SETTLES_SECONDS)
            cost = self._meter.now_us() - before
            what = "direct" if direct else "relayed"
            self._samples.add(f"visitor, {what}, µs", visitor.cpu.read_us() - visitor.start_us)
            if asks:
                self._ask(api, Meter(visitor, self._samples))
        return cost

    def _meet(self) -> None:
        """Let two new nodes find a direct path, and take from their journals how long it took."""
        settings = {**self._meeting.settings, "wan_direct": True}
        with (
            resident_of(self._meeting, self._folders, self._server, journal=True) as one,
            Node(self._folders.new(), journal=True, **settings) as other,
            closing(Api(other)) as api,
        ):
            other.wait_for("path to the other node", _has_path(api, "direct"))
        for node in (one, other):
            for what, took in first_uses(node.journal).items():
                self._samples.add(what, took)

    def _ask(self, api: Api, asking: Meter) -> None:
        """Measure what pieces of answers cost both sides, over a direct path."""
        told, served = dict[int, list[float]](), dict[int, list[float]]()
        for _ in range(max(3, self._plan.others // 8)):
            for tokens in (FEW_TOKENS, UPSTREAM_COST.tokens_max):
                before = asking.now_us(), self._meter.now_us()
                api.ask(question(USUAL_WORDS, tokens, model=UPSTREAM_MODEL))
                time.sleep(ASKED_PAUSE_SECONDS)
                told.setdefault(tokens, []).append(asking.now_us() - before[0])
                served.setdefault(tokens, []).append(self._meter.now_us() - before[1])
        for name, costs in (("told", told), ("served", served)):
            few, many = (middle(each) for each in costs.values())
            self._samples.add(f"direct {name} a piece, µs", (many - few) / (UPSTREAM_COST.tokens_max - FEW_TOKENS))


def _has_path(api: Api, path: str) -> Callable[[], bool]:
    def look() -> bool:
        return any(peer["path"] == path for peer in api.get("/api/peers")["connected"])

    return look


def resident_of(relay: Relay, folders: Folders, server: ModelServer, *, journal: bool) -> Node:
    """Return a node that others look for, since it has a model."""
    settings = {**relay.settings, "wan_direct": True}
    node = Node(folders.new(), journal=journal, openai_urls=[server.url], **settings)
    try:
        with closing(Api(node)) as api:
            node.wait_for("model", lambda: UPSTREAM_MODEL in api.get("/api/status")["loaded_models"])
    except BaseException:
        node.end()
        raise
    return node


def relay_for_paths(folders: Folders, address: str | None, *, journal: bool) -> Relay:
    """Return a relay, with STUN, at an address that nodes believe in, if there is one."""
    return Relay(folders.new(), journal=journal, host=address or LOOPBACK, alternate=ALTERNATE)
