"""What a connection and its endpoint know of each other, and what a connection tells of itself."""

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from teale_io.quic.limits import Limits
from teale_io.quic.stack import Stack
from teale_io.quic.states import State
from teale_proto.inputs import Address, NodeId
from teale_proto.secure.identity import Identity

if TYPE_CHECKING:
    from teale_io.quic.connection import QuicConnection


class Info(NamedTuple):
    """What is known of a connection and its path, for people and for choosing among paths."""

    state: State
    peer: NodeId | None
    remote: Address
    is_client: bool
    rtt_seconds: float
    window_bytes: int
    in_flight_bytes: int
    streams: int
    resumed: bool
    early_data_accepted: bool


class Owner(Protocol):
    """What a connection needs of its endpoint."""

    @property
    def stack(self) -> Stack:
        """The QUIC library."""

    @property
    def limits(self) -> Limits:
        """What is allowed."""

    @property
    def identity(self) -> Identity:
        """Who we are."""

    def touch(self, connection: "QuicConnection") -> None:
        """See to it that what a connection wants to send is sent."""

    def keep_ticket(self, node: NodeId, ticket: Any) -> None:
        """Keep what a node has given us for the next connection to it."""

    def settled(self, connection: "QuicConnection") -> None:
        """Take note that both sides are known to each other."""

    def ended(self, connection: "QuicConnection") -> None:
        """Take note that a connection has ended for its users."""

    def add_id(self, connection: "QuicConnection", cid: bytes) -> None:
        """Take note of an id under which datagrams may come."""

    def remove_id(self, connection: "QuicConnection", cid: bytes) -> None:
        """Take note that an id is used no more."""
