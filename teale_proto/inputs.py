"""Everything that can happen to a node or a relay, as values in the past tense.

Drivers turn what sockets, clocks, backends and people do into these. Connection ids are integers: a core
numbers the connections that it asks for with odd ones, a driver those that it accepts with even ones, so
neither side has to ask the other.
"""

from enum import Enum
from typing import Final, NewType, TypeAlias

from teale_proto.contract import SECOND, Duration, Value

ConnectionId: TypeAlias = int
NodeId = NewType("NodeId", str)
"""An Ed25519 public key as 64 lower-case hexadecimal characters."""

Handle: TypeAlias = int | str
"""A conversation with a peer: the connection id of a stream, or the id of a relay session."""


class PeerHandle(Value):
    """One start of a node, over whatever conversations there are with it."""

    node: NodeId
    instance: bytes
    """The eight bytes that it drew when it started."""


Whom: TypeAlias = Handle | PeerHandle
"""Whom a request is asked of, or a job done for: a peer to which what is said is delivered over any conversation, or,
where a peer cannot do that, one conversation."""

LOCAL: Final = 0
"""The handle of the local backend; no connection has this id."""

RequestId: TypeAlias = str
JobId: TypeAlias = int


class Address(Value):
    """An IP address (or host name, when dialling) and a port."""

    host: str
    port: int


class Task(Enum):
    """What is asked of a model; the value is the path under `/v1/` of OpenAI's API."""

    CHAT = "chat/completions"
    COMPLETION = "completions"
    EMBEDDING = "embeddings"


class Failure(Enum):
    """Why a request ended without an answer; the values are those of `inferenceError` on the wire."""

    MODEL_NOT_LOADED = "model_not_loaded"
    QUEUE_FULL = "queue_full"
    UNAVAILABLE = "unavailable"
    INTERNAL_ERROR = "internal_error"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    INVALID_REQUEST = "invalid_request"
    PEER_LOST = "peer_lost"


class ServiceRecord(Value):
    """What a node advertises of itself on the LAN by DNS-SD."""

    node: NodeId
    port: int
    models: tuple[str, ...] = ()
    chip: str = ""
    ram_gb: float = 0.0
    version: int = 1


class Woken(Value):
    """The deadline may have come; a spurious wake does nothing."""


WAKE: Final = Woken()


class Started(Value):
    """A node may begin; its LAN listener is open at `lan_port`, or None where there is none."""

    lan_port: int | None


# Connections: a TCP stream, whose data arrives in pieces of any size, or a WebSocket, whose data arrives
# one whole message at a time.


class ConnectionAccepted(Value):
    """Somebody connected to our listener."""

    connection: ConnectionId
    remote: Address
    local: Address
    host: str = ""
    """The host that the client named (WebSocket's Host header, without the port), "" on plain TCP."""
    direct: bool = False
    """Whether it is a QUIC stream on one of the node's UDP sockets, and not a connection to its LAN listener."""


class ConnectionOpened(Value):
    """A connection that the core asked for with `Connect` is open."""

    connection: ConnectionId


class ConnectFailed(Value):
    """A connection that the core asked for could not be opened; its id is free again."""

    connection: ConnectionId
    reason: str


class DataReceived(Value):
    """Bytes of a stream in order, or one whole WebSocket message, text or binary."""

    connection: ConnectionId
    data: bytes


class MessagesReceived(Value):
    """Several WebSocket messages that came in together: the same as a DataReceived for each, but told at once."""

    connection: ConnectionId
    messages: tuple[bytes, ...]


class PingReceived(Value):
    """A WebSocket ping came in; the driver has answered it."""

    connection: ConnectionId


class PongReceived(Value):
    """A WebSocket pong came in."""

    connection: ConnectionId


class ConnectionClosed(Value):
    """A connection ended for whatever reason other than our own `CloseConnection`; its id is free again."""

    connection: ConnectionId
    reason: str


# UDP: the node's sockets, on which it finds out what NAT it is behind, punches, and talks QUIC.


class NetworkChanged(Value):
    """The network is there, or another one is; whatever was found out about the former one is void."""

    sockets: tuple[Address, ...]
    """Our UDP sockets with the addresses that this network knows them by, at most one of each IP version, IPv4 first;
    nothing where there is no network, or direct paths are off."""
    stun: tuple[Address, ...] = ()
    """STUN servers, by IP address, the preferred one of each IP version first."""
    gateway: Address | None = None
    """Where to ask for port mappings (PCP and NAT-PMP share the port), or None."""


class DatagramReceived(Value):
    """A datagram that is not QUIC came in at the socket bound to `local`."""

    local: Address
    remote: Address
    data: bytes


class SocketsOpened(Value):
    """The answer to OpenSockets; fewer ports than were asked for, or none, where the system refused."""

    request: int
    ports: tuple[int, ...]


class PortMapped(Value):
    """The answer to MapPort: the gateway forwards what comes to `external`."""

    request: int
    external: Address
    lifetime: Duration
    """For how long; 0 is until it is told not to."""


class PortMapFailed(Value):
    """The other answer to MapPort; what the gateway forwards already, it may go on forwarding."""

    request: int
    reason: str


UdpInput: TypeAlias = NetworkChanged | DatagramReceived | SocketsOpened | PortMapped | PortMapFailed


# Discovery on the LAN.


class ServiceFound(Value):
    """A Teale service was seen, or changed, on the LAN; `name` identifies the advertisement."""

    name: str
    record: ServiceRecord
    addresses: tuple[Address, ...]


class ServiceLost(Value):
    """An advertisement was withdrawn or ran out."""

    name: str


# The local application.


class PeerWanted(Value):
    """Somebody named a node to talk to, with addresses where it may answer directly."""

    node: NodeId
    addresses: tuple[Address, ...] = ()


class Ask(Value):
    """The local application wants an answer; every Ask ends in exactly one ReportFinished or ReportFailed."""

    request: RequestId
    task: Task
    model: str
    body: bytes
    """The request as JSON, in the shape of OpenAI's API."""
    streaming: bool = True
    timeout: Duration = 300 * SECOND


class CancelAsk(Value):
    """The local application no longer wants the answer; unknown and ended requests are ignored."""

    request: RequestId


# The local backend, answering StartGeneration.


class LoadedModelsChanged(Value):
    """The models that the local backend can serve now."""

    models: tuple[str, ...]


class GenerationChunk(Value):
    """One piece of an answer: a JSON object in the shape of OpenAI's API."""

    job: JobId
    chunk: bytes


class GenerationFinished(Value):
    """The answer is complete."""

    job: JobId
    tokens_in: int
    tokens_out: int


class GenerationFailed(Value):
    """The backend could not answer, or not to the end."""

    job: JobId
    failure: Failure
    message: str


class StopRequested(Value):
    """The process is about to end: say good-bye to peers and relay, take nothing new."""


class DrainRequested(Value):
    """The relay is to end: take nothing new, and give what is under way up to `patience`."""

    patience: Duration


_Common: TypeAlias = (
    Woken | ConnectionAccepted | DataReceived | PingReceived | PongReceived | ConnectionClosed | StopRequested
)

RelayInput: TypeAlias = _Common | MessagesReceived | DrainRequested

NodeInput: TypeAlias = (
    _Common
    | Started
    | ConnectionOpened
    | ConnectFailed
    | UdpInput
    | ServiceFound
    | ServiceLost
    | PeerWanted
    | Ask
    | CancelAsk
    | LoadedModelsChanged
    | GenerationChunk
    | GenerationFinished
    | GenerationFailed
)
