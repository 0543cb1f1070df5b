"""One other node: the conversations that we have with it, and what it last said of itself."""

from collections.abc import Iterator
from enum import Enum
from typing import Final

from teale_proto.contract import MILLISECOND, SECOND, Duration, Instant
from teale_proto.delivery import Delivery
from teale_proto.effects import Path, PeerState
from teale_proto.inputs import Address, Handle, NodeId, PeerHandle
from teale_proto.joining import Joining
from teale_proto.link import Link
from teale_proto.liveness import ACTIVE, KEEP_ALIVE, STANDBY_INTERVALS, Liveness
from teale_proto.routing import Standing
from teale_proto.status import PathStatus, PeerStatus
from teale_proto.wire.cluster import Heartbeat, HeartbeatAck, Hello, HelloAck
from teale_proto.wire.deployed import Translator
from teale_proto.wire.relay import Hardware


class ConversationState(Enum):
    """How far a conversation has come."""

    CONNECTING = "connecting"
    """We dialled; nothing is open yet."""
    HANDSHAKING = "handshaking"
    JOINING = "joining"
    """Both sides know who the other is; whether it may join is being settled."""
    GREETING = "greeting"
    """Nothing stands in the way; `hello` has not been answered."""
    UP = "up"


PREFERENCE: Final = (Path.LAN, Path.DIRECT, Path.RELAY)
"""Which path carries what is said next, the best first."""


SPEED_MAX: Final = 1e6
"""Tokens a second that are believed: a score that is infinite, or no number, could not be told as JSON."""


class Conversation:
    """One connection or relay session with one peer."""

    __slots__ = (
        "address",
        "doom",
        "epoch",
        "handle",
        "host",
        "initiator",
        "instance",
        "joining",
        "keep_alive",
        "link",
        "liveness",
        "path",
        "peer",
        "state",
        "translator",
        "unknown_kinds",
        "up_at",
    )

    def __init__(
        self,
        handle: Handle,
        path: Path,
        link: Link,
        *,
        initiator: bool,
        peer: NodeId | None,
        remote: Address | None = None,
    ) -> None:
        self.handle = handle
        self.path = path
        self.link = link
        self.initiator = initiator
        self.peer = peer
        """Who it is, or, before the handshake, who it should be."""
        self.host = "" if remote is None else remote.host
        self.address = "" if remote is None else _text(remote)
        self.state = ConversationState.HANDSHAKING
        self.instance = b""
        self.epoch = 0
        """The count that we announced in our greeting; 0 before that, and without encryption."""
        self.keep_alive = KEEP_ALIVE
        """How far apart heartbeats may be, where it is a direct path and idle."""
        self.joining: Joining | None = None
        """What a conversation on the LAN goes through before the greeting, once it is known who is there."""
        self.liveness: Liveness | None = None
        self.up_at: Instant = 0
        self.doom = ""
        """Why it must end at the next opportunity; "" where it need not."""
        self.translator = Translator()
        self.unknown_kinds: set[str] = set()

    @property
    def is_stranger(self) -> bool:
        """Whether it may be anybody, and takes a place; the relay client bounds those that come through the relay."""
        return self.path is not Path.RELAY and not self.initiator and self.state is not ConversationState.UP


class Peer:
    """A node that we have at least one conversation with, or had one until a moment ago."""

    __slots__ = (
        "conversations",
        "delivery",
        "display_name",
        "doom",
        "epochs",
        "handle",
        "hardware",
        "instance",
        "is_active",
        "is_generating",
        "loaded_models",
        "node",
        "queue_depth",
        "thermal_level",
        "throttle_percent",
        "tokens_per_second",
    )

    def __init__(self, node: NodeId) -> None:
        self.node = node
        self.conversations: dict[Path, Conversation] = {}
        self.instance = b""
        """Which start of the node it is; empty without encryption."""
        self.handle: PeerHandle | None = None
        """Under which its requests go, whatever conversations there are; None where it does not number messages."""
        self.epochs: tuple[int, int | None] = (0, None)
        """What each side announced when the numbers began: ours, theirs."""
        self.delivery: Delivery | None = None
        """Made with the first numbered message."""
        self.doom = ""
        """Why it must end at the next opportunity; "" where it need not."""
        self.is_active = False
        """Whether, as far as is known, requests are under way."""
        self.display_name = ""
        self.hardware = Hardware()
        self.loaded_models: tuple[str, ...] = ()
        self.queue_depth = 0
        self.is_generating = False
        self.thermal_level = "nominal"
        self.throttle_percent = 100
        self.tokens_per_second: float | None = None

    @property
    def best(self) -> Conversation:
        """The conversation that carries what is said next: a healthy one before a degraded one, then by preference."""
        if len(self.conversations) == 1:
            return next(iter(self.conversations.values()))
        candidates = [self.conversations[path] for path in PREFERENCE if path in self.conversations]
        return min(candidates, key=_is_degraded)

    def pace_of(self, conversation: Conversation, interval: Duration) -> Duration:
        """Return how far apart the heartbeats of one conversation should be; `interval` is the node's own."""
        if conversation.path is Path.DIRECT:
            return ACTIVE if self.is_active else min(conversation.keep_alive, interval)
        if conversation.path is Path.RELAY and self.best.path is Path.DIRECT:
            return STANDBY_INTERVALS * interval
        return interval

    def greeted(self, hello: Hello | HelloAck) -> None:
        """Take what the peer said of itself in its greeting."""
        self.display_name = hello.device_info.name
        self.hardware = hello.device_info.hardware
        self.loaded_models = hello.loaded_models or hello.device_info.loaded_models

    def beat(self, beat: Heartbeat | HeartbeatAck) -> bool:
        """Take what the peer said of itself in a heartbeat; return whether any of it is new."""
        speed = beat.ewma_tokens_per_second
        said = (
            beat.loaded_models,
            beat.queue_depth,
            beat.is_generating,
            beat.thermal_level,
            beat.throttle_level,
            None if speed is None else min(speed, SPEED_MAX),
        )
        known = (
            self.loaded_models,
            self.queue_depth,
            self.is_generating,
            self.thermal_level,
            self.throttle_percent,
            self.tokens_per_second,
        )
        if said == known:
            return False
        (
            self.loaded_models,
            self.queue_depth,
            self.is_generating,
            self.thermal_level,
            self.throttle_percent,
            self.tokens_per_second,
        ) = said
        return True

    def standing(self) -> Standing:
        """Return what routing needs to know."""
        best = self.best
        return Standing(
            node=self.node,
            display_name=self.display_name,
            path=best.path,
            handle=best.handle if self.handle is None else self.handle,
            loaded_models=self.loaded_models,
            queue_depth=self.queue_depth,
            tokens_per_second=self.tokens_per_second,
            throttle_percent=self.throttle_percent,
            thermal_level=self.thermal_level,
            degraded=_is_degraded(best),
        )

    def status(self, *, in_flight: int, now: Instant) -> PeerStatus:
        """Return what people want to see."""
        best = self.best
        liveness = best.liveness
        assert liveness is not None
        return PeerStatus(
            node_id=self.node,
            display_name=self.display_name,
            state=liveness.state,
            path=best.path,
            encryption=best.link.encryption,
            loaded_models=self.loaded_models,
            hardware=self.hardware,
            address=best.address,
            queue_depth=self.queue_depth,
            in_flight=in_flight,
            tokens_per_second=self.tokens_per_second,
            silent_seconds=liveness.silence(now) / SECOND,
            round_trip_ms=_milliseconds(liveness.round_trip),
            paths=tuple(self._paths()),
        )

    def _paths(self) -> Iterator[PathStatus]:
        for path in PREFERENCE:
            conversation = self.conversations.get(path)
            if conversation is not None:
                liveness = conversation.liveness
                assert liveness is not None
                yield PathStatus(path, conversation.address, liveness.state, _milliseconds(liveness.round_trip))


def _is_degraded(conversation: Conversation) -> bool:
    liveness = conversation.liveness
    return liveness is None or liveness.state is not PeerState.CONNECTED


def _milliseconds(duration: Duration | None) -> float | None:
    return None if duration is None else duration / MILLISECOND


def _text(address: Address) -> str:
    return f"[{address.host}]:{address.port}" if ":" in address.host else f"{address.host}:{address.port}"
