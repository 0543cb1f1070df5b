"""What a relay client tells the node that it belongs to."""

from typing import TypeAlias

from teale_proto.contract import Value
from teale_proto.inputs import NodeId
from teale_proto.wire.relay import PeerListing, Signal

SessionId: TypeAlias = str
"""The name of one conversation through a relay, made up by the node that opened it."""


class Registered(Value):
    """The relay knows us now; peers can be asked for and sessions opened."""

    observed_host: str | None = None
    """From which address it sees us come, where it says so."""


class AddressVouched(Value):
    """Whether the relay sees the other side of a session come from `host`."""

    session: SessionId
    host: str
    is_seen: bool


class PeersListed(Value):
    """The answer to `discover`: each node once, never ourselves."""

    peers: tuple[PeerListing, ...]


class SessionOpened(Value):
    """Data can be sent; `initiator` says whether it was us who asked for the session."""

    session: SessionId
    peer: NodeId
    initiator: bool


class SessionData(Value):
    """The peer sent these bytes."""

    session: SessionId
    peer: NodeId
    data: bytes


class SessionClosed(Value):
    """The session is over, or never came about; nothing more can be sent."""

    session: SessionId
    peer: NodeId
    reason: str


class Refused(Value):
    """The relay did not do what we asked, and it was not about one session; both texts are the relay's own."""

    code: str
    message: str


class SignalReceived(Value):
    """A peer wants to try a direct path, or says where it is."""

    message: Signal


RelayNews: TypeAlias = (
    Registered | AddressVouched | PeersListed | SessionOpened | SessionData | SessionClosed | Refused | SignalReceived
)
