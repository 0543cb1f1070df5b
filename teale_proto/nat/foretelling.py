"""Asking which ports our NAT will give next, right before a peer has to know.

A NAT that counts is asked through a STUN server from a fresh socket, as only a new mapping gets a new port; one
that preserves ports need not be asked.
"""

from typing import Final

from teale_proto.contract import MILLISECOND, Duration, Sink
from teale_proto.effects import SendDatagram
from teale_proto.inputs import Address, DatagramReceived
from teale_proto.nat.allocation import Allocation, Pattern, mapped_in
from teale_proto.nat.stun import TRANSACTION_BYTES, Message, MessageClass, encode
from teale_proto.rng import Rng

REQUESTS: Final = 4
WAIT: Final[Duration] = 300 * MILLISECOND


class Foretelling:
    """One question, from one fresh socket."""

    __slots__ = ("_allocation", "_count", "_sent", "_server", "_transaction", "local", "ports")

    def __init__(self, local: Address, server: Address | None, allocation: Allocation, count: int, rng: Rng) -> None:
        self.local: Final = local
        self._server = server
        self._allocation = allocation
        self._count = count
        self._sent = 0
        self._transaction = rng.randbytes(TRANSACTION_BYTES)
        self.ports: tuple[int, ...] | None = None
        """The ports, or nothing where they could not be found out; None as long as that is being asked."""
        if allocation.pattern is Pattern.PRESERVING:
            self.ports = allocation.following(local.port, count)
        elif server is None or not allocation.predictable:
            self.ports = ()

    def ask(self, out: Sink[SendDatagram]) -> Duration | None:
        """Send a request, and return how long to wait for its answer; None when there is nothing to wait for."""
        if self.ports is not None or self._server is None:
            return None
        if self._sent == REQUESTS:
            self.ports = ()
            return None
        self._sent += 1
        request = Message(MessageClass.REQUEST, self._transaction, fingerprinted=True)
        out.append(SendDatagram(self.local, self._server, encode(request)))
        return WAIT * self._sent

    def received(self, event: DatagramReceived) -> bool:
        """Take a datagram; return whether it was the answer."""
        if self.ports is not None or (event.local, event.remote) != (self.local, self._server):
            return False
        mapped = mapped_in(event.data, self._transaction)
        if mapped is None:
            return False
        self.ports = self._allocation.following(mapped.port, self._count)
        return True
