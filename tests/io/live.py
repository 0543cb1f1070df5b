"""Nodes in the process of a test, whole but for discovery and relay: core, backends, API, and LAN on loopback."""

import os
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, get_args

import httpx
import msgspec
import psutil
import trio
import trio.testing

from teale_io.api import create_app, serve_api
from teale_io.clock import unix_time_at_zero
from teale_io.connections import Connections
from teale_io.direct import DirectSockets
from teale_io.inference.base import Backend, Changed, Emit, Usage
from teale_io.inference.manager import BackendManager
from teale_io.listener import Listener, bind
from teale_io.live_node import LiveNode
from teale_io.port_opening import PortOpener
from teale_io.runner import Runner
from teale_io.tcp import dial_tcp, serve_tcp
from teale_proto.effects import Advertise, CancelGeneration, NodeEffect, StartGeneration, WebSocketUrl
from teale_proto.inputs import Address, NodeInput, ServiceFound, ServiceRecord, Started, Task
from teale_proto.node import Node, NodeConfig
from teale_proto.secure.identity import Identity

SAFETY_SECONDS = 60.0
MODEL = "m"


class Live:
    """A node that runs."""

    def __init__(self, node: Node, live: LiveNode, manager: BackendManager, runner: Runner[NodeInput, NodeEffect]):
        self.node = node
        self.live = live
        self.manager = manager
        self.runner = runner
        self.api_port = 0
        self.lan_port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.api_port}"

    def meet(self, other: "Live", *models: str) -> None:
        """Hear of another node on the LAN."""
        record = ServiceRecord(other.node.node_id, other.lan_port, models)
        self.runner.feed(ServiceFound(other.node.node_id, record, (Address("127.0.0.1", other.lan_port),)))

    async def until(self, is_true: Callable[[], bool]) -> None:
        await until(is_true)

    @property
    def load(self) -> tuple[int, int, int]:
        """What runs here, what waits here, and what was asked from here."""
        status = self.live.status()
        return status.running, status.queue_depth, status.asked


@asynccontextmanager
async def live_node(*backends: Backend, name: str = "alice", **settings: Any) -> AsyncIterator[Live]:
    """Run a node with `backends`; `settings` are those of NodeConfig."""
    identity = Identity.from_seed(name.encode().ljust(32, b"."))
    config = NodeConfig(display_name=name, **settings)
    node = Node(config, identity, random.SystemRandom(), unix_time_at_zero=unix_time_at_zero())
    runner: Runner[NodeInput, NodeEffect] = Runner(node, get_args(NodeEffect))
    manager = BackendManager(backends, runner.feed)
    live = LiveNode(node, feed=runner.feed, request_timeout_seconds=50, problems=lambda: manager.problems)
    running = Live(node, live, manager, runner)
    listener = Listener(bind("127.0.0.1", 0), connections_max=16)
    with trio.fail_after(SAFETY_SECONDS):
        async with trio.open_nursery() as nursery:
            direct = DirectSockets(runner.feed, identity)
            dialers: dict[type[Any], Any] = {Address: dial_tcp, WebSocketUrl: None}
            connections = Connections(feed=runner.feed, nursery=nursery, dialers=dialers)
            runner.perform_with(
                {
                    **connections.performers,
                    **direct.performers,
                    **PortOpener(runner.feed).performers,
                    **live.performers,
                    StartGeneration: manager.start,
                    CancelGeneration: manager.cancel,
                    Advertise: lambda effect: None,
                }
            )
            nursery.start_soon(runner.run)
            await nursery.start(direct.run, connections)
            await nursery.start(manager.run)
            nursery.start_soon(serve_tcp, connections, listener)
            app = create_app(live, version="0")
            running.api_port = await nursery.start(serve_api, app, "127.0.0.1", 0)
            running.lan_port = listener.address.port
            runner.feed(Started(running.lan_port))
            yield running
            nursery.cancel_scope.cancel()


class Answering:
    """A backend that repeats the question, a word a token, one token each time it is let; it remembers the order."""

    models: tuple[str, ...] = ()
    problem = ""

    def __init__(self, *, open_gate: bool = True) -> None:
        self.gate = trio.Event()
        if open_gate:
            self.gate.set()
        self.asked: list[str] = []
        self.tokens = 0
        self.cancelled = 0
        self.running = 0
        self.running_most = 0

    async def run(self, changed: Changed, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        self.models = (MODEL,)
        changed()
        await trio.sleep_forever()

    async def generate(self, task: Task, model: str, body: bytes, *, streaming: bool, emit: Emit) -> Usage:
        question = msgspec.json.decode(body)["messages"][0]["content"]
        self.asked.append(question)
        self.running += 1
        self.running_most = max(self.running_most, self.running)
        try:
            for word in question.split():
                emit(chunk(word + " "))
                self.tokens += 1
                await trio.lowlevel.checkpoint()
                await self.gate.wait()
            emit(chunk("", finish_reason="stop"))
        except trio.Cancelled:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        return Usage(1, len(question.split()))


def chunk(text: str, *, finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish_reason}
    return msgspec.json.encode({"id": "c", "object": "chat.completion.chunk", "created": 1, "choices": [choice]})


def question(content: str, *, model: str = MODEL, stream: bool = False, **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": content}], "stream": stream, **more}


CHAT = "/v1/chat/completions"


def client_of(node: Live) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    return httpx.AsyncClient(base_url=node.url, timeout=SAFETY_SECONDS, limits=limits, trust_env=False)


async def until(is_true: Callable[[], bool]) -> None:
    """Look again whenever everybody else has run, for there is no event to wait for; the caller's limit bounds it."""
    while not is_true():
        await trio.sleep(0.002)


class Footprint(NamedTuple):
    """What a process holds that it may have forgotten to give back."""

    tasks: int
    files: int
    children: int

    @classmethod
    def now(cls) -> "Footprint":
        root = trio.lowlevel.current_root_task()
        assert root is not None
        children = psutil.Process().children(recursive=True)
        return cls(_tasks_below(root), len(os.listdir("/proc/self/fd")), len(children))

    @classmethod
    async def taken(cls) -> "Footprint":
        """Return what is held once everything that was begun has come to rest."""
        await trio.testing.wait_all_tasks_blocked(0.01)
        return cls.now()

    async def regained(self) -> None:
        """Wait until no more is held than then."""
        with trio.move_on_after(SAFETY_SECONDS / 4):
            while any(now > then for now, then in zip(Footprint.now(), self, strict=True)):
                await trio.sleep(0.01)
        now = Footprint.now()
        assert all(held <= then for held, then in zip(now, self, strict=True)), f"{now} where there was {self}"


def _tasks_below(task: trio.lowlevel.Task) -> int:
    return 1 + sum(_tasks_below(child) for nursery in task.child_nurseries for child in nursery.child_tasks)
