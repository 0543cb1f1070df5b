"""Finding out how long the NATs around this machine remember a mapping, with two real sockets. It takes minutes."""

import random
from collections.abc import Callable
from typing import Final, TypeAlias, get_args

import trio

from teale_io.runner import Runner
from teale_io.stun_service import padded
from teale_io.udp import DatagramSockets
from teale_proto.contract import SECOND, Duration, Value
from teale_proto.effects import SendDatagram
from teale_proto.inputs import Address
from teale_proto.nat.behaviour import Retransmission
from teale_proto.nat.lifetime import (
    RETRANSMISSION,
    Bounds,
    LifetimeEffect,
    LifetimeInput,
    LifetimeSearch,
    LifetimeWanted,
    ReportLifetime,
    ReportSilence,
    Setting,
    longest_search,
)

Progress: TypeAlias = Callable[[ReportSilence], object]


class Span(Value):
    """Between what a lifetime is searched for, and how exactly it is wanted."""

    shortest: Duration = 10 * SECOND
    longest: Duration = 300 * SECOND
    resolution: Duration = 10 * SECOND

    def setting(self, local: Address, second: Address, server: Address) -> Setting:
        """Return what the core is told."""
        return Setting(local, second, server, self.shortest, self.longest, self.resolution)


SPAN: Final = Span()


def minutes_at_most(span: Span = SPAN) -> int:
    """Return for how many minutes a search can go on, in whole ones."""
    nowhere = Address("0.0.0.0", 0)  # noqa: S104 - not to be bound
    setting = span.setting(nowhere, nowhere, nowhere)
    return -(-min(longest_search(Bounds(), setting), setting.total_max) // (60 * SECOND))


async def find_lifetime(
    host: str,
    server: Address,
    *,
    tell: Progress,
    span: Span = SPAN,
    retransmission: Retransmission = RETRANSMISSION,
) -> ReportLifetime | None:
    """Search for the lifetime of a mapping of this host's towards a server; None where there can be no sockets."""
    outcome: list[ReportLifetime] = []
    over = trio.Event()

    def conclude(report: ReportLifetime) -> None:
        outcome.append(report)
        over.set()

    with DatagramSockets(lambda received: runner.feed(received)) as sockets:
        try:
            local, second = (sockets.bind(Address(host, 0)) for _ in range(2))
        except OSError:
            return None

        def send(effect: SendDatagram) -> None:
            sockets.send(SendDatagram(effect.local, effect.remote, padded(effect.data)))

        core = LifetimeSearch(span.setting(local, second, server), random.SystemRandom(), retransmission=retransmission)
        runner: Runner[LifetimeInput, LifetimeEffect] = Runner(core, get_args(LifetimeEffect))
        runner.perform_with({SendDatagram: send, ReportSilence: tell, ReportLifetime: conclude})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(runner.run)
            nursery.start_soon(sockets.run)
            runner.feed(LifetimeWanted())
            await over.wait()
            nursery.cancel_scope.cancel()
    return outcome[0]
