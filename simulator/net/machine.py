"""A host as the network knows it: a name, the ports at which it is attached, its connections, and who drives it."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

from simulator.net.link import Link, Port
from simulator.rng import SplitMix64, stream
from teale_proto.inputs import Address, ServiceRecord

if TYPE_CHECKING:
    from simulator.net.connection import End, EndOfConnection
    from simulator.net.quic import QuicEndpoint
    from simulator.net.site import Site
    from simulator.net.sockets import UdpSockets


class Owner(Protocol):
    """What a host is told; always from the engine, never from inside a call that it made."""

    def accepted(
        self, end: "EndOfConnection", remote: Address, local: Address, host: str, *, direct: bool = False
    ) -> None:
        """Somebody connected, `direct`ly by QUIC or by TCP; the owner sets `end.id`."""

    def opened(self, end: "EndOfConnection") -> None:
        """A connection that was asked for is open."""

    def failed(self, end: "EndOfConnection", reason: str) -> None:
        """A connection that was asked for could not be opened."""

    def received(self, end: "EndOfConnection", data: bytes) -> None:
        """A piece of a stream or a whole message came in."""

    def pinged(self, end: "EndOfConnection") -> None:
        """A ping came in and has been answered."""

    def ponged(self, end: "EndOfConnection") -> None:
        """The answer to a ping came in."""

    def closed(self, end: "EndOfConnection", reason: str) -> None:
        """The connection ended, and not because this side closed it."""

    def datagram(self, local: Address, remote: Address, data: bytes) -> None:
        """A datagram came in."""

    def found(self, name: str, record: ServiceRecord, addresses: tuple[Address, ...]) -> None:
        """A service was seen on a network segment."""

    def lost(self, name: str) -> None:
        """A service is gone from a network segment."""


class Machine:
    """What the network keeps of one host."""

    __slots__ = (
        "_chance",
        "_first",
        "_last",
        "connects",
        "former",
        "listening",
        "name",
        "node",
        "owner",
        "ports",
        "quic",
        "quic_ends",
        "running",
        "sockets",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.owner: Owner | None = None
        self.ports: tuple[HostPort, ...] = ()
        """Where it is attached, in the order in which it was."""
        self.former: tuple[str, ...] = ()
        """Addresses that it had before it moved."""
        self.running = False
        self.listening: tuple[int, ...] = ()
        self.connects = 0
        """How many connections it has asked for."""
        self.node = ""
        """Who it can prove to be to whoever opens a QUIC connection."""
        self.sockets: UdpSockets | None = None
        """Its UDP sockets; without, it hears what comes to any port, and speaks no QUIC."""
        self.quic: QuicEndpoint | None = None
        """Its QUIC connections, once there were any in this life."""
        self.quic_ends = 0
        """How many it has had."""
        # A list through the ends themselves: a hundred thousand hosts have no use for a dict each.
        self._first: End | None = None
        self._last: End | None = None
        self._chance: SplitMix64 | None = None

    @property
    def ends(self) -> "tuple[End, ...]":
        """Its side of its connections, in the order in which they came to be."""
        ends = []
        end = self._first
        while end is not None:
            ends.append(end)
            end = end.following
        return tuple(ends)

    def add(self, end: "End") -> None:
        """Keep a side of a connection."""
        end.leading = self._last
        if self._last is None:
            self._first = end
        else:
            self._last.following = end
        self._last = end

    def remove(self, end: "End") -> None:
        """Forget a side of a connection, if it is known."""
        leading, following = end.leading, end.following
        if leading is None and end is not self._first:
            return
        if leading is None:
            self._first = following
        else:
            leading.following = following
        if following is None:
            self._last = leading
        else:
            following.leading = leading
        end.leading = end.following = None

    def chance(self, seed: int) -> SplitMix64:
        """Return the stream that decides what becomes of the datagrams that it sends, wherever they pass."""
        if self._chance is None:
            self._chance = stream(seed, self.name, "datagrams")
        return self._chance

    def die(self, *, silently: bool) -> None:
        """End everything at once; the other sides learn it after a round trip, or never when `silently`."""
        self.running = False
        for port in self.ports:
            port.powered = not silently
        for end in self.ends:
            end.die(silently=silently)
            self.remove(end)
        self._end_quic()

    def stop(self) -> None:
        """End its QUIC connections with a word; those over TCP are closed by the network."""
        if self.quic is not None:
            self.quic.stop()
        self._end_quic()

    def _end_quic(self) -> None:
        if self.quic is not None:
            self.quic.die()
            self.quic = None

    def detach(self) -> None:
        """Leave all its ports; what is still under way to them is for nobody."""
        for port in self.ports:
            port.powered = False
            self.former += port.addresses
        self.ports = ()

    def port_of(self, address: str) -> "HostPort | None":
        """Return the port that has an address."""
        return next((port for port in self.ports if address in port.addresses), None)


class HostPort(Port):
    """One attachment of a host: where, and under which addresses."""

    __slots__ = ("addresses", "machine", "site")

    def __init__(self, machine: Machine, site: "Site", addresses: Iterable[str], link: Link, region: str) -> None:
        super().__init__(machine.name, link, above=site.chain, region=region)
        self.machine = machine
        self.site = site
        self.addresses = tuple(addresses)

    def address_like(self, host: str) -> str:
        """Return its first address of the same IP version as `host`, or the first of all."""
        version = ":" in host
        return next((each for each in self.addresses if (":" in each) == version), self.addresses[0])
