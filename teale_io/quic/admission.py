"""Who may open a connection to us: the answer to a packet that belongs to none.

A stranger's first packet is answered with a Retry and costs nothing that is remembered; only who has shown that he
receives at his address gets a connection, within limits for each address and for all. What is sent to an address
before that is less than a tenth of what came from it.
"""

import os
from collections import OrderedDict
from typing import Final, NamedTuple

from teale_io.quic.limits import Limits
from teale_io.quic.packets import (
    CID_BYTES,
    FIRST_CID_BYTES_MIN,
    INITIAL_BYTES_MIN,
    VERSION_1,
    LongHeader,
    long_header,
    version_negotiation,
)
from teale_io.quic.stack import PeerAddress, Stack
from teale_io.quic.tokens import RetryTokens
from teale_proto.relay.traffic import address_key


class Admitted(NamedTuple):
    """The packet begins a connection."""

    first_id: bytes
    """What the client's very first packet was for."""
    shown_id: bytes
    """What this one is for."""
    was_retried: bool


class Answer(NamedTuple):
    """The packet is answered, and forgotten."""

    datagram: bytes


class Ignored(NamedTuple):
    """The packet is dropped."""


class Admission:
    """Decides about newcomers, and counts those that were let in."""

    def __init__(self, stack: Stack, limits: Limits) -> None:
        self._stack: Final = stack
        self._limits: Final = limits
        self._tokens: Final = RetryTokens()
        self._trusted: OrderedDict[PeerAddress, None] = OrderedDict()
        self._from: dict[str, int] = {}
        self._admitted = 0
        self._unproven = 0
        self.refused = 0
        """How many found no room."""
        self.retried = 0
        """How many first packets were answered by asking whoever sent them to show that he receives there."""

    @property
    def is_empty(self) -> bool:
        """Whether nobody who was let in is there."""
        return not (self._admitted or self._unproven or self._from)

    def trust(self, address: PeerAddress) -> None:
        """Note that whoever is at an address receives what is sent there; the longest known makes room."""
        self._trusted[address] = None
        self._trusted.move_to_end(address)
        if len(self._trusted) > self._limits.trusted_max:
            self._trusted.popitem(last=False)

    def decide(self, datagram: bytes, address: PeerAddress, now: float) -> Admitted | Answer | Ignored:
        """Return what becomes of a datagram that belongs to no connection."""
        header = long_header(datagram)
        if header is None or len(datagram) < INITIAL_BYTES_MIN:
            return Ignored()
        if header.version != VERSION_1:
            # Version zero is itself such an answer: two servers could go on answering each other.
            return Answer(version_negotiation(header)) if header.version else Ignored()
        if not header.is_initial or len(header.destination) < FIRST_CID_BYTES_MIN:
            return Ignored()
        if not self._has_room(address):
            self.refused += 1
            return Ignored()
        first = self._tokens.first_destination(header.token, address, ours=header.destination, now=now)
        if first is not None:
            return Admitted(first, header.destination, True)
        if address in self._trusted or self._unproven < self._limits.validate_above:
            return Admitted(header.destination, header.destination, False)
        self.retried += 1
        return Answer(self._retry(header, address, now))

    def came(self, address: PeerAddress) -> str:
        """Count one that is let in; return what it is to be counted out with."""
        source = address_key(address[0])
        self._admitted += 1
        self._unproven += 1
        self._from[source] = self._from.get(source, 0) + 1
        return source

    def proved(self) -> None:
        """Count one that has shown who it is."""
        self._unproven -= 1

    def left(self, source: str, *, proven: bool) -> None:
        """Count one out."""
        self._admitted -= 1
        self._unproven -= not proven
        self._from[source] -= 1
        if not self._from[source]:
            del self._from[source]

    def _has_room(self, address: PeerAddress) -> bool:
        limits = self._limits
        return (
            self._admitted < limits.connections_max
            and self._unproven < limits.unproven_max
            and self._from.get(address_key(address[0]), 0) < limits.per_address_max
        )

    def _retry(self, header: LongHeader, address: PeerAddress, now: float) -> bytes:
        ours = os.urandom(CID_BYTES)
        token = self._tokens.make(address, first=header.destination, ours=ours, now=now)
        return self._stack.retry(source=ours, destination=header.source, first=header.destination, token=token)
