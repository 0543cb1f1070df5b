"""What `teale doctor` finds out about the relay: is it there, is it who it says, would it have us, and its clock.

While the node runs, it is asked how it stands with the relay. Otherwise a node with a key made for the purpose
registers for a moment: that needs no passphrase, and takes nobody's place.
"""

import os
import random
import ssl
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, get_args
from urllib.parse import urlsplit, urlunsplit

import httpx
import msgspec
import trio

from teale_io.cli.checkup import Finding, fail, milliseconds, ok, warn
from teale_io.clock import unix_time_at_zero
from teale_io.config import Config
from teale_io.connections import Connections, reason_of
from teale_io.node_app import node_config, relay_dialer
from teale_io.runner import Runner
from teale_proto.effects import NodeEffect, RelayState, ReportRelay, WebSocketUrl
from teale_proto.errors import TealeError
from teale_proto.inputs import NodeInput, Started, StopRequested
from teale_proto.node import Node
from teale_proto.secure.identity import SEED_BYTES, Identity
from teale_proto.status import NodeStatus

PROBE_SECONDS: Final = 10.0
REGISTER_SECONDS: Final = 15.0
PARTING_SECONDS: Final = 2.0
CLOCK_SECONDS: Final = 30.0
"""How far two clocks may be apart before it is worth a word; relays tell the time in whole seconds."""

CLOCK_BROKEN_SECONDS: Final = 86_400.0

_NAME_MISMATCH: Final = 62
_EXPIRED: Final = 10
_NOT_YET_VALID: Final = 9
"""Results of OpenSSL's X509_verify_cert."""


class Probe(msgspec.Struct):
    """One answer of the relay's web server."""

    seconds: float
    clock_ahead: float | None
    """Seconds that our clock is ahead of the relay's; None where it told no time."""


def relay(config: Config, status: NodeStatus | None) -> list[Finding]:
    """Return the findings about the relay; `status` is that of the running node, None while none runs."""
    if not config.wan_enabled:
        return [ok("relay", "off (wan_enabled is false)")]
    url = config.wan_relay_url
    try:
        relay_dialer(config)
        probe = _probe(config)
    except TealeError as error:
        return [fail("relay", str(error), "Set wan_relay_ca to another file, or to nothing: teale config set ...")]
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        cause = _root(error)
        return [fail("relay", f"{url} cannot be reached: {reason_of(cause)}", _advice(cause, config))]
    registered = _as_told(status) if status is not None else _registration(config)
    return [ok("relay", f"{url} answers in {milliseconds(probe.seconds)}"), registered, clock(probe.clock_ahead)]


def clock(ahead: float | None) -> Finding:
    """Judge how far this machine's clock is ahead of the relay's, in seconds."""
    if ahead is None:
        return ok("clock", "not compared: the relay does not tell the time")
    way = "ahead of" if ahead > 0 else "behind"
    found = f"{abs(ahead):.0f} s {way} the relay's"
    if abs(ahead) <= CLOCK_SECONDS:
        return ok("clock", found)
    advice = "Let this machine set its clock by itself (NTP): certificates are judged by it."
    return (fail if abs(ahead) >= CLOCK_BROKEN_SECONDS else warn)("clock", found, advice)


def _probe(config: Config) -> Probe:
    """Ask the relay's web server whether it is well; raises httpx's errors."""
    parts = urlsplit(config.wan_relay_url)
    tls = parts.scheme == "wss"
    url = urlunsplit(("https" if tls else "http", parts.netloc, "/health", "", ""))
    verify: ssl.SSLContext | bool = ssl.create_default_context(cafile=config.wan_relay_ca or None) if tls else True
    # The node itself knows no proxies either.
    with httpx.Client(verify=verify, timeout=PROBE_SECONDS, trust_env=False) as client:
        began_at = time.perf_counter()
        response = client.get(url)
        seconds = time.perf_counter() - began_at
    return Probe(seconds, _ahead(response.headers.get("date", ""), seconds))


def _ahead(date: str, seconds: float) -> float | None:
    try:
        theirs = parsedate_to_datetime(date)
    except ValueError:
        return None
    if theirs.tzinfo is None:
        theirs = theirs.replace(tzinfo=UTC)
    # Half of the way back has passed since they looked, and half a second of what they cut off.
    return datetime.now(UTC).timestamp() - seconds / 2 - (theirs.timestamp() + 0.5)


def _root(error: BaseException) -> BaseException:
    """Return the error that httpx's errors are about."""
    while (deeper := error.__cause__ or error.__context__) is not None:
        error = deeper
    return error


def _advice(cause: BaseException, config: Config) -> str:
    if not isinstance(cause, ssl.SSLCertVerificationError):
        return "See whether this machine is online and wan_relay_url is right: teale config get wan_relay_url"
    if cause.verify_code in (_EXPIRED, _NOT_YET_VALID):
        return "Either this machine's clock is wrong, or the relay's operator has to renew its certificate."
    if cause.verify_code == _NAME_MISMATCH:
        return "The certificate is for another name: use the name in it in wan_relay_url, or have it made for this one."
    if config.wan_relay_ca:
        return f"{config.wan_relay_ca} (wan_relay_ca) is not what signed the relay's certificate: get the right file."
    return "If it is a relay of your own, name its certificate: teale config set wan_relay_ca FILE.pem"


def _as_told(status: NodeStatus) -> Finding:
    if status.wan is RelayState.CONNECTED:
        return ok("registration", f"the node is registered; {status.peers_listed} more nodes are listed there")
    if not status.wan_enabled:
        return warn("registration", "the node was started with wan_enabled off", "To take it up: teale down, teale up")
    why = f": {status.wan_reason}" if status.wan_reason else ""
    return fail(
        "registration",
        f"the node is not connected to the relay ({status.wan.value}){why}",
        "Look at the node's log; it goes on trying by itself.",
    )


def _registration(config: Config) -> Finding:
    state, reason, seconds = trio.run(_register, config)
    if state is RelayState.CONNECTED:
        return ok("registration", f"the relay takes registrations: {milliseconds(seconds)} with challenge and proof")
    return fail(
        "registration",
        f"the relay does not take a registration: {reason or 'no answer'}",
        "Ask its operator whether it wants an access token, or is full; see also wan_relay_url.",
    )


async def _register(config: Config) -> tuple[RelayState, str, float]:
    """Register a node of no name for a moment; return how that ended, why, and the seconds from connecting on."""
    ours = msgspec.structs.replace(node_config(config), lan_enabled=False, display_name="teale doctor")
    node = Node(
        ours, Identity.from_seed(os.urandom(SEED_BYTES)), random.SystemRandom(), unix_time_at_zero=unix_time_at_zero()
    )
    runner: Runner[NodeInput, NodeEffect] = Runner(node, get_args(NodeEffect))
    ended: list[ReportRelay] = []
    decided = trio.Event()
    opened_at = began_at = trio.current_time()

    def note(report: ReportRelay) -> None:
        nonlocal opened_at
        if report.state is RelayState.REGISTERING:
            opened_at = trio.current_time()
        elif report.state in (RelayState.CONNECTED, RelayState.WAITING):
            ended.append(report)
            decided.set()

    async with trio.open_nursery() as nursery:
        dialers: dict[type[Any], Any] = {WebSocketUrl: relay_dialer(config)}
        connections = Connections(feed=runner.feed, nursery=nursery, dialers=dialers)
        ignored = dict.fromkeys(get_args(NodeEffect), _ignore)
        runner.perform_with({**ignored, **connections.performers, ReportRelay: note})
        nursery.start_soon(runner.run)
        runner.feed(Started(None))
        with trio.move_on_after(REGISTER_SECONDS):
            await decided.wait()
        seconds = trio.current_time() - max(opened_at, began_at)
        result = (ended[0].state, ended[0].reason) if ended else (RelayState.CONNECTING, "")
        runner.feed(StopRequested())
        with trio.move_on_after(PARTING_SECONDS):
            await connections.wait_empty()
        nursery.cancel_scope.cancel()
    return *result, seconds


def _ignore(_effect: NodeEffect) -> None:
    """Let be what is of no interest here."""
