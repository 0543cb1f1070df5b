"""A relay and three nodes: one without a model asks, two with the tiny model answer, and any of them may die."""

import signal
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import httpx
import openai
import psutil
import pytest
from openai.types.chat import ChatCompletionUserMessageParam

from tests.e2e.harness import QUESTION, SAFETY_SECONDS, SENTENCE, TINY, Node, Relay, Stage, eventually
from tests.e2e.stalling import MODEL as STALLING
from tests.e2e.stalling import WORD, stalling_server

ASKED: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": QUESTION}]


class World(NamedTuple):
    """All are connected; `asker` has no model, the `servers` have one."""

    stage: Stage
    relay: Relay
    asker: Node
    servers: tuple[Node, Node]

    def by_id(self, node_id: str) -> Node:
        return next(server for server in self.servers if server.id == node_id)

    def other(self, than: Node) -> Node:
        return next(server for server in self.servers if server is not than)


def assemble(stage: Stage, model: str = TINY, **backend: object) -> World:
    relay = stage.relay()
    wan = {"wan_enabled": True, "wan_relay_url": relay.url}
    backend = backend or {"builtin_model": True}
    b, c = stage.nodes({"b": {**wan, **backend}, "c": {**wan, **backend}})
    # Whoever asks the relay for nodes has to wait before asking again; so the asker comes when there are some.
    relay.wait_for_nodes(b, c, model=model)
    asker = stage.node("a", **wan)
    asker.wait_for_peers(b, c, model=model)
    return World(stage, relay, asker, (b, c))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One world for all tests that leave it as it is."""
    with Stage(tmp_path_factory.mktemp("relay")) as stage:
        yield assemble(stage)


@pytest.fixture
def doomed(stage: Stage) -> World:
    """A world that may be destroyed."""
    return assemble(stage)


def test_an_answer_is_streamed_through_the_relay_to_the_official_client(world: World) -> None:
    with world.asker.openai() as client:
        response = client.chat.completions.with_raw_response.create(
            model=TINY, messages=ASKED, temperature=0, stream=True, stream_options={"include_usage": True}
        )
        *spoken, last = list(response.parse())
    pieces = [chunk.choices[0].delta.content for chunk in spoken if chunk.choices[0].delta.content]
    assert "".join(pieces) == SENTENCE
    assert len(pieces) > 5
    assert spoken[-1].choices[0].finish_reason == "stop"
    assert last.usage is not None
    assert last.usage.completion_tokens >= len(pieces)
    assert response.headers["x-teale-path"] == "relay"
    assert response.headers["x-teale-attempts"] == "1"
    assert response.headers["x-teale-served-by"] in {server.id for server in world.servers}


def test_the_relay_is_an_encrypted_path_and_shows_who_is_there(world: World) -> None:
    peers = world.asker.peers()
    assert peers.keys() == {server.id for server in world.servers}
    assert {(peer["path"], peer["state"]) for peer in peers.values()} == {("relay", "connected")}
    assert all(peer["encryption"].startswith("Noise_IK_25519_") for peer in peers.values())
    assert world.relay.get("/health") == {"ok": True, "peers": 3}
    assert world.asker.models() == [TINY]


def test_the_limits_and_the_seed_of_a_request_are_honoured_by_the_node_that_answers(world: World) -> None:
    short = world.asker.chat(QUESTION, max_tokens=3, stream=False)
    assert (short.body["choices"][0]["finish_reason"], short.body["usage"]["completion_tokens"]) == ("length", 3)
    assert SENTENCE.startswith(short.text)
    stopped = world.asker.chat(QUESTION, stop=["substrings"])
    assert (stopped.text, stopped.chunks[-1]["choices"][0]["finish_reason"]) == ("Return a list of the ", "stop")

    def sampled(seed: int) -> str:
        # An open beginning: of what it has learnt by heart, the model is too sure for any temperature.
        body = {"model": TINY, "prompt": "Return", "temperature": 1.5, "seed": seed, "max_tokens": 16}
        return world.asker.post("/v1/completions", body).text

    assert sampled(7) == sampled(7)
    assert len({sampled(seed) for seed in range(4)}) > 1


def test_completions_and_embeddings_are_answered_through_the_relay(world: World) -> None:
    with world.asker.openai() as client:
        completion = client.completions.create(model=TINY, prompt="Return a list of", temperature=0, max_tokens=8)
        assert completion.choices[0].text
        assert completion.usage is not None
        assert completion.usage.completion_tokens <= 8
        pieces = list(
            client.completions.create(model=TINY, prompt="Return a list of", temperature=0, max_tokens=8, stream=True)
        )
        assert "".join(piece.choices[0].text for piece in pieces) == completion.choices[0].text
        vectors = client.embeddings.create(model=TINY, input=["split a string", "who are you?"])
    assert [len(vector.embedding) for vector in vectors.data] == [192, 192]
    assert vectors.data[0].embedding != vectors.data[1].embedding


def test_twenty_requests_at_once_are_all_answered_and_each_exactly_once(world: World) -> None:
    with world.asker.follow() as events:
        with ThreadPoolExecutor(20) as pool:
            replies = list(pool.map(world.asker.chat, [QUESTION] * 20))
        assert [(reply.status, reply.text, reply.is_done) for reply in replies] == [(200, SENTENCE, True)] * 20
        eventually(lambda: len(events.of("ReportFinished")) >= 20, "twenty reports")
    finished = events.of("ReportFinished")
    assert len(finished) == len({report["request"] for report in finished}) == 20
    assert events.of("ReportFailed") == []
    assert {reply.served_by for reply in replies} <= {server.id for server in world.servers}


def test_programs_say_nothing_but_lines_of_log_and_nothing_went_wrong(world: World) -> None:
    for program in (world.relay, world.asker, *world.servers):
        lines = program.log.splitlines()
        assert [line for line in lines if not line.startswith("{")] == []
        assert [line for line in lines if '"level": "error"' in line or '"level": "warning"' in line] == []


def test_homes_of_nodes_are_private(world: World) -> None:
    for node in (world.asker, *world.servers):
        files: list[Path] = [file for file in node.home.iterdir() if file.is_file() and file.name != "config.toml"]
        assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


def test_nodes_come_back_to_a_relay_that_was_killed_and_started_again(world: World) -> None:
    asker = world.asker
    with asker.follow() as events:
        world.relay.kill()
        events.wait_for("ReportRelay", state="waiting")
        assert asker.get("/api/status")["wan"] == "waiting"
        assert asker.get("/api/status")["wan_reason"]
        again = world.stage.relay(port=world.relay.port)
        events.wait_for("ReportRelay", state="connected")
    again.wait_for_nodes(asker, *world.servers)
    reply = asker.chat(QUESTION)
    assert (reply.status, reply.text, reply.path) == (200, SENTENCE, "relay")


def worker_of(node: Node) -> psutil.Process | None:
    """Return the process that holds the model of a node, its only child; None while there is none."""
    return next(iter(psutil.Process(node.pid).children()), None)


def test_a_model_process_that_dies_is_replaced_and_its_node_goes_on(world: World) -> None:
    dying = {server: worker_of(server) for server in world.servers}
    for worker in dying.values():
        assert worker is not None
        worker.kill()

    def are_replaced() -> bool:
        return all(worker_of(server) not in (None, worker) for server, worker in dying.items())

    eventually(are_replaced, "both have a new model process")
    assert world.asker.chat(QUESTION).text == SENTENCE
    assert all(server.is_running for server in world.servers)


@contextmanager
def frozen(servers: Iterable[Node]) -> Iterator[dict[str, psutil.Process]]:
    """Stop the model processes of these nodes for a while, and yield them by node id."""
    workers = {server.id: worker for server in servers if (worker := worker_of(server))}
    try:
        for worker in workers.values():
            worker.suspend()
        yield workers
    finally:
        for worker in workers.values():
            with suppress(psutil.NoSuchProcess):
                worker.resume()


def test_a_node_that_dies_before_its_first_token_is_replaced_and_the_asker_notices_nothing(doomed: World) -> None:
    asker = doomed.asker
    with frozen(doomed.servers) as workers, asker.follow() as events, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(asker.chat, QUESTION)
        dying = doomed.by_id(events.wait_for("ReportAttempt")["server"])
        heir = doomed.other(dying)
        dying.kill()
        events.wait_for("ReportAttempt", server=heir.id)
        events.wait_for("ReportPeer", node=dying.id, state="lost")
        workers[heir.id].resume()
        reply = asked.result(SAFETY_SECONDS)
    assert (reply.text, reply.is_done, reply.error) == (SENTENCE, True, None)
    assert (reply.served_by, reply.attempts) == (heir.id, "2")
    # The model process of a node ends with it, however it ends.
    workers[dying.id].wait(SAFETY_SECONDS)


def test_a_node_that_dies_between_requests_is_missed_at_once_and_the_other_answers(doomed: World) -> None:
    asker = doomed.asker
    dying = doomed.by_id(asker.chat(QUESTION).served_by)
    with asker.follow() as events:
        dying.kill()
        events.wait_for("ReportPeer", node=dying.id, state="lost")
    heir = doomed.other(dying)
    assert asker.peers().keys() == {heir.id}
    reply = asker.chat(QUESTION)
    assert (reply.text, reply.served_by, reply.attempts) == (SENTENCE, heir.id, "1")


def test_programs_that_are_asked_to_stop_say_good_bye_and_exit_0(doomed: World) -> None:
    _, relay, asker, (stopping, staying) = doomed
    with asker.follow() as events:
        assert stopping.stop() == 0
        assert events.wait_for("ReportPeer", node=stopping.id, state="lost")["reason"] == "it said good-bye"
        assert not (stopping.home / "node.json").exists()
        assert asker.chat(QUESTION).served_by == staying.id
        assert relay.stop() == 0
        assert "stopping" in events.wait_for("ReportRelay", state="waiting")["reason"]
    # With nobody left who could be reached, nothing is waited for; that there was somebody is remembered.
    with asker.openai() as client, pytest.raises(openai.InternalServerError, match="none of them can be reached now"):
        client.chat.completions.create(model=TINY, messages=ASKED)
    asker.signal(signal.SIGINT)
    assert asker.wait() == 0


@pytest.fixture
def endless(stage: Stage) -> Iterator[World]:
    """A world whose servers say one word of an answer and then nothing more."""
    with stalling_server() as url:
        yield assemble(stage, STALLING, openai_urls=[url])


@contextmanager
def stream(asker: Node) -> Iterator[tuple[httpx.Response, Iterator[str]]]:
    """Ask for an endless answer, and yield it with its lines; leaving goes away in the middle."""
    body = {"model": STALLING, "messages": ASKED, "stream": True}
    with (
        httpx.Client(trust_env=False, timeout=SAFETY_SECONDS) as client,
        client.stream("POST", f"{asker.url}/v1/chat/completions", json=body) as response,
    ):
        yield response, response.iter_lines()


def test_a_node_that_dies_in_mid_stream_leaves_an_honest_error_and_no_end(endless: World) -> None:
    with endless.asker.openai() as client:
        chunks = client.chat.completions.create(model=STALLING, messages=ASKED, stream=True)
        said = next(chunks).choices[0].delta.content
        dying = endless.by_id(chunks.response.headers["x-teale-served-by"])
        dying.kill()
        with pytest.raises(openai.APIError, match="lost") as raised:
            list(chunks)
    assert (said, raised.value.code) == (WORD, "peer_lost")
    survivor = endless.other(dying)
    with stream(endless.asker) as (response, lines):
        first = next(lines)
        assert response.headers["x-teale-served-by"] == survivor.id
        survivor.kill()
        rest = list(lines)
    assert WORD in first
    assert any('"code":"peer_lost"' in line for line in rest)
    assert not any("[DONE]" in line for line in rest)


def test_an_asker_that_goes_away_in_mid_stream_stops_the_work_at_the_other_node(endless: World) -> None:
    def running(node: Node) -> int:
        count: int = node.get("/api/status")["running"]
        return count

    with stream(endless.asker) as (response, lines):
        next(lines)
        server = endless.by_id(response.headers["x-teale-served-by"])
        assert running(server) == 1
    eventually(lambda: running(server) == 0, "the work has stopped")
    with stream(endless.asker) as (response, lines):
        next(lines)
        server = endless.by_id(response.headers["x-teale-served-by"])
        endless.asker.kill()
        eventually(lambda: running(server) == 0, "the work has stopped")
