"""Whom we could connect to: nodes that were seen on the LAN, nodes that the relay lists, and when to try again."""

from typing import Final

from teale_proto.backoff import Backoff
from teale_proto.contract import SECOND, Duration, Instant
from teale_proto.effects import Path
from teale_proto.inputs import Address, NodeId, ServiceFound, ServiceRecord
from teale_proto.rng import Rng
from teale_proto.status import ListedPeer
from teale_proto.wire.relay import PeerListing

SERVICES_MAX: Final = 512
ADDRESSES_MAX: Final = 8
"""Addresses kept of one advertisement."""

LISTED_MAX: Final = 256
FAILING_MAX: Final = 1024
LISTING_LIFETIME: Final[Duration] = 120 * SECOND
"""How long a node that the relay named is believed to be there."""


class _Failing:
    __slots__ = ("backoff", "not_before")

    def __init__(self, backoff: Backoff) -> None:
        self.backoff = backoff
        self.not_before: Instant = 0


class Contacts:
    """Nodes that we know of, connected or not."""

    __slots__ = ("_failing", "_listed", "_own", "_rng", "_services", "_turns")

    def __init__(self, own: NodeId, rng: Rng) -> None:
        self._own = own
        self._rng = rng
        self._services: dict[str, ServiceFound] = {}
        self._listed: dict[NodeId, tuple[PeerListing, Instant]] = {}
        self._failing: dict[tuple[NodeId, Path], _Failing] = {}
        self._turns: dict[NodeId, int] = {}

    def found(self, service: ServiceFound) -> bool:
        """Note an advertisement; return False when it is our own or one too many."""
        if service.record.node == self._own:
            return False
        if service.name not in self._services and len(self._services) >= SERVICES_MAX:
            return False
        self._services[service.name] = service
        return True

    def vanished(self, name: str) -> NodeId | None:
        """Forget an advertisement; return the node of which there is now none."""
        service = self._services.pop(name, None)
        if service is None or self.is_on_lan(service.record.node):
            return None
        self._turns.pop(service.record.node, None)
        return service.record.node

    def advertises_another(self, service: ServiceFound) -> bool:
        """Whether the advertisement of this name has been another node's until now."""
        former = self._services.get(service.name)
        return former is not None and former.record.node != service.record.node

    def is_on_lan(self, node: NodeId) -> bool:
        """Whether `node` is being advertised."""
        return any(service.record.node == node for service in self._services.values())

    def next_address(self, node: NodeId) -> Address | None:
        """Return the address to dial now; each call takes the next one in turn."""
        addresses = [
            address
            for service in self._services.values()
            if service.record.node == node
            for address in service.addresses[:ADDRESSES_MAX]
        ]
        if not addresses:
            return None
        turn = self._turns.get(node, 0)
        self._turns[node] = turn + 1
        return addresses[turn % len(addresses)]

    def lan_records(self) -> list[ServiceRecord]:
        """Return what is being advertised by others."""
        return [service.record for service in self._services.values()]

    def listed(self, peers: tuple[PeerListing, ...], now: Instant) -> None:
        """Note what the relay says; what it has not repeated for LISTING_LIFETIME is forgotten."""
        for peer in peers:
            self._listed.pop(peer.node_id, None)
            if peer.node_id != self._own:
                self._listed[peer.node_id] = (peer, now)
        fresh = [(peer, at) for peer, at in self._listed.values() if now - at < LISTING_LIFETIME]
        self._listed = {peer.node_id: (peer, at) for peer, at in fresh[-LISTED_MAX:]}

    def unlisted(self, node: NodeId) -> None:
        """Forget that the relay named `node`: it has just said that it does not know it."""
        self._listed.pop(node, None)

    def has_key(self, node: NodeId) -> bool | None:
        """Whether the relay lists `node` with a key to encrypt to; None where it does not list it."""
        listed = self._listed.get(node)
        return None if listed is None else listed[0].wg_public_key is not None

    def providers(self, model: str | None, now: Instant) -> list[NodeId]:
        """Return the listed nodes that offer `model` (or any model) and may be tried now, best tier first."""
        offering = [
            peer
            for peer, at in self._listed.values()
            if now - at < LISTING_LIFETIME
            and peer.capabilities.is_available
            and self.may_try(peer.node_id, Path.RELAY, now)
            if (model in peer.capabilities.loaded_models if model is not None else peer.capabilities.loaded_models)
        ]
        # Shuffled before the stable sort, so that nodes of one tier share the load.
        shuffled = self._rng.sample(offering, len(offering))
        return [peer.node_id for peer in sorted(shuffled, key=lambda peer: peer.capabilities.hardware.tier)]

    def listings(self) -> list[ListedPeer]:
        """Return what the relay lists, for people."""
        return [
            ListedPeer(peer.node_id, peer.display_name, peer.capabilities.loaded_models, peer.capabilities.hardware)
            for peer, _ in self._listed.values()
        ]

    def knows(self, model: str) -> bool:
        """Whether somebody, connected or not, says that it serves `model`."""
        return any(model in service.record.models for service in self._services.values()) or any(
            model in peer.capabilities.loaded_models for peer, _ in self._listed.values()
        )

    def is_failing(self, node: NodeId, path: Path) -> bool:
        """Whether the last attempt on that path failed."""
        return (node, path) in self._failing

    def may_try(self, node: NodeId, path: Path, now: Instant) -> bool:
        """Whether enough time has passed since the last failure on that path."""
        failing = self._failing.get((node, path))
        return failing is None or now >= failing.not_before

    def failed(self, node: NodeId, path: Path, now: Instant) -> Duration:
        """Note a failed attempt and return how long to wait before the next.

        Paths are kept apart: whoever advertises somebody else's id on the LAN spoils no way through the relay.
        """
        key = (node, path)
        failing = self._failing.get(key)
        if failing is None:
            while len(self._failing) >= FAILING_MAX:
                del self._failing[next(iter(self._failing))]
            failing = self._failing[key] = _Failing(Backoff(self._rng))
        delay = failing.backoff.next_delay()
        failing.not_before = now + delay
        return delay

    def succeeded(self, node: NodeId, path: Path) -> None:
        """Note that a connection came up."""
        self._failing.pop((node, path), None)
