"""The node's news as server-sent events, `{"kind": "ReportPeer", …}` each.

Pieces of answers are left out: an answer is the business of the program that asked for it, and of no other
program on this machine. A reader that falls behind loses the oldest news (the service sees to that), and
never holds up the node.
"""

from typing import Final

import trio
from starlette.types import Receive, Scope, Send

from teale_io.api.encoding import encode, plain
from teale_io.api.iterating import iterating
from teale_io.api.limits import Limits
from teale_io.api.sse import EventStream
from teale_io.service import NodeService
from teale_proto.effects import (
    NodeEffect,
    ReportAttempt,
    ReportFailed,
    ReportFinished,
    ReportPeer,
    ReportRefusal,
    ReportRelay,
    ReportUnknown,
)

_NEWS: Final = (ReportAttempt, ReportFinished, ReportFailed, ReportPeer, ReportRelay, ReportRefusal, ReportUnknown)


class Events:
    """The endpoint, as an ASGI application."""

    def __init__(self, service: NodeService, *, limits: Limits) -> None:
        self._service = service
        self._limits = limits

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Follow the node until it stops or the client goes away."""
        stream = EventStream(send)
        if scope["method"] == "HEAD":
            await stream.start()
            await stream.end()
            return
        async with self._service.reports() as reports, trio.open_nursery() as nursery:
            await stream.start()
            nursery.start_soon(self._comment, stream)
            async with iterating(reports) as arriving:
                async for report in arriving:
                    if isinstance(report, _NEWS):
                        await stream.event(encode_report(report))
            await stream.end()
            nursery.cancel_scope.cancel()

    async def _comment(self, stream: EventStream) -> None:
        # The first one at once: it tells the client that no later news will be missed.
        while True:
            await stream.comment("listening")
            await trio.sleep(self._limits.comment_seconds)


def encode_report(report: NodeEffect) -> bytes:
    """Return a report as a JSON object that names its kind."""
    members = plain(report)
    assert isinstance(members, dict)
    return encode({"kind": type(report).__name__, **members})
