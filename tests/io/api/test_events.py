"""The node's news as they happen."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec
import trio

from teale_io.api import Limits
from teale_proto.effects import (
    Path,
    PeerState,
    RelayState,
    ReportAttempt,
    ReportChunk,
    ReportFailed,
    ReportPeer,
    ReportRelay,
)
from teale_proto.inputs import Failure
from tests.io.api.scripted import ScriptedService, browsing, served
from tests.io.status import BOB


class Follower:
    """Reads the news from a socket."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.head = b""
        self._received = bytearray()

    async def follow(self) -> None:
        # Of HTTP/1.0, so that the body comes as it is, without chunks.
        await self.stream.send_all(b"GET /api/events HTTP/1.0\r\nHost: localhost\r\n\r\n")
        self.head = await self._until(b"\r\n\r\n")
        await self.comment()

    async def comment(self) -> None:
        while not (await self._until(b"\n\n")).startswith(b":"):
            pass

    async def news(self) -> Any:
        while not (event := await self._until(b"\n\n")).startswith(b"data: "):
            if not event:
                return None
        return msgspec.json.decode(event.removeprefix(b"data: "))

    async def _until(self, end: bytes) -> bytes:
        """Return what comes before `end`, or b"" when the stream ends."""
        searched = 0
        while (found := self._received.find(end, searched)) < 0:
            searched = max(0, len(self._received) - len(end))
            data = await self.stream.receive_some(1 << 20)
            if not data:
                return b""
            self._received += data
        event = bytes(self._received[:found])
        del self._received[: found + len(end)]
        return event


@asynccontextmanager
async def following(service: ScriptedService, limits: Limits | None = None) -> AsyncIterator[Follower]:
    async with served(service, limits) as port, await trio.open_tcp_stream("127.0.0.1", port) as stream:
        follower = Follower(stream)
        await follower.follow()
        yield follower


async def test_reports_arrive_with_their_kind() -> None:
    service = ScriptedService()
    async with following(service) as follower:
        service.tell(
            ReportPeer(BOB, PeerState.LOST, Path.RELAY, "three heartbeats missed"),
            ReportRelay(RelayState.WAITING, "refused", 5_000_000),
            ReportAttempt("r", BOB, Path.LAN),
            ReportFailed("r", Failure.TIMEOUT, "too slow", 1),
        )
        assert await follower.news() == {
            "kind": "ReportPeer",
            "node": BOB,
            "state": "lost",
            "path": "relay",
            "reason": "three heartbeats missed",
        }
        assert await follower.news() == {
            "kind": "ReportRelay",
            "state": "waiting",
            "reason": "refused",
            "retry_in": 5_000_000,
        }
        assert await follower.news() == {"kind": "ReportAttempt", "request": "r", "server": BOB, "path": "lan"}
        assert await follower.news() == {
            "kind": "ReportFailed",
            "request": "r",
            "failure": "timeout",
            "message": "too slow",
            "attempts": 1,
        }


async def test_pieces_of_answers_are_nobodys_news() -> None:
    service = ScriptedService()
    async with following(service) as follower:
        service.tell(ReportChunk("r", b'{"secret":1}'), ReportRelay(RelayState.OFF))
        assert await follower.news() == {"kind": "ReportRelay", "state": "off", "reason": "", "retry_in": None}


async def test_a_quiet_stream_says_that_it_is_alive() -> None:
    async with following(ScriptedService(), Limits(comment_seconds=0.001)) as follower:
        assert b"content-type: text/event-stream" in follower.head
        for _ in range(3):
            await follower.comment()


async def test_the_stream_ends_when_the_node_has_no_more_to_say() -> None:
    service = ScriptedService()
    async with following(service) as follower:
        service.followers[0].close()
        assert await follower.news() is None


async def test_the_head_of_the_stream_can_be_asked_for() -> None:
    async with browsing(ScriptedService()) as client:
        assert (await client.head("/api/events")).status_code == 200


async def test_a_reader_that_stalls_holds_up_nobody_and_goes_on_later() -> None:
    service = ScriptedService()
    more_than_sockets_hold = [ReportRelay(RelayState.WAITING, "x" * 100_000)] * 200
    async with following(service) as follower:
        service.tell(*more_than_sockets_hold, ReportRelay(RelayState.CONNECTED))
        _, port = follower.stream.socket.getpeername()
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            assert (await client.get("/health")).status_code == 200
        assert service.followers[0].statistics().current_buffer_used > 0
        for _ in more_than_sockets_hold:
            assert (await follower.news())["state"] == "waiting"
        assert (await follower.news())["state"] == "connected"
