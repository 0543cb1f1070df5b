"""Which of the machine's addresses the LAN is reached by."""

import ipaddress
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import NamedTuple

import ifaddr


class IpVersions(Enum):
    """Which versions of IP discovery speaks."""

    V4 = "4"
    V6 = "6"
    BOTH = "both"


class LocalAddress(NamedTuple):
    """One address of one interface."""

    address: str
    interface: str
    interface_index: int

    @property
    def is_v6(self) -> bool:
        """Whether it is an IPv6 address."""
        return ":" in self.address

    @property
    def is_loopback(self) -> bool:
        """Whether it can be reached from this machine alone."""
        return ipaddress.ip_address(self.address).is_loopback


def local_addresses(interfaces: Sequence[str] = (), versions: IpVersions = IpVersions.BOTH) -> tuple[LocalAddress, ...]:
    """Return the addresses of the named interfaces (by name or address); by default all but the loopback.

    The order is stable. An interface that does not exist has no addresses.
    """
    found = []
    for each in _all():
        if versions is not IpVersions.BOTH and each.is_v6 is not (versions is IpVersions.V6):
            continue
        wanted = each.interface in interfaces or each.address in interfaces if interfaces else not each.is_loopback
        if wanted:
            found.append(each)
    return tuple(sorted(found))


def _all() -> Iterator[LocalAddress]:
    for adapter in ifaddr.get_adapters():
        for ip in adapter.ips:
            # ifaddr gives IPv6 addresses as (address, flow, scope).
            address = ip.ip if isinstance(ip.ip, str) else ip.ip[0]
            yield LocalAddress(address.partition("%")[0], adapter.nice_name, adapter.index or 0)
