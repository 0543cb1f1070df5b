"""A node that says what a test tells it to say, and the API served for it on a free port."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, TypeAlias, TypeVar

import httpx
import msgspec
import openai
import trio

from teale_io.api import Limits, create_app, serve_api
from teale_io.service import Answer, AnswerFailed
from teale_proto.effects import (
    NodeEffect,
    Path,
    PeerState,
    ReportAttempt,
    ReportFailed,
    ReportFinished,
)
from teale_proto.errors import LocalError
from teale_proto.inputs import Address, Failure, NodeId, Task
from teale_proto.status import Candidate, Explanation, ListedPeer, NodeStatus, PeerStatus
from tests.io.status import BOB, CAROL, STATUS

HARDWARE = STATUS.hardware
SOON = 10.0
"""Seconds after which a test that waits for an event has failed."""


class Try(NamedTuple):
    """The request goes to a node."""

    server: NodeId = BOB
    path: Path = Path.LAN


class Fail(NamedTuple):
    """The answer fails."""

    failure: Failure
    message: str = "it went wrong"


class Finish(NamedTuple):
    """The answer is complete."""

    tokens_in: int = 7
    tokens_out: int = 3


Step: TypeAlias = Try | Fail | Finish | bytes | trio.Event | Exception


class Asked(NamedTuple):
    task: Task
    model: str
    body: bytes
    streaming: bool


class ScriptedAnswer:
    def __init__(self, script: Sequence[Step]) -> None:
        self.attempts: Sequence[ReportAttempt] = ()
        self.finished: ReportFinished | None = None
        self._script = script

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for step in self._script:
            await trio.lowlevel.checkpoint()
            match step:
                case Try(server, path):
                    self.attempts = (*self.attempts, ReportAttempt("r1", server, path))
                case Fail(failure, message):
                    raise AnswerFailed(ReportFailed("r1", failure, message, len(self.attempts)))
                case Finish(tokens_in, tokens_out):
                    last = self.attempts[-1]
                    attempts = len(self.attempts)
                    self.finished = ReportFinished("r1", last.server, last.path, tokens_in, tokens_out, attempts)
                case trio.Event():
                    await step.wait()
                case Exception():
                    raise step
                case bytes():
                    yield step


class ScriptedService:
    """Satisfies NodeService."""

    def __init__(self, *script: Step) -> None:
        self.script = script
        self.asked: list[Asked] = []
        self.connected: list[tuple[NodeId, tuple[Address, ...]]] = []
        self.entered = trio.Event()
        self.left = trio.Event()
        self.stopped = trio.Event()
        self.stopping = False
        self.followers: list[trio.MemorySendChannel[NodeEffect]] = []

    @asynccontextmanager
    async def ask(self, task: Task, model: str, body: bytes, *, streaming: bool) -> AsyncIterator[Answer]:
        if self.stopping:
            raise LocalError("the node is stopping")
        self.asked.append(Asked(task, model, body, streaming))
        self.entered.set()
        try:
            async with trio.open_nursery():  # As a real one may have: what is raised through it is wrapped.
                yield ScriptedAnswer(self.script)
        finally:
            self.left.set()

    def status(self) -> NodeStatus:
        return STATUS

    def problems(self) -> tuple[str, ...]:
        return ("big.gguf is not a GGUF file",)

    def peers(self) -> tuple[PeerStatus, ...]:
        return (_peer(BOB, PeerState.CONNECTED, ("org/big", "tiny")), _peer(CAROL, PeerState.LOST, ("gone",)))

    def listed_peers(self) -> tuple[ListedPeer, ...]:
        return (ListedPeer(CAROL, "carol", ("far",), HARDWARE),)

    def explain(self, task: Task, model: str) -> Explanation:
        bob = Candidate(BOB, "bob", Path.LAN, eligible=True, score=12.5, in_flight=0, won=True, reason=task.value)
        return Explanation(model, BOB, (bob,), "bob has the model")

    @asynccontextmanager
    async def reports(self) -> AsyncIterator[AsyncIterator[NodeEffect]]:
        send, receive = trio.open_memory_channel[NodeEffect](1000)
        self.followers.append(send)
        async with send, receive:
            yield (report async for report in receive)

    def tell(self, *reports: NodeEffect) -> None:
        for follower in self.followers:
            for report in reports:
                follower.send_nowait(report)

    def connect(self, node: NodeId, addresses: tuple[Address, ...]) -> None:
        if self.stopping:
            raise LocalError("the node is stopping")
        self.connected.append((node, addresses))

    def stop(self) -> None:
        self.stopped.set()


def _peer(node: NodeId, state: PeerState, models: tuple[str, ...]) -> PeerStatus:
    return PeerStatus(
        node_id=node,
        display_name="peer",
        state=state,
        path=Path.LAN,
        encryption="Noise_XX_25519_ChaChaPoly_BLAKE2s",
        loaded_models=models,
        hardware=HARDWARE,
        address="192.0.2.7:4000",
        queue_depth=0,
        in_flight=0,
        tokens_per_second=None,
        silent_seconds=0.5,
        round_trip_ms=None,
    )


@asynccontextmanager
async def served(service: ScriptedService, limits: Limits | None = None, **options: Any) -> AsyncIterator[int]:
    """Serve the API of `service` on loopback; yields the port."""
    limits = limits or Limits()
    app = create_app(service, version="1.2.3", limits=limits, **options)
    with trio.fail_after(3 * SOON):
        async with trio.open_nursery() as nursery:

            async def serve(task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
                await serve_api(app, "127.0.0.1", 0, limits=limits, task_status=task_status)

            yield await nursery.start(serve)
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def browsing(
    service: ScriptedService, limits: Limits | None = None, **options: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """Serve the API, and yield an HTTP client for it."""
    async with (
        served(service, limits, **options) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=SOON) as client,
    ):
        yield client


T = TypeVar("T")


@asynccontextmanager
async def openai_at(service: ScriptedService) -> AsyncIterator[Callable[[Callable[[openai.OpenAI], T]], Awaitable[T]]]:
    """Serve the API, and yield a function that runs another, given the official client, in a thread."""
    async with served(service) as port:

        async def run(use: Callable[[openai.OpenAI], T]) -> T:
            def in_thread() -> T:
                url = f"http://127.0.0.1:{port}/v1"
                with openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=SOON) as client:
                    return use(client)

            return await trio.to_thread.run_sync(in_thread)

        yield run


def chat_chunk(content: str | None = None, *, finish: str | None = None, number: int = 1) -> bytes:
    delta = {} if content is None else {"role": "assistant", "content": content}
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return msgspec.json.encode(
        {
            "id": f"theirs-{number}",
            "object": "chat.completion.chunk",
            "created": number,
            "model": "m",
            "choices": [choice],
        }
    )


def chat_whole(content: str) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    return msgspec.json.encode(
        {"id": "theirs", "object": "chat.completion", "created": 5, "model": "m", "choices": [choice], "usage": usage}
    )


def text_chunk(text: str, *, finish: str | None = None) -> bytes:
    choice = {"index": 0, "text": text, "finish_reason": finish, "logprobs": None}
    return msgspec.json.encode(
        {"id": "t", "object": "text_completion", "created": 5, "model": "m", "choices": [choice]}
    )


STREAMED = (
    Try(),
    chat_chunk("Hel", number=1),
    chat_chunk("lo", number=2),
    chat_chunk(finish="stop", number=3),
    Finish(),
)

CHAT = b'{"model":"tiny","messages":[{"role":"user","content":"hi"}]}'
CHAT_STREAM = b'{"model":"tiny","stream":true,"messages":[{"role":"user","content":"hi"}]}'
JSON = {"content-type": "application/json"}


def data_lines(body: str) -> list[str]:
    """Return the events of a stream of server-sent events."""
    return [line.removeprefix("data: ") for line in body.split("\n\n") if line.startswith("data: ")]
