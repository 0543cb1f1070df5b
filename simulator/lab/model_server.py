"""A model server that takes the time which a description says that inference takes, by the clock on the wall.

It is the backend of simulated nodes behind the API of OpenAI, for real nodes to ask: what the two answer, how long they
think about it and how often they fail is then the same, and drawn from the same seed. So an answer can be long enough
for something to happen in the middle of it, which one of the built-in model never is.

Run as a program: `python -m simulator.lab.model_server --port P --models … --cost JSON --seed N --host NAME`.
"""

import argparse
import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

import h11
import msgspec

from simulator.backend import CostModel, GenerationInput, SimulatedBackend
from simulator.rng import stream
from teale_proto.contract import SECOND, Instant
from teale_proto.effects import StartGeneration
from teale_proto.inputs import Failure, GenerationChunk, GenerationFailed, JobId, Task

READ_BYTES: Final = 1 << 16
TASKS: Final = {f"/v1/{task.value}": task for task in Task}
STATUS: Final = {Failure.MODEL_NOT_LOADED: 404}
"""Of a failure before anything was said; 500 for any other."""


class WallClock:
    """The clock on the wall, as a simulation's engine.

    To what is called, it is the instant that was asked for, however late the call: delays must not add up.
    """

    def __init__(self) -> None:
        self._calling: Instant | None = None

    @property
    def now(self) -> Instant:
        """Microseconds of the event loop's own clock."""
        return round(asyncio.get_running_loop().time() * SECOND) if self._calling is None else self._calling

    def call_at(self, at: Instant, call: Callable[..., object], *arguments: Any) -> None:
        """Have something called at an instant."""
        asyncio.get_running_loop().call_at(at / SECOND, self._call, at, call, arguments)

    def _call(self, at: Instant, call: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        self._calling = at
        try:
            call(*arguments)
        finally:
            self._calling = None


class ModelServer:
    """Answers as a simulated backend of these models would, at its pace."""

    def __init__(self, models: Sequence[str], cost: CostModel, *, seed: int, host: str, life: int) -> None:
        # The first life of a host draws what the simulated host does.
        rng = stream(seed, host, "backend" if life == 1 else f"backend {life}")
        self._backend = SimulatedBackend(WallClock(), rng, cost, self._deliver)
        self._backend.models = models
        self.waiting: dict[JobId, asyncio.Queue[GenerationInput]] = {}
        """The jobs that somebody listens to."""
        self._jobs = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection to its end."""
        connection = h11.Connection(h11.SERVER)
        try:
            while connection.our_state is not h11.MUST_CLOSE:
                request, body = await _next_request(connection, reader)
                if request is None:
                    break
                await self._answer(connection, reader, writer, request.target.decode(), body)
                connection.start_next_cycle()
        except (ConnectionError, h11.ProtocolError):
            # Whoever asked has gone.
            return
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    def _deliver(self, said: GenerationInput) -> None:
        if said.job in self.waiting:
            self.waiting[said.job].put_nowait(said)

    async def _answer(
        self,
        connection: h11.Connection,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        target: str,
        body: bytes,
    ) -> None:
        if target == "/v1/models":
            listed = {"object": "list", "data": [{"id": model, "object": "model"} for model in self._backend.models]}
            await _send(connection, writer, 200, msgspec.json.encode(listed))
        elif target not in TASKS:
            await _send(connection, writer, 404, _error("there is nothing here"))
        else:
            job, effect = self._order(TASKS[target], body)
            said = self.waiting[job] = asyncio.Queue()
            # Nobody sends more while he waits: what comes from there is the end.
            gone = asyncio.ensure_future(reader.read(1))
            try:
                self._backend.start(effect)
                await _tell(connection, writer, effect, said, gone)
            finally:
                gone.cancel()
                with suppress(asyncio.CancelledError, ConnectionError):
                    await gone
                self._backend.cancel(job)
                del self.waiting[job]

    def _order(self, task: Task, body: bytes) -> tuple[JobId, StartGeneration]:
        self._jobs += 1
        fields: dict[str, Any] = msgspec.json.decode(body)
        streaming = bool(fields.get("stream"))
        # What a node adds for us is not part of what was asked, which is what costs time.
        fields.pop("stream_options", None)
        asked = msgspec.json.encode({**fields, "stream": streaming})
        return self._jobs, StartGeneration(self._jobs, task, str(fields.get("model")), asked, streaming)


async def _tell(
    connection: h11.Connection,
    writer: asyncio.StreamWriter,
    effect: StartGeneration,
    said: "asyncio.Queue[GenerationInput]",
    gone: "asyncio.Future[bytes]",
) -> None:
    """Send on what the backend says, until it has said all or `gone` says that nobody listens."""
    begun = False
    whole = b""
    while True:
        following = asyncio.ensure_future(said.get())
        await asyncio.wait((following, gone), return_when=asyncio.FIRST_COMPLETED)
        if not following.done():
            following.cancel()
            raise ConnectionResetError
        event = following.result()
        if isinstance(event, GenerationChunk):
            if not effect.streaming:
                whole = event.chunk
                continue
            if not begun:
                await _begin(connection, writer)
            begun = True
            await _event(connection, writer, event.chunk)
        elif isinstance(event, GenerationFailed):
            if begun:
                await _event(connection, writer, _error(event.message))
                await _write(connection, writer, h11.EndOfMessage())
            else:
                await _send(connection, writer, STATUS.get(event.failure, 500), _error(event.message))
            return
        elif begun:
            usage = {"prompt_tokens": event.tokens_in, "completion_tokens": event.tokens_out}
            await _event(connection, writer, msgspec.json.encode({"choices": [], "usage": usage}))
            await _event(connection, writer, b"[DONE]")
            await _write(connection, writer, h11.EndOfMessage())
            return
        else:
            await _send(connection, writer, 200, whole)
            return


async def _next_request(connection: h11.Connection, reader: asyncio.StreamReader) -> tuple[h11.Request | None, bytes]:
    """Return the next request and its body; None at the end of the connection."""
    request, body = None, bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(READ_BYTES))
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            return request, bytes(body)
        else:
            return None, b""


async def _send(connection: h11.Connection, writer: asyncio.StreamWriter, status: int, body: bytes) -> None:
    headers = [("content-type", "application/json"), ("content-length", str(len(body)))]
    await _write(
        connection,
        writer,
        h11.Response(status_code=status, headers=headers),
        h11.Data(data=body),
        h11.EndOfMessage(),
    )


async def _begin(connection: h11.Connection, writer: asyncio.StreamWriter) -> None:
    headers = [("content-type", "text/event-stream"), ("transfer-encoding", "chunked")]
    await _write(connection, writer, h11.Response(status_code=200, headers=headers))


async def _event(connection: h11.Connection, writer: asyncio.StreamWriter, data: bytes) -> None:
    await _write(connection, writer, h11.Data(data=b"data: " + data + b"\n\n"))


async def _write(connection: h11.Connection, writer: asyncio.StreamWriter, *events: h11.Event) -> None:
    # At once, or the head of a short answer would wait for its body to be acknowledged.
    writer.write(b"".join(connection.send(event) or b"" for event in events))
    await writer.drain()


def _error(message: str) -> bytes:
    return msgspec.json.encode({"error": {"message": message, "type": "server_error"}})


async def run(server: ModelServer, port: int) -> None:
    """Listen on the loopback interface until cancelled; says so on standard output."""
    listener = await asyncio.start_server(server.serve, "127.0.0.1", port)
    print(f"listening on http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1", flush=True)
    async with listener:
        await listener.serve_forever()


def main(words: Sequence[str] | None = None) -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description="A model server that takes the time that a description says.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--models", nargs="+", required=True)
    parser.add_argument("--cost", type=lambda text: msgspec.json.decode(text, type=CostModel), default=CostModel())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--host", default="")
    parser.add_argument("--life", type=int, default=1)
    chosen = parser.parse_args(words)
    server = ModelServer(chosen.models, chosen.cost, seed=chosen.seed, host=chosen.host, life=chosen.life)
    with suppress(KeyboardInterrupt):
        asyncio.run(run(server, chosen.port))


if __name__ == "__main__":
    main()
