"""Connections of strangers and of peers that break the rules."""

from collections.abc import Iterator

import msgspec
import pytest

from teale_proto.asking import BODY_MAX
from teale_proto.contract import SECOND
from teale_proto.effects import (
    CancelGeneration,
    ReportChunk,
    ReportFailed,
    ReportRefusal,
    ReportUnknown,
)
from teale_proto.inputs import (
    DataReceived,
    Failure,
    GenerationChunk,
)
from teale_proto.peers import SETUP_TIMEOUT, STRANGERS_MAX
from teale_proto.wire.framing import frame
from tests.proto.world import World
from tests.proto.worlds import ask, lan


def test_a_stranger_that_says_nothing_is_shown_the_door() -> None:
    world = lan("a")
    world.inject("a", b"")
    world.run_for(SETUP_TIMEOUT)
    assert world.node("a")._peers._strangers == 0


def test_a_stranger_that_talks_nonsense_is_refused_with_a_reason() -> None:
    world = lan("a")
    world.inject("a", b"GET / HTTP/1.1\r\n\r\n")
    [refusal] = world.of("a", ReportRefusal)
    assert "are allowed" in refusal.reason


def test_of_too_many_strangers_the_oldest_has_had_its_chance() -> None:
    world = lan("a")
    first = world.inject("a", b"\0")
    for _ in range(STRANGERS_MAX - 1):
        world.inject("a", b"\0")
    assert not world.of("a", ReportRefusal)
    world.inject("a", b"\0")
    assert [refusal.connection for refusal in world.of("a", ReportRefusal)] == [first]


def test_without_encryption_nobody_passes_for_a_node_that_has_proved_itself_or_for_this_one() -> None:
    world = World()
    world.add_node("b", 2, lan="home")
    world.add_node("c", 3, lan="home", lan_encrypted=False)
    world.start("c")
    hello = b'{"hello":{"deviceInfo":{"id":"%b","name":"x","hardware":{}},"protocolVersion":1}}'
    world.inject("c", frame(hello % world.id("c").encode()))
    assert "claims to be this node" in world.of("c", ReportRefusal)[0].reason
    world.inject("c", frame(hello % b"not-a-key-but-a-uuid"))
    assert len(world.node("c").peers()) == 1
    assert world.node("c").peers()[0].encryption == "none"


def test_messages_before_the_greeting_and_second_greetings_are_refused() -> None:
    world = World()
    world.add_node("c", 3, lan_encrypted=False)
    world.start("c")
    world.inject("c", frame(b'{"heartbeat":{"deviceID":"x","timestamp":1}}'))
    assert "before the greeting" in world.of("c", ReportRefusal)[0].reason
    hello = frame(b'{"hello":{"deviceInfo":{"id":"u","name":"x","hardware":{}}}}')
    world.inject("c", hello + hello)
    assert "second greeting" in world.of("c", ReportRefusal)[1].reason


def plaintext_peer() -> Iterator[tuple[World, int]]:
    world = World()
    world.add_node("c", 3, lan_encrypted=False, models=("m",))
    world.start("c")
    hello = frame(b'{"hello":{"deviceInfo":{"id":"u","name":"x","hardware":{}}}}')
    yield world, world.inject("c", hello)


@pytest.fixture(name="peer")
def _peer() -> Iterator[tuple[World, int]]:
    yield from plaintext_peer()


def say(world: World, connection: int, message: bytes) -> None:
    world.feed("c", DataReceived(connection, frame(message)))


def test_unknown_kinds_are_reported_once_each_and_not_for_ever(peer: tuple[World, int]) -> None:
    world, connection = peer
    for number in range(40):
        say(world, connection, b'{"novelty%d":{}}' % (number // 2))
    kinds = [report.kind for report in world.of("c", ReportUnknown)]
    assert kinds == [f"novelty{number}" for number in range(16)]
    assert len(world.node("c").peers()) == 1


def test_a_request_id_in_use_is_ignored_and_a_bad_request_is_refused(peer: tuple[World, int]) -> None:
    world, connection = peer
    request = b'{"inferenceRequest":{"requestID":"1","request":{"model":"m"},"streaming":true}}'
    say(world, connection, request)
    say(world, connection, request)
    assert world.node("c").status().running == 1
    assert world.node("c").status().queue_depth == 0
    for body, task in ((b'{"model":7}', b"chat/completions"), (b"[]", b"embeddings"), (b'{"model":"m"}', b"sing")):
        message = b'{"inferenceRequest":{"requestID":"2","request":%b,"streaming":true,"task":"%b"}}' % (body, task)
        say(world, connection, message)
    assert world.node("c").status().queue_depth == 0
    say(world, connection, b'{"inferenceCancel":{"requestID":"1"}}')
    assert world.of("c", CancelGeneration)


def test_peers_cannot_answer_what_they_were_not_asked(peer: tuple[World, int]) -> None:
    world, connection = peer
    world.feed("c", ask())
    for kind in (
        b'{"inferenceChunk":{"requestID":"r.1","chunk":{"evil":1}}}',
        b'{"inferenceComplete":{"requestID":"r.1"}}',
        b'{"inferenceError":{"requestID":"r.1","errorMessage":"no"}}',
    ):
        say(world, connection, kind)
    assert world.node("c").status().asked == 1
    assert not world.of("c", ReportChunk)


def test_questions_about_models_are_answered(peer: tuple[World, int]) -> None:
    world, connection = peer
    say(world, connection, b'{"modelQuery":{"modelID":"m"}}')
    say(world, connection, b'{"loadModel":{"requestID":"1","modelID":"m"}}')
    say(world, connection, b'{"loadModel":{"requestID":"2","modelID":"n"}}')
    kinds = [next(iter(msgspec.json.decode(data[4:]))) for data in world.unheard]
    assert kinds[1:] == ["modelQueryResponse", "modelLoaded", "modelLoadError"]


def test_a_job_that_takes_longer_than_its_asker_allows_is_ended(peer: tuple[World, int]) -> None:
    world, connection = peer
    say(
        world,
        connection,
        b'{"inferenceRequest":{"requestID":"1","request":{"model":"m"},"streaming":true,"timeoutMs":2000}}',
    )
    world.run_for(3 * SECOND)
    assert world.of("c", CancelGeneration)
    assert world.node("c").status().running == 0


def test_a_backend_that_emits_too_much_is_stopped() -> None:
    world = lan("a", serving="a")
    world.feed("a", ask())
    world.feed("a", GenerationChunk(1, b"x" * (BODY_MAX + 1)))
    assert world.of("a", CancelGeneration)
    assert world.of("a", ReportFailed)[0].failure is Failure.UNAVAILABLE
