"""What these tests share: a backend that runs while a test does, and the answers that it gives."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import trio

from teale_io.inference.base import Backend, Usage
from teale_proto.inputs import Task

QUESTION = "what does str.split do?"
ANSWER = "Return a list of the substrings in the string, using sep as the separator string."


class Running:
    """A backend under way: ask it, and wait for what it announces."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.changes = 0
        self._lot = trio.lowlevel.ParkingLot()

    def changed(self) -> None:
        self.changes += 1
        self._lot.unpark_all()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for announcements until `condition` holds."""
        with trio.fail_after(30):
            while not condition():
                await self._lot.park()

    async def ask(
        self,
        body: dict[str, Any] | bytes,
        *,
        task: Task = Task.CHAT,
        streaming: bool = False,
        model: str = "",
        on_chunk: Callable[[bytes], None] | None = None,
    ) -> "Reply":
        reply = Reply()

        def emit(chunk: bytes) -> None:
            reply.chunks.append(msgspec.json.decode(chunk))
            reply.raw.append(chunk)
            if on_chunk is not None:
                on_chunk(chunk)

        content = body if isinstance(body, bytes) else msgspec.json.encode(body)
        name = model or self.backend.models[0]
        with trio.fail_after(60):
            reply.usage = await self.backend.generate(task, name, content, streaming=streaming, emit=emit)
        return reply


class Reply:
    """The chunks of one answer."""

    def __init__(self) -> None:
        self.chunks: list[dict[str, Any]] = []
        self.raw: list[bytes] = []
        self.usage = Usage(-1, -1)

    @property
    def whole(self) -> dict[str, Any]:
        [chunk] = self.chunks
        return chunk

    @property
    def streamed_text(self) -> str:
        return "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in self.chunks)

    @property
    def text(self) -> str:
        content = self.whole["choices"][0]["message"]["content"]
        assert isinstance(content, str)
        return content

    @property
    def finish_reason(self) -> Any:
        return self.chunks[-1]["choices"][0]["finish_reason"]


@asynccontextmanager
async def running(backend: Backend, *, loaded: bool = True) -> AsyncIterator[Running]:
    """Run `backend`, by default after waiting for its models."""
    run = Running(backend)
    async with trio.open_nursery() as nursery:
        await nursery.start(backend.run, run.changed)
        if loaded:
            await run.until(lambda: bool(backend.models))
        yield run
        nursery.cancel_scope.cancel()


def chat(content: str = QUESTION, **fields: Any) -> dict[str, Any]:
    """Return a chat request that is answered the same each time, unless `fields` say otherwise."""
    return {"messages": [{"role": "user", "content": content}], "temperature": 0, **fields}
