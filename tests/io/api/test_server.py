"""The server under clients that misbehave: raw sockets, and the whole stack behind them."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import trio

from teale_io.api import Limits, create_app, serve_api
from teale_proto.errors import LocalError
from tests.io.api.scripted import (
    CHAT,
    CHAT_STREAM,
    JSON,
    SOON,
    STREAMED,
    Finish,
    ScriptedService,
    Try,
    browsing,
    chat_chunk,
    served,
)


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[trio.SocketStream]:
    with trio.fail_after(SOON):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            yield stream


async def receive_all(stream: trio.SocketStream) -> bytes:
    received = bytearray()
    async for data in stream:
        received += data
    return bytes(received)


async def receive_until(stream: trio.SocketStream, end: bytes) -> bytes:
    received = bytearray()
    while end not in received:
        data = await stream.receive_some()
        assert data, f"the connection ended before {end!r}: {received!r}"
        received += data
    return bytes(received)


def post(body: bytes, *, length: int | None = None, path: str = "/v1/chat/completions") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body) if length is None else length}\r\n\r\n".encode() + body


HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


async def is_alive(port: int) -> bool:
    async with connected(port) as stream:
        await stream.send_all(HEALTH)
        return (await receive_all(stream)).startswith(b"HTTP/1.1 200")


async def until_alive(port: int) -> None:
    """Wait until a connection that ended has made room for another, which is when the server has seen its end."""
    with trio.fail_after(SOON):
        while True:
            with suppress(trio.BrokenResourceError):
                if await is_alive(port):
                    return


MALFORMED = [
    b"nonsense\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    b"GET /health HTTP/1.1\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
]


@pytest.mark.parametrize("request_bytes", MALFORMED)
async def test_malformed_http_is_refused_and_the_connection_closed(request_bytes: bytes) -> None:
    async with served(ScriptedService()) as port:
        async with connected(port) as stream:
            await stream.send_all(request_bytes)
            assert (await receive_until(stream, b"\r\n")).startswith(b"HTTP/1.1 4")
        assert await is_alive(port)


STRANGE = [
    b"GET /health HTTP/1.0\r\n\r\n",
    b"GET http://evil.example/health HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: evil.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
]


@pytest.mark.parametrize("request_bytes", STRANGE)
async def test_old_proxied_and_websocket_requests_are_forbidden(request_bytes: bytes) -> None:
    async with served(ScriptedService()) as port, connected(port) as stream:
        await stream.send_all(request_bytes)
        assert b" 403" in await receive_until(stream, b"\r\n")


HTTP2 = [
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 200,
    b"PRI * HTTP/2.0\r\n\r\nnot the preface",
    b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    b"HTTP2-Settings: %%%\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n\xff\xff\xff\xff",
]


@pytest.mark.parametrize("request_bytes", HTTP2)
async def test_http2_is_not_spoken(request_bytes: bytes) -> None:
    async with served(ScriptedService()) as port:
        async with connected(port) as stream:
            await stream.send_all(request_bytes)
            await stream.send_eof()
            received = b""
            with suppress(trio.BrokenResourceError):
                received = await receive_all(stream)
            assert not received or received.startswith(b"HTTP/1.1 ")
            assert b" 101 " not in received
        assert await is_alive(port)


async def test_the_longest_request_is_taken_and_one_byte_more_is_not() -> None:
    limits = Limits(body_bytes_max=len(CHAT))
    service = ScriptedService(*STREAMED)
    async with browsing(service, limits) as client:
        for body, status in ((CHAT, 200), (CHAT + b" ", 413)):
            response = await client.post("/v1/chat/completions", content=body, headers=JSON)
            assert response.status_code == status
        assert response.json()["error"]["code"] == "request_too_large"
    assert len(service.asked) == 1


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("headers", [JSON, {**JSON, "origin": "null"}])
async def test_a_client_that_sends_far_too_much_still_sees_the_refusal(headers: dict[str, str], declared: bool) -> None:
    size = 32 << 20

    async def body() -> AsyncIterator[bytes]:
        for _ in range(size >> 16):
            yield bytes(1 << 16)

    length = {"content-length": str(size)} if declared else {}
    async with browsing(ScriptedService()) as client:
        response = await client.post("/v1/chat/completions", content=body(), headers={**headers, **length})
        assert response.status_code == (403 if "origin" in headers else 413)
        assert "error" in response.json()
        assert (await client.get("/health")).status_code == 200


async def test_a_client_that_never_ends_its_refused_request_is_cut_off() -> None:
    async with served(ScriptedService(), Limits(linger_seconds_max=0.01)) as port, connected(port) as stream:
        await stream.send_all(post(b"{", length=100 << 20))
        assert b" 413 " in await receive_all(stream)


async def test_a_request_whose_body_does_not_arrive_times_out() -> None:
    limits = Limits(body_seconds_max=0.01, linger_seconds_max=0.01)
    async with served(ScriptedService(), limits) as port, connected(port) as stream:
        await stream.send_all(post(b"{", length=10))
        assert b" 408 " in await receive_all(stream)


async def test_a_connection_without_a_request_is_closed() -> None:
    async with served(ScriptedService(), Limits(idle_seconds_max=0.2)) as port, connected(port) as stream:
        await stream.send_all(b"GET /health HT")
        assert await receive_all(stream) == b""


async def test_a_long_silence_before_the_answer_is_not_idleness() -> None:
    go_on = trio.Event()
    service = ScriptedService(Try(), go_on, *STREAMED)
    limits = Limits(idle_seconds_max=0.3)
    async with served(service, limits) as port, connected(port) as stream:
        await stream.send_all(post(CHAT))
        await service.entered.wait()
        async with connected(port) as other:
            assert await receive_all(other) == b""  # The limit has passed for a connection that came later.
        go_on.set()
        assert b"Hello" in await receive_until(stream, b"Hello")


@pytest.mark.parametrize("body", [CHAT, CHAT_STREAM])
async def test_a_client_that_leaves_before_the_answer_cancels_it(body: bytes) -> None:
    service = ScriptedService(Try(), trio.Event())
    async with served(service) as port:
        async with connected(port) as stream:
            await stream.send_all(post(body))
            await service.entered.wait()
        with trio.fail_after(SOON):
            await service.left.wait()


@pytest.mark.parametrize("reset", [False, True])
async def test_a_client_that_leaves_in_the_middle_of_the_answer_cancels_it(reset: bool) -> None:
    service = ScriptedService(Try(), chat_chunk("Hel"), trio.Event())
    async with served(service) as port:
        async with connected(port) as stream:
            await stream.send_all(post(CHAT_STREAM))
            await receive_until(stream, b"Hel")
            if reset:
                stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        with trio.fail_after(SOON):
            await service.left.wait()


async def test_a_client_that_stops_reading_is_given_up() -> None:
    service = ScriptedService(Try(), *[chat_chunk("x" * 500_000)] * 100, Finish())
    async with served(service, Limits(send_seconds_max=0.05)) as port, connected(port) as stream:
        await stream.send_all(post(CHAT_STREAM))
        await service.left.wait()
    assert len(service.asked) == 1


async def test_a_client_that_stops_reading_does_not_hold_up_the_end() -> None:
    sent = trio.Event()
    endless = [chat_chunk("x" * 500_000)] * 100
    service = ScriptedService(Try(), chat_chunk("Hel"), *endless, sent)
    app = create_app(service, version="1")
    with trio.fail_after(SOON):
        async with trio.open_nursery() as nursery:

            async def serve(task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
                await serve_api(app, "127.0.0.1", 0, task_status=task_status)

            port = await nursery.start(serve)
            async with connected(port) as stream:
                await stream.send_all(post(CHAT_STREAM))
                await receive_until(stream, b"Hel")
                nursery.cancel_scope.cancel()
    assert service.left.is_set()


async def test_a_pipelining_client_that_is_reset_leaves_nothing_behind() -> None:
    go_on = trio.Event()
    service = ScriptedService(Try(), chat_chunk("Hel"), go_on, *[chat_chunk("x" * 1000)] * 1000, trio.Event())
    async with served(service, Limits(connections_max=1)) as port:
        async with connected(port) as stream:
            await stream.send_all(post(CHAT_STREAM) + HEALTH)
            await receive_until(stream, b"Hel")
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        go_on.set()
        with trio.fail_after(SOON):
            await service.left.wait()
        await until_alive(port)


@pytest.mark.parametrize("more", [b"", b"Connection: Upgrade\r\nUpgrade: anything\r\n"])
async def test_a_client_that_ends_its_direction_at_once_leaves_nothing_behind(more: bytes) -> None:
    async with served(ScriptedService(), Limits(connections_max=1)) as port:
        for _ in range(10):
            async with connected(port) as stream:
                await stream.send_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + more + b"\r\n")
                await stream.send_eof()
                await receive_all(stream)
            await until_alive(port)


async def test_a_connection_is_used_again() -> None:
    async with served(ScriptedService(*STREAMED)) as port, connected(port) as stream:
        for body in (CHAT, CHAT_STREAM, CHAT, CHAT_STREAM):
            await stream.send_all(post(body))
            end = b"0\r\n\r\n" if body == CHAT_STREAM else b'"total_tokens":10}'
            assert b" 200 " in await receive_until(stream, end)


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with served(ScriptedService(*STREAMED)) as port, connected(port) as stream:
        await stream.send_all(post(CHAT) + HEALTH)
        received = await receive_all(stream)
    assert received.index(b"Hello") < received.index(b'"ok"')


async def test_connections_beyond_the_limit_are_closed() -> None:
    async with served(ScriptedService(), Limits(connections_max=2)) as port:
        async with connected(port) as first, connected(port) as second:
            for stream in (first, second):
                await stream.send_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
                await receive_until(stream, b'"ok"')
            async with connected(port) as third:
                with suppress(trio.BrokenResourceError):
                    assert await receive_all(third) == b""
            await first.send_all(HEALTH)
            await receive_all(first)
            await first.aclose()
        await until_alive(port)


async def test_a_port_in_use_is_a_local_error() -> None:
    async with served(ScriptedService()) as port:
        app = create_app(ScriptedService(), version="1")
        with pytest.raises(LocalError, match=f"port {port} is in use by another program"):
            await serve_api(app, "127.0.0.1", port)


async def test_an_address_of_another_machine_is_a_local_error() -> None:
    app = create_app(ScriptedService(), version="1")
    with pytest.raises(LocalError, match=r"192\.0\.2\.1.* not an address of this machine"):
        await serve_api(app, "192.0.2.1", 0)


async def test_the_server_does_not_name_its_software(capfd: pytest.CaptureFixture[str]) -> None:
    async with browsing(ScriptedService()) as client:
        response = await client.get("/health")
    assert "server" not in response.headers
    assert capfd.readouterr() == ("", "")
