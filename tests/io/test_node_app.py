"""The whole program: how it stops, and what it does when a part of it breaks."""

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx
import pytest
import trio

from teale_io.config import Config
from teale_io.kept_discovery import Feed, KeptDiscovery
from teale_io.node_app import relay_dialer, serve
from teale_io.paths import Paths, Runtime, read_runtime
from teale_io.runner import Performers
from teale_proto.effects import Advertise
from teale_proto.errors import TealeError
from teale_proto.inputs import NodeId, ServiceFound, ServiceLost, ServiceRecord
from teale_proto.secure.identity import Identity
from tests.io.inference.fake_upstream import Exchange, event, fake_upstream
from tests.io.live import CHAT, SAFETY_SECONDS, Footprint, question, until

ROOT = Path(__file__).parents[2]
JSON = {"content-type": "application/json"}


@asynccontextmanager
async def serving(folder: Path, *upstreams: str) -> AsyncIterator[tuple[Paths, Runtime, trio.Event]]:
    """Run the program in this process; yields where it is, and what is set when it has ended."""
    paths = Paths.below(folder / "home")
    config = Config(display_name="alice", lan_enabled=False, api_port=0, openai_urls=upstreams)
    identity = Identity.from_seed(random.Random(7).randbytes(32))
    ended = trio.Event()

    async def run() -> None:
        await serve(config, paths, identity, None)
        ended.set()

    with trio.fail_after(SAFETY_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            await until(lambda: read_runtime(paths) is not None)
            runtime = read_runtime(paths)
            assert runtime is not None
            yield paths, runtime, ended
            nursery.cancel_scope.cancel()


async def test_a_stop_tells_those_who_wait_for_answers_before_it_hangs_up(tmp_path: Path) -> None:
    async def play(exchange: Exchange) -> None:
        await exchange.begin("text/event-stream")
        if exchange.body["messages"][0]["content"] == "begin":
            await exchange.send(event("Once"))
        await exchange.gone()

    before = await Footprint.taken()
    said: dict[str, httpx.Response] = {}
    async with (
        fake_upstream(play) as upstream,
        serving(tmp_path, upstream.url) as (paths, runtime, ended),
        httpx.AsyncClient(base_url=runtime.api_url, trust_env=False, timeout=SAFETY_SECONDS) as client,
        trio.open_nursery() as nursery,
    ):

        async def ask(content: str, *, stream: bool) -> None:
            said[content] = await client.post(CHAT, json=question(content, model="big", stream=stream))

        async def follow() -> None:
            said["events"] = await client.get("/api/events")

        async def models() -> bool:
            return bool((await client.get("/v1/models")).json()["data"])

        while not await models():
            pass
        nursery.start_soon(follow)
        nursery.start_soon(lambda: ask("begin", stream=True))
        await until(lambda: len([each for each in upstream.requests if each.method == "POST"]) == 1)
        nursery.start_soon(lambda: ask("wait", stream=False))
        while (await client.get("/api/status")).json()["asked"] < 2:
            pass
        assert (await client.post("/api/shutdown", headers=JSON)).json() == {"ok": True}
        with trio.fail_after(5):
            await ended.wait()
        assert not paths.runtime_file.exists()
    lines = [line.removeprefix("data: ") for line in said["begin"].text.splitlines() if line.startswith("data: ")]
    assert json.loads(lines[-1])["error"]["message"] == "this node is stopping"
    assert said["wait"].status_code == 503
    assert said["wait"].json()["error"]["message"] == "this node is stopping"
    assert said["events"].status_code == 200
    assert said["events"].text.count("ReportFailed") == 2
    await before.regained()


async def test_a_client_that_reads_nothing_does_not_hold_up_the_stop(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, runtime, ended):
        # It has announced a body that never comes.
        client = await trio.open_tcp_stream("127.0.0.1", runtime.api_port)
        async with client:
            await client.send_all(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Content-Length: 100\r\n\r\n{"
            )
            os.kill(os.getpid(), signal.SIGTERM)
            with trio.fail_after(8):
                await ended.wait()


async def ask_and_be_hung_up_on(port: int) -> None:
    body = json.dumps(question("anybody?")).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    async with await trio.open_tcp_stream("127.0.0.1", port) as connection:
        with suppress(trio.BrokenResourceError):
            await connection.send_all(head.encode() + b"\r\n\r\n" + body)
            while await connection.receive_some():
                pass


BREAKING = """
import sys
import teale_io.node_app as app
{how}
app.main()
"""

BROKEN_CORE = """
class Breaking(app.Node):
    def handle(self, event, now):
        if type(event).__name__ == "Ask":
            raise RuntimeError("the core is broken")
        return super().handle(event, now)
app.Node = Breaking
"""

BROKEN_API = """
import trio
async def breaking(application, *arguments, task_status, **options):
    async with trio.open_nursery() as nursery:
        port = await nursery.start(trio.serve_tcp, fall, 0)
        task_status.started(port[0].socket.getsockname()[1])
async def fall(stream):
    raise RuntimeError("the API is broken")
app.serve_api = breaking
"""


@pytest.mark.parametrize(("how", "why"), [(BROKEN_CORE, "the core is broken"), (BROKEN_API, "the API is broken")])
async def test_what_nobody_can_do_without_ends_the_process_when_it_breaks(tmp_path: Path, how: str, why: str) -> None:
    paths = Paths.below(tmp_path)
    paths.config_file.write_text('identity_storage = "plain-file"\nlan_enabled = false\napi_port = 0\n')
    environ = {**os.environ, "TEALE_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    with trio.fail_after(SAFETY_SECONDS):
        process = await trio.lowlevel.open_process(
            [sys.executable, "-c", BREAKING.format(how=how)], env=environ, stderr=subprocess.PIPE
        )
        try:
            assert process.stderr is not None
            log = b""
            while b"node is up" not in log:
                log += await process.stderr.receive_some()
            runtime = read_runtime(paths)
            assert runtime is not None
            await ask_and_be_hung_up_on(runtime.api_port)
            while more := await process.stderr.receive_some():
                log += more
            assert await process.wait() == 1
        finally:
            process.kill()
            await process.wait()
    assert "Traceback" in log.decode()
    assert why in log.decode()
    assert not paths.runtime_file.exists()


# Discovery that falls over.

BOB = NodeId("b2" * 32)
RECORD = ServiceRecord(BOB, 4000)
FOUND = ServiceFound("bob", RECORD, ())


class Falling:
    """Discovery that sees bob, and falls when it is told to."""

    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self.advertised: list[ServiceRecord] = []
        self.falls = trio.Event()

    @property
    def performers(self) -> Performers:
        return {Advertise: lambda effect: self.advertised.append(effect.record)}

    async def run(self) -> None:
        self.feed(FOUND)
        await self.falls.wait()
        raise OSError("no more sockets")


async def test_discovery_that_falls_over_comes_back_and_advertises_what_it_should() -> None:
    fed: list[ServiceFound | ServiceLost] = []
    made: list[Falling] = []

    def discover(feed: Feed) -> Falling:
        made.append(Falling(feed))
        return made[-1]

    kept = KeptDiscovery(feed=fed.append, discover=discover, first=1)
    kept.performers[Advertise](Advertise(RECORD))
    with trio.fail_after(SAFETY_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(kept.run)
            await until(lambda: len(made) == 1)
            newer = ServiceRecord(BOB, 5000)
            kept.performers[Advertise](Advertise(newer))
            made[0].falls.set()
            await until(lambda: len(fed) == 3)
            nursery.cancel_scope.cancel()
    assert fed == [FOUND, ServiceLost("bob"), FOUND]
    assert (made[0].advertised, made[1].advertised) == ([RECORD, newer], [newer])


# A relay with a certificate of its own.


def test_a_file_without_certificates_is_refused_with_what_to_do(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    for file, reason in ((empty, "there is no certificate in it"), (tmp_path / "none", "no such file")):
        config = Config(wan_enabled=True, wan_relay_ca=str(file))
        with pytest.raises(TealeError, match=reason):
            relay_dialer(config)
    relay_dialer(Config(wan_relay_ca="/nowhere"))
