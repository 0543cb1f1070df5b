"""What a peer can do that has proved who it is and behaves badly all the same."""

import tracemalloc
from contextlib import suppress
from typing import Any

import msgspec
import pytest

from teale_io.api.answers import read_piece
from teale_io.cli.output import neutral
from teale_proto.asking import ATTEMPTS_MAX
from teale_proto.contract import SECOND
from teale_proto.effects import (
    PeerState,
    ReportAttempt,
    ReportChunk,
    ReportFailed,
    ReportFinished,
    ReportPeer,
    ReportRefusal,
    ReportUnknown,
)
from teale_proto.errors import PeerError
from teale_proto.inputs import Ask, CancelAsk, DataReceived, LoadedModelsChanged, Task
from teale_proto.peer import SPEED_MAX
from teale_proto.wire.cluster import (
    CLUSTER_CODEC,
    Goodbye,
    Heartbeat,
    HeartbeatAck,
    Hello,
    HelloAck,
    InferenceCancel,
    InferenceChunk,
    InferenceComplete,
    InferenceError,
    InferenceRequest,
    LoadModel,
    ModelQuery,
    ModelTransferChunk,
    PasscodeConfirm,
    PasscodeStart,
)
from tests.hostile.puppets import Puppet, is_bounded, question
from tests.proto.world import World, chunk

CHUNK = msgspec.Raw(chunk("evil"))


def met(*, models: tuple[str, ...] = ("m",), bystander: bool = False, **config: Any) -> tuple[World, Puppet]:
    """Return a world in which Mallory, who offers `models`, is a peer of Alice; and Bob, where there is a bystander."""
    world, mallory = World(), Puppet(models=models)
    world.add("m", mallory)
    world.add_node("a", 1, lan="home", **config)
    if bystander:
        world.add_node("b", 2, lan="home", models=("m",))
        world.start("b")
    world.start("a")
    mallory.dial(world, "m", "a")
    assert mallory.node_id in [peer.node_id for peer in world.node("a").peers()]
    return world, mallory


def ask(world: World, request: str = "r", **more: Any) -> None:
    world.feed("a", Ask(request, Task.CHAT, "m", question(1), **more))


def asked(mallory: Puppet) -> str:
    """Return the id of the request that Mallory was asked last."""
    request: InferenceRequest = mallory.of(InferenceRequest)[-1]
    return request.request_id


def test_answers_that_nobody_asked_for_reach_nobody() -> None:
    world, mallory = met(models=())
    ask(world, "waiting")
    for wire_id in ("waiting.1", "waiting.0", "waiting", "r"):
        for message in (InferenceChunk(wire_id, CHUNK), InferenceComplete(wire_id), InferenceError(wire_id, "no")):
            mallory.say(world, "m", message)
    assert world.of("a", ReportChunk) == []
    assert world.of("a", ReportFinished) == []


def test_one_peer_cannot_answer_what_another_was_asked() -> None:
    """Mallory guesses, or was told, the id of a request that Bob is answering; ids are random beside that."""
    world, mallory = met(models=(), bystander=True)
    ask(world)
    [generation] = world.generations["b"]
    for message in (InferenceChunk("r.1", CHUNK), InferenceError("r.1", "no"), InferenceComplete("r.1")):
        mallory.say(world, "m", message)
    assert world.of("a", ReportChunk) == []
    world.answer("b", generation, "true")
    assert [report.chunk for report in world.of("a", ReportChunk)] == [chunk("true")]
    assert [report.server for report in world.of("a", ReportFinished)] == [world.id("b")]


def test_one_peer_cannot_cancel_what_another_asked() -> None:
    world, mallory = met(models=(), bystander=True)
    mallory.dial(world, "m", "b", 3)
    ask(world)
    mallory.say(world, "m", InferenceCancel("r.1"), 3)
    world.answer("b", world.generations["b"][0], "true")
    assert len(world.of("a", ReportFinished)) == 1


def test_words_after_the_end_and_for_cancelled_requests_are_ignored() -> None:
    world, mallory = met()
    ask(world)
    mallory.say(world, "m", InferenceChunk(asked(mallory), CHUNK))
    mallory.say(world, "m", InferenceComplete(asked(mallory)))
    for message in (InferenceChunk("r.1", CHUNK), InferenceComplete("r.1"), InferenceError("r.1", "late")):
        mallory.say(world, "m", message)
    assert len(world.of("a", ReportChunk)) == len(world.of("a", ReportFinished)) == 1
    ask(world, "s")
    world.feed("a", CancelAsk("s"))
    assert mallory.of(InferenceCancel)[-1].request_id == "s.1"
    mallory.say(world, "m", InferenceChunk("s.1", CHUNK))
    assert len(world.of("a", ReportChunk)) == 1
    assert world.of("a", ReportFailed)[0].request == "s"


def test_a_peer_that_refuses_everything_is_asked_once_and_another_answers() -> None:
    world, mallory = met(bystander=True)
    world.answering.add("b")
    for number in range(10):
        ask(world, f"r{number}")
        while len(world.of("a", ReportFinished)) <= number:
            mallory.say(world, "m", InferenceError(asked(mallory), "no", "internal_error"))
    attempts = [report.request for report in world.of("a", ReportAttempt) if report.server == mallory.node_id]
    assert len(attempts) == len(set(attempts))
    assert ATTEMPTS_MAX >= 2


def test_requests_without_end_fill_half_of_a_bounded_queue_and_are_refused_beyond() -> None:
    world, mallory = met(models=())
    world.feed("a", LoadedModelsChanged(("m",)))
    for number in range(1000):
        mallory.say(world, "m", InferenceRequest(f"{number}", msgspec.Raw(question(number)), True))
    status = world.node("a").status()
    assert (status.running, status.queue_depth) == (1, 128)
    assert {error.code for error in mallory.of(InferenceError)} == {"queue_full"}
    assert len(mallory.of(InferenceError)) == 1000 - 129
    # There is room for everybody else, and their turn comes after one job.
    ask(world)
    assert world.node("a").status().queue_depth == 129
    assert is_bounded(world, "a")
    mallory.say(world, "m", Goodbye("done"))
    assert world.node("a").status().running == 1
    assert world.node("a").status().queue_depth == 0


def test_large_requests_fill_a_bounded_number_of_bytes() -> None:
    world, mallory = met(models=())
    world.feed("a", LoadedModelsChanged(("m",)))
    body = msgspec.Raw(b'{"model":"m","messages":["' + b"x" * (6 << 20) + b'"]}')
    for number in range(16):
        mallory.say(world, "m", InferenceRequest(f"{number}", body, True))
    assert world.node("a")._exchange.serving._queued_bytes <= 64 << 20
    assert mallory.of(InferenceError)[-1].code == "queue_full"


FLOODS: dict[str, Any] = {
    "heartbeats": lambda number: Heartbeat("x", float(number), queue_depth=number),
    "acknowledgements": lambda number: HeartbeatAck("x", float(number)),
    "cancellations": lambda number: InferenceCancel(f"{number}"),
    "queries": lambda number: ModelQuery(f"{number}"),
    "loads": lambda number: LoadModel(f"{number}", "m"),
    "chunks": lambda number: InferenceChunk(f"{number}", CHUNK),
    "errors": lambda number: InferenceError(f"{number}", "x" * 4096),
    "transfers": lambda number: ModelTransferChunk(f"{number}", "m", "f", 0, b"x" * 4096, False),
    "heartbeats with many models": lambda number: Heartbeat("x", 0.0, loaded_models=models_of(number)),
}


def models_of(number: int) -> tuple[str, ...]:
    return tuple(f"{number}-{each}".ljust(256, "x") for each in range(256))


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS.keys())
def test_floods_leave_nothing_behind(flood: Any) -> None:
    world, mallory = met(bystander=True)
    node = world.node("a")
    link = mallory.links[1]
    connection = next(c.handle for c in node._peers._conversations.values() if c.peer == mallory.node_id)

    def say(numbers: range) -> None:
        for number in numbers:
            pieces: list[bytes] = []
            link.send(flood(number), pieces)
            # Fed directly: the record of a world would grow, and that is not what is measured.
            node.handle(DataReceived(connection, b"".join(pieces)), world.now)  # type: ignore[arg-type]  # a stream's

    say(range(20))
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        say(range(20, 120))
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 200_000
    assert is_bounded(world, "a")
    assert len(node.peers()) == 2


def test_unknown_kinds_without_end_are_told_sixteen_times() -> None:
    world, mallory = met()
    for number in range(500):
        mallory.say_json(world, "m", b'{"novelty%d":{"deep":%b}}' % (number, b"[" * 50 + b"]" * 50))
    assert len(world.of("a", ReportUnknown)) == 16
    assert len(world.node("a").peers()) == 1


@pytest.mark.parametrize(
    "payload",
    [
        b"not json",
        b'{"inferenceChunk":{"requestID":"r.1","chunk":{broken}}}',
        b'{"inferenceChunk":{"requestID":"r.1","chunk":' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
        b'{"heartbeat":{"deviceID":"x","timestamp":0,"throttleLevel":101}}',
        b'{"heartbeat":{"deviceID":"x","timestamp":0,"loadedModels":[' + b'"m",' * 300 + b'"m"]}}',
        b'{"hello":{"deviceInfo":{"id":"x","name":"x","hardware":{}}}}',
        b'{"type":"heartbeat","payload":7}',
    ],
    ids=["text", "broken chunk", "deep chunk", "out of range", "too many models", "second greeting", "no object"],
)
def test_a_message_that_breaks_the_rules_ends_the_conversation_and_not_the_request(payload: bytes) -> None:
    world, mallory = met(bystander=True)
    world.answering.add("b")
    ask(world)
    mallory.say_json(world, "m", payload)
    assert mallory.closed
    assert world.of("a", ReportRefusal)
    if not world.of("a", ReportFinished):
        ask(world, "again")
    assert world.of("a", ReportFinished)[-1].server == world.id("b")


@pytest.mark.parametrize(
    "piece",
    [b"7", b"null", b"[]", b'"text"', b'{"error":{"message":"no"}}', b'{"choices":7}', b'{"choices":[7]}', b"{}"],
)
def test_a_piece_that_is_no_answer_passes_the_node_and_stops_at_the_api(piece: bytes) -> None:
    world, mallory = met()
    ask(world)
    mallory.say(world, "m", InferenceChunk(asked(mallory), msgspec.Raw(piece)))
    [report] = world.of("a", ReportChunk)
    with pytest.raises(PeerError):
        read_piece(report.chunk)


def test_a_piece_that_is_nested_too_deeply_stops_at_the_api() -> None:
    """Just below what the codec itself refuses, so that it reaches whoever reads the answer."""
    deep = b'{"choices":[' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"]}"
    with suppress(PeerError):
        assert read_piece(deep).choices


def test_an_answer_that_never_ends_ends_with_the_time_allowed() -> None:
    world, mallory = met()
    ask(world, timeout=30 * SECOND)
    for second in range(40):
        mallory.say(world, "m", InferenceChunk("r.1", CHUNK))
        mallory.say(world, "m", Heartbeat("x", float(second)))
        world.run_for(1 * SECOND)
    assert [report.failure.value for report in world.of("a", ReportFailed)] == ["timeout"]
    assert mallory.of(InferenceCancel)
    assert len(world.of("a", ReportChunk)) <= 31


def test_a_peer_that_only_heartbeats_and_never_answers_costs_the_time_allowed() -> None:
    world, mallory = met()
    ask(world, timeout=30 * SECOND)
    for second in range(40):
        mallory.say(world, "m", HeartbeatAck("x", float(second)))
        world.run_for(1 * SECOND)
    assert [report.request for report in world.of("a", ReportFailed)] == ["r"]


def test_what_a_peer_says_of_its_failure_cannot_steer_a_terminal() -> None:
    world, mallory = met()
    ask(world)
    evil = "\x1b]0;owned\x07\x1b[2J\u202efdp.exe\r\nINFO all is well"
    mallory.say(world, "m", InferenceError(asked(mallory), evil, "invalid_request"))
    [failed] = world.of("a", ReportFailed)
    shown = neutral(failed.message, multiline=True)
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert "\x07" not in shown


LIES: dict[str, dict[str, Any]] = {
    "infinitely fast": {"ewma_tokens_per_second": 1.7e308},
    "infinitely fast and too hot": {"ewma_tokens_per_second": 1.7e308, "thermal_level": "critical"},
    "a queue beyond measure": {"queue_depth": 2**53},
    "never throttled": {"throttle_level": 100, "thermal_level": "a heat of its own"},
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_lies_about_load_draw_requests_or_lose_them_and_break_nothing(lie: dict[str, Any]) -> None:
    world, mallory = met(bystander=True)
    world.answering.add("b")
    mallory.say(world, "m", Heartbeat("x", 0.0, loaded_models=("m",), **lie))
    explanation = world.node("a").explain("m", world.rng)
    # All of it can be told as JSON: no infinities, and nothing that is no number.
    told = msgspec.json.decode(msgspec.json.encode(explanation))
    assert all(isinstance(candidate["score"], float | int) for candidate in told["candidates"])
    assert all((peer.tokens_per_second or 0) <= SPEED_MAX for peer in world.node("a").peers())
    ask(world, timeout=10 * SECOND)
    world.run_for(11 * SECOND)
    assert len(world.of("a", ReportFinished)) + len(world.of("a", ReportFailed)) == 1


def test_a_peer_that_goes_and_comes_without_end_leaves_nothing_behind() -> None:
    world, mallory = met(bystander=True)
    for number in range(100):
        mallory.say(world, "m", Goodbye("back soon"), 1 + 2 * number)
        mallory.dial(world, "m", "a", 3 + 2 * number)
    assert len(world.node("a").peers()) == 2
    assert is_bounded(world, "a")
    states = [report.state for report in world.of("a", ReportPeer) if report.node == mallory.node_id]
    assert states.count(PeerState.CONNECTED) == states.count(PeerState.LOST) + 1


def test_every_message_of_the_protocol_is_survived_from_a_peer_that_has_greeted() -> None:
    """One of each, with the least that it may hold, to a node that expects none of them."""
    world, mallory = met()
    greetings = (Hello, HelloAck, PasscodeStart, PasscodeConfirm, Goodbye)
    samples = [msgspec.convert(_least(kind), kind) for kind in CLUSTER_CODEC.kinds if kind not in greetings]
    for message in samples:
        mallory.say(world, "m", message)
    assert len(world.node("a").peers()) == 1
    assert len(samples) == len(CLUSTER_CODEC.kinds) - len(greetings)


def _least(kind: type[Any]) -> dict[str, Any]:
    """Return the required fields of a message, filled with something."""
    values: dict[Any, Any] = {str: "00", float: 0.0, bool: False, int: 0, bytes: b"", msgspec.Raw: msgspec.Raw(b"{}")}
    filled: dict[str, Any] = {}
    for field in msgspec.structs.fields(kind):
        if field.required:
            plain = getattr(field.type, "__origin__", field.type)
            filled[field.encode_name] = values.get(plain, "00")
    return filled
