"""Datagrams as inputs and effects: the same value, seen from the two sides of a socket.

Sending needs no answer: a datagram that could not be sent is lost like any other, and whoever waits for its
answer sends again.
"""

from teale_proto.contract import Value
from teale_proto.inputs import Address


class DatagramReceived(Value):
    """A datagram came in at the socket bound to `local`."""

    local: Address
    remote: Address
    data: bytes


class SendDatagram(Value):
    """Send one datagram from the socket bound to `local`."""

    local: Address
    remote: Address
    data: bytes
    hop_limit: int | None = None
    """After how many routers it dies, where that is not the system's choice: an opener need only leave our own NAT."""
