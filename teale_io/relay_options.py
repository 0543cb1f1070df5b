"""What the options of `teale-relay` mean to its core."""

import sys
from typing import Final

import click

from teale_io.relay_access import Network, network
from teale_proto.relay.limits import Flow, Traffic

MESSAGES_BURST_SECONDS: Final = 4
BYTES_BURST_SECONDS: Final = 2


class NetworkOption(click.ParamType[Network]):
    """An IP address, or a network such as 10.0.0.0/8."""

    name = "address"

    def convert(self, value: str | Network, param: click.Parameter | None, ctx: click.Context | None) -> Network:
        """Return the network."""
        if not isinstance(value, str):
            return value
        try:
            return network(value)
        except ValueError:
            self.fail(f"{value!r} is neither an IP address nor a network.", param, ctx)


def traffic(messages: int, size_bytes: int, *, message_bytes_max: int) -> Traffic:
    """Return limits of so many messages and bytes a second, with room for some seconds at once; 0 is no limit."""
    return Traffic(
        Flow(messages, burst=MESSAGES_BURST_SECONDS * messages) if messages else None,
        # However slow it is to be, the largest message must fit at some time.
        Flow(size_bytes, burst=max(BYTES_BURST_SECONDS * size_bytes, message_bytes_max)) if size_bytes else None,
    )


def unlimited(count: int) -> int:
    """Return a limit as a number, where 0 stands for none."""
    return count or sys.maxsize
