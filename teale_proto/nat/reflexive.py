"""Where STUN servers see one of our sockets: several are asked at once, so that one that is gone costs no time.

What was seen ten minutes ago may be somebody else's now; so this is asked not only at the beginning.
"""

from collections.abc import Sequence
from typing import Final

from teale_proto.contract import MILLISECOND, NEVER, Duration, Instant, Sink
from teale_proto.effects import SendDatagram
from teale_proto.errors import PeerError
from teale_proto.inputs import Address, DatagramReceived
from teale_proto.nat.behaviour import Finding, finding_in
from teale_proto.nat.stun import TRANSACTION_BYTES, Message, MessageClass, decode, encode
from teale_proto.rng import Rng

REQUESTS: Final = 4
WAIT: Final[Duration] = 250 * MILLISECOND
"""After the first request; it grows by as much from one to the next: 2.5 s in all."""

LINGER_MIN: Final[Duration] = 100 * MILLISECOND
LINGER_MAX: Final[Duration] = 500 * MILLISECOND
"""How long to wait for the other servers, after the first one: as long again as that one took, within these bounds."""


class ReflexiveQuery:
    """One question to each of some servers, by IP address; over when `deadline` is NEVER.

    The first answer is enough, unless it `is_thorough`: then it waits for one of a server with two addresses, or for
    who else there is.
    """

    __slots__ = ("_asked_at", "_is_thorough", "_local", "_sent", "_transactions", "deadline", "found")

    def __init__(self, local: Address, servers: Sequence[Address], rng: Rng, *, is_thorough: bool = False) -> None:
        self._local = local
        self._transactions = {server: rng.randbytes(TRANSACTION_BYTES) for server in servers}
        self._is_thorough = is_thorough
        self._sent = 0
        self._asked_at: Instant = 0
        self.deadline: Instant = NEVER
        """When to ask again, or to give up."""
        self.found: dict[Address, Finding] = {}
        """What the servers said, the first to answer first."""

    @property
    def local(self) -> Address:
        """The socket that it is about."""
        return self._local

    @property
    def answering(self) -> tuple[Address, ...]:
        """The servers that have said where they see us, the first to answer first."""
        return tuple(server for server, finding in self.found.items() if finding.mapped is not None)

    def fired(self, now: Instant, out: Sink[SendDatagram]) -> None:
        """Ask, for the first time or again; after the last time, or where enough is known, give up."""
        if self._sent == REQUESTS or self.answering:
            self.deadline = NEVER
            return
        if not self._sent:
            self._asked_at = now
        self._sent += 1
        self.deadline = now + WAIT * self._sent
        for server, transaction in self._transactions.items():
            if server not in self.found:
                request = Message(MessageClass.REQUEST, transaction, fingerprinted=True)
                out.append(SendDatagram(self._local, server, encode(request)))

    def received(self, event: DatagramReceived, now: Instant) -> bool:
        """Take a datagram; return whether it was the answer that ends this."""
        transaction = self._transactions.get(event.remote)
        if self.deadline == NEVER or event.local != self._local or transaction is None or event.remote in self.found:
            return False
        finding = _finding(event, transaction)
        if finding is None:
            return False
        self.found[event.remote] = finding
        if len(self.found) == len(self._transactions) or (
            finding.mapped is not None and (finding.other is not None or not self._is_thorough)
        ):
            self.deadline = NEVER
            return True
        if len(self.answering) == 1:
            self.deadline = now + min(max(now - self._asked_at, LINGER_MIN), LINGER_MAX)
        return False


def _finding(event: DatagramReceived, transaction: bytes) -> Finding | None:
    try:
        message = decode(event.data)
    except PeerError:
        return None
    return finding_in(message, event.remote) if message.transaction == transaction else None
