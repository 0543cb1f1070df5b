"""The event simulation: a real relay core among light clients, which are a few lists rather than nodes of their own.

The clients do what `teale_proto.seeking`, `node` and `liveness` do as far as the relay can see it: register with proof
of their key, ask for peers, keep connections with some, send heartbeats, ask and answer. What two clients can reach
directly is drawn from the matrix, and goes past the relay. There are no delays but those of the relay's processor: its
load does not depend on distances.

A run begins in the steady state, as far as a start can have it: how long nodes still stay is drawn from what remains of
sessions under way, and half of the connections that a node opened when it came have ended.
"""

from bisect import bisect_right
from collections.abc import Callable
from math import exp
from typing import Final, TypeVarTuple

from simulator.engine import Engine
from simulator.rng import SplitMix64, exponential, lognormal, normal, stream
from simulator.study.ledger import Measured, Purpose, measured
from simulator.study.messages import (
    GREETING_BYTES,
    GREETING_MESSAGES,
    attempt,
    chunk_bytes,
    data,
    heartbeat_bytes,
    request_bytes,
)
from simulator.study.metered import MeteredRelay
from simulator.study.parameters import (
    OPENED_FOR_A_REQUEST,
    PRICES,
    SOON_SECONDS,
    SOON_TIMES,
    Design,
    Parameters,
)
from simulator.study.reach import connects, shares
from teale_proto.contract import SECOND
from teale_proto.inputs import NodeId
from teale_proto.secure.identity import Identity
from teale_proto.wire.relay import RelayClose, RelayOpen, RelayReady

Ts = TypeVarTuple("Ts")

COME_WITHIN: Final = 5 * SECOND
ASKED_FROM: Final = 10 * SECOND
SETTLED_AT: Final = 30 * SECOND
"""When everybody has come, has its connections, and answers are under way; what is measured begins here."""
ASKS_AT_FIRST: Final = 3
"""How often those that begin ask for nodes before SETTLED_AT."""


class _Pair:
    """A connection between two clients."""

    __slots__ = ("far", "is_over", "near", "relayed", "session")

    def __init__(self, near: "_Client", far: "_Client", session: str, *, relayed: bool) -> None:
        self.near = near
        self.far = far
        self.session = session
        self.relayed = relayed
        self.is_over = False

    def other(self, client: "_Client") -> "_Client":
        """Return the one at the other end."""
        return self.far if self.near is client else self.near


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

    def opened(self) -> list[_Pair]:
        """Return the connections that it has opened itself."""
        return [pair for pair in self.pairs.values() if pair.near is self]


class Crowd:
    """A relay and its clients; `run` lets them be for a while and returns what that came to."""

    def __init__(self, parameters: Parameters, design: Design, nodes: int, *, seed: int) -> None:
        self.engine: Final = Engine()
        self.relay: Final = MeteredRelay(design, nodes, self.engine, holders=parameters.holders, seed=seed)
        self._parameters = parameters
        self._design = design
        self._size = nodes
        self._seed = seed
        self._rng: Final = stream(seed, "crowd", f"{design.name}, {nodes} nodes")
        self._chances = connects(design.paths).tolist()
        self._models = _Drawn([rank**-parameters.zipf for rank in range(1, parameters.models + 1)])
        self._reaches = _Drawn(list(shares(parameters.mixtures, design.paths)))
        self._clients: dict[NodeId, _Client] = {}
        self._present: list[_Client] = []
        self._came = 0
        self._sessions = 0

    def run(self, seconds: float) -> Measured:
        """Let everybody come, then look for so many seconds."""
        engine, relay = self.engine, self.relay
        for _ in range(self._size):
            engine.call_at(self._rng.randrange(COME_WITHIN), self._come)
        engine.call_at(ASKED_FROM, self._next_request)
        engine.run_until(SETTLED_AT)
        relay.begin()
        engine.run_until(SETTLED_AT + round(seconds * SECOND))
        return measured(
            relay.ledger,
            nodes=len(self._present),
            seconds=seconds,
            profile=self._design.profile,
            prices=PRICES,
            peak_factor=self._parameters.peak_factor,
            waits=(relay.cpu.wait_mean, float(relay.cpu.waited_max)),
        )

    # Coming and going.

    def _come(self) -> None:
        number = self._came
        self._came += 1
        rng = self._rng
        identity = Identity.from_seed(stream(self._seed, str(number), "identity").randbytes(32))
        model = self._models.draw(rng) if rng.random() < self._parameters.holders else None
        client = _Client(2 * number + 2, identity, self._reaches.draw(rng), model)
        self._clients[client.node] = client
        client.place = len(self._present)
        self._present.append(client)
        self.relay.register(client.connection, identity, model)
        is_first = number < self._size
        self._later(self._stays(rng, is_first=is_first), self._go, client)
        self._later(rng.random() * self._parameters.ping_every, self._ping, client)
        if is_first:
            # When everybody is there.
            self.engine.call_at(COME_WITHIN + 1 + rng.randrange(SECOND), self._settle_in, client, 1)
        else:
            self._seek(client, 1)

    def _stays(self, rng: SplitMix64, *, is_first: bool) -> float:
        median, sigma = self._parameters.session_median, self._parameters.session_sigma
        if not is_first:
            return lognormal(rng, median, sigma)
        # What is met at some instant is likelier to be long, and is met anywhere in its course.
        return rng.random() * median * exp(sigma * sigma + sigma * normal(rng))

    def _go(self, client: _Client) -> None:
        client.is_gone = True
        last = self._present.pop()
        if last is not client:
            self._present[client.place] = last
            last.place = client.place
        del self._clients[client.node]
        self.relay.close(client.connection)
        for pair in client.pairs.values():
            pair.is_over = True
            del pair.other(client).pairs[client.node]
        client.pairs.clear()
        self._come()

    # What clients do while they stay.

    def _ping(self, client: _Client) -> None:
        if not client.is_gone:
            self.relay.ping(client.connection)
            self._later(self._parameters.ping_every, self._ping, client)

    def _settle_in(self, client: _Client, time: int) -> None:
        """Ask as a node does that has just come; in the end, let it have been there for long."""
        if client.is_gone:
            return
        if time < ASKS_AT_FIRST:
            # Nobody has been sought by others yet.
            self._fill_up(client, self._parameters.peers_held - len(client.opened()))
            self._later(SOON_SECONDS, self._settle_in, client, time + 1)
            return
        for pair in client.opened():
            # Others take the place of those that went; whoever does not choose gets another like the one before.
            if (client.model is not None or self._design.prefers_direct) and self._rng.random() < 0.5:
                self._end(pair)
        # When all have done so.
        self._later(1.5, self._settled, client)

    def _settled(self, client: _Client) -> None:
        if client.is_gone:
            return
        # Where nodes choose, a holder that nobody reaches is sought by few, and goes on seeking.
        if client.model is None or self._design.prefers_direct:
            self._fill_up(client, self._parameters.peers_held - len(client.pairs))
        self._later(self._rng.random() * self._parameters.discover_every, self._seek, client, 1 + SOON_TIMES)

    def _seek(self, client: _Client, time: int) -> None:
        """Ask for nodes, for the so-many-th time, and connect to as many as are missing."""
        if client.is_gone:
            return
        missing = self._parameters.peers_held - len(client.pairs)
        self._connect_to(client, self._listed(client, None, read=missing > 0), missing)
        every = self._parameters.discover_every
        self._later(min(every, SOON_SECONDS) if time <= SOON_TIMES else every, self._seek, client, time + 1)

    def _fill_up(self, client: _Client, missing: int) -> None:
        if missing > 0:
            self._connect_to(client, self._listed(client, None), missing)

    def _connect_to(self, client: _Client, listed: list[_Client], missing: int) -> None:
        fit = [each for each in listed if each.model is not None and each.node not in client.pairs]
        for other in self._in_order(client, fit)[: max(0, missing)]:
            self._connect(client, other)

    def _listed(self, client: _Client, model: int | None, *, read: bool = True) -> list[_Client]:
        """Ask the relay, and return whom it names; nobody where the answer need not be read."""
        named = self.relay.discover(client.connection, client.node, model, read=read)
        found = [self._clients.get(node) for node in named]
        others = [each for each in found if each is not None and each is not client]
        # The real node shuffles what it has been told, and an old design tells everything in one order.
        return others if self._design.peers_max is not None else self._rng.sample(others, len(others))

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
            self._later(self._rng.random() * self._parameters.heartbeat, self._heartbeat, pair)
        return pair

    def _open(self, near: _Client, far: _Client) -> _Pair:
        self._sessions += 1
        session = f"{self._sessions:032x}"
        relay, relayed = self.relay, True
        if self._design.paths.direct:
            there, back = attempt(near.node, far.node, session, self._parameters.candidates)
            for sender, messages in ((near, there), (far, back)):
                for message in messages:
                    relay.send(Purpose.SIGNAL, sender.connection, relay.encoded(message))
            relayed = self._rng.random() >= self._chances[near.reach][far.reach]
        pair = _Pair(near, far, session, relayed=relayed)
        relay.ledger.connections += 1
        relay.ledger.connections_relayed += relayed
        if relayed:
            opening = relay.encoded(RelayOpen(near.node, far.node, session))
            relay.send(Purpose.SESSION, near.connection, opening)
            relay.send(Purpose.SESSION, far.connection, relay.encoded(RelayReady(far.node, near.node, session)))
            for turn in range(GREETING_MESSAGES):
                self._pass(Purpose.SESSION, pair, GREETING_BYTES, back=bool(turn % 2))
        return pair

    def _end(self, pair: _Pair) -> None:
        pair.is_over = True
        pair.near.pairs.pop(pair.far.node, None)
        pair.far.pairs.pop(pair.near.node, None)
        if pair.relayed:
            closing = self.relay.encoded(RelayClose(pair.near.node, pair.far.node, pair.session))
            self.relay.send(Purpose.SESSION, pair.near.connection, closing)

    def _heartbeat(self, pair: _Pair) -> None:
        """Both sides send a heartbeat, and each answers the other's."""
        if pair.is_over:
            return
        for back in (False, True, True, False):
            sender = pair.far if back else pair.near
            self._pass(Purpose.HEARTBEAT, pair, heartbeat_bytes(holds_model=sender.model is not None), back=back)
        self._later(self._parameters.heartbeat, self._heartbeat, pair)

    def _pass(self, purpose: Purpose, pair: _Pair, size_bytes: int, *, back: bool, times: int = 1) -> None:
        sender, receiver = (pair.far, pair.near) if back else (pair.near, pair.far)
        message = data(sender.node, receiver.node, pair.session, size_bytes, binary=self._design.binary)
        if times == 1:
            self.relay.send(purpose, sender.connection, message)
        else:
            self.relay.send_many(purpose, sender.connection, (message,) * times)

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
        at_hand = [pair for pair in client.pairs.values() if pair.other(client).model == model]
        good = [pair for pair in at_hand if not pair.relayed] if self._design.prefers_direct else at_hand
        opened: list[_Pair] = []
        if not good:
            known = [each for each in self._listed(client, model) if each.node not in client.pairs]
            opened = self._open_for(client, known, at_hand)
            good = opened[:1] or at_hand
        if not good:
            self.relay.ledger.unserved += 1
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
        parameters, rng, ledger = self._parameters, self._rng, self.relay.ledger
        words = round(lognormal(rng, parameters.prompt_words_median, parameters.prompt_words_sigma))
        tokens = round(lognormal(rng, parameters.tokens_median, parameters.tokens_sigma))
        tokens = min(parameters.tokens_max, max(1, tokens))
        amount = request_bytes(words) + tokens * chunk_bytes()
        ledger.answered += 1
        ledger.data_bytes += amount
        if pair.relayed:
            ledger.data_bytes_relayed += amount
            self._pass(Purpose.DATA, pair, request_bytes(words), back=pair.near is not client)
        self._answer(client, pair, tokens, opened)

    def _answer(self, client: _Client, pair: _Pair, tokens: int, opened: list[_Pair]) -> None:
        """Send what is made in the next second, and close what was opened for this request when all of it is sent."""
        now = min(tokens, max(1, round(self._parameters.tokens_per_second)))
        if pair.relayed and not (pair.near.is_gone or pair.far.is_gone):
            self._pass(Purpose.DATA, pair, chunk_bytes(), back=pair.near is client, times=now)
        if tokens > now:
            self._later(1.0, self._answer, client, pair, tokens - now, opened)
            return
        for each in opened:
            if not (each.near.is_gone or each.far.is_gone):
                self._end(each)

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
