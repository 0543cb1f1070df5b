"""What a port mapping is told and tells: its commands, its reports, and the settings by which it asks."""

from enum import Enum
from ipaddress import ip_address, ip_network
from typing import Final, TypeAlias

from teale_proto.contract import MILLISECOND, SECOND, Duration, Value
from teale_proto.effects import SendDatagram
from teale_proto.inputs import Address, DatagramReceived, Woken

LIFETIME_SECONDS_MAX: Final = 24 * 3600
"""A longer one is not asked for, and one that is offered is not believed (RFC 6887, section 15)."""

_NOWHERE: Final = tuple(
    ip_network(block)
    for block in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.168.0.0/16", "224.0.0.0/3", "::/96", "fc00::/7", "fe80::/10", "ff00::/8"),
    )
)
"""What the internet does not route: private, shared (RFC 6598), local and multicast addresses."""


class MappingWanted(Value):
    """Open the port, and keep it open; legal again once ReportPortReleased is out."""


class MappingUnwanted(Value):
    """Close the port; legal from MappingWanted on, once."""


class Protocol(Enum):
    """By what a gateway was asked."""

    PCP = "PCP"
    NAT_PMP = "NAT-PMP"
    UPNP = "UPnP"
    """By a library, and never by the core."""


class Refusal(Enum):
    """Why a gateway that answers opened no port."""

    NOT_AUTHORIZED = "not authorized"
    NO_RESOURCES = "no resources"
    NETWORK_FAILURE = "network failure"
    UNSUPPORTED = "unsupported"
    ADDRESS_MISMATCH = "another NAT is in between"
    OTHER = "other"


class ReportPortMapped(Value):
    """The port is open at `external`; said again only when that changes."""

    local: Address
    external: Address
    lifetime: Duration
    protocol: Protocol
    routable: bool
    """Whether `external` may be reached from everywhere; otherwise another NAT follows, often a carrier's."""


class ReportPortLost(Value):
    """The port is no longer open at `external`; it is being asked for again."""

    local: Address
    external: Address


class ReportPortRefused(Value):
    """The gateway refused; it will be asked again after `retry_in`."""

    local: Address
    reason: Refusal
    retry_in: Duration


class ReportPortUnavailable(Value):
    """The gateway speaks neither protocol; it will be asked again after `retry_in`."""

    local: Address
    retry_in: Duration


class ReportPortReleased(Value):
    """The end: the gateway knows that the port is to be closed, or did not say so in time."""

    local: Address


PortMappingInput: TypeAlias = Woken | MappingWanted | MappingUnwanted | DatagramReceived
PortMappingEffect: TypeAlias = (
    SendDatagram | ReportPortMapped | ReportPortLost | ReportPortRefused | ReportPortUnavailable | ReportPortReleased
)


class Setting(Value):
    """What to map: UDP port `port` of the host that asks from the socket `local`."""

    local: Address
    """The address is the host's own on the gateway's network, not the unspecified one."""
    gateway: str
    port: int
    lifetime_seconds: int = 7200
    """RFC 6886, section 3.3 recommends two hours."""


class Patience(Value):
    """How long to ask: by default 21 s by PCP and 128 s by NAT-PMP (RFC 6887, 8.1.1, and RFC 6886, 3.1)."""

    pcp_first: Duration = 3 * SECOND
    """IRT: the wait after the first request, give or take a tenth; it doubles up to `pcp_longest`."""
    pcp_longest: Duration = 1024 * SECOND
    pcp_requests: int = 3
    """After so many, a gateway is taken for one that does not speak PCP; RFC 6887 would go on for ever."""
    nat_pmp_first: Duration = 250 * MILLISECOND
    nat_pmp_requests: int = 9
    release_requests: int = 3
    """A process that ends does not wait for long."""
    check_every: Duration = 300 * SECOND
    """How often to look at the epoch; where announcements come in too, rarely is enough."""
    retry_after: Duration = 1024 * SECOND
    """When to ask again where nothing answered, or where a refusal did not say how long it lasts."""


def routable(host: str) -> bool:
    """Return whether the internet routes an IP address; False for what is none."""
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return not any(address in block for block in _NOWHERE if block.version == address.version)
