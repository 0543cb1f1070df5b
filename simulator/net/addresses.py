"""Addresses for hosts and sites that do not care which they get: drawn one after the other, so the same in every run.

Public ones look global to whoever asks; what stands behind a NAT gets private ones (RFC 1918), and NATs behind a
carrier's NAT those that are set aside for them (RFC 6598).
"""

from sys import intern
from typing import Final

from simulator.net.site import NetworkError, Site

_PUBLIC_4: Final = 60 << 24
_SHARED_4: Final = (100 << 24) + (64 << 16)
_PRIVATE_4: Final = 10 << 24
_GROUP: Final = 0xFFFF


class AddressBook:
    """Counts what has been drawn."""

    __slots__ = ("_prefixes", "_public")

    def __init__(self) -> None:
        self._public = 0
        self._prefixes = 0

    def public(self) -> str:
        """Return an IPv4 address of the public internet."""
        self._public += 1
        return _dotted(_PUBLIC_4 + self._public)

    def prefix_6(self) -> str:
        """Return the prefix of a site's IPv6 addresses, in the form of RFC 5952."""
        # No group is nothing, so that there is nothing to shorten but the one place that is.
        high, low = divmod(self._prefixes, _GROUP)
        self._prefixes += 1
        return f"2a00:{0x1000 + high:x}:{low + 1:x}::"

    def of_host(self, site: Site) -> tuple[str, ...]:
        """Return the addresses of a new host in a site."""
        site.hosts += 1
        number = site.hosts + 1
        address = self._inside(site, _PRIVATE_4)
        if not site.prefix_6:
            return (address,)
        if number > _GROUP:
            raise NetworkError(f"{site.name!r} has more hosts than IPv6 addresses are drawn for")
        return (address, f"{site.prefix_6}{number:x}")

    def outside(self, parent: Site) -> str:
        """Return the outside address of a new NAT in a site."""
        parent.hosts += 1
        return self._inside(parent, _SHARED_4)

    def _inside(self, site: Site, base: int) -> str:
        """Return an address that belongs to the nearest NAT around a host or site, or to nobody."""
        around: Site | None = site
        while around is not None and not around.outside:
            around = around.parent
        if around is None:
            return self.public()
        if around is not site:
            around.hosts += 1
        # The first one is the gateway's own.
        address = _dotted(base + 1 + around.hosts)
        # These are the same in every home, and need not be kept more than once.
        return intern(address) if base == _PRIVATE_4 else address


def _dotted(number: int) -> str:
    return f"{number >> 24}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
