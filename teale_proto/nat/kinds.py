"""What a NAT does, in RFC 4787's words.

Each enum is one independent property; its members are in the order of how much they ask of two peers, the
easiest first, so the property of stacked NATs is the greater of theirs.
"""

from enum import IntEnum
from typing import Final

from teale_proto.contract import Value
from teale_proto.inputs import Address


class Mapping(IntEnum):
    """On what the outside address and port of an inside endpoint depend (RFC 4787, section 4.1)."""

    ENDPOINT_INDEPENDENT = 0
    ADDRESS_DEPENDENT = 1
    ADDRESS_AND_PORT_DEPENDENT = 2


class Filtering(IntEnum):
    """Who may send to a mapping: anyone, or where its inside endpoint has sent to (RFC 4787, section 5)."""

    ENDPOINT_INDEPENDENT = 0
    ADDRESS_DEPENDENT = 1
    ADDRESS_AND_PORT_DEPENDENT = 2


class Hairpinning(IntEnum):
    """What becomes of a packet from the inside to a mapping of the same NAT (RFC 4787, section 6)."""

    EXTERNAL_SOURCE = 0
    """It arrives from its sender's mapping, as from anybody outside."""
    INTERNAL_SOURCE = 1
    """It arrives from its sender's inside address, where the receiver does not expect it."""
    NONE = 2


class Behaviour(Value):
    """What is known of the NATs between one local endpoint and the internet; None is what is not known."""

    udp_blocked: bool
    """No answer came at all; a server that is gone looks the same."""
    mapped: Address | None = None
    """The local endpoint as the server sees it."""
    translated: bool | None = None
    """Whether `mapped` differs from the local address; where it does not, there may still be a firewall."""
    mapping: Mapping | None = None
    mapping_varies: bool | None = None
    """Whether the mapping depends on the destination at all; two ordinary servers tell that, and no more."""
    filtering: Filtering | None = None
    hairpinning: Hairpinning | None = None

    def __str__(self) -> str:
        """Return the kind of NAT in the usual short words, such as "EIM+APDF"; a question mark is what is not known."""
        if self.udp_blocked:
            return "UDP blocked"
        if self.translated is None:
            return "unknown"
        filtering = "?" if self.filtering is None else _FILTERING[self.filtering]
        if not self.translated:
            return "public" if self.filtering is Filtering.ENDPOINT_INDEPENDENT else f"firewall, {filtering}"
        varies = "varies" if self.mapping_varies else "?"
        return f"{varies if self.mapping is None else _MAPPING[self.mapping]}+{filtering}"


_MAPPING: Final = {
    Mapping.ENDPOINT_INDEPENDENT: "EIM",
    Mapping.ADDRESS_DEPENDENT: "ADM",
    Mapping.ADDRESS_AND_PORT_DEPENDENT: "APDM",
}
_FILTERING: Final = {
    Filtering.ENDPOINT_INDEPENDENT: "EIF",
    Filtering.ADDRESS_DEPENDENT: "ADF",
    Filtering.ADDRESS_AND_PORT_DEPENDENT: "APDF",
}
