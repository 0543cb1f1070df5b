"""The attendant as an ASGI layer, without a server: what it gives the application, and when it lets go."""

from typing import Any

import pytest
import trio
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from teale_io.api.attendant import Attendant
from teale_io.api.errors import Problem
from teale_io.api.limits import Limits
from tests.io.api.scripted import SOON

SCOPE: dict[str, Any] = {"type": "http", "method": "POST", "path": "/", "headers": []}
GONE: Message = {"type": "http.disconnect"}


def body(data: bytes, *, more: bool = False) -> Message:
    return {"type": "http.request", "body": data, "more_body": more}


async def exchange(app: ASGIApp, *messages: Message | None, limits: Limits | None = None) -> list[Message]:
    """Run `app` for a client that sends `messages` and then nothing; return what it was sent.

    Where None stands among the messages, the client waits for the first piece of the answer's body.
    """
    sent: list[Message] = []
    arriving = iter(messages)
    answered = trio.Event()

    async def receive() -> Message:
        await trio.lowlevel.checkpoint()
        for message in arriving:
            if message is None:
                await answered.wait()
            else:
                return message
        await trio.sleep_forever()
        raise AssertionError

    async def send(message: Message) -> None:
        await trio.lowlevel.checkpoint()
        sent.append(message)
        if message["type"] == "http.response.body":
            answered.set()

    with trio.fail_after(SOON):
        await Attendant(app, limits=limits or Limits())(dict(SCOPE), receive, send)
    return sent


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    try:
        data = await Request(scope, receive).body()
    except Problem as problem:
        await problem.response()(scope, receive, send)
    else:
        await PlainTextResponse(data)(scope, receive, send)


async def wait_for_ever(scope: Scope, receive: Receive, send: Send) -> None:
    await trio.sleep_forever()


async def test_the_body_comes_in_one_piece() -> None:
    start, end = await exchange(echo, body(b"ab", more=True), body(b"", more=True), body(b"c"))
    assert (start["status"], end["body"]) == (200, b"abc")


async def test_a_client_that_goes_cancels_the_application() -> None:
    assert await exchange(wait_for_ever, body(b"a"), GONE) == []
    assert await exchange(wait_for_ever, body(b"a", more=True), GONE) == []
    assert await exchange(echo, GONE) == []


async def test_a_client_that_goes_after_the_answer_cancels_nothing() -> None:
    tidied: list[Message] = []

    async def tidy(scope: Scope, receive: Receive, send: Send) -> None:
        await echo(scope, receive, send)
        tidied.append(await receive())
        await trio.lowlevel.checkpoint()
        tidied.append(await receive())

    start, _ = await exchange(tidy, body(b"a"), None, GONE)
    assert start["status"] == 200
    assert tidied == [GONE, GONE]


@pytest.mark.parametrize(("data", "status"), [(b"abc", 200), (b"abcd", 413)])
async def test_a_body_beyond_the_limit_is_refused_once_it_has_arrived(data: bytes, status: int) -> None:
    start, *_ = await exchange(
        echo, body(data[:2], more=True), body(data[2:], more=True), body(b""), limits=Limits(body_bytes_max=3)
    )
    assert start["status"] == status


async def test_the_answer_to_an_unfinished_request_ends_after_the_request() -> None:
    start, refusal, end = await exchange(
        echo, body(b"abcd", more=True), None, body(b"efgh", more=True), body(b"i"), limits=Limits(body_bytes_max=3)
    )
    assert start["status"] == 413
    assert refusal["more_body"]
    assert end["body"] == b""
    assert not end.get("more_body", False)


async def test_an_answer_that_breaks_off_is_left_without_an_end(caplog: pytest.LogCaptureFixture) -> None:
    async def break_off(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ZeroDivisionError

    [start] = await exchange(break_off, body(b""))
    assert start["status"] == 200
    assert "ZeroDivisionError" in caplog.text


async def test_what_is_not_http_passes() -> None:
    seen: list[str] = []

    async def note(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    async def receive() -> Message:
        raise AssertionError

    async def send(message: Message) -> None:
        raise AssertionError

    await Attendant(note, limits=Limits())({"type": "lifespan"}, receive, send)
    assert seen == ["lifespan"]
