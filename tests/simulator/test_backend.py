"""Inference as a cost model."""

from itertools import pairwise

import msgspec
import pytest
from msgspec.structs import replace

from simulator.backend import ANSWER_MARKER, CostModel, GenerationInput, SimulatedBackend, unread_tokens
from simulator.engine import Engine
from simulator.rng import stream
from teale_proto.contract import MILLISECOND, SECOND, Instant
from teale_proto.effects import StartGeneration
from teale_proto.inputs import Failure, GenerationChunk, GenerationFailed, GenerationFinished, Task

EXACT = CostModel(
    prefill_tokens_per_second=1000, tokens_per_second=50, jitter=0, tokens_min=3, tokens_max=3, failure_chance=0
)
BODY = bytes(400)


def generate(
    cost: CostModel, effect: StartGeneration, *, models: tuple[str, ...] = ("m",), seed: int = 1
) -> list[tuple[Instant, GenerationInput]]:
    engine = Engine()
    heard: list[tuple[Instant, GenerationInput]] = []
    backend = SimulatedBackend(
        engine, stream(seed, "a", "backend"), cost, lambda event: heard.append((engine.now, event))
    )
    backend.models = models
    backend.start(effect)
    assert heard == []
    engine.run_until(100 * SECOND)
    return heard


def start(task: Task = Task.CHAT, *, streaming: bool = True) -> StartGeneration:
    return StartGeneration(7, task, "m", BODY, streaming)


def test_the_prompt_is_read_first_and_then_one_token_comes_after_the_other() -> None:
    heard = generate(EXACT, start())
    # 100 tokens at 1000 a second, then one each 20 ms.
    assert [at // MILLISECOND for at, _ in heard] == [100, 120, 140, 160, 160]
    assert heard[-1][1] == GenerationFinished(7, 100, 3)


def test_chat_chunks_have_the_shape_of_openai() -> None:
    chunks = [
        msgspec.json.decode(event.chunk) for _, event in generate(EXACT, start()) if isinstance(event, GenerationChunk)
    ]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas == [
        {"role": "assistant", "content": f"{ANSWER_MARKER}-1 "},
        {"content": f"{ANSWER_MARKER}-2 "},
        {"content": f"{ANSWER_MARKER}-3 "},
        {},
    ]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, None, "stop"]


@pytest.mark.parametrize(
    ("task", "kind"),
    [(Task.CHAT, "chat.completion"), (Task.COMPLETION, "text_completion"), (Task.EMBEDDING, "list")],
)
def test_without_streaming_one_whole_answer_comes_at_the_end(task: Task, kind: str) -> None:
    (_, chunk), (_, finished) = generate(EXACT, start(task, streaming=False))
    assert isinstance(chunk, GenerationChunk)
    answer = msgspec.json.decode(chunk.chunk)
    assert answer["object"] == kind
    assert answer["usage"]["prompt_tokens"] == 100
    if task is not Task.EMBEDDING:
        assert chunk.chunk.count(ANSWER_MARKER.encode()) == 3
    assert isinstance(finished, GenerationFinished)


def test_completions_stream_text() -> None:
    (_, first), *_ = generate(EXACT, start(Task.COMPLETION))
    assert isinstance(first, GenerationChunk)
    assert msgspec.json.decode(first.chunk)["choices"][0]["text"] == f"{ANSWER_MARKER}-1 "


def test_times_follow_from_the_seed_and_stay_near_the_mean() -> None:
    cost = CostModel(tokens_per_second=50, jitter=0.2, tokens_min=200, tokens_max=200)
    one, same, other = (generate(cost, start(), seed=seed) for seed in (1, 1, 2))
    assert one == same != other
    times = [at for at, _ in one][:-1]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert min(gaps) >= 16 * MILLISECOND
    assert max(gaps) <= 24 * MILLISECOND


def test_a_failure_is_the_last_word() -> None:
    heard = generate(CostModel(failure_chance=1.0), start())
    assert isinstance(heard[-1][1], GenerationFailed)
    assert heard[-1][1].failure is Failure.INTERNAL_ERROR
    assert all(isinstance(event, GenerationChunk) for _, event in heard[:-1])


def test_a_model_that_is_not_there_fails() -> None:
    ((_, failed),) = generate(EXACT, start(), models=("other",))
    assert failed == GenerationFailed(7, Failure.MODEL_NOT_LOADED, "the model is not loaded")


def test_a_cancelled_job_says_nothing_more_even_if_its_number_is_used_again() -> None:
    engine = Engine()
    heard: list[tuple[Instant, GenerationInput]] = []
    backend = SimulatedBackend(engine, stream(1, "a", "b"), EXACT, lambda event: heard.append((engine.now, event)))
    backend.models = ("m",)
    backend.start(start())
    engine.run_until(110 * MILLISECOND)
    backend.cancel(7)
    backend.start(start())
    engine.run_until(SECOND)
    assert [at // MILLISECOND for at, _ in heard] == [100, 210, 230, 250, 270, 270]
    backend.start(start())
    backend.clear()
    engine.run_until(2 * SECOND)
    assert len(heard) == 6


def test_what_begins_late_and_what_a_prompt_has_in_common_with_the_one_before_are_known() -> None:
    cost = replace(EXACT, begins_after=0.25, remembers_prompt=True)
    engine = Engine()
    firsts: list[Instant] = []
    backend = SimulatedBackend(
        engine, stream(1, "a", "backend"), cost, lambda event: firsts.append(engine.now) if event.job else None
    )
    backend.models = ("m",)
    taken = []
    for body in (b"a" * 400, b"a" * 400, b"a" * 200 + b"b" * 200):
        firsts.clear()
        began = engine.now
        backend.start(StartGeneration(7, Task.CHAT, "m", body, True))
        engine.run_until(began + 10 * SECOND)
        taken.append(firsts[0] - began)
    # 100 tokens to read, then none, then half of them: a millisecond each.
    assert taken == [350 * MILLISECOND, 250 * MILLISECOND, 300 * MILLISECOND]
    assert unread_tokens(b"abcd" * 10, b"abcd" * 4 + b"x") == 6
    backend.clear()
    backend.start(StartGeneration(8, Task.CHAT, "m", b"a" * 400, True))
    firsts.clear()
    began = engine.now
    engine.run_until(began + 10 * SECOND)
    assert firsts[0] - began == 350 * MILLISECOND


def test_the_beginning_lies_within_its_spread_and_differs() -> None:
    cost = replace(EXACT, begins_after=0.2, begins_spread=0.1)
    firsts = {generate(cost, start(), seed=seed)[0][0] for seed in range(20)}
    assert len(firsts) == 20
    assert all(200 * MILLISECOND <= first <= 400 * MILLISECOND for first in firsts)
