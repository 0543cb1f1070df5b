"""A model server as a cost model: it takes the time that inference would take and invents the words.

Reading the prompt takes `tokens_in / prefill_rate`, then one token comes after the other. The text is a marker
repeated, so that a checker can recognise an answer wherever it turns up in plain.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, TypeAlias

import msgspec

from simulator.rng import SplitMix64, lognormal
from simulator.spec.units import COUNT_MAX, Chance, Positive, Seconds, Several, Sigma, microseconds
from teale_proto.contract import SECOND, Duration, Instant, Value
from teale_proto.effects import StartGeneration
from teale_proto.inputs import Failure, GenerationChunk, GenerationFailed, GenerationFinished, JobId, Task

ANSWER_MARKER: Final = "simulated-answer-word"
"""What every token of every answer contains; no character of it is escaped in JSON."""

CHARACTERS_PER_TOKEN: Final = 4

TOKENS_MAX: Final = COUNT_MAX
"""Of one answer, however long somebody would like it."""

GenerationInput: TypeAlias = GenerationChunk | GenerationFinished | GenerationFailed


class CostModel(Value, forbid_unknown_fields=True):
    """How long inference takes, how long answers are, and how often it fails."""

    prefill_tokens_per_second: Positive = 1500.0
    tokens_per_second: Positive = 40.0
    jitter: Chance = 0.2
    """How much a token's time deviates at most, as a share of it."""
    tokens_min: Several = 8
    tokens_max: Several = 64
    tokens_median: Positive | None = None
    """Answers are lognormal about this many tokens, cut off at both ends; None draws evenly between the ends."""
    tokens_sigma: Sigma = 0.6
    failure_chance: Chance = 0.0
    """The chance that a request fails, at a token that is drawn too."""
    begins_after: Seconds = 0.0
    """What passes before the first token, besides the reading of the prompt."""
    begins_spread: Seconds = 0.0
    """By how much that is more or less; drawn evenly."""
    remembers_prompt: bool = False
    """Whether what a request has in common with the beginning of the one before is not read again."""

    def __post_init__(self) -> None:
        if self.tokens_max < self.tokens_min:
            raise ValueError("`tokens_max` is not below `tokens_min`")


class _Limits(Value):
    """The part of a request that says how long its answer may be."""

    max_tokens: int | None = None


class _Job:
    __slots__ = ("effect", "fails_at", "produced", "tokens_in", "tokens_out")

    def __init__(self, effect: StartGeneration, tokens_out: int, fails_at: int | None) -> None:
        self.effect = effect
        self.tokens_in = max(1, len(effect.body) // CHARACTERS_PER_TOKEN)
        self.tokens_out = tokens_out
        self.fails_at = fails_at
        self.produced = 0


class Timeline(Protocol):
    """Whatever has a present instant, and does things later: the engine of a simulation, or the clock on the wall."""

    @property
    def now(self) -> Instant:
        """The present instant."""

    def call_at(self, at: Instant, call: Callable[..., object], *arguments: Any) -> None:
        """Have something called at an instant, after all that was to happen at it already."""


class SimulatedBackend:
    """Answers StartGeneration; `deliver` gets the inputs that a real backend's driver would make of it."""

    __slots__ = ("_cost", "_deliver", "_engine", "_jobs", "_read", "_rng", "models")

    def __init__(
        self, engine: Timeline, rng: SplitMix64, cost: CostModel, deliver: Callable[[GenerationInput], None]
    ) -> None:
        self._engine = engine
        self._rng = rng
        self._cost = cost
        self._deliver = deliver
        self._jobs: dict[JobId, _Job] = {}
        self._read = b""
        self.models: Sequence[str] = ()

    def start(self, effect: StartGeneration) -> None:
        """Begin to answer; everything else happens later."""
        cost, rng = self._cost, self._rng
        tokens_out = min(_tokens_out(cost, rng), _wanted(effect))
        fails_at = rng.randrange(tokens_out) if rng.random() < cost.failure_chance else None
        job = self._jobs[effect.job] = _Job(effect, tokens_out, fails_at)
        reading = round(self._unread(job) * SECOND / cost.prefill_tokens_per_second)
        self._after(self._beginning() + reading, job)

    def cancel(self, job: JobId) -> None:
        """Say nothing more about a job."""
        self._jobs.pop(job, None)

    def clear(self) -> None:
        """Drop all jobs, and what was read: the host died."""
        self._jobs.clear()
        self._read = b""

    def _beginning(self) -> Duration:
        cost = self._cost
        if not cost.begins_spread:
            return microseconds(cost.begins_after)
        spread = cost.begins_spread * (2 * self._rng.random() - 1)
        return microseconds(max(0.0, cost.begins_after + spread))

    def _unread(self, job: _Job) -> float:
        """Return how many tokens of a request must be read, and remember that they were."""
        if not self._cost.remembers_prompt:
            return job.tokens_in
        unread, self._read = unread_tokens(job.effect.body, self._read), job.effect.body
        return unread

    def _after(self, delay: Duration, job: _Job) -> None:
        self._engine.call_at(self._engine.now + delay, self._advance, job)

    def _advance(self, job: _Job) -> None:
        effect = job.effect
        # The same object: a host that was restarted may have given the number to another job.
        if self._jobs.get(effect.job) is not job:
            return
        if effect.model not in self.models:
            self._fail(job, Failure.MODEL_NOT_LOADED, "the model is not loaded")
        elif job.produced == job.fails_at:
            self._fail(job, Failure.INTERNAL_ERROR, "the simulated backend failed")
        elif job.produced == job.tokens_out or effect.task is Task.EMBEDDING:
            self._finish(job)
        else:
            job.produced += 1
            if effect.streaming:
                self._deliver(GenerationChunk(effect.job, _chunk(effect, job.produced)))
            deviation = 1 + self._cost.jitter * (2 * self._rng.random() - 1)
            self._after(max(1, round(deviation * SECOND / self._cost.tokens_per_second)), job)

    def _finish(self, job: _Job) -> None:
        effect = job.effect
        last = _whole(job) if not effect.streaming or effect.task is Task.EMBEDDING else _chunk(effect, None)
        self._deliver(GenerationChunk(effect.job, last))
        # What was just delivered may have had the job cancelled.
        if self._jobs.pop(effect.job, None) is job:
            self._deliver(GenerationFinished(effect.job, job.tokens_in, job.produced))

    def _fail(self, job: _Job, failure: Failure, message: str) -> None:
        del self._jobs[job.effect.job]
        self._deliver(GenerationFailed(job.effect.job, failure, message))


def _tokens_out(cost: CostModel, rng: SplitMix64) -> int:
    if cost.tokens_median is None:
        return rng.between(cost.tokens_min, cost.tokens_max)
    return min(cost.tokens_max, max(cost.tokens_min, round(lognormal(rng, cost.tokens_median, cost.tokens_sigma))))


def unread_tokens(body: bytes, before: bytes) -> float:
    """Return how many tokens of a request are left to be read where the one before is remembered."""
    pairs = enumerate(zip(body, before, strict=False))
    alike = next((place for place, (one, other) in pairs if one != other), min(len(body), len(before)))
    return (len(body) - alike) / CHARACTERS_PER_TOKEN


def _wanted(effect: StartGeneration) -> int:
    """Return the longest answer that a request allows."""
    try:
        wanted = msgspec.json.decode(effect.body, type=_Limits).max_tokens
    except msgspec.DecodeError:
        wanted = None
    return TOKENS_MAX if wanted is None else max(1, wanted)


def _chunk(effect: StartGeneration, number: int | None) -> bytes:
    """Return the `number`-th streamed piece in the shape of OpenAI's API, or the last one for None."""
    text = "" if number is None else f"{ANSWER_MARKER}-{number} "
    choice: dict[str, Any] = {"index": 0, "finish_reason": "stop" if number is None else None}
    if effect.task is not Task.CHAT:
        return _wrapped(effect, "text_completion", choice | {"text": text})
    delta = {"content": text} if text else {}
    if number == 1:
        delta = {"role": "assistant", **delta}
    return _wrapped(effect, "chat.completion.chunk", choice | {"delta": delta})


def _whole(job: _Job) -> bytes:
    effect = job.effect
    usage = {
        "prompt_tokens": job.tokens_in,
        "completion_tokens": job.produced,
        "total_tokens": job.tokens_in + job.produced,
    }
    if effect.task is Task.EMBEDDING:
        data = [{"object": "embedding", "index": 0, "embedding": [0.5, -0.5]}]
        return msgspec.json.encode({"object": "list", "model": effect.model, "data": data, "usage": usage})
    text = "".join(f"{ANSWER_MARKER}-{number} " for number in range(1, job.produced + 1))
    choice: dict[str, Any] = {"index": 0, "finish_reason": "stop"}
    if effect.task is not Task.CHAT:
        return _wrapped(effect, "text_completion", choice | {"text": text}, usage=usage)
    message = {"role": "assistant", "content": text}
    return _wrapped(effect, "chat.completion", choice | {"message": message}, usage=usage)


def _wrapped(effect: StartGeneration, kind: str, choice: dict[str, Any], **more: object) -> bytes:
    answer = {"id": f"sim-{effect.job}", "object": kind, "created": 0, "model": effect.model, "choices": [choice]}
    return msgspec.json.encode(answer | more)
