"""Requests in, answers and honest errors out."""

import msgspec
import pytest
import trio

from teale_io.api import Limits
from teale_proto.effects import Path
from teale_proto.inputs import Failure
from tests.io.api.scripted import (
    CHAT,
    CHAT_STREAM,
    JSON,
    STREAMED,
    Fail,
    Finish,
    ScriptedService,
    Step,
    Try,
    browsing,
    chat_chunk,
    chat_whole,
    data_lines,
)
from tests.io.status import ALICE

CHAT_URL = "/v1/chat/completions"


async def test_the_serving_node_gets_the_request_byte_for_byte() -> None:
    body = b' {"messages" : [{"role":"user","content":"\xc3\xa9"}],\n"x_new": {"deep":[1.50]}, "model":"tiny","n":1} '
    service = ScriptedService(*STREAMED)
    async with browsing(service) as client:
        assert (await client.post(CHAT_URL, content=body, headers=JSON)).status_code == 200
    assert service.asked[0].body == body


REFUSED = """
    /v1/chat/completions | not json                                           | None
    /v1/chat/completions |                                                    | None
    /v1/chat/completions | []                                                 | None
    /v1/chat/completions | {"messages":[{}]}                                  | model
    /v1/chat/completions | {"model":7,"messages":[{}]}                        | model
    /v1/chat/completions | {"model":"","messages":[{}]}                       | model
    /v1/chat/completions | {"model":"m"}                                      | messages
    /v1/chat/completions | {"model":"m","messages":[]}                        | messages
    /v1/chat/completions | {"model":"m","messages":"hi"}                      | messages
    /v1/chat/completions | {"model":"m","messages":[{}],"n":2}                | n
    /v1/chat/completions | {"model":"m","messages":[{}],"stream":"yes"}       | stream
    /v1/chat/completions | {"model":"m","messages":[{}],"stream_options":[]}  | stream_options
    /v1/chat/completions | {"model":"m","messages":[tru]}                     | None
    /v1/completions      | {"model":"m"}                                      | prompt
    /v1/completions      | {"model":"m","prompt":{}}                          | prompt
    /v1/embeddings       | {"model":"m"}                                      | input
    /v1/embeddings       | {"model":"m","input":3}                            | input
"""


async def test_what_cannot_be_routed_is_refused_and_names_the_field() -> None:
    service = ScriptedService()
    async with browsing(service) as client:
        for line in REFUSED.strip().splitlines():
            path, body, param = (cell.strip() for cell in line.split("|"))
            response = await client.post(path, content=body, headers=JSON)
            error = response.json()["error"]
            assert (response.status_code, error["type"], error["code"]) == (
                400,
                "invalid_request_error",
                "invalid_request",
            ), line
            assert str(error["param"]) == param, line
    assert service.asked == []


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m","messages":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
        b'{"model":"m","messages":[{"content":"\xff"}]}',
        b'{"model":"' + b"m" * 257 + b'","messages":[{}]}',
    ],
)
async def test_hostile_requests_are_refused(body: bytes) -> None:
    async with browsing(ScriptedService()) as client:
        assert (await client.post(CHAT_URL, content=body, headers=JSON)).status_code == 400


STATUSES = {
    Failure.MODEL_NOT_LOADED: (404, "model_not_found"),
    Failure.QUEUE_FULL: (429, "queue_full"),
    Failure.UNAVAILABLE: (503, "unavailable"),
    Failure.INTERNAL_ERROR: (502, "internal_error"),
    Failure.TIMEOUT: (504, "timeout"),
    Failure.CANCELLED: (499, "cancelled"),
    Failure.INVALID_REQUEST: (400, "invalid_request"),
    Failure.PEER_LOST: (502, "peer_lost"),
}


@pytest.mark.parametrize("failure", list(Failure))
async def test_every_failure_has_its_status_before_the_first_chunk(failure: Failure) -> None:
    async with browsing(ScriptedService(Try(), Fail(failure, "why"))) as client:
        for body in (CHAT, CHAT_STREAM):
            response = await client.post(CHAT_URL, content=body, headers=JSON)
            error = response.json()["error"]
            assert (response.status_code, error["code"], error["message"]) == (*STATUSES[failure], "why")
            assert response.headers["x-teale-attempts"] == "1"


async def test_an_internal_error_of_our_own_is_ours() -> None:
    async with browsing(ScriptedService(Try(ALICE, Path.LOCAL), Fail(Failure.INTERNAL_ERROR))) as client:
        assert (await client.post(CHAT_URL, content=CHAT, headers=JSON)).status_code == 500


async def test_a_stopping_node_is_unavailable() -> None:
    service = ScriptedService()
    service.stopping = True
    async with browsing(service) as client:
        response = await client.post(CHAT_URL, content=CHAT, headers=JSON)
    assert response.status_code == 503
    assert response.json()["error"]["message"] == "the node is stopping"


async def test_a_failure_after_the_first_chunk_is_an_event_and_no_done_follows() -> None:
    script = (Try(), chat_chunk("Hel"), Fail(Failure.TIMEOUT, "too slow"))
    async with browsing(ScriptedService(*script)) as client:
        response = await client.post(CHAT_URL, content=CHAT_STREAM, headers=JSON)
    assert response.status_code == 200
    first, last = data_lines(response.text)
    assert "Hel" in first
    assert msgspec.json.decode(last)["error"]["code"] == "timeout"


async def test_a_stream_of_an_empty_answer_is_done_at_once() -> None:
    async with browsing(ScriptedService(Try(), Finish())) as client:
        response = await client.post(CHAT_URL, content=CHAT_STREAM, headers=JSON)
    assert (response.status_code, data_lines(response.text)) == (200, ["[DONE]"])
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"


NONSENSE = [
    b"[]",
    b'{"choices":1}',
    b'{"choices":[1]}',
    b'{"error":{"message":"secret of the backend"}}',
    b"{" * 100_000,
    b'{"choices":[{"delta":' + b"[" * 50_000 + b"]" * 50_000 + b"}]}",
    b'{"choices":[' + b",".join([b"{}"] * 200) + b"]}",
]


@pytest.mark.parametrize("chunk", NONSENSE)
async def test_nonsense_from_a_serving_node_is_a_bad_gateway(chunk: bytes) -> None:
    async with browsing(ScriptedService(Try(), chunk, Finish())) as client:
        for body in (CHAT, CHAT_STREAM):
            response = await client.post(CHAT_URL, content=body, headers=JSON)
            assert (response.status_code, response.json()["error"]["code"]) == (502, "internal_error")


async def test_a_chunk_cannot_smuggle_an_event_into_the_stream() -> None:
    chunk = b'{"choices":[{"delta":\n\ndata: [DONE]\n\n{}}]}'
    spaced = b'{"choices":[{"delta":\r\n\r\n{"content":"a\\n\\ndata: [DONE]"}}]}'
    async with browsing(ScriptedService(Try(), spaced, Finish())) as client:
        response = await client.post(CHAT_URL, content=CHAT_STREAM, headers=JSON)
        assert len(data_lines(response.text)) == 2
        assert response.text.endswith("}\n\ndata: [DONE]\n\n")
    async with browsing(ScriptedService(Try(), chunk, Finish())) as client:
        assert (await client.post(CHAT_URL, content=CHAT_STREAM, headers=JSON)).status_code == 502


async def test_an_answer_that_stops_without_being_complete_is_an_error() -> None:
    async with browsing(ScriptedService(Try(), chat_chunk("Hel"))) as client:
        whole = await client.post(CHAT_URL, content=CHAT, headers=JSON)
        stream = await client.post(CHAT_URL, content=CHAT_STREAM, headers=JSON)
    assert whole.status_code == 502
    assert "[DONE]" not in stream.text


@pytest.mark.parametrize(("size", "status"), [(0, 200), (1, 502)])
async def test_a_collected_answer_has_a_greatest_length(size: int, status: int) -> None:
    whole = chat_whole("Hello")
    script: tuple[Step, ...] = (Try(), whole, Finish())
    limits = Limits(answer_bytes_max=len(whole) - size)
    async with browsing(ScriptedService(*script), limits) as client:
        assert (await client.post(CHAT_URL, content=CHAT, headers=JSON)).status_code == status


async def test_an_error_of_our_own_has_openais_shape_and_leaves_the_server_alive(
    caplog: pytest.LogCaptureFixture,
) -> None:
    service = ScriptedService(Try(), ZeroDivisionError())
    async with browsing(service) as client:
        response = await client.post(CHAT_URL, content=CHAT, headers=JSON)
        assert (response.status_code, response.json()["error"]["code"]) == (500, "internal_error")
        assert (await client.get("/health")).status_code == 200
    assert "ZeroDivisionError" in caplog.text


async def test_chunks_are_sent_as_they_come() -> None:
    go_on = trio.Event()
    service = ScriptedService(Try(), chat_chunk("Hel"), go_on, chat_chunk("lo"), Finish())
    async with (
        browsing(service) as client,
        client.stream("POST", CHAT_URL, content=CHAT_STREAM, headers=JSON) as response,
    ):
        pieces = response.aiter_text()
        assert "Hel" in await anext(pieces)
        go_on.set()
        assert "[DONE]" in "".join([piece async for piece in pieces])


async def test_wrong_addresses_and_methods_have_openais_shape() -> None:
    async with browsing(ScriptedService()) as client:
        missing = await client.get("/v2/nothing")
        slashed = await client.get("/v1/models/")
        wrong = await client.get(CHAT_URL)
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")
    assert (slashed.status_code, slashed.json()["error"]["code"]) == (404, "model_not_found")
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (405, "method_not_allowed")
    assert wrong.headers["allow"] == "POST"
