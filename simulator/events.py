"""What befalls hosts and the network, as the trace tells it beside what goes into cores and comes out of them.

An entry's host is the host or site that it befalls; a partition befalls nobody in particular.
"""

from enum import Enum

from simulator.net.link import Link
from teale_proto.contract import Duration, Value


class Crash(Enum):
    """How a host dies."""

    RESET = "reset"
    """The process is gone: its connections are reset, new ones refused."""
    VANISH = "vanish"
    """The power is gone: nobody is told, and nothing is answered."""


class HostStarted(Value):
    """A host began to live, for the `life`-th time."""

    life: int


class HostCrashed(Value):
    """A host died."""

    how: Crash


class HostStopped(Value):
    """A host ended properly."""


class HostMoved(Value):
    """A host is attached elsewhere, under other addresses."""

    site: str
    addresses: tuple[str, ...]


class HostSlowed(Value):
    """Every input keeps a host busy for so long from now on; nothing at all when it is as quick as it was."""

    each: Duration


class ClockDrifted(Value):
    """A host's clock runs too fast, or too slow, from now on."""

    rate_ppm: int


class PartitionBegan(Value):
    """Nothing gets from some hosts, sites or regions to others."""

    sources: tuple[str, ...]
    targets: tuple[str, ...]


class PartitionEnded(Value):
    """It does again."""

    sources: tuple[str, ...]
    targets: tuple[str, ...]


class NatRebooted(Value):
    """The NATs before a site have forgotten everything."""


class NatRebound(Value):
    """The NAT before a site has other addresses, and has forgotten everything."""

    outside: tuple[str, ...]


class WeatherChanged(Value):
    """The link of a site or host has been exchanged."""

    link: Link


class CoreMisused(Value):
    """A core broke the contract with its driver."""

    what: str
