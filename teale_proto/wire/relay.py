"""The messages between a node and a relay, and those that a relay passes between two nodes.

`RegisterChallenge` and `RegisterProof` are ours: a relay that wants proof of the key answers `register` with
a challenge, and one that does not (the deployed one) answers with `registerAck` at once.
"""

from typing import Annotated, Final, TypeAlias, get_args

from msgspec import Meta

from teale_proto.inputs import NodeId
from teale_proto.wire.codec import Codec
from teale_proto.wire.fields import Amount, Count, Hex, Id, Label, Message, ModelId, Models, Port, Text, Token, written


class Hardware(Message):
    """What a node computes with; `tier` runs from 1, backbone, to 4, leaf."""

    chip_family: Label = written("")
    chip_name: Label = written("")
    total_ram_gb: Amount = written(0.0)
    gpu_core_count: Count = written(0)
    memory_bandwidth_gbs: Amount = written(0.0)
    tier: Annotated[int, Meta(ge=1, le=4)] = written(4)
    gpu_backend: Label | None = None
    platform: Label | None = None
    gpu_vram_gb: Amount | None = None


class Capabilities(Message):
    """What a node offers to others."""

    hardware: Hardware
    loaded_models: Models = written(())
    max_model_size_gb: Amount = written(0.0)
    is_available: bool = written(True)
    max_concurrent_requests: Count | None = None
    effective_context: Count | None = None
    on_ac_power: bool | None = None
    swappable_models: Models | None = None
    ptn_ids: Annotated[tuple[Label, ...], Meta(max_length=64)] | None = None


class Register(Message):
    """A node makes itself known; `signature` is over the UTF-8 bytes of the node id and proves nothing fresh."""

    node_id: Id
    public_key: Id
    display_name: Label
    capabilities: Capabilities
    signature: Hex
    wg_public_key: Hex | None = None
    binary: bool = False
    """Ours: the node reads binary messages (`wire.binary`)."""


class RegisterChallenge(Message):
    """The relay asks for proof of the key: a signature over `registration_proof`."""

    challenge: Hex


class RegisterProof(Message):
    """The answer to a challenge."""

    node_id: Id
    signature: Hex


class RegisterAck(Message):
    """The registration holds for `ttl_seconds`, and longer while the node is heard."""

    node_id: Id
    registered_at: float
    ttl_seconds: Count
    binary: bool = False
    """Ours: the relay reads binary messages, and sends them."""
    observed_host: Label | None = None
    """Ours: the address that the node comes from, as the relay sees it; a relay that says so answers
    `confirmAddress` too."""


class DiscoverFilter(Message):
    """Which peers are wanted; a lower tier is the better one."""

    model_id: ModelId | None = None
    min_ram_gb: Amount | None = None
    min_tier: Count | None = None
    max_peers: Count | None = None


class Discover(Message):
    """A node asks for peers."""

    requesting_node_id: Id
    filter: DiscoverFilter | None = None


class PeerListing(Message):
    """One peer as the relay knows it."""

    node_id: Id
    public_key: Id
    display_name: Label
    capabilities: Capabilities
    last_seen: float
    wg_public_key: Hex | None = written(None)
    nat_type: Label = written("unknown")
    endpoints: Annotated[tuple[Label, ...], Meta(max_length=16)] = written(())


class DiscoverResponse(Message):
    """The peers that match, or a random sample of them."""

    peers: Annotated[tuple[PeerListing, ...], Meta(max_length=1000)]


class ConnectionInfo(Message):
    """Where a node may be reached directly."""

    public_ip: Label
    public_port: Port
    local_ip: Label
    local_port: Port
    nat_type: Label
    wg_public_key: Hex | None = None


class _Passed(Message):
    """What a relay passes from one node to another."""

    from_node_id: Id
    to_node_id: Id
    session_id: Token


class Offer(_Passed):
    """Let us try a direct path; this is where I am."""

    connection_info: ConnectionInfo
    signature: Hex


class Answer(_Passed):
    """Yes; this is where I am."""

    connection_info: ConnectionInfo
    signature: Hex


class Candidate(Message):
    """One address at which a node may be reached."""

    ip: Label
    port: Port
    type: Label
    priority: Count


class IceCandidate(_Passed):
    """One more address to try."""

    candidate: Candidate


class RelayOpen(_Passed):
    """Let us talk through the relay."""


class RelayReady(_Passed):
    """I am listening."""


class RelayData(_Passed):
    """Bytes that the relay cannot read."""

    data: bytes


class RelayClose(_Passed):
    """This session is over."""


class ConfirmAddress(Message):
    """Ours: does the other side of this session come from `host`? What the asker has not guessed it does not learn."""

    session_id: Token
    host: Label


class AddressConfirmed(Message):
    """The answer to `confirmAddress`."""

    session_id: Token
    host: Label
    is_seen: bool


class PeerJoined(Message):
    """Deprecated: the deployed relay tells everybody of everybody."""

    node_id: Id
    display_name: Label = ""


class PeerLeft(Message):
    """Deprecated: see PeerJoined."""

    node_id: Id
    display_name: Label = ""


class Error(Message):
    """Why the relay did not do what was asked; `session_id` is ours and says which session it was about."""

    code: Label
    message: Text
    retry_after_seconds: Amount | None = None
    session_id: Token | None = None


RelayMessage: TypeAlias = (
    Register
    | RegisterChallenge
    | RegisterProof
    | RegisterAck
    | Discover
    | DiscoverResponse
    | Offer
    | Answer
    | IceCandidate
    | RelayOpen
    | RelayReady
    | RelayData
    | RelayClose
    | ConfirmAddress
    | AddressConfirmed
    | PeerJoined
    | PeerLeft
    | Error
)

Signal: TypeAlias = Offer | Answer | IceCandidate
Passed: TypeAlias = Signal | RelayOpen | RelayReady | RelayData | RelayClose

RELAY_CODEC: Final[Codec[RelayMessage]] = Codec(
    get_args(RelayMessage),
    documented_names={DiscoverResponse: "peers"},
    signals=get_args(Signal),
)

PEER_NOT_FOUND: Final = "peer_not_found"
INVALID_JSON: Final = "invalid_json"
INVALID_MESSAGE: Final = "invalid_message"
INVALID_REGISTER: Final = "invalid_register"
RATE_LIMITED: Final = "rate_limited"
UNSUPPORTED_MESSAGE: Final = "unsupported_message"

# These codes are ours; a deployed node shows them as text.
REPLACED: Final = "replaced"
"""The same node registered on another connection."""
SESSION_REFUSED: Final = "session_refused"
"""The session's id is taken, or there are too many sessions."""
OVERLOADED: Final = "overloaded"
"""The relay holds as many nodes as it may."""
SHUTTING_DOWN: Final = "shutting_down"


def legacy_registration(node: NodeId) -> bytes:
    """Return what the deployed `register` signs: public, so it proves nothing fresh."""
    return node.encode()


def relay_host_name(host: str) -> str:
    """Return the one spelling in which both sides compare and sign a host: small letters, no brackets, no final dot."""
    return host.strip().lower().removeprefix("[").removesuffix("]").removesuffix(".")


def registration_proof(node: NodeId, relay_host: str, challenge: bytes) -> bytes:
    """Return what `registerProof` signs.

    The host that the node dialled is part of it, so that a relay which passes another relay's challenge
    on to its own clients gains a signature that is good for itself alone.
    """
    return b"\0".join((b"teale-register-1", node.encode(), relay_host_name(relay_host).encode(), challenge))
