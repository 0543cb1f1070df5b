"""Everything that a node or a relay can want done, as values in the imperative.

`Report…` effects are news for the application; all others must be carried out, in order. One that fails
comes back as an input.
"""

from enum import Enum
from typing import TypeAlias

from teale_proto.contract import Duration, Value
from teale_proto.inputs import (
    Address,
    ConnectionId,
    Failure,
    Handle,
    JobId,
    NodeId,
    RequestId,
    ServiceRecord,
    Task,
)


class Path(Enum):
    """How two nodes reach each other."""

    LOCAL = "local"
    """The asker is the server: nothing left the machine."""
    LAN = "lan"
    DIRECT = "direct"
    """Over the internet, with nobody between but routers and NATs."""
    RELAY = "relay"


class PeerState(Enum):
    """How a peer looks from here."""

    CONNECTED = "connected"
    DEGRADED = "degraded"
    LOST = "lost"


class RelayState(Enum):
    """How the connection to the relay stands."""

    OFF = "off"
    CONNECTING = "connecting"
    REGISTERING = "registering"
    CONNECTED = "connected"
    WAITING = "waiting"
    """Disconnected; the next attempt is scheduled."""


class WebSocketUrl(Value):
    """Where to open a WebSocket: `ws://…` or `wss://…`, with path and query."""

    url: str


class DirectTarget(Value):
    """Where to open a QUIC stream: from our UDP socket `local` to `remote`, where this node and no other answers."""

    node: NodeId
    local: Address
    remote: Address
    opening: bytes = b""
    """What the stream begins with: short, and worth nothing the second time.

    It may leave before the other side has answered anything, and somebody who has recorded it may say it again.
    """


class Connect(Value):
    """Open a stream over TCP (an Address) or QUIC, or a WebSocket; answer with ConnectionOpened or ConnectFailed."""

    connection: ConnectionId
    target: Address | WebSocketUrl | DirectTarget


class SendData(Value):
    """Send bytes on a stream, or one binary message on a WebSocket.

    What is `bulk` may be overtaken by what is not; within each of the two, order is kept.
    """

    connection: ConnectionId
    data: bytes
    bulk: bool = False


class SendText(Value):
    """Send one text message on a WebSocket; `data` is UTF-8, and `bulk` is that of SendData."""

    connection: ConnectionId
    data: bytes
    bulk: bool = False


class SendPing(Value):
    """Send a WebSocket ping."""

    connection: ConnectionId


class CloseConnection(Value):
    """Flush and close; the id is free again and no ConnectionClosed follows.

    `code` is what a WebSocket is closed with (RFC 6455, section 7.4.1); a plain stream has no such thing.
    """

    connection: ConnectionId
    reason: str
    code: int = 1000


class SendDatagram(Value):
    """Send one datagram from the UDP socket bound to `local`; one that could not be sent is lost like any other."""

    local: Address
    remote: Address
    data: bytes
    hop_limit: int | None = None
    """After how many routers it dies, where that is not the system's choice: an opener need only leave our own NAT."""


class OpenSockets(Value):
    """Open UDP sockets at `host` on ports that have not been used before; answer with SocketsOpened."""

    request: int
    host: str
    count: int


class CloseSockets(Value):
    """Close UDP sockets that were opened on request."""

    host: str
    ports: tuple[int, ...]


class MapPort(Value):
    """Have the gateway forward a UDP port to `local` by UPnP; answer with PortMapped or PortMapFailed.

    Where the request is already known, the port that was opened for it is to be kept open.
    """

    request: int
    gateway: str
    """Its IPv4 address on our network."""
    local: Address
    lifetime: Duration
    """For how long, where the gateway lets us choose."""


class ExpectPeer(Value):
    """A peer has shown that it receives at `remote` what is sent there from our socket `local`: it may open QUIC there.

    It need not show that again (RFC 9000, section 8.1, leaves open how an address is validated).
    """

    local: Address
    remote: Address


class UnmapPort(Value):
    """Have the gateway forward it no longer; a MapPort that is under way is not answered any more."""

    request: int


class Advertise(Value):
    """Publish this record on the LAN, replacing the former one."""

    record: ServiceRecord


class StartGeneration(Value):
    """Have the local backend answer; ends in exactly one GenerationFinished or GenerationFailed."""

    job: JobId
    task: Task
    model: str
    body: bytes
    streaming: bool


class CancelGeneration(Value):
    """Stop the local backend; what it still says about `job` is ignored."""

    job: JobId


class ReportAttempt(Value):
    """A request went to `server` over `path`; more than one of these means that it was retried."""

    request: RequestId
    server: NodeId
    path: Path


class ReportChunk(Value):
    """One piece of the answer to a local request."""

    request: RequestId
    chunk: bytes


class ReportFinished(Value):
    """The answer to a local request is complete."""

    request: RequestId
    server: NodeId
    path: Path
    tokens_in: int
    tokens_out: int
    attempts: int


class ReportFailed(Value):
    """A local request ended without a complete answer."""

    request: RequestId
    failure: Failure
    message: str
    attempts: int


class ReportPeer(Value):
    """A peer connected, over one more path perhaps, missed a heartbeat on one, came back or was lost."""

    node: NodeId
    state: PeerState
    path: Path
    """For CONNECTED, the one that is used from now on; for DEGRADED and LOST, the one that it is about."""
    reason: str = ""


class ReportRelay(Value):
    """The connection to the relay changed."""

    state: RelayState
    reason: str = ""
    retry_in: Duration | None = None


class ReportRefusal(Value):
    """A connection or relay session was refused or closed because of what its other side sent."""

    connection: Handle
    reason: str


class ReportConnection(Value):
    """A connection to a relay has ended: all that a log may say of it."""

    connection: ConnectionId
    remote: str
    """The address that it came from."""
    node: str
    """Its node's id, shortened; "" where none registered."""
    duration: Duration
    messages: int
    """Messages that it sent and that passed the limits, and their bytes."""
    size_bytes: int
    reason: str


class ReportUnknown(Value):
    """A peer or relay sent a well-formed message of a kind that this version does not know; it was ignored."""

    connection: Handle
    kind: str


_Common: TypeAlias = SendData | SendText | CloseConnection | ReportRefusal

RelayEffect: TypeAlias = _Common | ReportConnection

NodeEffect: TypeAlias = (
    _Common
    | Connect
    | SendPing
    | SendDatagram
    | OpenSockets
    | CloseSockets
    | MapPort
    | UnmapPort
    | ExpectPeer
    | Advertise
    | StartGeneration
    | CancelGeneration
    | ReportAttempt
    | ReportChunk
    | ReportFinished
    | ReportFailed
    | ReportPeer
    | ReportRelay
    | ReportUnknown
)
