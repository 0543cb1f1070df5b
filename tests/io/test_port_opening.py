"""Ports opened by UPnP on behalf of a core, where the gateway says nothing: every question has one answer.

A gateway that does speak is in `tests/e2e/test_upnp.py`.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from teale_io import upnp
from teale_io.port_opening import PORTS_MAX, PortOpener
from teale_io.quic.udp import bind_udp
from teale_proto.contract import SECOND
from teale_proto.effects import MapPort, UnmapPort
from teale_proto.inputs import Address, PortMapFailed, PortMapped

HOST = "127.0.0.1"
SAFETY_SECONDS = 30

needs_library = pytest.mark.skipif(not upnp.is_installed(), reason="needs miniupnpc")


class Desk:
    """An opener, and what it answers."""

    def __init__(self, opener: PortOpener, answers: trio.MemoryReceiveChannel[PortMapped | PortMapFailed]) -> None:
        self.opener = opener
        self.answers = answers

    def map(self, request: int) -> None:
        self.opener.performers[MapPort](MapPort(request, HOST, Address(HOST, 7475), 600 * SECOND))

    def unmap(self, request: int) -> None:
        self.opener.performers[UnmapPort](UnmapPort(request))


@asynccontextmanager
async def desk() -> AsyncIterator[Desk]:
    """Run an opener that asks a gateway that is there and says nothing."""
    send, receive = trio.open_memory_channel[PortMapped | PortMapFailed](2 * PORTS_MAX)
    with bind_udp(HOST, 0) as silent, trio.fail_after(SAFETY_SECONDS):
        opener = PortOpener(send.send_nowait, ssdp_port=silent.getsockname()[1])
        async with trio.open_nursery() as nursery:
            await nursery.start(opener.run)
            yield Desk(opener, receive)
            nursery.cancel_scope.cancel()


@needs_library
async def test_a_gateway_that_says_nothing_is_a_failure_in_its_time(autojump_clock: object) -> None:
    async with desk() as at:
        at.map(1)
        assert await at.answers.receive() == PortMapFailed(1, f"{HOST} does not answer to UPnP")
        at.unmap(1)
        await at.opener.wait_idle()


@needs_library
async def test_what_is_wanted_no_more_is_not_answered(autojump_clock: object) -> None:
    async with desk() as at:
        at.map(1)
        at.unmap(1)
        at.unmap(1)
        at.unmap(7)
        await at.opener.wait_idle()
        with pytest.raises(trio.WouldBlock):
            at.answers.receive_nowait()


@needs_library
async def test_so_many_ports_are_asked_for_at_a_time_and_none_twice_at_once(autojump_clock: object) -> None:
    async with desk() as at:
        for request in range(PORTS_MAX):
            at.map(request)
        at.map(PORTS_MAX)
        assert await at.answers.receive() == PortMapFailed(PORTS_MAX, "too many ports")
        at.map(0)
        assert await at.answers.receive() == PortMapFailed(0, "the gateway is being asked already")
        for request in range(PORTS_MAX):
            at.unmap(request)
        await at.opener.wait_idle()
        at.map(PORTS_MAX + 1)
        assert "does not answer" in (await at.answers.receive()).reason  # type: ignore[union-attr]


async def test_before_and_after_its_time_an_opener_opens_nothing() -> None:
    answers: list[PortMapped | PortMapFailed] = []
    opener = PortOpener(answers.append)
    opener.performers[MapPort](MapPort(1, HOST, Address(HOST, 1), SECOND))
    opener.performers[UnmapPort](UnmapPort(1))
    await opener.wait_idle()
    assert [type(each) for each in answers] == [PortMapFailed]


async def test_without_the_library_the_answer_comes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upnp, "is_installed", lambda: False)
    async with desk() as at:
        at.map(1)
        assert at.answers.receive_nowait() == PortMapFailed(1, str(upnp.UpnpMissing()))
