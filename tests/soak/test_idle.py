"""Ten thousand nodes on one relay that say nothing but hello, and the relay serves as before."""

import json
import os
import resource
import socket
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest
from websockets.client import ClientProtocol
from websockets.frames import Opcode
from websockets.uri import parse_uri

from teale_proto.secure.identity import Identity
from teale_proto.wire.relay import (
    RELAY_CODEC,
    Capabilities,
    Hardware,
    Register,
    RegisterAck,
    RegisterChallenge,
    RegisterProof,
    RelayMessage,
    legacy_registration,
    registration_proof,
)
from tests.e2e.harness import SAFETY_SECONDS, Relay, Stage
from tests.soak.echoing import MODEL, answer_to, echoing_server

IDLE = 10_000
PER_ADDRESS = 200
LOOKS = 20


class IdleNode:
    """A WebSocket that has registered, by hand: no thread, no task, one socket."""

    def __init__(self, relay: Relay, number: int) -> None:
        self._identity = Identity.from_seed(number.to_bytes(32, "big"))
        # The loopback network has addresses for everybody, so that no limit by address is met.
        address = f"127.1.{number // PER_ADDRESS // 250}.{number // PER_ADDRESS % 250 + 1}"
        self._stream = socket.create_connection(("127.0.0.1", relay.port), SAFETY_SECONDS, source_address=(address, 0))
        self._protocol = ClientProtocol(parse_uri(relay.url))
        self._protocol.send_request(self._protocol.connect())
        self._flush()
        self._next_event()

    def _flush(self) -> None:
        self._stream.sendall(b"".join(self._protocol.data_to_send()))

    def _next_event(self) -> bytes:
        while not (events := self._protocol.events_received()):
            data = self._stream.recv(65536)
            assert data, "the relay has closed"
            self._protocol.receive_data(data)
        return bytes(getattr(events[0], "data", b""))

    def _say(self, message: RelayMessage) -> None:
        self._protocol.send_text(RELAY_CODEC.encode(message))
        self._flush()

    def register(self) -> None:
        node = self._identity.node_id
        signature = self._identity.sign(legacy_registration(node)).hex()
        self._say(Register(node, node, "idle", Capabilities(Hardware()), signature))
        challenge, _ = RELAY_CODEC.decode(self._next_event())
        assert isinstance(challenge, RegisterChallenge)
        proof = registration_proof(node, "127.0.0.1", bytes.fromhex(challenge.challenge))
        self._say(RegisterProof(node, self._identity.sign(proof).hex()))
        assert isinstance(RELAY_CODEC.decode(self._next_event())[0], RegisterAck)

    def ping(self) -> None:
        self._protocol.send_ping(b"")
        self._flush()
        assert self._protocol.state.name == "OPEN"

    def heard_pong(self) -> None:
        while not any(getattr(event, "opcode", None) is Opcode.PONG for event in self._protocol.events_received()):
            data = self._stream.recv(65536)
            assert data, "the relay has closed"
            self._protocol.receive_data(data)

    def close(self) -> None:
        self._stream.close()


@contextmanager
def many_files(wanted: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"{wanted} open files are needed, and this system allows {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.soak
def test_ten_thousand_idle_nodes_and_the_relay_serves_as_before(stage: Stage) -> None:
    with many_files(IDLE + 1000), echoing_server() as url:
        relay = stage.relay()
        wan = {"wan_enabled": True, "wan_relay_url": relay.url}
        server = stage.node("server", openai_urls=[url], **wan)
        relay.wait_for_nodes(server, model=MODEL)
        asker = stage.node("asker", **wan)
        asker.wait_for_peers(server, model=MODEL)

        def milliseconds() -> dict[str, float]:
            looks, asks = [], []
            for _ in range(LOOKS):
                began = time.monotonic()
                assert relay.get("/health")["ok"]
                looked = time.monotonic()
                assert asker.chat("well?", model=MODEL).text == "".join(answer_to("well?"))
                looks.append(looked - began)
                asks.append(time.monotonic() - looked)
            return {name: round(1000 * statistics.median(all_), 1) for name, all_ in (("look", looks), ("ask", asks))}

        before = milliseconds()
        rss_before = psutil.Process(relay.pid).memory_info().rss
        idle: list[IdleNode] = []
        pinged_at = time.monotonic()
        try:
            for number in range(IDLE):
                node = IdleNode(relay, 1000 + number)
                node.register()
                idle.append(node)
                if time.monotonic() - pinged_at > 20:
                    # As real nodes do every 25 s; the relay drops whoever is silent for a minute.
                    pinged_at = time.monotonic()
                    for each in idle:
                        each.ping()
            for each in idle:
                each.ping()
            for each in idle:
                each.heard_pong()
            during = milliseconds()
            assert relay.get("/health")["peers"] == IDLE + 2
            grown = psutil.Process(relay.pid).memory_info().rss - rss_before
        finally:
            for each in idle:
                each.close()
        figures = {
            "connections": IDLE,
            "kib_a_connection": round(grown / IDLE / 1024, 2),
            "milliseconds": {"before": before, "during": during, "after": milliseconds()},
        }
        print(json.dumps(figures))
        if report := os.environ.get("TEALE_IDLE_REPORT"):
            with open(report, "w") as file:
                json.dump(figures, file, indent=2)
        assert "Traceback" not in relay.log
