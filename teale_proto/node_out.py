"""The effects of one input to a node, and what its children want of each other."""

from collections.abc import Iterator

from teale_proto.contract import Instant
from teale_proto.effects import Connect, DirectTarget, NodeEffect, Path
from teale_proto.exchange import SendMessage
from teale_proto.inputs import ConnectionId
from teale_proto.nat.traversal import AskRelay, DialPeer, TellPeer, TraversalEffect
from teale_proto.peer_news import CloseSession, PeersEffect, SendSession
from teale_proto.peers import Peers
from teale_proto.relay.client import RelayClient


class NodeOut:
    """The effects of one input, in order.

    What one child wants done by another is done as it is appended: messages are sealed in the order in which
    they leave.
    """

    __slots__ = ("_connection_ids", "_now", "_peers", "_relay", "effects")

    def __init__(
        self, peers: Peers, relay: RelayClient | None, connection_ids: Iterator[ConnectionId], now: Instant
    ) -> None:
        self._peers = peers
        self._relay = relay
        self._connection_ids = connection_ids
        self._now = now
        self.effects: list[NodeEffect] = []

    def append(self, effect: PeersEffect | SendMessage | TraversalEffect, /) -> None:
        """Do what is for another child, and keep the rest for the driver."""
        if isinstance(effect, SendMessage | TellPeer):
            self._peers.send(effect.handle, effect.message, self)
        elif isinstance(effect, SendSession):
            assert self._relay is not None
            self._relay.send(effect.session, effect.data, self._now, self.effects)
        elif isinstance(effect, CloseSession):
            assert self._relay is not None
            self._relay.close_session(effect.session, self._now, self.effects)
        elif isinstance(effect, AskRelay):
            assert self._relay is not None
            self._relay.confirm_address(effect.session, effect.host, self.effects)
        elif isinstance(effect, DialPeer):
            connection = next(self._connection_ids)
            opening = self._peers.dialled(connection, effect.node, effect.remote, self._now, path=Path.DIRECT)
            self.effects.append(Connect(connection, DirectTarget(effect.node, effect.local, effect.remote, opening)))
        else:
            self.effects.append(effect)
