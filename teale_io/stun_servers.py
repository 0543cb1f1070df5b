"""STUN servers as people name them."""

from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from teale_proto.contract import Value

STUN_PORT: Final = 3478
"""The usual one (RFC 8489, section 8.6.1)."""

_PORTS: Final = {"ws": 80, "wss": 443}


class Server(Value):
    """A STUN server as people name it."""

    host: str
    port: int = STUN_PORT


def parse_server(text: str) -> Server:
    """Return the server that HOST, HOST:PORT, an IPv6 address or [IPv6 address]:PORT names; raises ValueError."""
    if text.count(":") > 1 and not text.startswith("["):
        return Server(str(ip_address(text)))
    parts = urlsplit(f"//{text}")
    port = STUN_PORT if parts.port is None else parts.port
    if not parts.hostname or port == 0 or parts.netloc != text or parts.username is not None:
        raise ValueError("neither HOST nor HOST:PORT")
    return Server(parts.hostname, port)


def relay_servers(relay_url: str) -> tuple[Server, ...]:
    """Return where a relay answers STUN: at the number of its own port or, behind a proxy, at the usual one."""
    parts = urlsplit(relay_url)
    if not parts.hostname:
        return ()
    own = parts.port or _PORTS.get(parts.scheme, STUN_PORT)
    return tuple(Server(parts.hostname, port) for port in dict.fromkeys((own, STUN_PORT)))
