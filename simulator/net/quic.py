"""QUIC between hosts: one reliable stream a connection, over datagrams that the world treats like all others.

Every packet takes the way of a `SendDatagram`, so whatever loses, filters, delays or forgets acts on it, and a host
that is dead or a mapping that is gone shows as nothing but silence. What is modelled is what that makes visible: the
round trip of the handshake, the proof of who the client is that follows it, acknowledgements, loss and its repair, a
bounded window, signs of life, and the end after too long a silence. The times are those of `teale_io.quic`.

Of migration (RFC 9000, section 9), what a NAT brings about: a server follows its client as soon as a newer packet
comes from another address, and sends there at once. The validation that goes with it is left out, since three times
what came may be sent until it is done. A client does not follow: it drops what comes from elsewhere. Neither asks the
host, so a host that has moved sends from where it is now.

Not modelled: several streams, 0-RTT, Retry (whoever was punched to has been validated), stateless resets, and larger
packets where the path would carry them.
"""

from collections.abc import Callable
from typing import Final, TypeVarTuple

from simulator.net.connection import State
from simulator.net.machine import HostPort, Machine
from simulator.net.medium import Medium
from simulator.net.nat import Packet
from simulator.net.packets import Datagrams
from simulator.net.quic_end import QuicEnd
from simulator.net.quic_packets import HELLO, LongPacket, ShortPacket, decode
from simulator.rng import SplitMix64, stream
from teale_proto.contract import Instant
from teale_proto.effects import DirectTarget
from teale_proto.inputs import Address, ConnectionId

Ts = TypeVarTuple("Ts")

ENDS_MAX: Final = 512
"""Connections of one host at a time; more are not answered."""


class QuicEndpoint:
    """All connections of one life of a host."""

    __slots__ = ("_by_client", "_ends", "_quic", "machine")

    def __init__(self, quic: "Quic", machine: Machine) -> None:
        self.machine = machine
        self._quic = quic
        self._ends: dict[int, QuicEnd] = {}
        self._by_client: dict[int, QuicEnd] = {}
        """Those that others have opened, by the id that the client chose."""

    def __len__(self) -> int:
        return len(self._ends)

    # What becomes of it.

    def connect(self, connection: ConnectionId, target: DirectTarget) -> QuicEnd:
        """Start to open a connection."""
        end = self._add(target.local, target.remote, expected=target.node, opening=target.opening)
        end.id = connection
        end.greet()
        return end

    def received(self, local: Address, remote: Address, data: bytes) -> None:
        """Take a packet, and drop what is none or for nobody."""
        packet = decode(data)
        if isinstance(packet, ShortPacket):
            end = self._ends.get(packet.target)
            if end is not None:
                end.receive(packet, local, remote)
        elif isinstance(packet, LongPacket):
            if packet.kind == HELLO:
                self._greeted(packet, local, remote)
            elif (end := self._ends.get(packet.target)) is not None:
                end.welcomed(packet, remote)

    def die(self) -> None:
        """Have all connections end without a word."""
        for own_id, end in self._ends.items():
            end.die()
            self._quic.leave(own_id)
        self._ends.clear()
        self._by_client.clear()

    def stop(self) -> None:
        """Tell the other sides that it is over, once."""
        for end in list(self._ends.values()):
            end.leave()
        self.die()

    def _greeted(self, packet: LongPacket, local: Address, remote: Address) -> None:
        end = self._by_client.get(packet.source)
        if end is None:
            if len(self._ends) >= ENDS_MAX:
                return
            end = self._by_client[packet.source] = self._add(local, remote, expected=None)
        if end.state is State.CONNECTING:
            end.welcome(packet.source)

    def _add(self, local: Address, remote: Address, *, expected: str | None, opening: bytes = b"") -> QuicEnd:
        own_id = self._quic.enter(self.machine)
        end = self._ends[own_id] = QuicEnd(self, own_id, local, remote, expected=expected, opening=opening)
        return end

    # For its ends.

    @property
    def now(self) -> Instant:
        """The time."""
        return self._quic.medium.engine.now

    @property
    def medium(self) -> Medium:
        """What it shares with everything else that travels."""
        return self._quic.medium

    def call_at(self, at: Instant, call: Callable[[*Ts], object], *args: *Ts) -> None:
        """Have something called later."""
        self._quic.medium.engine.call_at(at, call, *args)

    def send(self, port: HostPort, packet: Packet) -> None:
        """Hand a packet to the network."""
        self._quic.datagrams.send(port, packet)

    def forget(self, own_id: int, peer_id: int) -> None:
        """Know a connection no more; what still comes for it is for nobody."""
        self._ends.pop(own_id, None)
        self._by_client.pop(peer_id, None)
        self._quic.leave(own_id)

    def name_of(self, peer_id: int) -> str:
        """Return the host at the other side of a connection; "" where it is gone."""
        return self._quic.name_of(peer_id)

    def chance(self, own_id: int) -> SplitMix64:
        """Return a stream of its own for a connection."""
        return self._quic.chance(self.machine, own_id)


class Quic:
    """All that the endpoints of one world share; ids of connections are unique in it, and tell nothing."""

    __slots__ = ("_hosts", "_made", "_serial", "datagrams", "medium")

    def __init__(self, medium: Medium, datagrams: Datagrams) -> None:
        self.medium: Final = medium
        self.datagrams: Final = datagrams
        self._serial = 0
        self._hosts: dict[int, str] = {}
        self._made: dict[int, int] = {}
        """Of each connection, how many its host had made before."""

    def endpoint(self, machine: Machine) -> QuicEndpoint:
        """Return the endpoint of a host, made when it is first asked for in a life."""
        if machine.quic is None:
            machine.quic = QuicEndpoint(self, machine)
        return machine.quic

    def enter(self, machine: Machine) -> int:
        """Return the id of a new connection."""
        self._serial += 1
        self._hosts[self._serial] = machine.name
        machine.quic_ends += 1
        self._made[self._serial] = machine.quic_ends
        return self._serial

    def leave(self, own_id: int) -> None:
        """Forget a connection."""
        self._hosts.pop(own_id, None)
        self._made.pop(own_id, None)

    def name_of(self, own_id: int) -> str:
        """Return the host that a connection is of."""
        return self._hosts.get(own_id, "")

    def chance(self, machine: Machine, own_id: int) -> SplitMix64:
        """Return a stream named after the host and its count, whatever other hosts do."""
        return stream(self.medium.seed, machine.name, f"quic {self._made.get(own_id, 0)}")
