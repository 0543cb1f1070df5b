"""Who comes to a relay, and what they may see: tokens, reverse proxies, and the relay's own machine.

A reverse proxy hides where its clients come from and says so in a header that anybody could send. It is believed
from the proxies that the operator named, about their own client only, and nobody else.
"""

from collections.abc import Iterable, Sequence
from http import HTTPStatus
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, TypeAlias

from websockets.datastructures import Headers

from teale_io.relay_files import Tokens
from teale_io.websocket_server import Page, Visit
from teale_proto.inputs import Address

X_FORWARDED_FOR: Final = "X-Forwarded-For"
FORWARDED: Final = "Forwarded"
PROXY_HEADERS: Final = (X_FORWARDED_FOR, FORWARDED)
RETRY_AFTER_SECONDS: Final = 5

Network: TypeAlias = IPv4Network | IPv6Network
_IpAddress: TypeAlias = IPv4Address | IPv6Address

TOKEN_WANTED: Final = Page(
    b"This relay wants an access token.\n",
    "text/plain",
    HTTPStatus.UNAUTHORIZED,
    (("WWW-Authenticate", 'Bearer realm="teale relay"'),),
)
STOPPING: Final = Page(
    b"This relay is stopping.\n",
    "text/plain",
    HTTPStatus.SERVICE_UNAVAILABLE,
    (("Retry-After", str(RETRY_AFTER_SECONDS)),),
)


class Access:
    """The rules of one relay: `tokens` are wanted if there are any, `proxies` are believed through `proxy_header`."""

    def __init__(
        self,
        *,
        tokens: Tokens | None = None,
        proxies: Iterable[Network] = (),
        proxy_header: str = X_FORWARDED_FOR,
    ) -> None:
        self._tokens = tokens
        self._proxies = tuple(proxies)
        self._proxy_header = proxy_header
        self.is_stopping = False
        """Whether newcomers are turned away."""

    def visitor(self, peer: Address, headers: Headers) -> Address:
        """Return where a request comes from, as far as that can be believed."""
        if not self.is_proxy(peer.host):
            return peer
        hops = [hop for value in headers.get_all(self._proxy_header) for hop in self._hops(value)]
        # Each proxy appends whom it heard; what stands before the first stranger is that stranger's own claim.
        for hop in reversed(hops):
            address = _address(hop)
            if address is None:
                break
            if not self.is_proxy(str(address)):
                return Address(str(address), 0)
        return peer

    def refuse(self, visit: Visit) -> Page | None:
        """Return what a WebSocket request is answered with that is not let in; None lets it in."""
        if self.is_stopping:
            return STOPPING
        return None if self._has_token(visit.headers) else TOKEN_WANTED

    def may_look(self, visit: Visit) -> bool:
        """Return whether the pages that not everybody may see are shown: to tokens, and to this machine itself."""
        return self._has_token(visit.headers) or _is_local(visit)

    def _has_token(self, headers: Headers) -> bool:
        if self._tokens is None:
            return True
        values = headers.get_all("Authorization")
        return len(values) == 1 and self._tokens.accept(values[0])

    def is_proxy(self, host: str) -> bool:
        """Return whether an address is that of a proxy that the operator named."""
        address = _address(host)
        return address is not None and any(address in network for network in self._proxies)

    def _hops(self, value: str) -> Sequence[str]:
        parts = [part.strip() for part in value.split(",")]
        return parts if self._proxy_header == X_FORWARDED_FOR else [_forwarded_for(part) for part in parts]


def network(text: str) -> Network:
    """Return the proxy, or network of proxies, that an operator named; raises ValueError."""
    return ip_network(text, strict=False)


def _is_local(visit: Visit) -> bool:
    # A proxy on this machine that was not named as one must not make everybody local.
    forwarded = any(header in visit.headers for header in PROXY_HEADERS)
    address = _address(visit.remote.host)
    return address is not None and address.is_loopback and not forwarded


def _forwarded_for(element: str) -> str:
    """Return the `for` of one element of RFC 7239's `Forwarded`; "" where there is none."""
    for pair in element.split(";"):
        name, _, value = pair.strip().partition("=")
        if name.lower() == "for":
            return value.strip('"')
    return ""


def _address(text: str) -> _IpAddress | None:
    """Return the address in what a proxy or a socket says, which may have brackets, a port and a scope."""
    host = text.partition("]")[0][1:] if text.startswith("[") else text
    if host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        address = ip_address(host)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
