"""A model server on loopback that answers byte for byte what a test tells it to, broken or not."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import h11
import msgspec
import trio

Play: TypeAlias = Callable[["Exchange"], Awaitable[None]]

MODELS = msgspec.json.encode({"object": "list", "data": [{"id": "big"}, {"id": "small"}]})


class Exchange:
    """One request, and the stream that its answer is written to."""

    def __init__(self, stream: trio.SocketStream, request: h11.Request, body: bytes) -> None:
        self.stream = stream
        self.method = request.method.decode()
        self.path = request.target.decode()
        self.headers = {name.decode(): value.decode() for name, value in request.headers}
        self.raw_body = body

    @property
    def body(self) -> dict[str, Any]:
        decoded: dict[str, Any] = msgspec.json.decode(self.raw_body)
        return decoded

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def answer(self, body: bytes, *, status: int = 200, media_type: str = "application/json") -> None:
        """Answer with a body of known length."""
        await self.begin(media_type, status=status, length=len(body))
        await self.send(body)

    async def begin(self, media_type: str, *, status: int = 200, length: int | None = None) -> None:
        """Send the head of a response; without a length the body ends with the connection."""
        head = f"HTTP/1.1 {status} Whatever\r\nContent-Type: {media_type}\r\nConnection: close\r\n"
        if length is not None:
            head += f"Content-Length: {length}\r\n"
        await self.send(f"{head}\r\n".encode())

    async def gone(self) -> None:
        """Wait until the client hangs up."""
        while await self.stream.receive_some():
            pass


class FakeUpstream:
    """Plays `play` for every POST; lists `models` for every GET."""

    def __init__(self, play: Play | None) -> None:
        self.play = play
        self.models: bytes = MODELS
        self.models_status = 200
        self.requests: list[Exchange] = []
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            try:
                exchange = await _request(stream)
                if exchange is None:
                    return
                self.requests.append(exchange)
                if exchange.method == "GET":
                    await exchange.answer(self.models, status=self.models_status)
                elif self.play is not None:
                    await self.play(exchange)
            except trio.BrokenResourceError:
                pass


async def _request(stream: trio.SocketStream) -> Exchange | None:
    connection = h11.Connection(h11.SERVER)
    request: h11.Request | None = None
    body = b""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await stream.receive_some())
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            assert request is not None
            return Exchange(stream, request, body)
        else:
            return None


@asynccontextmanager
async def fake_upstream(play: Play | None = None, *, port: int = 0) -> AsyncIterator[FakeUpstream]:
    """Serve on a port of loopback until left."""
    server = FakeUpstream(play)
    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(port, host="127.0.0.1")
        server.port = listener.socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, server.serve, [listener])
        yield server
        nursery.cancel_scope.cancel()


def event(content: str = "", *, finish_reason: str | None = None, usage: bool = False, choices: bool = True) -> bytes:
    """Return a streamed chunk as an event."""
    chunk: dict[str, Any] = {"id": "up-1", "object": "chat.completion.chunk", "created": 5, "model": "big"}
    delta = {"content": content} if content else {}
    chunk["choices"] = [{"index": 0, "delta": delta, "finish_reason": finish_reason}] if choices else []
    chunk["usage"] = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5} if usage else None
    return b"data: " + msgspec.json.encode(chunk) + b"\n\n"


DONE = b"data: [DONE]\n\n"
GOOD_STREAM = (
    event("Grüß ")
    + b": keep-alive\r\n\r\n"
    + event("€ott")
    + event(finish_reason="stop")
    + event(usage=True, choices=False)
    + DONE
)
