"""One WebSocket of a relay, the node that registered on it, and what the relay has to complain of."""

from enum import Enum
from typing import TypeAlias

from teale_proto.contract import Duration, Instant, Value
from teale_proto.effects import RelayEffect, SendData, SendText
from teale_proto.inputs import ConnectionAccepted, ConnectionId, NodeId
from teale_proto.relay.admission import answers_to
from teale_proto.relay.limits import RateLimit, RelayServerConfig
from teale_proto.relay.news import SessionId
from teale_proto.relay.traffic import Source
from teale_proto.wire.binary import encode_binary, has_handle
from teale_proto.wire.codec import Flavour
from teale_proto.wire.relay import RELAY_CODEC, Register, RelayData, RelayMessage

Out: TypeAlias = list[RelayEffect]


class Severity(Enum):
    """What follows from a complaint."""

    REFUSAL = "refusal"
    """The sender is told, and that is all: it can happen to an honest node."""
    OFFENCE = "offence"
    """An honest node would not do it; a connection with too many of them is closed."""
    DISMISSAL = "dismissal"
    """The connection is closed at once."""


class Complaint(Value):
    """Why a message was not done; it becomes an `error` on the wire."""

    code: str
    message: str
    severity: Severity = Severity.REFUSAL
    session: SessionId | None = None
    retry_after: Duration | None = None
    bulk: bool = False
    """Whether it must not overtake what the sender was sent in that session, its end before all."""


class Connection:
    """One WebSocket, and how far its node has come."""

    __slots__ = (
        "accepted_at",
        "challenge",
        "challenged_at",
        "challenges",
        "flavour",
        "heard_at",
        "host",
        "id",
        "is_ours",
        "offences",
        "pending",
        "registration",
        "remote",
        "source",
    )

    def __init__(self, event: ConnectionAccepted, source: Source, now: Instant, config: RelayServerConfig) -> None:
        self.id: ConnectionId = event.connection
        self.remote = event.remote.host
        self.source = source
        """What the gate knows of it."""
        self.accepted_at = now
        self.host = event.host
        self.is_ours = answers_to(event.host, event.local, config.names)
        """Whether the host that was dialled is this relay."""
        self.flavour: Flavour | None = None
        """The envelope that the other side used first."""
        self.heard_at = now
        self.offences = RateLimit(config.offences)
        self.registration: Registration | None = None
        self.pending: Register | None = None
        """What the node says of itself, until it has answered the challenge."""
        self.challenge = b""
        self.challenged_at: Instant = 0
        self.challenges = 0

    def send(self, message: RelayMessage, out: Out, *, bulk: bool = False) -> None:
        """Send a message in the envelope that the other side speaks, data without one where it may."""
        reads_binary = self.registration is not None and self.registration.reads_binary
        if reads_binary and isinstance(message, RelayData) and has_handle(message.session_id):
            out.append(SendData(self.id, encode_binary(message.session_id, message.data), bulk))
            return
        out.append(SendText(self.id, RELAY_CODEC.encode(message, self.flavour or Flavour.DOCUMENTED), bulk))


class Registration:
    """One node that made itself known."""

    __slots__ = ("connection", "discovers", "introductions", "proved", "register", "registered_at")

    def __init__(
        self, register: Register, connection: Connection, now: Instant, config: RelayServerConfig, *, proved: bool
    ) -> None:
        self.register = register
        self.connection = connection
        self.registered_at = now
        self.proved = proved
        """Whether the node answered a challenge; otherwise a bare signature was all there was."""
        self.discovers = RateLimit(config.discover)
        self.introductions = RateLimit(config.introductions)

    @property
    def reads_binary(self) -> bool:
        """Whether it offered to read binary messages."""
        return self.register.binary

    @property
    def node(self) -> NodeId:
        """Who it is."""
        return self.register.node_id

    def inherit(self, former: "Registration") -> None:
        """Go on with the allowances of the node's former registration: to reconnect gains nothing."""
        self.discovers = former.discovers
        self.introductions = former.introductions
