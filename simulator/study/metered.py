"""A relay core whose every message is counted and charged: the real one, or the one of the deployed design.

It decodes, checks, answers and forwards real messages. What comes in and what goes out is noted in a ledger by purpose,
and what it costs occupies one core, so that one can also see how long messages wait for their turn.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from simulator.deployed_relay import DeployedRelay
from simulator.engine import Engine
from simulator.relay_cost import CpuQueue, wire_bytes
from simulator.rng import stream
from simulator.study.ledger import Ledger, Purpose
from simulator.study.messages import question, register, sizes
from simulator.study.parameters import Design
from teale_proto.contract import Core
from teale_proto.effects import RelayEffect, SendData, SendText
from teale_proto.inputs import (
    WAKE,
    Address,
    ConnectionAccepted,
    ConnectionClosed,
    ConnectionId,
    DataReceived,
    MessagesReceived,
    NodeId,
    PingReceived,
    RelayInput,
)
from teale_proto.relay.server import RelayServer, RelayServerConfig, Traffic
from teale_proto.secure.identity import Identity
from teale_proto.wire.codec import Flavour
from teale_proto.wire.relay import (
    RELAY_CODEC,
    Discover,
    RegisterAck,
    RegisterChallenge,
    RegisterProof,
    RelayMessage,
    registration_proof,
)

RELAY: Final = "relay.example"

_IN_ALL: Final = 1e-9
"""The cost of a message whose work has been charged with another: nought would mean that of passing it on."""


class _Light(msgspec.Struct, gc=False):
    nodeID: str  # noqa: N815 - as it is on the wire


class _Listing(msgspec.Struct, gc=False):
    peers: list[_Light]


class _Documented(msgspec.Struct, gc=False):
    payload: _Listing


class _Deployed(msgspec.Struct, gc=False):
    discoverResponse: _Listing  # noqa: N815 - as it is on the wire


_DOCUMENTED: Final = msgspec.json.Decoder(_Documented)
_DEPLOYED: Final = msgspec.json.Decoder(_Deployed)


class MeteredRelay:
    """One relay, for so many nodes at a time; `cpu` and `ledger` are replaced to begin counting anew."""

    def __init__(self, design: Design, nodes: int, engine: Engine, *, holders: float, seed: int) -> None:
        self.cpu = CpuQueue()
        self.ledger = Ledger()
        self._design = design
        self._engine: Final = engine
        self._flavour: Final = Flavour.DOCUMENTED if design.binary else Flavour.DEPLOYED
        size = sizes(binary=design.binary, asks_for=design.asks_for)
        self._listing_bytes: Final = size.listing
        self._holder_bytes: Final = size.entry
        self._entry_bytes: Final = holders * size.entry + (1 - holders) * size.entry_bare
        self._core = _make(design, nodes, seed)

    def begin(self) -> None:
        """Forget what has been counted."""
        self.ledger = Ledger()
        self.cpu = CpuQueue(since=self._engine.now)

    # What clients do with it.

    def register(self, connection: ConnectionId, identity: Identity, model: int | None) -> None:
        """Let a node come, with proof of its key where the relay wants one."""
        node = identity.node_id
        accepted = ConnectionAccepted(
            connection, Address(f"{connection}.example", 1), Address("203.0.113.1", 443), RELAY
        )
        self._core.handle(accepted, self._engine.now)
        message = register(node, model, binary=self._design.binary, key=identity.static_public.hex())
        cost_us = self._design.profile.registration_us
        sent = self.send(Purpose.REGISTER, connection, self.encoded(message), cost_us)
        answer, _ = RELAY_CODEC.decode(sent[0])
        if isinstance(answer, RegisterChallenge):
            proof = registration_proof(node, RELAY, bytes.fromhex(answer.challenge))
            signed = self.encoded(RegisterProof(node, identity.sign(proof).hex()))
            answer, _ = RELAY_CODEC.decode(self.send(Purpose.REGISTER, connection, signed, _IN_ALL)[0])
        assert isinstance(answer, RegisterAck), answer

    def close(self, connection: ConnectionId) -> None:
        """Let a node go."""
        purpose = Purpose.SESSION
        if self._design.broadcasts:
            purpose = Purpose.NOTICE
            self.ledger.add(purpose)
        self._feed(purpose, ConnectionClosed(connection, "gone"), _IN_ALL)

    def ping(self, connection: ConnectionId) -> None:
        """Let a node ping."""
        self._feed(Purpose.PING, PingReceived(connection), self._design.profile.ping_us)

    def discover(self, connection: ConnectionId, node: NodeId, model: int | None, *, read: bool) -> list[NodeId]:
        """Ask for as many nodes as the design does; return who is listed, or nobody where nobody is to `read` it."""
        profile = self._design.profile
        asked = self.encoded(Discover(node, question(self._design.asks_for, model)))
        sent = self.send(Purpose.DISCOVER, connection, asked, profile.wake_us)
        if not sent or b'"error"' in sent[0][:40]:
            return []
        # Counting entries by their bytes saves reading what nobody will use.
        entry = self._entry_bytes if model is None else self._holder_bytes
        cost_us = profile.discover.us(round((len(sent[0]) - self._listing_bytes) / entry))
        self._charge(Purpose.DISCOVER, cost_us)
        if not read:
            return []
        listing = (
            _DOCUMENTED.decode(sent[0]).payload if self._design.binary else _DEPLOYED.decode(sent[0]).discoverResponse
        )
        return [NodeId(each.nodeID) for each in listing.peers]

    def send(self, purpose: Purpose, connection: ConnectionId, message: bytes, cost_us: float = 0.0) -> list[bytes]:
        """Let a node say something; return what its relay sent for it. A cost of nought is that of passing it on."""
        return self._feed(purpose, DataReceived(connection, message), cost_us)

    def send_many(self, purpose: Purpose, connection: ConnectionId, messages: Sequence[bytes]) -> None:
        """Let a node say several things, each of which comes by itself."""
        self._feed(purpose, MessagesReceived(connection, tuple(messages)))

    def encoded(self, message: RelayMessage) -> bytes:
        """Return a message in the dialect of the design."""
        return RELAY_CODEC.encode(message, self._flavour)

    # Counting.

    def _feed(self, purpose: Purpose, event: RelayInput, cost_us: float = 0.0) -> list[bytes]:
        """Give the relay one input; return what it sent, having counted everything."""
        now, profile, ledger = self._engine.now, self._design.profile, self.ledger
        if self._core.deadline <= now:
            self._note(Purpose.SESSION, self._core.handle(WAKE, now))
        effects = self._core.handle(event, now)
        messages: tuple[bytes, ...] = ()
        if isinstance(event, DataReceived):
            messages = (event.data,)
        elif isinstance(event, MessagesReceived):
            messages = tuple(event.messages)
        if isinstance(event, PingReceived):
            ledger.add(purpose, size_in=wire_bytes(0), copies=1, size_out=wire_bytes(0))
        else:
            ledger.add(purpose, messages=len(messages), size_in=sum(wire_bytes(len(data)) for data in messages))
        self._charge(purpose, cost_us or sum(profile.forward_us(len(data), alone=True) for data in messages))
        return self._note(purpose, effects, getattr(event, "connection", 0))

    def _note(self, purpose: Purpose, effects: Sequence[RelayEffect], asker: ConnectionId = 0) -> list[bytes]:
        sent = []
        ledger, profile = self.ledger, self._design.profile
        is_told_to_all = self._design.broadcasts and purpose in (Purpose.REGISTER, Purpose.NOTICE)
        for effect in effects:
            if not isinstance(effect, SendText | SendData):
                continue
            size = len(effect.data)
            if is_told_to_all and effect.connection != asker:
                ledger.add(Purpose.NOTICE, messages=0, copies=1, size_out=wire_bytes(size))
                self._charge(Purpose.NOTICE, profile.notice.us(size))
            else:
                ledger.add(purpose, messages=0, copies=1, size_out=wire_bytes(size))
                sent.append(effect.data)
        return sent

    def _charge(self, purpose: Purpose, cost_us: float) -> None:
        self.ledger.charge(purpose, cost_us)
        self.cpu.serve(self._engine.now, cost_us)


def _make(design: Design, nodes: int, seed: int) -> Core[RelayInput, RelayEffect]:
    if design.broadcasts:
        return DeployedRelay(unix_time_at_zero=0)
    plenty = nodes * 64 + 1024
    config = RelayServerConfig(
        names=(RELAY,),
        # Nothing may stand in the way of what is to be counted.
        total_traffic=Traffic(),
        registrations_max=plenty,
        sessions_max=plenty,
        sessions_per_node_max=plenty,
        strangers_max=plenty,
        peers_max=design.peers_max or plenty,
    )
    return RelayServer(config, stream(seed, RELAY, "core"), unix_time_at_zero=0)
