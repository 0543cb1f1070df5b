"""Taps every byte at the relay and on the LAN, and finds neither a prompt nor an answer.

A search that finds nothing proves nothing, unless it would have found something: the same tap finds both where
the LAN is not encrypted, and where somebody sends plaintext through the relay.
"""

import base64
import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from websockets.sync.client import connect

from teale_proto.inputs import NodeId
from teale_proto.wire.relay import RELAY_CODEC, RelayData
from tests.e2e.harness import QUESTION, SAFETY_SECONDS, SENTENCE, TINY, Node, Relay, Stage
from tests.e2e.namespaces import Lan, place
from tests.e2e.taps import Passage, Proxy, Sniffer, proxy_to
from tests.e2e.wire import lan_readings, leaked, relay_readings


class Conversation:
    """Questions that nobody else ever asked, and what was said to them."""

    def __init__(self, asker: Node) -> None:
        self.prompts = [f"grumbly wozzle {secrets.token_hex(8)}" for _ in range(4)]
        streamed, whole, completed, embedded = self.prompts
        replies = [
            asker.chat(QUESTION),
            asker.chat(QUESTION, stream=False),
            asker.chat(streamed),
            asker.chat(whole, stream=False),
            asker.post("/v1/completions", {"model": TINY, "prompt": completed, "max_tokens": 24, "temperature": 0}),
        ]
        vectors = asker.post("/v1/embeddings", {"model": TINY, "input": embedded})
        assert [reply.status for reply in (*replies, vectors)] == [200] * 6
        assert replies[0].text == replies[1].text == SENTENCE
        self.paths = {reply.path for reply in (*replies, vectors)}
        # Very short answers could stand anywhere by chance.
        self.answers = {reply.text for reply in replies if len(reply.text) > 12}

    @property
    def secrets(self) -> set[str]:
        return {QUESTION, *self.prompts, *self.answers}


@contextmanager
def tapped_relay(stage: Stage) -> Iterator[tuple[Relay, Node, Node, Proxy]]:
    """Yield a relay, an asker, a server, and the tap between the relay and both."""
    relay = stage.relay()
    with proxy_to(relay.port) as tap:
        wan = {"wan_enabled": True, "wan_relay_url": f"ws://127.0.0.1:{tap.port}/ws", "log_level": "debug"}
        server = stage.node("server", builtin_model=True, **wan)
        relay.wait_for_nodes(server, model=TINY)
        asker = stage.node("asker", **wan)
        asker.wait_for_peers(server, model=TINY)
        yield relay, asker, server, tap


def test_the_relay_and_the_way_to_it_see_neither_prompt_nor_answer(stage: Stage) -> None:
    with tapped_relay(stage) as (relay, asker, server, tap):
        said = Conversation(asker)
        assert said.paths == {"relay"}
        keys = {node: secret_key(node.home) for node in (asker, server)}
        readings = list(relay_readings(tap.passages))
        assert leaked({*said.secrets, *keys.values()}, readings) == set()
        # It was read nevertheless: who speaks with whom is no secret.
        assert leaked([asker.id, server.id, '"relayData"', "registerProof"], readings) != set()
        sent = sum(len(passage.up) for passage in tap.passages)
        assert sent > sum(map(len, said.secrets))

        programs = (relay, asker, server)
        assert leaked({*said.secrets, *keys.values()}, (program.log.encode() for program in programs)) == set()
        for node in (asker, server):
            kept = [file for file in node.home.rglob("*") if file.is_file() and file.name != "identity.key"]
            assert leaked({*said.secrets, keys[node]}, (file.read_bytes() for file in kept)) == set()
            assert leaked([keys[node]], [(node.home / "identity.key").read_bytes()]) == {keys[node]}


def test_the_tap_at_the_relay_would_find_what_is_not_encrypted(stage: Stage) -> None:
    prompt, answer = f"grumbly {secrets.token_hex(8)}", "a wozzle of grumbles"
    request = {"inferenceRequest": {"request": {"messages": [{"content": prompt}]}}}
    chunks = [{"inferenceChunk": {"chunk": {"delta": {"content": word}}}} for word in answer.partition(" ")]
    relay = stage.relay()
    with proxy_to(relay.port) as tap:
        with connect(f"ws://127.0.0.1:{tap.port}/ws", compression=None, open_timeout=SAFETY_SECONDS) as client:
            for message in (request, *chunks):
                client.send(plaintext_relay_data(json.dumps(message).encode()))
            client.recv(timeout=SAFETY_SECONDS)  # the relay's refusal: by now all has passed
        readings = list(relay_readings(tap.passages))
    assert leaked([prompt, answer], readings) == {prompt, answer}
    # Without unmasking and decoding it would not have been found.
    assert leaked([prompt, answer], [bytes(tap.passages[0].up)]) == set()


def plaintext_relay_data(data: bytes) -> bytes:
    alice, bob = NodeId("a" * 64), NodeId("b" * 64)
    return RELAY_CODEC.encode(RelayData(from_node_id=alice, to_node_id=bob, session_id="s", data=data))


def secret_key(home: Path) -> bytes:
    seed: str = json.loads((home / "identity.key").read_text())["seed"]
    return base64.b64decode(seed)


@pytest.mark.parametrize("encryption", ["noise", "off"])
def test_the_lan_shows_neither_prompt_nor_answer_unless_encryption_is_off(encryption: str, stage: Stage) -> None:
    both: dict[str, object] = {"lan_encryption": encryption, "log_level": "debug"}
    settings_of = {"asker": both, "server": {"builtin_model": True, **both}}
    with (
        Lan("asker", "server") as lan,
        Sniffer(lan.listen_in("asker")) as tap,
        place(lan, stage, settings_of) as nodes,
    ):
        asker, server = nodes
        asker.wait_for_peers(server, model=TINY)
        said = Conversation(asker)
        # A node that stops closes its connections; by its end all that it sent has gone over the wire.
        assert [asker.stop(), server.stop()] == [0, 0]
    assert said.paths == {"lan"}
    found = leaked(said.secrets, lan_readings(tap.frames))
    assert found == (said.secrets if encryption == "off" else set())
    # The tap did listen to the nodes, whatever they said.
    assert leaked([server.id], lan_readings(tap.frames)) == {server.id}
    assert leaked(said.secrets, [asker.log.encode(), server.log.encode()]) == set()


@pytest.mark.parametrize("before", [b"", b"x", b"xy", b"xyz"])
def test_a_secret_is_found_in_base64_wherever_it_stands(before: bytes) -> None:
    spelt = base64.b64encode(before + b"the secret itself" + before)
    assert leaked(["the secret itself", "another one"], [spelt]) == {"the secret itself"}


@pytest.mark.parametrize("size", [5, 200, 70_000])
def test_a_masked_frame_of_any_size_is_read(size: int) -> None:
    word = b"wozzle" * (size // 6 + 1)
    length = (
        bytes([0x80 | size])
        if size < 126
        else b"\xfe" + size.to_bytes(2)
        if size < 65_536
        else b"\xff" + size.to_bytes(8)
    )
    masked = bytes(byte ^ b"mask"[at % 4] for at, byte in enumerate(word[:size]))
    passage = Passage.__new__(Passage)
    passage.up, passage.down = bytearray(b"GET /ws\r\n\r\n\x81" + length + b"mask" + masked), bytearray()
    assert leaked([word[:size]], relay_readings([passage])) == {word[:size]}
