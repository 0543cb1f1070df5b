"""How long the way to a relay is, and whether somebody stands in it: connecting, and looking for captive portals.

A captive portal answers plain HTTP in somebody else's name, until its terms are accepted. It is found by asking for
something whose answer is known: the `/health` of a relay, or a page of which it is known that it is empty.
"""

from contextlib import suppress
from enum import Enum
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import httpx
import msgspec
import trio

from teale_io.connections import BROKEN_STREAM, DialFailed, reason_of
from teale_io.tcp import open_plain
from teale_io.websocket import WebSocketDialer
from teale_proto.contract import Value
from teale_proto.effects import WebSocketUrl

CONNECT_SECONDS: Final = 10.0
PARTING_SECONDS: Final = 1.0
PORTAL_SECONDS: Final = 10.0
ANSWER_BYTES_MAX: Final = 4096
"""What is longer is not what was asked for."""
LOCATION_LENGTH_MAX: Final = 200
TRIES: Final = 2
"""Of which the better one counts: the first one reads the system's certificates, too."""

_PORTS: Final = {"ws": 80, "wss": 443}


class RelayLatency(Value):
    """How long it takes to reach one relay; None is what did not come about."""

    url: str
    connect_seconds: float | None = None
    """A TCP connection, with finding out the address."""
    websocket_seconds: float | None = None
    """A WebSocket: the same, with TLS where that is used, and the request."""
    stun_seconds: float | None = None
    """There and back, over UDP."""
    reason: str = ""
    """Why it cannot be connected to, "" where it can."""


class PortalOutcome(Enum):
    """What came of looking for a captive portal."""

    CLEAR = "clear"
    INTERCEPTED = "intercepted"
    """Somebody else answered."""
    NO_ANSWER = "no answer"


class Portal(Value):
    """What became of one plain HTTP request."""

    url: str
    outcome: PortalOutcome
    detail: str = ""
    """What was answered instead, or why nothing was."""


class _Health(msgspec.Struct):
    ok: bool


async def relay_latency(url: str, dialer: WebSocketDialer) -> RelayLatency:
    """Return how long it takes to connect to a relay; STUN is asked by others."""
    parts = urlsplit(url)
    connect_seconds = None
    try:
        with trio.fail_after(CONNECT_SECONDS):
            began_at = trio.current_time()
            stream = await open_plain(parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0))
            connect_seconds = trio.current_time() - began_at
            await stream.aclose()
            took = [await _dial(url, dialer) for _ in range(TRIES)]
    except trio.TooSlowError:
        return RelayLatency(url, connect_seconds, reason=f"no answer within {CONNECT_SECONDS:.0f} s")
    except DialFailed as error:
        return RelayLatency(url, connect_seconds, reason=str(error))
    except BROKEN_STREAM as error:
        return RelayLatency(url, connect_seconds, reason=reason_of(error))
    return RelayLatency(url, connect_seconds, min(took))


async def _dial(url: str, dialer: WebSocketDialer) -> float:
    began_at = trio.current_time()
    stream, framing = await dialer(WebSocketUrl(url))
    seconds = trio.current_time() - began_at
    with suppress(*BROKEN_STREAM), trio.move_on_after(PARTING_SECONDS):
        await stream.send_all(framing.goodbye("measured", 1000))
    await trio.aclose_forcefully(stream)
    return seconds


def health_url(relay_url: str) -> str | None:
    """Return where a relay says over plain HTTP that it is well; None where it speaks TLS, which nobody can forge."""
    parts = urlsplit(relay_url)
    return urlunsplit(("http", parts.netloc, "/health", "", "")) if parts.scheme == "ws" else None


async def look_for_portal(url: str, *, is_health: bool) -> Portal:
    """Ask for a page over plain HTTP: a relay's `/health`, or one that has status 204 and nothing in it."""
    try:
        with trio.fail_after(PORTAL_SECONDS):
            # The asynchronous client leaves generators behind where an answer is not read to its end.
            response, body = await trio.to_thread.run_sync(_get, url, abandon_on_cancel=True)
    except trio.TooSlowError:
        return Portal(url, PortalOutcome.NO_ANSWER, f"nothing within {PORTAL_SECONDS:.0f} s")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return Portal(url, PortalOutcome.NO_ANSWER, _why(error))
    if (_is_healthy if is_health else _is_empty)(response.status_code, body):
        return Portal(url, PortalOutcome.CLEAR)
    return Portal(url, PortalOutcome.INTERCEPTED, _answered(response))


def _get(url: str) -> tuple[httpx.Response, bytes]:
    """Return an answer and the beginning of its body."""
    body = bytearray()
    # A proxy from the environment would answer for whoever stands in the way.
    with httpx.Client(trust_env=False, timeout=PORTAL_SECONDS) as client, client.stream("GET", url) as response:
        for piece in response.iter_raw(ANSWER_BYTES_MAX):
            body += piece
            if len(body) > ANSWER_BYTES_MAX:
                break
    return response, bytes(body)


def _is_healthy(status: int, body: bytes) -> bool:
    # A relay that is about to end says so with 503, and is a relay all the same.
    if status not in (HTTPStatus.OK, HTTPStatus.SERVICE_UNAVAILABLE):
        return False
    with suppress(msgspec.DecodeError, RecursionError):
        msgspec.json.decode(body, type=_Health)
        return True
    return False


def _is_empty(status: int, body: bytes) -> bool:
    return status == HTTPStatus.NO_CONTENT or (status == HTTPStatus.OK and not body)


def _answered(response: httpx.Response) -> str:
    location = response.headers.get("location", "")[:LOCATION_LENGTH_MAX]
    where = f", which leads to {location}" if location else ""
    return f"status {response.status_code}{where}"


def _why(error: BaseException) -> str:
    while (deeper := error.__cause__ or error.__context__) is not None:
        error = deeper
    return reason_of(error)
