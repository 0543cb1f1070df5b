"""What a QUIC endpoint allows, and how long it waits."""

from typing import Final, NamedTuple


class Limits(NamedTuple):
    """Bounds and times of an endpoint; the defaults are what nodes use."""

    connections_max: int = 512
    """Connections that others have opened to us, whether they have proved themselves or not."""
    per_address_max: int = 64
    """How many of them come from one address; of IPv6 that is a /64."""
    unproven_max: int = 128
    """How many of them have not yet proved themselves."""
    validate_above: int = 0
    """With more unproven ones than this, newcomers must first show that they receive what we send them; 0 is always.

    Until an address is validated RFC 9000 lets a server send it three times what came from it. With 0 it is a Retry of
    less than a tenth. Addresses that the caller has validated himself, as by a punch, are exempt: see
    `Endpoint.trust`.
    """
    trusted_max: int = 1024
    ids_max: int = 32
    """Connection ids of one connection under which datagrams may come."""
    streams_max: int = 100
    """Streams of one connection that we have opened and that have not ended."""
    unread_bytes_max: int = 16 << 20
    """What may wait on one connection to be read."""
    unproven_bytes_max: int = 64 << 10
    """The same for a connection whose other side has not yet proved who it is."""
    unordered_bytes_max: int = 16 << 20
    """What may wait on one connection for something in front of it."""
    handshake_seconds: float = 10
    keep_alive_seconds: float = 30
    """After so long a silence the other side is asked for a sign of life, which also keeps NATs from forgetting us."""
    fresh_seconds: float = 5
    """After so long a silence another stream gets a connection of its own: the other side may have lost this one."""
    idle_seconds: float = 75
    """After so long a silence a connection has ended: two questions were not answered."""
    linger_seconds: float = 5
    """How long a closing connection still tries to deliver what was said."""
    datagram_bytes: int = 1200
    """The largest datagram that is sent before a larger one is known to fit: what every path must carry."""


DEFAULT: Final = Limits()
