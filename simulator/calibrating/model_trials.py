"""How fast the built-in model is: time to the first token by how much of the prompt is new to it, and tokens a second.

The questions are those of descriptions. They are asked over the LAN, as other nodes ask, and through the local API, as
applications do. The model is left alone before each, since that is how requests come. What a prompt has in common
with the one before is not read again, so prompts with another beginning are asked for in between.
"""

import re
import time
from contextlib import ExitStack
from os import urandom
from typing import Any, Final, NamedTuple

import msgspec

from simulator.backend import CostModel, unread_tokens
from simulator.calibrating.api import Api
from simulator.calibrating.clocks import Wait
from simulator.calibrating.figures import Samples
from simulator.calibrating.measuring import LONG_MS, Meter, Plan, kept, middle, new_identity
from simulator.calibrating.peer import Lan, Peer
from simulator.calibrating.programs import CalibrationError, Node
from simulator.lab.plan import TINY
from simulator.spec.draws import body_of
from simulator.spec.load import AskSpec
from teale_proto.wire.cluster import InferenceChunk, InferenceComplete, InferenceError, InferenceRequest

WORDS: Final = (4, 12)
"""Of prompts; a real model of so small a context reads no more."""
USUAL_WORDS: Final = 6
TOKENS_MAX: Final = 48
FEW_TOKENS: Final = 1
PAUSE_SECONDS: Final = LONG_MS / 1000
"""Before each question, so that every one finds the node asleep."""

UPSTREAM_MODEL: Final = "calibration-upstream"
UPSTREAM_COST: Final = CostModel(1e6, 200.0, jitter=0.0, tokens_min=12, tokens_max=12)
"""Of the model behind a server: it has read at once, and writes twelve tokens in 60 ms."""

_HAS_WORDS: Final = re.compile(rb'"content": ?"[^"]')


class Ask(NamedTuple):
    """One question that was asked, and how its answer came."""

    unread: float
    """Tokens that the model had to read."""
    pieces: tuple[float, ...]
    """Seconds from the question to each token."""

    @property
    def first(self) -> float:
        """Seconds to the first token."""
        return self.pieces[0]


class Asker:
    """Another node, which asks over the LAN."""

    def __init__(self, stack: ExitStack, node: Node) -> None:
        self._peer: Final = kept(stack, Peer(Lan(node), new_identity()))
        self._before = b""
        self._count = 0

    def ask(self, body: dict[str, Any]) -> Ask:
        """Ask and wait for the whole answer; raises CalibrationError where there is none."""
        encoded = msgspec.json.encode(body)
        unread, self._before = unread_tokens(encoded, self._before), encoded
        self._count += 1
        wait = Wait()
        self._peer.say(InferenceRequest(f"calibration-{self._count}", msgspec.Raw(encoded), True))
        pieces = []
        while not isinstance(message := self._peer.hear(), InferenceComplete | InferenceError):
            # The last piece says why the answer ended, and nothing else.
            if isinstance(message, InferenceChunk) and _HAS_WORDS.search(bytes(message.chunk)):
                pieces.append(wait.seconds())
        if isinstance(message, InferenceError) or not pieces:
            reason = message.error_message if isinstance(message, InferenceError) else "it is empty"
            raise CalibrationError(f"the node gave no answer: {reason}")
        return Ask(unread, tuple(pieces))


class ModelTrials:
    """All that is measured of the built-in model of one node."""

    def __init__(self, stack: ExitStack, node: Node, plan: Plan, samples: Samples) -> None:
        self._plan: Final = plan
        self._samples: Final = samples
        self._meter: Final = Meter(node, samples)
        self._asker: Final = Asker(stack, node)
        self._api: Final = kept(stack, Api(node))
        self.asked: Final = list[Ask]()
        """All that was asked over the LAN."""

    def warm_up(self) -> None:
        """Ask a few times."""
        for words in WORDS:
            self._asker.ask(question(words))
            self._api.ask(question(words))

    def round(self) -> None:
        """Measure everything once."""
        for words in WORDS:
            self._asker.ask(_another(words))
            for what in ("new", "again"):
                time.sleep(PAUSE_SECONDS)
                asked = self._asker.ask(question(words))
                self.asked.append(asked)
                self._samples.add(f"model, {words} words, {what}, first token, ms", asked.first * 1e3)
            time.sleep(PAUSE_SECONDS)
        self._local()
        measure_serving("node", self._asker, self._meter, self._samples, self._plan.answers, TINY)

    def _local(self) -> None:
        """Ask the same thing in both ways, by turns."""
        lan, local = [], []
        self._asker.ask(question(USUAL_WORDS))
        time.sleep(PAUSE_SECONDS)
        for _ in range(max(1, self._plan.answers // 2)):
            lan.append(self._asker.ask(question(USUAL_WORDS)).first * 1e3)
            time.sleep(PAUSE_SECONDS)
            local.append(self._api.ask(question(USUAL_WORDS)).first * 1e3)
            time.sleep(PAUSE_SECONDS)
        self._samples.add("model, local API, first token, ms", middle(local))
        self._samples.add("model, over the LAN, first token, ms", middle(lan))


class UpstreamTrials:
    """What a node needs for a model behind an HTTP server, which itself needs a known time."""

    def __init__(self, stack: ExitStack, node: Node, plan: Plan, samples: Samples) -> None:
        self._plan: Final = plan
        self._samples: Final = samples
        self._meter: Final = Meter(node, samples)
        self._asker: Final = Asker(stack, node)

    def warm_up(self) -> None:
        """Ask a few times."""
        for _ in range(3):
            self._asker.ask(question(USUAL_WORDS, model=UPSTREAM_MODEL))

    def round(self) -> None:
        """Measure everything once."""
        measure_serving("upstream", self._asker, self._meter, self._samples, self._plan.answers, UPSTREAM_MODEL)


def measure_serving(name: str, asker: Asker, meter: Meter, samples: Samples, count: int, model: str) -> None:
    """Measure what answers cost the node, and how fast they come."""
    few, many, asked = list[float](), list[float](), list[Ask]()
    for _ in range(count):
        for costs, tokens_max in ((few, FEW_TOKENS), (many, TOKENS_MAX)):
            time.sleep(PAUSE_SECONDS)
            before = meter.now_us()
            asked.append(asker.ask(question(USUAL_WORDS, tokens_max, model=model)))
            costs.append(meter.now_us() - before)
    whole = asked[1::2]
    each = (middle(many) - middle(few)) / max(1, middle([len(ask.pieces) for ask in whole]) - FEW_TOKENS)
    samples.add(f"{name} served a piece, µs", each)
    samples.add(f"{name} served, µs", middle(few) - FEW_TOKENS * each)
    samples.add(f"{name} served, first token, ms", middle([ask.first * 1e3 for ask in asked]))
    gaps = [(ask.pieces[-1] - ask.first) / max(1, len(ask.pieces) - 1) for ask in whole]
    samples.add(f"{name} served, ms a token", middle(gaps) * 1e3)


def question(words: int, tokens_max: int = TOKENS_MAX, *, model: str = TINY) -> dict[str, Any]:
    """Return what a description asks with so many words."""
    spec = AskSpec(at=0.0, node="calibration", model=model, words=words, tokens_max=tokens_max)
    return {**body_of(spec), "temperature": 0}


def _another(words: int) -> dict[str, Any]:
    """Return a question of which the model has not seen the beginning."""
    return {**question(words, FEW_TOKENS), "messages": [{"role": "user", "content": urandom(4).hex()}]}
