"""The population model: what a relay carries in a steady state, drawn for whole populations at once with NumPy.

Each batch is one population: every node gets what it is behind and what it holds, every connection its two ends,
every request its model, its holder and its length. Populations up to `BATCH_NODES` are drawn in full in every batch; of
larger ones each batch draws that many nodes, which stand for the rest, so that ten million and a thousand million cost
the same. What grows with the square of the population (full lists, broadcasts) uses the true number.

Steady state: a node that goes is followed by a new one. A node opens `peers_held` connections when it comes; one
without a model opens a new one for each that it loses, one that holds a model is sought by enough others not to have
to. The age of a node and the time that its partner stays have the same distribution, so that half of what a node
opened when it came survives.
"""

from math import exp
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from simulator.relay_cost import wire_bytes
from simulator.rng import stream
from simulator.study.ledger import Ledger, Measured, Purpose, measured
from simulator.study.messages import (
    GREETING_BYTES,
    GREETING_MESSAGES,
    REQUEST_BYTES,
    SEAL_BYTES,
    WORD_BYTES,
    Sizes,
    chunk_bytes,
    data_bytes,
    sizes,
)
from simulator.study.parameters import OPENED_FOR_A_REQUEST, PRICES, Design, Parameters
from simulator.study.reach import CLASSES, connects, shares

if TYPE_CHECKING:
    Array = np.ndarray[Any, np.dtype[Any]]

BATCHES: Final = 20
BATCH_NODES: Final = 200_000
WINDOW_SECONDS: Final = 3600.0


def mean_session(parameters: Parameters) -> float:
    """Return the mean time that a node stays, in seconds: that of a lognormal distribution."""
    return parameters.session_median * exp(parameters.session_sigma**2 / 2)


def run(
    parameters: Parameters,
    design: Design,
    nodes: int,
    *,
    seed: int,
    batches: int = BATCHES,
    batch_nodes: int = BATCH_NODES,
) -> list[Measured]:
    """Return independent batches for a population of so many nodes."""
    found = []
    for number in range(batches):
        rng = np.random.Generator(
            np.random.PCG64(stream(seed, f"{design.name}, {nodes} nodes", f"batch {number}").next64())
        )
        ledger = _Batch(parameters, design, nodes, min(nodes, batch_nodes), rng).fill()
        found.append(
            measured(
                ledger,
                nodes=nodes,
                seconds=WINDOW_SECONDS,
                scale=nodes / min(nodes, batch_nodes),
                profile=design.profile,
                prices=PRICES,
                peak_factor=parameters.peak_factor,
            )
        )
    return found


class _Ends(NamedTuple):
    """Connections: their number, and how many of them go through the relay."""

    all: int
    relayed: int


class _Batch:
    """One population that is looked at for WINDOW_SECONDS."""

    def __init__(
        self, parameters: Parameters, design: Design, nodes: int, drawn: int, rng: np.random.Generator
    ) -> None:
        self.parameters = parameters
        self.design = design
        self.nodes = nodes
        self.drawn = drawn
        self.rng = rng
        self.ledger = Ledger()
        self.sizes: Sizes = sizes(binary=design.binary, asks_for=design.asks_for)
        self.chances = connects(design.paths)
        self.reach = self._choose(np.array(shares(parameters.mixtures, design.paths)), drawn)
        holders = np.flatnonzero(rng.random(drawn) < parameters.holders)
        self.holds = np.zeros(drawn, dtype=bool)
        self.holds[holders] = True
        # Of a handful of nodes none may hold anything; then nobody is found.
        self.holder_reach = self.reach[holders]
        weights = np.arange(1, parameters.models + 1, dtype=float) ** -parameters.zipf
        self.popularity = weights / weights.sum()
        self.model = np.where(self.holds, self._choose(self.popularity, drawn), -1)
        by_class = np.bincount(self.holder_reach, minlength=CLASSES) / max(1, len(holders))
        self.reachable = self.chances @ by_class
        """The chance that a node of each class gets a direct path to a holder drawn at random."""

    def fill(self) -> Ledger:
        """Let everything happen, and return what it came to."""
        kept = self._keep_connections()
        self._come_and_go(kept)
        self._stay()
        self._ask()
        return self.ledger

    # Connections that nodes keep.

    def _keep_connections(self) -> _Ends:
        held, rng = self._held(), self.rng
        surviving = rng.binomial(held, 0.5, self.drawn)
        opened = np.where(self.holds, surviving, held)
        if self.design.prefers_direct and held:
            # Of what a newcomer is told it needs nearly all; what takes the place of those that went was chosen.
            best, chosen = self._relayed_by_choice(self.reachable[self.reach])
            through = rng.binomial(surviving, best) + rng.binomial(opened - surviving, chosen)
        elif held:
            near = np.repeat(np.arange(self.drawn), opened)
            far = self.holder_reach[rng.integers(0, len(self.holder_reach), len(near))]
            is_relayed = rng.random(len(near)) >= self.chances[self.reach[near], far]
            through = np.bincount(near[is_relayed], minlength=self.drawn)
        else:
            through = np.zeros(self.drawn, dtype=int)
        relayed, by_holders = int(through.sum()), int(through[self.holds].sum())
        # The far side holds a model, and each side sends as many as the other.
        beats = self.parameters.beats_per_second * WINDOW_SECONDS / 2
        self._forwarded(Purpose.HEARTBEAT, beats * (relayed + by_holders), self.sizes.heartbeat)
        self._forwarded(Purpose.HEARTBEAT, beats * (relayed - by_holders), self.sizes.heartbeat_bare)
        return _Ends(int(opened.sum()), relayed)

    def _held(self) -> int:
        """Return how many connections a node keeps, for which there must be enough others."""
        return min(self.parameters.peers_held, max(0, len(self.holder_reach) - 1))

    def _relayed_by_choice(self, reachable: "Array") -> tuple["Array", "Array"]:
        """Return the chance that a connection is relayed: of those opened on coming, and of those opened one by one.

        Both take the best of a listing; `reachable` is the chance of a direct path to a holder drawn at random. Whoever
        comes and is told of too few takes all of them, and the rest from the next listing.
        """
        held = max(1, self._held())
        fit = self.rng.binomial(self.design.listed(self.nodes - 1), self.parameters.holders, len(reachable))
        found = self.rng.binomial(fit, reachable)
        at_once = np.minimum(fit, held)
        chosen = (1 - reachable) ** fit
        return (np.maximum(0, at_once - found) + (held - at_once) * chosen) / held, chosen

    def _come_and_go(self, kept: _Ends) -> None:
        size, ledger, profile = self.sizes, self.ledger, self.design.profile
        rate = WINDOW_SECONDS / mean_session(self.parameters)
        comings = float(self.rng.poisson(self.drawn * rate))
        incoming = [size.register, size.proof] if size.proof else [size.register]
        outgoing = [size.challenge, size.ack] if size.challenge else [size.ack]
        ledger.add(
            Purpose.REGISTER,
            messages=comings * len(incoming),
            size_in=comings * sum(map(wire_bytes, incoming)),
            copies=comings * len(outgoing),
            size_out=comings * sum(map(wire_bytes, outgoing)),
        )
        ledger.charge(Purpose.REGISTER, comings * profile.registration_us)
        if self.design.broadcasts:
            copies = 2 * comings * (self.nodes - 1)
            ledger.add(Purpose.NOTICE, messages=2 * comings, copies=copies, size_out=copies * wire_bytes(size.notice))
            ledger.charge(Purpose.NOTICE, copies * profile.notice.us(size.notice))
        # In a steady state as many are made as end, and each ends when either of its nodes goes.
        share = kept.relayed / kept.all if kept.all else 0.0
        made = float(self.rng.poisson(2 * rate * kept.all))
        self._open(made, float(self.rng.binomial(round(made), share)))

    def _open(self, made: float, relayed: float) -> None:
        """Make connections: an attempt at a direct path where nodes try, and a session where there is none."""
        size = self.sizes
        self.ledger.connections += made
        self.ledger.connections_relayed += relayed
        if self.design.paths.direct:
            self._forwarded(Purpose.SIGNAL, 2 * made, size.offer)
            self._forwarded(Purpose.SIGNAL, 2 * made * self.parameters.candidates, size.candidate)
        self._forwarded(Purpose.SESSION, 2 * relayed, size.session)
        greeting = data_bytes(GREETING_BYTES, binary=self.design.binary)
        self._forwarded(Purpose.SESSION, GREETING_MESSAGES * relayed, greeting)

    # What nodes do while they stay.

    def _stay(self) -> None:
        profile, parameters = self.design.profile, self.parameters
        pings = self.drawn * WINDOW_SECONDS / parameters.ping_every
        self.ledger.add(
            Purpose.PING, messages=pings, size_in=pings * wire_bytes(0), copies=pings, size_out=pings * wire_bytes(0)
        )
        self.ledger.charge(Purpose.PING, pings * profile.ping_us)
        listed = self.design.listed(self.nodes - 1)
        comings = self.drawn * WINDOW_SECONDS / mean_session(parameters)
        questions = self.drawn * WINDOW_SECONDS / parameters.discover_every + comings * parameters.soon_extra
        holding = self.sizes.entry * parameters.holders + self.sizes.entry_bare * (1 - parameters.holders)
        self._discovered(questions, self.sizes.discover, np.full(1, listed), holding)

    def _discovered(self, questions: float, asked: int, listed: "Array", entry: float) -> None:
        """Answer so many questions, with lists that are as long as `listed` says, in turn."""
        profile = self.design.profile
        mean = float(listed.mean()) if len(listed) else 0.0
        answer = float(wire_bytes(self.sizes.listing + listed * entry).mean()) if len(listed) else 0.0
        self.ledger.add(
            Purpose.DISCOVER,
            messages=questions,
            size_in=questions * wire_bytes(asked),
            copies=questions,
            size_out=questions * answer,
        )
        self.ledger.charge(Purpose.DISCOVER, questions * (profile.wake_us + profile.discover.us(mean)))

    # Requests.

    def _ask(self) -> None:
        parameters, rng = self.parameters, self.rng
        count = int(rng.poisson(self.drawn * parameters.requests_per_hour * WINDOW_SECONDS / 3600))
        asker = rng.integers(0, self.drawn, count)
        model = self._choose(self.popularity, count)
        elsewhere = self.model[asker] != model
        asker, model = asker[elsewhere], model[elsewhere]
        reach = self.reach[asker]
        holds_it = self.popularity[model]
        at_hand = rng.binomial(self._held(), holds_it)
        others = rng.binomial(self.nodes - 1, parameters.holders * holds_it)
        served, direct, asks_relay = self._choices(reach, at_hand, others)
        listed = np.minimum(others[asks_relay], self.design.listed(self.nodes))
        self._discovered(float(len(listed)), self.sizes.discover_for, listed, self.sizes.entry)
        made = self._for_requests(reach[asks_relay], listed, direct[asks_relay])
        self._open(float(made.all), float(made.relayed))
        self._answer(served, direct)

    def _choices(self, reach: "Array", at_hand: "Array", others: "Array") -> tuple["Array", "Array", "Array"]:
        """Return of each request whether it is served, whether directly, and whether the relay is asked who could."""
        rng, reachable = self.rng, self.reachable[reach]
        if not self.design.prefers_direct:
            asks_relay = at_hand == 0
            return (at_hand > 0) | (others > 0), rng.random(len(reach)) < reachable, asks_relay
        best, chosen = self._relayed_by_choice(reachable)
        direct = (at_hand > 0) & (rng.random(len(reach)) >= (best + chosen) / 2)
        asks_relay = ~direct
        candidates = np.minimum(others, self.design.listed(self.nodes))
        direct |= asks_relay & (rng.random(len(reach)) < 1 - (1 - reachable) ** candidates)
        return (at_hand > 0) | (others > 0), direct, asks_relay

    def _for_requests(self, reach: "Array", listed: "Array", direct: "Array") -> _Ends:
        """Return the connections that are opened because nobody at hand holds the model."""
        if self.design.prefers_direct:
            made = listed > 0
            return _Ends(int(made.sum()), int((made & ~direct).sum()))
        made = np.minimum(listed, OPENED_FOR_A_REQUEST)
        relayed = self.rng.binomial(made, 1 - self.reachable[reach])
        return _Ends(int(made.sum()), int(relayed.sum()))

    def _answer(self, served: "Array", direct: "Array") -> None:
        parameters, rng, ledger = self.parameters, self.rng, self.ledger
        count = int(served.sum())
        relayed = ~direct[served]
        words = rng.lognormal(np.log(parameters.prompt_words_median), parameters.prompt_words_sigma, count)
        tokens = rng.lognormal(np.log(parameters.tokens_median), parameters.tokens_sigma, count)
        tokens = np.clip(np.rint(tokens), 1, parameters.tokens_max)
        question = np.rint(words) * WORD_BYTES + REQUEST_BYTES + SEAL_BYTES
        amount = question + tokens * chunk_bytes()
        ledger.answered += count
        ledger.unserved += len(served) - count
        ledger.data_bytes += float(amount.sum())
        ledger.data_bytes_relayed += float(amount[relayed].sum())
        self._forwarded(Purpose.DATA, float(tokens[relayed].sum()), self.sizes.chunk)
        passing = question[relayed]
        if not self.design.binary:
            passing = 4 * np.ceil(passing / 3)
        passing = passing + self.sizes.data_head
        total = float(wire_bytes(passing).sum())
        ledger.add(Purpose.DATA, messages=len(passing), size_in=total, copies=len(passing), size_out=total)
        profile = self.design.profile
        fixed = len(passing) * (profile.wake_us + profile.forward.fixed_us)
        ledger.charge(Purpose.DATA, fixed + float(passing.sum()) * profile.forward.each_ns / 1000)

    def _forwarded(self, purpose: Purpose, messages: float, size_bytes: int) -> None:
        """Pass on so many messages of one size, each of which comes by itself."""
        total = messages * wire_bytes(size_bytes)
        self.ledger.add(purpose, messages=messages, size_in=total, copies=messages, size_out=total)
        self.ledger.charge(purpose, messages * self.design.profile.forward_us(size_bytes, alone=True))

    def _choose(self, weights: "Array", count: int) -> "Array":
        """Return so many indices, each as likely as its weight."""
        edges = np.cumsum(weights / weights.sum())
        edges[-1] = 1.0
        return np.searchsorted(edges, self.rng.random(count), side="right")
