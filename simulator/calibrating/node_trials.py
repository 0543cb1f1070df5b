"""What a node's work costs: messages of other nodes, handshakes, requests of applications and of other nodes.

The node is a whole one with the built-in model; the other nodes are conversations of ours, over the LAN and through a
relay. A heartbeat, which is answered at once, stands for messages in general.
"""

import threading
import time
from contextlib import ExitStack
from functools import partial
from typing import Any, Final

import msgspec

from simulator.calibrating.api import Api
from simulator.calibrating.figures import Samples
from simulator.calibrating.measuring import LONG_MS, Meter, Plan, kept, new_identity
from simulator.calibrating.peer import Lan, Peer, ThroughRelay
from simulator.calibrating.programs import CalibrationError, Node, Relay
from simulator.calibrating.relay_client import ANSWER_SECONDS, RelayClient
from teale_proto.wire.cluster import InferenceChunk, InferenceComplete, InferenceRequest

WARM_UP: Final = 300
BULK_WINDOW: Final = 32
"""Heartbeats under way at once."""
LARGE_MODELS: Final = tuple(f"calibration-{number:04}-{'x' * 80}" for number in range(64))
"""What makes a heartbeat of some hundred bytes one of several thousand."""
RELAYED_MS: Final = 20.0
"""The pause between messages through a relay."""
ASKED_MODEL: Final = "calibration"
"""What a conversation of ours claims to serve."""
ASKED_MS: Final = 5.0
"""Between the pieces of an answer of ours."""
FEW_PIECES: Final = 1
MANY_PIECES: Final = 9
SETTLES_SECONDS: Final = 0.1
"""What a node does about those who have just gone is to be charged to nothing else."""


class NodeTrials:
    """All that is measured of one node, on conversations that stay."""

    def __init__(self, stack: ExitStack, node: Node, relay: Relay, plan: Plan, samples: Samples) -> None:
        self._node: Final = node
        self._plan: Final = plan
        self._samples: Final = samples
        self._meter: Final = Meter(node, samples)
        self._relay_meter: Final = Meter(relay, samples)
        self._peer: Final = kept(stack, Peer(Lan(node), new_identity()))
        self._server: Final = kept(stack, Peer(Lan(node), new_identity(), (ASKED_MODEL,)))
        self._client: Final = kept(stack, RelayClient(relay, new_identity()))
        self._far: Final = Peer(ThroughRelay(self._client, node.node_id), self._client.identity)
        self._api: Final = kept(stack, Api(node))

    def warm_up(self) -> None:
        """Do the most frequent things often enough to be past what is only done at first."""
        for _ in range(WARM_UP):
            self._peer.beat()
            self._far.beat()
        for _ in range(3):
            Peer(Lan(self._node), new_identity()).close()
            self._be_asked(FEW_PIECES)

    def round(self) -> None:
        """Measure everything once."""
        add, meter, plan = self._samples.add, self._meter, self._plan
        for pause_ms, count in plan.alone.items():
            meter.alone("node message", self._peer.beat, pause_ms=pause_ms, count=count)
        add("node bulk, µs", meter.cost_us(partial(self._peer.beats, BULK_WINDOW)) / BULK_WINDOW)
        add("node large, µs", meter.each_us(partial(self._peer.beat, LARGE_MODELS), plan.others))
        add("node small, µs", meter.each_us(self._peer.beat, plan.others))
        meter.alone("node relayed", self._far.beat, pause_ms=RELAYED_MS, count=plan.alone[RELAYED_MS])
        meter.alone("node relayed", self._far.beat, pause_ms=LONG_MS, count=plan.alone[LONG_MS])
        add("node handshake, µs", self._handshakes(over_relay=False))
        add("node session, µs", self._handshakes(over_relay=True))
        few, many = (
            meter.each_us(partial(self._be_asked, pieces), plan.others // 4) for pieces in (FEW_PIECES, MANY_PIECES)
        )
        add("node told a piece, µs", (many - few) / (MANY_PIECES - FEW_PIECES))
        add("node asked, µs", few - (many - few) / (MANY_PIECES - FEW_PIECES) * FEW_PIECES)

    def _handshakes(self, *, over_relay: bool) -> float:
        """Return what it costs the node that somebody comes, says who he is, and goes."""
        count = max(4, self._plan.others // 4)
        # Through a relay one node has one conversation with another, so somebody else must come each time.
        identities = [new_identity() for _ in range(count)]
        clients = [RelayClient(self._client.relay, identity) for identity in identities] if over_relay else []

        def come_and_go() -> None:
            identity = identities.pop()
            way = ThroughRelay(clients[len(identities)], self._node.node_id) if over_relay else Lan(self._node)
            Peer(way, identity).close()

        cost = self._meter.each_us(come_and_go, count)
        for client in clients:
            client.close()
        time.sleep(SETTLES_SECONDS)
        return cost

    # Requests.

    def _be_asked(self, pieces: int) -> None:
        """Have an application ask the node for what we claim to serve, and answer in so many pieces."""
        failures: list[Exception] = []
        thread = threading.Thread(target=self._ask, args=(failures,))
        thread.start()
        request = self._server.expect(InferenceRequest)
        for number in range(pieces):
            self._server.say(InferenceChunk(request.request_id, msgspec.Raw(_PIECE)))
            if number < pieces - 1:
                time.sleep(ASKED_MS / 1000)
        self._server.say(InferenceComplete(request.request_id, 1, pieces))
        thread.join(ANSWER_SECONDS)
        if failures:
            raise failures[0]

    def _ask(self, failures: list[Exception]) -> None:
        try:
            self._api.ask({"model": ASKED_MODEL, "messages": [{"role": "user", "content": "?"}], "stream": True})
        except (OSError, CalibrationError) as error:
            failures.append(error)


def _piece() -> dict[str, Any]:
    choice = {"index": 0, "delta": {"role": "assistant", "content": "word "}, "finish_reason": None}
    return {
        "id": "chatcmpl-0", "object": "chat.completion.chunk", "created": 0, "model": ASKED_MODEL, "choices": [choice]
    }  # fmt: skip


_PIECE: Final = msgspec.json.encode(_piece())
