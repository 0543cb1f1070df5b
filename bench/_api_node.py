"""A node in one process with the backend that it serves, for `bench.api`; says in JSON what it measured.

The same backend object is called directly, from the same process, in turn with requests that a client in another
process makes of the API. `instant` answers at once, which leaves nothing but overhead; `tiny` is the real model.
"""

import json
import random
import sys
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Any, Final, get_args

import structlog
import trio

from bench._api_client import QUESTION, TOKEN
from teale_io.api.app import create_app
from teale_io.api.server import serve_api
from teale_io.connections import Connections
from teale_io.inference.base import Backend, Changed, Emit, Usage
from teale_io.inference.builtin import TINY_MODEL, builtin_backend
from teale_io.inference.manager import BackendManager
from teale_io.live_node import LiveNode
from teale_io.runner import Runner
from teale_proto.effects import (
    Advertise,
    CancelGeneration,
    CloseSockets,
    ExpectPeer,
    MapPort,
    NodeEffect,
    OpenSockets,
    SendDatagram,
    StartGeneration,
    UnmapPort,
)
from teale_proto.inputs import NodeInput, Started, Task
from teale_proto.node import Node, NodeConfig
from teale_proto.secure.identity import Identity

INSTANT: Final = "instant"
TOKENS: Final = 8


class InstantBackend:
    """A model that needs no time."""

    models: tuple[str, ...] = (INSTANT,)
    problem = ""

    async def generate(self, task: Task, model: str, body: bytes, *, streaming: bool, emit: Emit) -> Usage:
        """Emit a few tokens, each as soon as others have had their turn."""
        del task, model, body, streaming
        chunk = {"id": "chatcmpl-0", "object": "chat.completion.chunk", "created": 0, "model": INSTANT}
        for number in range(TOKENS):
            ended = "stop" if number == TOKENS - 1 else None
            choice = {"index": 0, "delta": {"role": "assistant", "content": "word "}, "finish_reason": ended}
            emit(json.dumps({**chunk, "choices": [choice]}, separators=(",", ":")).encode())
            await trio.lowlevel.checkpoint()
        return Usage(5, TOKENS)

    async def run(self, changed: Changed, *, task_status: trio.TaskStatus[None]) -> None:
        """Be ready at once."""
        task_status.started()
        changed()
        await trio.sleep_forever()


async def direct(backend: Backend, model: str, count: int) -> list[float]:
    """Return the ms to the first token of each of several answers, without anything in between."""
    body = json.dumps(
        {"model": model, "messages": [{"role": "user", "content": QUESTION}], "stream": True, "temperature": 0}
    ).encode()
    taken = []
    for _ in range(count):
        pieces: list[tuple[float, bytes]] = []
        note = partial(_note, pieces)
        began = perf_counter()
        await backend.generate(Task.CHAT, model, body, streaming=True, emit=note)
        taken.append((next(at for at, piece in pieces if TOKEN.search(piece)) - began) * 1e3)
    return taken


def _note(pieces: list[tuple[float, bytes]], piece: bytes) -> None:
    pieces.append((perf_counter(), piece))


async def through_api(port: int, model: str, count: int) -> list[float]:
    """Return the ms to the first token of each of several answers, as a client in another process sees it."""
    command = [sys.executable, "-m", "bench._api_client", f"127.0.0.1:{port}", model, str(count)]
    done = await trio.run_process(command, capture_stdout=True)
    found: list[float] = json.loads(done.stdout)
    return found


async def main(kind: str, count: int, rounds: int) -> None:
    """Run the node, measure both ways in turn, and print the result."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    backend: Backend = InstantBackend() if kind == INSTANT else builtin_backend()
    model = INSTANT if kind == INSTANT else TINY_MODEL
    config = NodeConfig(display_name="bench", lan_enabled=False)
    node = Node(config, Identity.from_seed(bytes(32)), random.SystemRandom(), unix_time_at_zero=0)
    runner: Runner[NodeInput, NodeEffect] = Runner(node, get_args(NodeEffect))
    live = LiveNode(node, feed=runner.feed, request_timeout_seconds=60)
    async with trio.open_nursery() as nursery:
        connections = Connections(feed=runner.feed, nursery=nursery)
        manager = BackendManager([backend], runner.feed)
        ours: dict[type[Any], Callable[[Any], object]] = {
            StartGeneration: manager.start,
            CancelGeneration: manager.cancel,
            **dict.fromkeys((Advertise, SendDatagram, OpenSockets, CloseSockets), lambda _: None),
            **dict.fromkeys((MapPort, UnmapPort, ExpectPeer), lambda _: None),
        }
        runner.perform_with({**connections.performers, **live.performers, **ours})
        nursery.start_soon(runner.run)
        await nursery.start(manager.run)
        port: int = await nursery.start(serve_api, create_app(live, version="bench"), "127.0.0.1", 0)
        runner.feed(Started(None))
        with trio.fail_after(60):
            while not backend.models:
                await trio.sleep(0.05)
        await direct(backend, model, 5)
        await through_api(port, model, 5)
        result: dict[str, list[list[float]]] = {"direct": [], "api": []}
        for _ in range(rounds):
            result["direct"].append(await direct(backend, model, count))
            result["api"].append(await through_api(port, model, count))
        print(json.dumps(result), flush=True)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
