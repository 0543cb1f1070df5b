"""The event simulation: a real relay core among light clients, which are a few lists rather than nodes of their own.

The relay decodes, checks, answers and forwards real messages; the clients do what `teale_proto.seeking`, `node` and
`liveness` do as far as the relay can see it: register with proof of their key, ask for peers, keep connections with
some, send heartbeats, ask and answer. What two clients can reach directly is drawn from the matrix, and goes past
the relay. There are no delays but those of the relay's processor: its load does not depend on distances.

A run begins in the steady state, as far as a start can have it: how long nodes still stay is drawn from what remains of
sessions under way, and of the connections that a holder opened half have ended.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from math import exp
from typing import Final, TypeVarTuple

import msgspec

from simulator.deployed_relay import DeployedRelay
from simulator.engine import Engine
from simulator.relay_cost import CpuQueue, wire_bytes
from simulator.rng import SplitMix64, exponential, lognormal, normal, stream
from simulator.study.ledger import Ledger, Measured, Purpose, measured
from simulator.study.messages import (
    GREETING_BYTES,
    GREETING_MESSAGES,
    Sizes,
    attempt,
    chunk_bytes,
    data,
    heartbeat_bytes,
    model_name,
    register,
    request_bytes,
    sizes,
)
from simulator.study.parameters import OPENED_FOR_A_REQUEST, PRICES, Design, Parameters
from simulator.study.reach import connects, shares
from teale_proto.contract import SECOND, Core
from teale_proto.effects import RelayEffect, SendData, SendText
from teale_proto.inputs import (
    WAKE,
    Address,
    ConnectionAccepted,
    ConnectionClosed,
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
    DiscoverFilter,
    RegisterAck,
    RegisterChallenge,
    RegisterProof,
    RelayClose,
    RelayMessage,
    RelayOpen,
    RelayReady,
    registration_proof,
)

Ts = TypeVarTuple("Ts")

RELAY: Final = "relay.example"
COME_WITHIN: Final = 5 * SECOND
ASKED_FROM: Final = 10 * SECOND
SETTLED_AT: Final = 30 * SECOND
"""When everybody has come, has its connections, and answers are under way; what is measured begins here."""


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


class _Pair:
    """A connection between two clients."""

    __slots__ = ("far", "is_over", "near", "relayed", "session")

    def __init__(self, near: "_Client", far: "_Client", session: str, *, relayed: bool) -> None:
        self.near = near
        self.far = far
        self.session = session
        self.relayed = relayed
        self.is_over = False


class _Client:
    """One node; `pairs` are the connections that it keeps, by the other's id."""

    __slots__ = ("connection", "identity", "is_gone", "model", "node", "pairs", "place", "reach")

    def __init__(self, connection: int, identity: Identity, reach: int, model: int | None) -> None:
        self.connection = connection
        self.identity = identity
        self.node = identity.node_id
        self.reach = reach
        self.model = model
        self.pairs: dict[NodeId, _Pair] = {}
        self.place = 0
        self.is_gone = False


class Crowd:
    """A relay and its clients; `run` lets them be for a while and returns what that came to."""

    def __init__(self, parameters: Parameters, design: Design, nodes: int, *, seed: int) -> None:
        self.engine: Final = Engine()
        self.cpu = CpuQueue()
        self.ledger = Ledger()
        self._parameters = parameters
        self._design = design
        self._size = nodes
        self._seed = seed
        self._rng: Final = stream(seed, "crowd", f"{design.name}, {nodes} nodes")
        self._shares = dict(enumerate(shares(parameters.mixtures, design.paths)))
        self._chances = connects(design.paths).tolist()
        self._models = _Drawn([rank**-parameters.zipf for rank in range(1, parameters.models + 1)])
        self._reaches = _Drawn(list(self._shares.values()))
        self._relay = self._make_relay()
        self._clients: dict[NodeId, _Client] = {}
        self._present: list[_Client] = []
        self._came = 0
        self._sessions = 0

    def run(self, seconds: float) -> Measured:
        """Let everybody come, then look for so many seconds."""
        engine = self.engine
        for _ in range(self._size):
            engine.call_at(self._rng.randrange(COME_WITHIN), self._come, None)
        engine.call_at(ASKED_FROM, self._next_request)
        engine.run_until(SETTLED_AT)
        self.ledger = Ledger()
        self.cpu = CpuQueue(since=engine.now)
        engine.run_until(SETTLED_AT + round(seconds * SECOND))
        return measured(
            self.ledger,
            nodes=len(self._present),
            seconds=seconds,
            profile=self._design.profile,
            prices=PRICES,
            peak_factor=self._parameters.peak_factor,
        )

    # The relay.

    def _make_relay(self) -> Core[RelayInput, RelayEffect]:
        if self._design.broadcasts:
            return DeployedRelay(unix_time_at_zero=0)
        plenty = self._size * 64 + 1024
        config = RelayServerConfig(
            names=(RELAY,),
            # Nothing may stand in the way of what is to be counted.
            total_traffic=Traffic(),
            registrations_max=plenty,
            sessions_max=plenty,
            sessions_per_node_max=plenty,
            strangers_max=plenty,
            peers_max=self._design.peers_max or plenty,
        )
        return RelayServer(config, stream(self._seed, RELAY, "core"), unix_time_at_zero=0)

    def _feed(self, purpose: Purpose, event: RelayInput, cost_us: float = 0.0) -> list[bytes]:
        """Give the relay one input; return what it sent, having counted everything."""
        now, design, ledger = self.engine.now, self._design, self.ledger
        if self._relay.deadline <= now:
            self._note(Purpose.SESSION, self._relay.handle(WAKE, now))
        effects = self._relay.handle(event, now)
        messages: tuple[bytes, ...] = ()
        if isinstance(event, DataReceived):
            messages = (event.data,)
        elif isinstance(event, MessagesReceived):
            messages = tuple(event.messages)
        if isinstance(event, PingReceived):
            ledger.add(purpose, size_in=wire_bytes(0), copies=1, size_out=wire_bytes(0))
        else:
            ledger.add(purpose, messages=len(messages), size_in=sum(wire_bytes(len(data)) for data in messages))
        if not cost_us:
            cost_us = sum(design.profile.forward_us(len(data), alone=True) for data in messages)
        ledger.charge(purpose, cost_us)
        self.cpu.serve(now, cost_us)
        return self._note(purpose, effects, getattr(event, "connection", 0))

    def _note(self, purpose: Purpose, effects: Sequence[RelayEffect], asker: int = 0) -> list[bytes]:
        sent = []
        ledger, profile, broadcasts = self.ledger, self._design.profile, self._design.broadcasts
        for effect in effects:
            if not isinstance(effect, SendText | SendData):
                continue
            size = len(effect.data)
            if broadcasts and purpose in (Purpose.REGISTER, Purpose.NOTICE) and effect.connection != asker:
                ledger.add(Purpose.NOTICE, messages=0, copies=1, size_out=wire_bytes(size))
                cost = profile.notice.us(size)
                ledger.charge(Purpose.NOTICE, cost)
                self.cpu.serve(self.engine.now, cost)
                continue
            ledger.add(purpose, messages=0, copies=1, size_out=wire_bytes(size))
            sent.append(effect.data)
        return sent

    # Coming and going.

    def _come(self, _: None) -> None:
        number = self._came
        self._came += 1
        rng = self._rng
        identity = Identity.from_seed(stream(self._seed, str(number), "identity").randbytes(32))
        model = self._models.draw(rng) if rng.random() < self._parameters.holders else None
        client = _Client(2 * number + 2, identity, self._reaches.draw(rng), model)
        self._clients[client.node] = client
        client.place = len(self._present)
        self._present.append(client)
        self._register(client)
        is_first = number < self._size
        self._later(self._stays(rng, is_first=is_first), self._go, client)
        self._later(rng.random() * self._parameters.ping_every, self._ping, client)
        if is_first:
            # When everybody is there.
            self.engine.call_at(COME_WITHIN + 1 + rng.randrange(SECOND), self._first_discover, client)
        else:
            self._discover_again(client)

    def _stays(self, rng: SplitMix64, *, is_first: bool) -> float:
        median, sigma = self._parameters.session_median, self._parameters.session_sigma
        if not is_first:
            return lognormal(rng, median, sigma)
        # What is met at some instant is likelier to be long, and is met anywhere in its course.
        return rng.random() * median * exp(sigma * sigma + sigma * normal(rng))

    def _register(self, client: _Client) -> None:
        host = f"{client.connection}.example"
        accepted = ConnectionAccepted(client.connection, Address(host, 1), Address("203.0.113.1", 443), RELAY)
        self._relay.handle(accepted, self.engine.now)
        flavour = Flavour.DOCUMENTED if self._design.binary else Flavour.DEPLOYED
        message = register(client.node, client.model, binary=self._design.binary)
        # All of a registration's cost is charged with its first message.
        sent = self._send(
            Purpose.REGISTER, client, RELAY_CODEC.encode(message, flavour), self._design.profile.registration_us
        )
        answer, _ = RELAY_CODEC.decode(sent[0])
        if isinstance(answer, RegisterChallenge):
            proof = registration_proof(client.node, RELAY, bytes.fromhex(answer.challenge))
            signed = RegisterProof(client.node, client.identity.sign(proof).hex())
            answer, _ = RELAY_CODEC.decode(self._send(Purpose.REGISTER, client, RELAY_CODEC.encode(signed), 1e-9)[0])
        assert isinstance(answer, RegisterAck), answer

    def _go(self, client: _Client) -> None:
        client.is_gone = True
        last = self._present.pop()
        if last is not client:
            self._present[client.place] = last
            last.place = client.place
        del self._clients[client.node]
        if self._design.broadcasts:
            self.ledger.add(Purpose.NOTICE)
        self._feed(
            Purpose.NOTICE if self._design.broadcasts else Purpose.SESSION,
            ConnectionClosed(client.connection, "gone"),
            1e-9,
        )
        for pair in client.pairs.values():
            pair.is_over = True
            other = pair.far if pair.near is client else pair.near
            del other.pairs[client.node]
        client.pairs.clear()
        self._come(None)

    # What clients do while they stay.

    def _ping(self, client: _Client) -> None:
        if not client.is_gone:
            self._feed(Purpose.PING, PingReceived(client.connection), self._design.profile.ping_us)
            self._later(self._parameters.ping_every, self._ping, client)

    def _first_discover(self, client: _Client) -> None:
        if client.is_gone:
            return
        listed = self._listed(client, None, short=True)
        fit = [each for each in listed if each.model is not None and each.node not in client.pairs]
        for other in self._in_order(client, fit)[: self._parameters.peers_held]:
            self._connect(client, other)
        is_shunned = self._design.prefers_direct and not any(self._chances[client.reach])
        if client.model is not None and not is_shunned:
            for pair in [pair for pair in client.pairs.values() if pair.near is client and self._rng.random() < 0.5]:
                self._end(pair)
        self._later(self._rng.random() * self._parameters.discover_every, self._discover_again, client)

    def _discover_again(self, client: _Client) -> None:
        if not client.is_gone:
            self._discover(client)
            self._later(self._parameters.discover_every, self._discover_again, client)

    def _discover(self, client: _Client) -> None:
        asks_for = self._design.asks_for
        wanted = None if asks_for is None else DiscoverFilter(max_peers=asks_for)
        listed = self._listed(client, wanted, short=len(client.pairs) < self._parameters.peers_held)
        missing = self._parameters.peers_held - len(client.pairs)
        fit = [each for each in listed if each.model is not None and each.node not in client.pairs]
        for other in self._in_order(client, fit)[: max(0, missing)]:
            self._connect(client, other)

    def _listed(self, client: _Client, wanted: DiscoverFilter | None, *, short: bool) -> list[_Client]:
        """Ask the relay, and return whom it names; nobody where the answer need not be read."""
        flavour = Flavour.DOCUMENTED if self._design.binary else Flavour.DEPLOYED
        profile, size = self._design.profile, sizes(binary=self._design.binary)
        question = RELAY_CODEC.encode(Discover(client.node, wanted), flavour)
        sent = self._send(Purpose.DISCOVER, client, question, profile.wake_us)
        if not sent or b'"error"' in sent[0][:40]:
            return []
        # Counting entries by their bytes saves reading what nobody will use.
        entries = round(
            (len(sent[0]) - size.listing) / (size.entry if wanted and wanted.model_id else self._entry(size))
        )
        self.ledger.charge(Purpose.DISCOVER, profile.discover.us(entries))
        self.cpu.serve(self.engine.now, profile.discover.us(entries))
        if not short:
            return []
        listing = (
            _DOCUMENTED.decode(sent[0]).payload if self._design.binary else _DEPLOYED.decode(sent[0]).discoverResponse
        )
        found = [self._clients.get(NodeId(each.nodeID)) for each in listing.peers]
        # The real node shuffles what it has been told, and an old design tells everything in one order.
        others = [each for each in found if each is not None and each is not client]
        return others if self._design.peers_max is not None else self._rng.sample(others, len(others))

    def _entry(self, size: Sizes) -> float:
        holders = self._parameters.holders
        return holders * size.entry + (1 - holders) * size.entry_bare

    def _in_order(self, client: _Client, others: list[_Client]) -> list[_Client]:
        """Return others as they are tried: as they come, or those first that will probably be reached directly."""
        if not self._design.prefers_direct:
            return others
        chances = self._chances[client.reach]
        return sorted(others, key=lambda other: -chances[other.reach])

    # Connections between clients.

    def _connect(self, near: _Client, far: _Client) -> _Pair:
        """Make a connection that is kept: directly where that succeeds, else through the relay."""
        pair = self._open(near, far)
        near.pairs[far.node] = far.pairs[near.node] = pair
        if pair.relayed:
            beat = self._parameters.heartbeat
            self._later(self._rng.random() * beat, self._heartbeat, pair)
        return pair

    def _open(self, near: _Client, far: _Client) -> _Pair:
        self._sessions += 1
        session = f"{self._sessions:032x}"
        relayed = True
        if self._design.paths.direct:
            there, back = attempt(near.node, far.node, session, self._parameters.candidates)
            for sender, messages in ((near, there), (far, back)):
                for message in messages:
                    self._send(Purpose.SIGNAL, sender, self._encoded(message))
            relayed = self._rng.random() >= self._chances[near.reach][far.reach]
        pair = _Pair(near, far, session, relayed=relayed)
        self.ledger.connections += 1
        self.ledger.connections_relayed += relayed
        if relayed:
            self._send(Purpose.SESSION, near, self._encoded(RelayOpen(near.node, far.node, session)))
            self._send(Purpose.SESSION, far, self._encoded(RelayReady(far.node, near.node, session)))
            for turn in range(GREETING_MESSAGES):
                self._pass(Purpose.SESSION, pair, GREETING_BYTES, back=bool(turn % 2))
        return pair

    def _end(self, pair: _Pair) -> None:
        pair.is_over = True
        pair.near.pairs.pop(pair.far.node, None)
        pair.far.pairs.pop(pair.near.node, None)
        if pair.relayed:
            self._send(
                Purpose.SESSION, pair.near, self._encoded(RelayClose(pair.near.node, pair.far.node, pair.session))
            )

    def _heartbeat(self, pair: _Pair) -> None:
        """Both sides send a heartbeat, and each answers the other's."""
        if pair.is_over:
            return
        for turn in range(4):
            self._pass(Purpose.HEARTBEAT, pair, heartbeat_bytes(), back=turn in (1, 2))
        self._later(self._parameters.heartbeat, self._heartbeat, pair)

    def _pass(self, purpose: Purpose, pair: _Pair, size_bytes: int, *, back: bool, times: int = 1) -> None:
        sender, receiver = (pair.far, pair.near) if back else (pair.near, pair.far)
        message = data(sender.node, receiver.node, pair.session, size_bytes, binary=self._design.binary)
        if times == 1:
            self._send(purpose, sender, message)
        else:
            self._feed(purpose, MessagesReceived(sender.connection, (message,) * times))

    # Requests.

    def _next_request(self) -> None:
        rate = self._size * self._parameters.requests_per_hour / 3600
        self._later(exponential(self._rng, 1 / rate), self._ask)

    def _ask(self) -> None:
        self._next_request()
        rng = self._rng
        client = rng.choice(self._present)
        model = self._models.draw(rng)
        if client.model == model:
            return
        at_hand = [
            pair for pair in client.pairs.values() if (pair.far if pair.near is client else pair.near).model == model
        ]
        good = [pair for pair in at_hand if not pair.relayed] if self._design.prefers_direct else at_hand
        opened: list[_Pair] = []
        if not good:
            listed = self._listed(client, DiscoverFilter(model_id=model_name(model)), short=True)
            known = [each for each in listed if each.node not in client.pairs]
            opened = self._open_for(client, known, at_hand)
            good = opened[:1] or at_hand
        if not good:
            self.ledger.unserved += 1
            return
        self._serve(client, rng.choice(good), opened)

    def _open_for(self, client: _Client, others: list[_Client], at_hand: list[_Pair]) -> list[_Pair]:
        if not self._design.prefers_direct:
            return [self._open(client, other) for other in others[:OPENED_FOR_A_REQUEST]]
        best = self._in_order(client, others)[:1]
        if at_hand and best and not self._chances[client.reach][best[0].reach]:
            return []
        return [self._open(client, other) for other in best]

    def _serve(self, client: _Client, pair: _Pair, opened: list[_Pair]) -> None:
        parameters, rng = self._parameters, self._rng
        words = round(lognormal(rng, parameters.prompt_words_median, parameters.prompt_words_sigma))
        tokens = round(lognormal(rng, parameters.tokens_median, parameters.tokens_sigma))
        tokens = min(parameters.tokens_max, max(1, tokens))
        amount = request_bytes(words) + tokens * chunk_bytes()
        self.ledger.answered += 1
        self.ledger.data_bytes += amount
        if pair.relayed:
            self.ledger.data_bytes_relayed += amount
            self._pass(Purpose.DATA, pair, request_bytes(words), back=pair.near is not client)
        self._answer(client, pair, tokens, opened)

    def _answer(self, client: _Client, pair: _Pair, tokens: int, opened: list[_Pair]) -> None:
        """Send what is made in the next second, and close what was opened for this request when all of it is sent."""
        now = min(tokens, round(self._parameters.tokens_per_second))
        if pair.relayed and not (pair.near.is_gone or pair.far.is_gone):
            self._pass(Purpose.DATA, pair, chunk_bytes(), back=pair.near is client, times=now)
        if tokens > now:
            self._later(1.0, self._answer, client, pair, tokens - now, opened)
            return
        for each in opened:
            if not (each.near.is_gone or each.far.is_gone):
                self._end(each)

    # Small things.

    def _encoded(self, message: RelayMessage) -> bytes:
        flavour = Flavour.DOCUMENTED if self._design.binary else Flavour.DEPLOYED
        return RELAY_CODEC.encode(message, flavour)

    def _send(self, purpose: Purpose, client: _Client, message: bytes, cost_us: float = 0.0) -> list[bytes]:
        return self._feed(purpose, DataReceived(client.connection, message), cost_us)

    def _later(self, seconds: float, call: Callable[[*Ts], object], *args: *Ts) -> None:
        self.engine.call_at(self.engine.now + max(1, round(seconds * SECOND)), call, *args)


class _Drawn:
    """Draws indices by weight."""

    __slots__ = ("_edges",)

    def __init__(self, weights: list[float]) -> None:
        total, at = sum(weights), 0.0
        self._edges = []
        for weight in weights:
            at += weight / total
            self._edges.append(at)

    def draw(self, rng: SplitMix64) -> int:
        return min(bisect_right(self._edges, rng.random()), len(self._edges) - 1)


def run(parameters: Parameters, design: Design, nodes: int, *, seed: int, seconds: float) -> Measured:
    """Return what so many nodes do to a relay in so many seconds."""
    return Crowd(parameters, design, nodes, seed=seed).run(seconds)
