"""Which nodes on the LAN are dialled, and when: of two that find each other, the lower id dials first."""

from collections.abc import Iterator
from typing import Any, Final

from teale_proto.contacts import Contacts
from teale_proto.contract import SECOND, Duration, Instant, Sink, Value
from teale_proto.door import Door
from teale_proto.effects import Connect, Path
from teale_proto.inputs import ConnectionId, NodeId, ServiceFound, ServiceLost
from teale_proto.peers import Peers
from teale_proto.timers import Timers

HIGHER_WAITS: Final[Duration] = 2 * SECOND
"""How long the higher of two node ids leaves it to the lower to dial, so that they seldom meet twice."""

DIALS_MAX: Final = 64
"""Nodes on the LAN that are being dialled at once; advertisements may name any number, at anybody's address."""


class DialDue(Value):
    """It is time to dial this node on the LAN."""

    node: NodeId


class Dialling:
    """The dials that are due; shares its owner's timers and connection ids."""

    __slots__ = ("_connection_ids", "_contacts", "_door", "_own", "_peers", "_timers")

    def __init__(
        self,
        own: NodeId,
        contacts: Contacts,
        peers: Peers,
        door: Door,
        timers: Timers[Any],
        connection_ids: Iterator[ConnectionId],
    ) -> None:
        self._own = own
        self._contacts = contacts
        self._peers = peers
        self._door = door
        self._timers = timers
        self._connection_ids = connection_ids

    def is_due(self, node: NodeId, now: Instant) -> bool:
        """Whether a node is about to be dialled."""
        return self._timers.remaining(DialDue(node), now) is not None

    def found(self, event: ServiceFound, now: Instant, out: Sink[Connect]) -> None:
        """Dial a node that advertises itself, at once or after the other has had its chance."""
        node = event.record.node
        if not self._contacts.found(event) or not self._door.admits(Path.LAN, node):
            return
        if self.is_due(node, now) or self._peers.is_reaching(node, Path.LAN):
            return
        courtesy = self._courtesy(node)
        if courtesy:
            self._timers.set(DialDue(node), now + courtesy)
        else:
            self.fired(DialDue(node), now, out)

    def lost(self, event: ServiceLost) -> None:
        """Dial nobody who is advertised no more."""
        vanished = self._contacts.vanished(event.name)
        if vanished is not None:
            self._timers.cancel(DialDue(vanished))

    def again(self, node: NodeId, delay: Duration, now: Instant) -> None:
        """Dial a node again after a while, if it is still there."""
        if self._contacts.is_on_lan(node) and self._door.admits(Path.LAN, node):
            self._timers.set(DialDue(node), now + delay + self._courtesy(node))

    def fired(self, due: DialDue, now: Instant, out: Sink[Connect]) -> None:
        """Dial, unless that has become needless or too many are being dialled."""
        if self._peers.dialling >= DIALS_MAX:
            self._timers.set(due, now + HIGHER_WAITS)
            return
        address = self._contacts.next_address(due.node)
        if address is not None and not self._peers.is_reaching(due.node, Path.LAN):
            connection = next(self._connection_ids)
            self._peers.dialled(connection, due.node, address, now)
            out.append(Connect(connection, address))

    def _courtesy(self, node: NodeId) -> Duration:
        """Return how long this node leaves it to the other to dial."""
        return 0 if self._own < node else HIGHER_WAITS
