"""Examples that are run rather than written: two nodes talk while the page is built, and the page shows what was said.

Everything follows from fixed seeds, so the same page comes out every time.
"""

from collections.abc import Iterator, Mapping
from enum import Enum
from random import Random
from textwrap import wrap
from typing import Any, Final

import msgspec

from teale_io.service_record import to_text
from teale_proto.contract import MILLISECOND, SECOND, Instant
from teale_proto.effects import CloseConnection, Connect, NodeEffect, SendData, SendText, StartGeneration
from teale_proto.inputs import (
    Address,
    Ask,
    ConnectionAccepted,
    ConnectionId,
    ConnectionOpened,
    DataReceived,
    GenerationChunk,
    GenerationFinished,
    LoadedModelsChanged,
    NodeId,
    NodeInput,
    ServiceFound,
    ServiceRecord,
    Started,
    Task,
)
from teale_proto.node import Node, NodeConfig
from teale_proto.relay.server import RelayServer, RelayServerConfig
from teale_proto.secure.identity import Identity, to_multibase
from teale_proto.wire.cluster import CLUSTER_CODEC, Goodbye
from teale_proto.wire.codec import Flavour
from teale_proto.wire.framing import frame
from teale_proto.wire.relay import (
    RELAY_CODEC,
    Capabilities,
    Hardware,
    Register,
    RegisterProof,
    legacy_registration,
    registration_proof,
)

ASH: Final = Identity.from_seed(bytes([1]) * 32)
BEECH: Final = Identity.from_seed(bytes([2]) * 32)
NAMES: Final[Mapping[str, str]] = {ASH.node_id: "ash", BEECH.node_id: "beech"}
UNIX_TIME: Final = 1_700_000_000 * SECOND
MODEL: Final = "tiny"
LINE_CHARACTERS: Final = 101
DELAY: Final = 2 * MILLISECOND
"""How long a piece of the stream is under way."""


class _Pair:
    """Two nodes on one LAN, and everything that they are told and want done."""

    def __init__(self) -> None:
        self.now: Instant = 0
        self.lines: list[str] = []
        self.pieces: list[tuple[str, bytes]] = []
        self._nodes = {
            identity.node_id: Node(
                NodeConfig(display_name=NAMES[identity.node_id]), identity, rng, unix_time_at_zero=UNIX_TIME
            )
            for rng, identity in zip(_rngs(), (ASH, BEECH), strict=True)
        }
        # One connection: ash dials it and beech accepts it.
        self._ids: dict[str, ConnectionId] = {}

    def feed(self, node: NodeId, event: NodeInput) -> None:
        """Hand a node an input, carry out what can be carried out, and note both."""
        self._note(f"{self.now / MILLISECOND:>4g} ms  {NAMES[node]:<5}  in   {shown(event)}")
        effects = self._nodes[node].handle(event, self.now)
        for effect in effects:
            self._note(f"{'':7}  {'':5}  out  {shown(effect)}")
        for effect in effects:
            self._carry_out(node, effect)

    def meet(self) -> None:
        """Let the two find each other and connect."""
        for node, model in ((ASH.node_id, ()), (BEECH.node_id, (MODEL,))):
            self.feed(node, Started(lan_port=11436))
            self.feed(node, LoadedModelsChanged(model))
        # The higher id waits for the lower to dial; either may be ash.
        low, high = sorted((ASH.node_id, BEECH.node_id))
        there = Address("192.0.2.2", 11436)
        self.feed(low, ServiceFound("high", ServiceRecord(high, 11436), (there,)))

    def _note(self, line: str) -> None:
        self.lines += wrap(line, LINE_CHARACTERS, subsequent_indent=" " * 26, break_long_words=False)

    def _carry_out(self, node: NodeId, effect: NodeEffect) -> None:
        other = BEECH.node_id if node == ASH.node_id else ASH.node_id
        match effect:
            case Connect(connection=connection):
                self._ids = {node: connection, other: 2}
                remote, local = Address("192.0.2.1", 40000), Address("192.0.2.2", 11436)
                self.feed(other, ConnectionAccepted(2, remote, local))
                self.feed(node, ConnectionOpened(connection))
            case SendData(data=data):
                self.pieces.append((NAMES[node], data))
                self.now += DELAY
                self.feed(other, DataReceived(self._ids[other], data))
            case StartGeneration(job=job):
                for text in ("Hel", "lo"):
                    self.now += 10 * MILLISECOND
                    self.feed(node, GenerationChunk(job, _chunk(text)))
                self.feed(node, GenerationFinished(job, tokens_in=9, tokens_out=2))
            case CloseConnection():
                raise AssertionError("the example's conversation broke")


def request_trace() -> str:
    """Return a request from ask to answer: every input and every effect of both nodes, in order."""
    pair = _Pair()
    pair.meet()
    pair.lines.clear()
    pair.now = 1000 * MILLISECOND
    body = msgspec.json.encode({"model": MODEL, "messages": [{"role": "user", "content": "hi"}]})
    pair.feed(ASH.node_id, Ask("r1", Task.CHAT, MODEL, body))
    return _block("\n".join(pair.lines))


def handshake_example() -> str:
    """Return the first bytes that two nodes on a LAN exchange, frame by frame."""
    pair = _Pair()
    pair.meet()
    lines = []
    for who, piece in pair.pieces[:5]:
        for number, unit in enumerate(_frames(piece)):
            size = int.from_bytes(unit[:4], "big")
            lines.append(f"{who if not number else '':<5}  {unit[:4].hex(' ')}  {_head(unit[4:])}  ({size} bytes)")
    return _block("\n".join(lines))


def frame_example() -> str:
    """Return one small message in its frame, as bytes, in all three envelopes."""
    message = Goodbye("stopping")
    lines = []
    for flavour in Flavour:
        payload = CLUSTER_CODEC.encode(message, flavour)
        lines += [f"{flavour.value:<10}  {frame(payload)[:4].hex(' ')}  {payload.decode()}"]
    return _block("\n".join(lines))


def registration_example() -> str:
    """Return a node's registration at a relay, message by message, as real bytes."""
    relay = RelayServer(RelayServerConfig(names=("relay.example",)), _rngs()[0], unix_time_at_zero=UNIX_TIME)
    here = Address("192.0.2.9", 443)
    relay.handle(ConnectionAccepted(2, Address("198.51.100.1", 50000), here, host="relay.example"), 0)
    register = Register(
        node_id=ASH.node_id,
        public_key=ASH.node_id,
        display_name="ash",
        capabilities=Capabilities(hardware=Hardware(chip_name="example", total_ram_gb=16.0)),
        signature=ASH.sign(legacy_registration(ASH.node_id)).hex(),
        wg_public_key=ASH.static_public.hex(),
        binary=True,
    )
    lines = _exchange(relay, RELAY_CODEC.encode(register))
    challenge, _ = RELAY_CODEC.decode(lines[-1][1])
    signed = registration_proof(ASH.node_id, "relay.example", bytes.fromhex(challenge.challenge))  # type: ignore[union-attr]  # the relay answers so
    lines += _exchange(relay, RELAY_CODEC.encode(RegisterProof(ASH.node_id, ASH.sign(signed).hex())))
    return _block("\n".join(f"{way} {msgspec.json.format(data, indent=2).decode()}" for way, data in lines), "json")


def mdns_example() -> str:
    """Return an advertisement's text record."""
    record = ServiceRecord(ASH.node_id, 11436, ("teale-tiny", "llama-3.2-3b"), "Apple M2", 16.0)
    return _block("\n".join(f"{key.decode()}={value.decode()}" for key, value in to_text(record).items()))


def multibase_example() -> str:
    """Return one node id in both of its forms."""
    return _block(f"{ASH.node_id}\n{to_multibase(ASH.node_id)}")


def shown(value: Any) -> str:
    """Return an input or effect for people: JSON as it is, other bytes as their number, ids by name, no defaults."""
    match value:
        case bytes():
            return value.decode() if value[:1] == b"{" else f"<{len(value)} bytes>"
        case Enum():
            return f"{type(value).__name__}.{value.name}"
        case msgspec.Struct():
            members = {field.name: getattr(value, field.name) for field in msgspec.structs.fields(value)}
            defaults = {field.name: field.default for field in msgspec.structs.fields(value)}
            told = [f"{name}={shown(member)}" for name, member in members.items() if member != defaults[name]]
            return f"{type(value).__name__}({', '.join(told)})"
        case str() if value in NAMES:
            return f"<{NAMES[value]}>"
    return repr(value)


def _rngs() -> tuple[Random, Random]:
    """Return generators whose numbers are the same in every build: nothing here is secret."""
    return Random(1), Random(2)  # noqa: S311 - see above


def _exchange(relay: RelayServer, data: bytes) -> list[tuple[str, bytes]]:
    effects = relay.handle(DataReceived(2, data), 1 * SECOND)
    return [("→", data), *(("←", effect.data) for effect in effects if isinstance(effect, SendText))]


def _chunk(text: str) -> bytes:
    return msgspec.json.encode({"choices": [{"index": 0, "delta": {"content": text}}]})


def _frames(piece: bytes) -> Iterator[bytes]:
    while piece:
        end = 4 + int.from_bytes(piece[:4], "big")
        yield piece[:end]
        piece = piece[end:]


def _head(data: bytes) -> str:
    return data[:12].hex(" ") + (" …" if len(data) > 12 else "")


def _block(text: str, language: str = "text") -> str:
    return f"```{language}\n{text}\n```"
