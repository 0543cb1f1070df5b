"""What a node knows, as values to be read by people and programs; taking them changes nothing."""

from teale_proto.contract import Value
from teale_proto.effects import Path, PeerState, RelayState
from teale_proto.inputs import Address, NodeId
from teale_proto.wire.relay import Hardware


class PathStatus(Value):
    """One conversation with a peer."""

    path: Path
    address: str
    """Where it is connected: host and port, "" through the relay."""
    state: PeerState
    round_trip_ms: float | None


class PeerStatus(Value):
    """One peer, as it looks from here."""

    node_id: NodeId
    display_name: str
    state: PeerState
    path: Path
    """The path that the next request would take."""
    encryption: str
    """The Noise protocol's name, or "none" where it was switched off."""
    loaded_models: tuple[str, ...]
    hardware: Hardware
    address: str
    """Where it is connected: host and port on the LAN, "" through the relay."""
    queue_depth: int
    in_flight: int
    """Requests of ours that it is answering now."""
    tokens_per_second: float | None
    silent_seconds: float
    round_trip_ms: float | None
    path_reason: str = ""
    """Why it is reached over this path, in words; "" where there is nothing to tell."""
    paths: tuple[PathStatus, ...] = ()
    """All conversations with it, the preferred path first."""


class ListedPeer(Value):
    """A peer that the relay names and that we are not connected to."""

    node_id: NodeId
    display_name: str
    loaded_models: tuple[str, ...]
    hardware: Hardware


class NodeStatus(Value):
    """A node at a glance."""

    node_id: NodeId
    display_name: str
    loaded_models: tuple[str, ...]
    hardware: Hardware
    lan_enabled: bool
    lan_encryption: str
    """ "noise", or "off" for debugging."""
    wan_enabled: bool
    wan: RelayState
    wan_relay_url: str
    wan_reason: str
    """Why the relay is not connected, "" when it is or was not asked for."""
    nat_type: str
    """What is known of the NAT around it, such as "EIM+APDF"; "unknown" until it has been determined."""
    peers_connected: int
    peers_listed: int
    queue_depth: int
    running: int
    asked: int
    """Requests of the local application that are under way."""
    lan_join: str = "open"
    """Who may join on the LAN: "open", "passcode" or "paired"."""
    wan_join: str = "open"
    """Who may talk to this node through the relay: "open" or "paired"."""
    allow_plaintext_legacy: bool = False
    """Whether deployed nodes that do not encrypt are talked to through the relay, which reads along."""
    direct_addresses: tuple[Address, ...] = ()
    """Where this node may answer directly: its own addresses, and those that others see."""


class Candidate(Value):
    """One node that could answer, and how it fared in a routing decision."""

    node_id: NodeId
    display_name: str
    path: Path
    eligible: bool
    score: float
    in_flight: int
    won: bool
    reason: str
    """Why it won or lost, in words."""


class Explanation(Value):
    """A routing decision with everything that went into it."""

    model: str
    winner: NodeId | None
    candidates: tuple[Candidate, ...]
    reason: str
