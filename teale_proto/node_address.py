"""A node's address as people pass it on: `teale://<node id>?relay=wss://relay.example/ws&addr=192.0.2.1:4433`.

The node id is all that it takes: whoever answers has to prove it. `relay` is where the node is registered, and each
`addr` is where it may answer directly; they are hints, and a wrong one costs an attempt. Without `addr` a node is
reached through its relay only. What comes from somebody else's clipboard is hostile until it has been read: everything
has a limit, and an address is one line of printable ASCII. Keys that are not known are passed over, so that later
versions can add some.
"""

import re
from ipaddress import IPv6Address, ip_address
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from teale_proto.contract import Value
from teale_proto.errors import PeerError
from teale_proto.inputs import Address, NodeId
from teale_proto.secure.identity import is_node_id

SCHEME: Final = "teale://"
LENGTH_MAX: Final = 2048
PARTS_MAX: Final = 32
"""Of the query, with those that are passed over."""
ADDRESSES_MAX: Final = 8
RELAY_LENGTH_MAX: Final = 512

_PRINTABLE: Final = re.compile(r"[!-~]+")
_ENDPOINT: Final = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]{2,45})\]|(?P<v4>[0-9.]{7,15})):(?P<port>[1-9][0-9]{0,4})")
_PORT_MAX: Final = 0xFFFF
_SAFE: Final = ":/[]@!$'()*,;"
"""What need not be escaped in a value (RFC 3986, section 3.4), beside letters, digits and -._~."""


class AddressError(PeerError):
    """A text is no node address; the reason is for people, and quotes nothing of the text."""


class NodeAddress(Value):
    """Who a node is, and where it may be reached."""

    node: NodeId
    relay: str = ""
    """A ws:// or wss:// URL; "" for whichever relay the two have in common."""
    addresses: tuple[Address, ...] = ()
    """Where it may answer directly, the best first; IP addresses."""

    def __str__(self) -> str:
        """Return it as people pass it on."""
        query = [f"relay={quote(self.relay, safe=_SAFE)}"] if self.relay else []
        query += [f"addr={written(each)}" for each in self.addresses]
        return SCHEME + self.node + ("?" + "&".join(query) if query else "")


def parse_node_address(text: str) -> NodeAddress:
    """Return the address that a text is; raises AddressError."""
    text = text.strip()
    if len(text) > LENGTH_MAX:
        raise AddressError(f"a node address has at most {LENGTH_MAX} characters")
    if not text.lower().startswith(SCHEME) or not _PRINTABLE.fullmatch(text):
        raise AddressError(f"a node address is one line that begins with {SCHEME}")
    # A fragment is nothing that was agreed upon, and is passed over as unknown keys are.
    rest, _, _ = text[len(SCHEME) :].partition("#")
    name, _, query = rest.partition("?")
    node = name.removesuffix("/").lower()
    if not is_node_id(node):
        raise AddressError(f"after {SCHEME} there have to be the 64 hexadecimal digits of a node id")
    relay = ""
    addresses: list[Address] = []
    parts = query.split("&") if query else []
    if len(parts) > PARTS_MAX:
        raise AddressError(f"a node address has at most {PARTS_MAX} parts")
    for part in parts:
        key, _, value = part.partition("=")
        if key == "relay":
            if relay:
                raise AddressError("a node address names one relay")
            relay = _relay(unquote(value))
        elif key == "addr":
            addresses.append(_endpoint(unquote(value)))
    if len(addresses) > ADDRESSES_MAX:
        raise AddressError(f"a node address names at most {ADDRESSES_MAX} addresses")
    return NodeAddress(NodeId(node), relay, tuple(dict.fromkeys(addresses)))


def written(address: Address) -> str:
    """Return an endpoint as URLs have it, IPv6 in brackets."""
    return f"[{address.host}]:{address.port}" if ":" in address.host else f"{address.host}:{address.port}"


def is_relay_url(url: str) -> bool:
    """Return whether a text is the URL of a relay, with no credentials in it."""
    if len(url) > RELAY_LENGTH_MAX or not _PRINTABLE.fullmatch(url):
        return False
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    plain = parts.username is None and parts.password is None and not parts.fragment
    return parts.scheme in ("ws", "wss") and bool(parts.hostname) and port != 0 and plain


def is_endpoint(address: Address) -> bool:
    """Return whether an address may stand in a node address: one host, by IP address, and a port."""
    try:
        host = ip_address(address.host)
    except ValueError:
        return False
    scoped = isinstance(host, IPv6Address) and host.scope_id is not None
    somebody = not (host.is_unspecified or host.is_multicast or scoped)
    return somebody and 0 < address.port <= _PORT_MAX


def _relay(url: str) -> str:
    if not is_relay_url(url):
        raise AddressError("the relay of a node address is a ws:// or wss:// URL")
    return url


def _endpoint(text: str) -> Address:
    found = _ENDPOINT.fullmatch(text)
    if found is not None:
        try:
            host = ip_address(found["v6"] or found["v4"])
        except ValueError:
            host = None
        right = host is not None and (host.version == 6) == (found["v6"] is not None)
        address = Address(str(host), int(found["port"]))
        if right and is_endpoint(address):
            return address
    raise AddressError("an address is 192.0.2.1:4433, or [2001:db8::1]:4433")
