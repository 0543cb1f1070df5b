"""Whether a gateway opens ports: it is asked for one, by all that it may speak, and has to close it again."""

import random
import socket
from contextlib import suppress
from typing import Final, NamedTuple, TypeAlias, get_args

import trio

from teale_io import upnp
from teale_io.runner import Runner
from teale_io.udp import DatagramSockets
from teale_proto.contract import MILLISECOND, SECOND
from teale_proto.inputs import Address
from teale_proto.nat.port_mapping import PortMapping
from teale_proto.nat.port_mapping_values import (
    MappingUnwanted,
    MappingWanted,
    Patience,
    PortMappingEffect,
    PortMappingInput,
    Protocol,
    ReportPortLost,
    ReportPortMapped,
    ReportPortRefused,
    ReportPortReleased,
    ReportPortUnavailable,
    Setting,
    routable,
)

MAPPING_PATIENCE: Final = Patience(
    pcp_first=SECOND, pcp_requests=2, nat_pmp_first=250 * MILLISECOND, nat_pmp_requests=4, release_requests=2
)
"""7 s in all; people are waiting."""
MAPPING_LIFETIME_SECONDS: Final = 120
"""Short, in case that we cannot release it."""
MAPPING_SECONDS: Final = 20.0
"""A safety net: the core gives up by itself."""

PortOutcome: TypeAlias = ReportPortMapped | ReportPortRefused | ReportPortUnavailable


class Opening(NamedTuple):
    """What the gateway said, if anything, and whether it was asked by UPnP too."""

    outcome: PortOutcome | None
    upnp_tried: bool = False


async def try_opening(gateway: str, host: str) -> Opening:
    """Have the gateway open a port to our address `host`, and close it again; by UPnP as a last resort."""
    if not host:
        return Opening(None)
    outcome = await _by_core(gateway, host)
    if isinstance(outcome, ReportPortMapped) or not upnp.is_installed():
        return Opening(outcome)
    by_upnp = await _by_upnp(gateway, host)
    # Who refuses by one and does not speak the other has refused.
    silent = isinstance(by_upnp, ReportPortUnavailable)
    return Opening(outcome if silent and outcome is not None else by_upnp, upnp_tried=True)


async def _by_upnp(gateway: str, host: str) -> PortOutcome:
    local = Address(host, 0)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as held:
            held.bind((host, 0))
            local = Address(*held.getsockname())
            found = await upnp.find_gateway(gateway, host)
            mapping = await found.request(local, MAPPING_LIFETIME_SECONDS)
            with trio.CancelScope(shield=True), suppress(upnp.UpnpError):
                await found.release(mapping)
    except upnp.UpnpRefused as error:
        return ReportPortRefused(local, error.reason, 0)
    except (upnp.UpnpError, OSError):
        return ReportPortUnavailable(local, 0)
    lifetime = mapping.lifetime_seconds * SECOND
    external = mapping.external
    return ReportPortMapped(local, external, lifetime, Protocol.UPNP, routable=routable(external.host))


async def _by_core(gateway: str, host: str) -> PortOutcome | None:
    """Do so by PCP or NAT-PMP; None where nothing came of it in time."""
    outcome: list[PortOutcome] = []
    decided, released = trio.Event(), trio.Event()

    def decide(report: PortOutcome) -> None:
        outcome.append(report)
        decided.set()

    with DatagramSockets(lambda received: runner.feed(received)) as sockets:
        try:
            local = sockets.bind(Address(host, 0))
        except OSError:
            return None
        setting = Setting(local, gateway, local.port, MAPPING_LIFETIME_SECONDS)
        core = PortMapping(setting, random.SystemRandom(), patience=MAPPING_PATIENCE)
        runner: Runner[PortMappingInput, PortMappingEffect] = Runner(core, get_args(PortMappingEffect))
        runner.perform_with(
            {
                **sockets.performers,
                **dict.fromkeys(get_args(PortOutcome), decide),
                ReportPortLost: lambda _: None,
                ReportPortReleased: lambda _: released.set(),
            }
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(runner.run)
            nursery.start_soon(sockets.run)
            runner.feed(MappingWanted())
            with trio.move_on_after(MAPPING_SECONDS):
                await decided.wait()
            with trio.CancelScope(shield=True), trio.move_on_after(MAPPING_SECONDS / 4):
                runner.feed(MappingUnwanted())
                if outcome and isinstance(outcome[0], ReportPortMapped):
                    await released.wait()
            nursery.cancel_scope.cancel()
    return outcome[0] if outcome else None
