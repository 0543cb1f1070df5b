"""Direct paths as a node needs them: which peers are worth one, and which addresses people have named.

The search itself is `teale_proto.nat.traversal`, which exists only while there is a network with UDP sockets. It is
told of every peer that the relay reaches, and that nothing better does.
"""

from typing import Final

from teale_proto.contract import NEVER, Instant, Sink
from teale_proto.effects import Path
from teale_proto.inputs import WAKE, Address, NetworkChanged, NodeId, UdpInput
from teale_proto.nat.traversal import DialPeer, Traversal, TraversalEffect
from teale_proto.peer_news import ConversationEnded, PeerUp
from teale_proto.peers import Peers
from teale_proto.relay.client import AddressVouched
from teale_proto.rng import Rng
from teale_proto.status import PeerStatus
from teale_proto.wire.cluster import PathSignal

WANTED_MAX: Final = 64
"""Nodes that somebody named, and whose addresses are still being tried."""

ADDRESSES_MAX: Final = 8

Out = Sink[TraversalEffect]


class DirectPaths:
    """The search for direct paths, of a node that may have none."""

    __slots__ = ("_birthday_allowed", "_is_enabled", "_outside", "_peers", "_rng", "_traversal", "_wanted")

    def __init__(self, peers: Peers, rng: Rng, *, is_enabled: bool, birthday_allowed: bool) -> None:
        self._peers = peers
        self._rng = rng
        self._is_enabled = is_enabled
        self._birthday_allowed = birthday_allowed
        self._outside: str | None = None
        self._traversal: Traversal | None = None
        self._wanted: dict[NodeId, tuple[Address, ...]] = {}

    @property
    def deadline(self) -> Instant:
        """When to call `woken`, or NEVER."""
        return NEVER if self._traversal is None else self._traversal.deadline

    @property
    def nat_type(self) -> str:
        """What is known of the NAT around us, in short words."""
        side = None if self._traversal is None else self._traversal.surroundings.side
        return "unknown" if side is None else str(side.behaviour)

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Where we may be reached directly."""
        found = () if self._traversal is None else self._traversal.surroundings.candidates
        return tuple(dict.fromkeys(candidate.address for candidate in found))

    def reason(self, status: PeerStatus) -> str:
        """Return why a peer is reached over the path that it is, in words."""
        is_near = status.path is Path.LAN or self._traversal is None
        return "" if is_near or self._traversal is None else self._traversal.explain(status.node_id)

    # What happens to our sockets.

    def udp(self, event: UdpInput, now: Instant, out: Out) -> None:
        """Take what the driver says of UDP."""
        if not self._is_enabled:
            return
        if self._traversal is None:
            if not isinstance(event, NetworkChanged) or not event.sockets:
                return
            self._traversal = Traversal(self._rng, birthday_allowed=self._birthday_allowed)
            self._traversal.surroundings.outside = self._outside
            for peer in self._peers:
                self._consider(peer.node, now, out)
        self._traversal.handle(event, now, out)

    def woken(self, now: Instant, out: Out) -> None:
        """Do what is due."""
        if self._traversal is not None and self._traversal.deadline <= now:
            self._traversal.handle(WAKE, now, out)

    def leave(self, now: Instant, out: Out) -> None:
        """End every search: the node is stopping."""
        if self._traversal is not None:
            self._traversal.leave(now, out)

    # What the relay says.

    def observed(self, host: str | None) -> None:
        """Note from where the relay sees us come."""
        self._outside = host
        if self._traversal is not None:
            self._traversal.surroundings.outside = host

    def vouched(self, news: AddressVouched, now: Instant, out: Out) -> None:
        """Note whether the relay sees a peer where it says that it is."""
        if self._traversal is not None:
            self._traversal.vouched(news.session, news.host, is_seen=news.is_seen, now=now, out=out)

    # What happens to peers.

    def peer_up(self, news: PeerUp, now: Instant, out: Out) -> None:
        """Begin to look for a path once the relay reaches a peer; stop when there is one, or none is needed."""
        if news.path is Path.DIRECT:
            self._wanted.pop(news.node, None)
        if self._traversal is None:
            return
        if news.path is Path.DIRECT:
            self._traversal.direct_up(news.node, now, out)
            self._keep_alive(news.node)
        elif news.path is Path.LAN:
            self._traversal.unrelayed(news.node, now, out)
        else:
            self._consider(news.node, now, out)

    def ended(self, news: ConversationEnded, now: Instant, out: Out) -> None:
        """Take note that a conversation is over: another path is looked for, or none any more."""
        if news.peer is None or self._traversal is None or news.path is Path.LAN:
            return
        if news.path is Path.RELAY:
            self._traversal.unrelayed(news.peer, now, out)
            return
        self._traversal.direct_lost(news.peer, was_up=news.was_up, now=now, out=out)
        if not news.was_up:
            self._try_next_address(news.peer, out)

    def told(self, node: NodeId, message: PathSignal, now: Instant, out: Out) -> None:
        """Take a signal of a peer; raises PeerError for what is none."""
        if self._traversal is not None:
            self._traversal.told(node, message, now, out)

    def want(self, node: NodeId, addresses: tuple[Address, ...], out: Out) -> None:
        """Try the addresses at which somebody says that a node is, one after another."""
        if len(self._wanted) < WANTED_MAX and not self._peers.is_reaching(node, Path.DIRECT):
            self._wanted[node] = addresses[:ADDRESSES_MAX]
            self._try_next_address(node, out)

    def _consider(self, node: NodeId, now: Instant, out: Out) -> None:
        peer = self._peers.get(node)
        relayed = None if peer is None else peer.conversations.get(Path.RELAY)
        if self._traversal is None or peer is None or relayed is None or Path.LAN in peer.conversations:
            return
        if relayed.link.peer is not None:  # what is not encrypted is no place for secrets
            assert isinstance(relayed.handle, str), "the handle of a relayed session is its id"
            self._traversal.relayed(node, relayed.handle, initiator=relayed.initiator, now=now, out=out)

    def _keep_alive(self, node: NodeId) -> None:
        """Have the direct conversation with a peer beat as often as the NATs on its path need it."""
        peer, interval = self._peers.get(node), self._traversal and self._traversal.keep_alive(node)
        if peer is not None and interval:
            self._peers.keep_alive(peer.conversations[Path.DIRECT].handle, interval)

    def _try_next_address(self, node: NodeId, out: Out) -> None:
        """Dial a node at the next of its addresses, from a socket of the same IP version."""
        sockets = () if self._traversal is None else self._traversal.surroundings.sockets
        while addresses := self._wanted.get(node):
            self._wanted[node] = addresses[1:]
            local = next((each for each in sockets if (":" in each.host) == (":" in addresses[0].host)), None)
            if local is not None:
                out.append(DialPeer(node, local, addresses[0]))
                return
        self._wanted.pop(node, None)
