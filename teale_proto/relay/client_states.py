"""The states of a relay client, what leads from one to the other, and the times and limits that it keeps."""

from collections.abc import Mapping
from enum import Enum
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from teale_proto.contract import SECOND, Duration, Value
from teale_proto.effects import RelayState
from teale_proto.errors import LocalError
from teale_proto.inputs import NodeId
from teale_proto.relay.limits import Rate
from teale_proto.relay.news import SessionId

MESSAGE_BYTES_MAX: Final = 1 << 20
"""The longest message that relays accept."""
RECEIVED_BYTES_MAX: Final = MESSAGE_BYTES_MAX + (1 << 16)
"""More than what may be sent: what a relay passes on can grow a little in our dialect, and that is no offence."""
DATA_BYTES_MAX: Final = 3 * (MESSAGE_BYTES_MAX - 1024) // 4
"""How much fits into one `relayData`: base64 in a message, with room for the ids."""


class RelayTrigger(Enum):
    """What moves a relay client from one state to another."""

    START = "start"
    RETRY = "retry"
    OPENED = "opened"
    ACKNOWLEDGED = "acknowledged"
    LOST = "lost"
    STOP = "stop"


NEXT_STATE: Final[Mapping[tuple[RelayState, RelayTrigger], RelayState]] = {
    (RelayState.OFF, RelayTrigger.START): RelayState.CONNECTING,
    (RelayState.CONNECTING, RelayTrigger.OPENED): RelayState.REGISTERING,
    (RelayState.CONNECTING, RelayTrigger.LOST): RelayState.WAITING,
    (RelayState.CONNECTING, RelayTrigger.STOP): RelayState.OFF,
    (RelayState.REGISTERING, RelayTrigger.ACKNOWLEDGED): RelayState.CONNECTED,
    (RelayState.REGISTERING, RelayTrigger.LOST): RelayState.WAITING,
    (RelayState.REGISTERING, RelayTrigger.STOP): RelayState.OFF,
    (RelayState.CONNECTED, RelayTrigger.LOST): RelayState.WAITING,
    (RelayState.CONNECTED, RelayTrigger.STOP): RelayState.OFF,
    (RelayState.WAITING, RelayTrigger.RETRY): RelayState.CONNECTING,
    (RelayState.WAITING, RelayTrigger.STOP): RelayState.OFF,
}
"""Every legal step; anything else is our caller's mistake."""


class RelayTimer(Enum):
    """What a relay client waits for."""

    RETRY = "retry"
    """The next attempt to connect."""
    CONNECT = "connect"
    """The driver's answer to `Connect`."""
    REGISTER = "register"
    """The relay's acknowledgement."""
    SETTLE = "settle"
    """The registration has held for so long that the next failure is a new one."""
    PING = "ping"
    """The next sign of life."""
    SILENCE = "silence"
    """The relay should have been heard by now."""
    CHECK = "check"
    """The relay should have been heard since the network changed."""


class SessionTimer(Value):
    """A session that we opened should have been taken up by now."""

    session: SessionId


class RelayClientConfig(Value):
    """A relay client's times and limits."""

    connect_timeout: Duration = 15 * SECOND
    register_timeout: Duration = 10 * SECOND
    settle_time: Duration = 30 * SECOND
    ping_interval: Duration = 25 * SECOND
    check_timeout: Duration = 5 * SECOND
    """How long the relay has to answer a ping after the network changed."""
    silence: Duration = 60 * SECOND
    """A relay that says nothing for two pings and 10 s more is lost."""
    session_timeout: Duration = 10 * SECOND
    discover: Rate = Rate(burst=2, interval=10 * SECOND)
    """What relays grant: one for the regular question, and one for a request that cannot wait for it."""
    discover_wait_max: Duration = 300 * SECOND
    """The longest that a relay can make us wait before we ask for peers again."""

    return_wait_max: Duration = 120 * SECOND
    """The longest that a relay can make us stay away; jitter comes on top."""

    offences: Rate = Rate(burst=10, interval=60 * SECOND)
    """Malformed messages, beyond which a connection is given up."""
    challenges_max: int = 4
    """Challenges that are answered on one connection."""
    listings_max: int = 200
    sessions_max: int = 256
    """Sessions that others have opened."""
    sessions_per_peer_max: int = 8


def relay_url(url: str, node: NodeId) -> str:
    """Return a relay's WebSocket URL with our node id in its query; raises LocalError where it is no such URL."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        host = None
    if host is None or parts.scheme not in ("ws", "wss"):
        raise LocalError("a relay's URL looks like wss://relay.example.com/ws")
    query = [(name, value) for name, value in parse_qsl(parts.query, keep_blank_values=True) if name != "node"]
    return urlunsplit((parts.scheme, parts.netloc, parts.path or "/", urlencode([*query, ("node", node)]), ""))
