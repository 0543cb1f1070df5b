"""Keeps pages of other origins out of an API that asks for no password.

A browser that runs a stranger's page sits on the same machine as we do. Four rules, each against one way in:

- the `Host` must be a name of ours: a page whose own name is rebound to 127.0.0.1 still sends that name;
- an `Origin` must be our own, or one that was allowed: browsers send it with every cross-origin POST;
- `Sec-Fetch-Site` must not speak of another site: images, scripts and forms carry no Origin but this;
- a body must be declared as JSON: a cross-origin page cannot do so without a preflight, which gets no answer.

No CORS header is ever sent, so that a browser shows no page what it got.
"""

from collections.abc import Collection
from ipaddress import ip_address
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from teale_io.api.errors import Problem

_OWN_SITE: Final = frozenset({"same-origin", "none"})
"""`none` is a person who typed the address."""

_WITHOUT_BODY: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class Guard:
    """Refuses requests that a page of another origin could have caused; a pure ASGI layer."""

    def __init__(self, app: ASGIApp, *, allowed_hosts: Collection[str], allowed_origins: Collection[str]) -> None:
        self._app = app
        self._allowed_hosts = frozenset(host.lower() for host in allowed_hosts)
        self._allowed_origins = frozenset(origin.lower() for origin in allowed_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it with the refusal."""
        refusal = self._refusal(scope["method"], Headers(scope=scope)) if scope["type"] == "http" else None
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            await refusal.response()(scope, receive, send)

    def _refusal(self, method: str, headers: Headers) -> Problem | None:
        host = headers.get("host", "").lower()
        if not self._is_ours(host_name(host)):
            return Problem(403, "this Host is not a name of this node", code="host_not_allowed")
        origins = {origin.lower() for origin in headers.getlist("origin")}
        if not origins <= {f"http://{host}", f"https://{host}"} | self._allowed_origins:
            return Problem(403, "pages of other origins may not use this node", code="origin_not_allowed")
        sites = {site.lower() for site in headers.getlist("sec-fetch-site")}
        if not sites <= _OWN_SITE and not (origins and origins <= self._allowed_origins):
            return Problem(403, "pages of other sites may not use this node", code="site_not_allowed")
        if method not in _WITHOUT_BODY and not _is_json(headers.get("content-type", "")):
            return Problem(415, "the Content-Type must be application/json", code="unsupported_media_type")
        return None

    def _is_ours(self, name: str) -> bool:
        return name in self._allowed_hosts or is_loopback(name)


def host_name(host: str) -> str:
    """Return the name in a Host header, without port and brackets; "" when it is malformed (RFC 9110, 7.2)."""
    if host.startswith("["):
        name, closed, port = host[1:].partition("]")
        port = port.removeprefix(":") if port.startswith(":") or not port else "malformed"
        return name if closed and (not port or port.isdecimal()) else ""
    name, _, port = host.partition(":")
    return name.removesuffix(".") if not port or port.isdecimal() else ""


def is_loopback(name: str) -> bool:
    """Say whether a lower-case host name can only be this machine, whoever answers for the DNS."""
    if name == "localhost":
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def _is_json(content_type: str) -> bool:
    return content_type.partition(";")[0].strip().lower() == "application/json"
