"""Where a STUN server sees one of our sockets, asked once: what was seen ten minutes ago may be somebody else's now."""

from typing import Final

from teale_proto.contract import MILLISECOND, NEVER, Duration, Instant, Sink
from teale_proto.effects import SendDatagram
from teale_proto.inputs import Address, DatagramReceived
from teale_proto.nat.allocation import mapped_in
from teale_proto.nat.stun import TRANSACTION_BYTES, Message, MessageClass, encode
from teale_proto.rng import Rng

REQUESTS: Final = 4
WAIT: Final[Duration] = 250 * MILLISECOND
"""After the first request; it grows by as much from one to the next."""


class ReflexiveQuery:
    """One question to one server; over when `deadline` is NEVER."""

    __slots__ = ("_local", "_sent", "_server", "_transaction", "deadline", "mapped")

    def __init__(self, local: Address, server: Address, rng: Rng) -> None:
        self._local = local
        self._server = server
        self._transaction = rng.randbytes(TRANSACTION_BYTES)
        self._sent = 0
        self.deadline: Instant = NEVER
        """When to ask again, or to give up."""
        self.mapped: Address | None = None
        """What the server said; None where it said nothing."""

    def fired(self, now: Instant, out: Sink[SendDatagram]) -> None:
        """Ask, for the first time or again; after the last time, give up."""
        if self._sent == REQUESTS:
            self.deadline = NEVER
            return
        self._sent += 1
        self.deadline = now + WAIT * self._sent
        request = Message(MessageClass.REQUEST, self._transaction, fingerprinted=True)
        out.append(SendDatagram(self._local, self._server, encode(request)))

    def received(self, event: DatagramReceived) -> bool:
        """Take a datagram; return whether it was the answer."""
        if self.deadline == NEVER or (event.local, event.remote) != (self._local, self._server):
            return False
        mapped = mapped_in(event.data, self._transaction)
        if mapped is None:
            return False
        self.mapped, self.deadline = mapped, NEVER
        return True
