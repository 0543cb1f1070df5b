"""Network segments, the hosts attached to them, and how one host finds and reaches another.

A segment is one broadcast domain, such as a LAN or, without discovery, the internet. A host reaches the addresses on
its own segments and no others; it can be attached to several. On a segment with discovery, a service that one host
advertises is found by all others, as by multicast DNS.
"""

from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from simulator.engine import Engine
from simulator.net.connection import Connection, End, Kind, Machine, Tap
from simulator.net.link import Link, Port, one_way
from teale_proto.contract import SECOND, Duration
from teale_proto.effects import WebSocketUrl
from teale_proto.inputs import Address, ConnectionId, ServiceRecord

INTERNET: Final = "internet"

RECORD_TTL: Final[Duration] = 120 * SECOND
"""How long a host that died without a word is still listed: the TTL of host records (RFC 6762, section 10)."""

_SCHEMES: Final = {"ws": (Kind.WEBSOCKET, 80), "wss": (Kind.SECURE_WEBSOCKET, 443)}


class NetworkError(Exception):
    """A scenario asked for something that the network cannot be."""


class _Segment:
    __slots__ = ("discovery", "machines", "services")

    def __init__(self, *, discovery: bool) -> None:
        self.discovery = discovery
        self.machines: dict[str, Machine] = {}
        self.services: dict[str, ServiceRecord] = {}
        """The record of each host that advertises, by the host's name."""


class Network:
    """All segments, names and connections of one world.

    `cut_chance` is the chance that a packet of a stream carries less than it could.
    """

    def __init__(self, engine: Engine, *, seed: int, cut_chance: float = 0.25) -> None:
        self._engine = engine
        self._seed = seed
        self._cut_chance = cut_chance
        self._segments: dict[str, _Segment] = {}
        self._names: dict[str, str] = {}
        self._addresses: dict[str, tuple[str, Machine]] = {}
        self._serial = 0
        self.taps: list[Tap] = []
        """Called with everything that any host hands to the network."""

    def add_segment(self, name: str, *, discovery: bool) -> None:
        """Add a segment; raises NetworkError for a name that is taken."""
        if name in self._segments:
            raise NetworkError(f"there is a segment {name!r} already")
        self._segments[name] = _Segment(discovery=discovery)

    def attach(self, machine: Machine, segment: str, address: str, link: Link) -> None:
        """Attach a host to a segment under an address; raises NetworkError when that cannot be."""
        if segment not in self._segments:
            raise NetworkError(f"there is no segment {segment!r}, only {', '.join(self._segments) or 'none at all'}")
        if address in self._addresses:
            raise NetworkError(f"the address {address} is taken by {self._addresses[address][1].name}")
        if segment in machine.ports:
            raise NetworkError(f"{machine.name} is attached to {segment!r} already")
        machine.ports[segment] = Port(address, link)
        self._segments[segment].machines[machine.name] = machine
        self._addresses[address] = (segment, machine)

    def add_name(self, name: str, address: str) -> None:
        """Let a host name stand for an address, on every segment."""
        self._names[name] = address

    def listen(self, machine: Machine, port: int) -> None:
        """Accept connections to `port` at every address of the host, until it stops or dies."""
        machine.listening.add(port)

    def start(self, machine: Machine) -> None:
        """Switch a host on; it learns of the services around it."""
        machine.running = True
        for segment in machine.ports:
            machine.ports[segment].powered = True
            for name, record in self._segments[segment].services.items():
                other = self._segments[segment].machines[name]
                # A question and its answer: twice the distance.
                self._announce(other, record, machine, segment, trips=2)

    def stop(self, machine: Machine) -> None:
        """Switch a host off properly: connections are closed and its service is withdrawn."""
        for end in list(machine.ends):
            end.close("the host stopped")
        machine.listening.clear()
        machine.running = False
        for segment in machine.ports:
            self._withdraw(machine, segment)

    def crash(self, machine: Machine, *, silently: bool) -> None:
        """Kill a host: silently, as when power fails, or so that its connections are reset."""
        machine.listening.clear()
        machine.die(silently=silently)
        for segment in machine.ports:
            record = self._segments[segment].services.get(machine.name)
            if record is not None:
                self._engine.call_at(self._engine.now + RECORD_TTL, self._expire, machine, segment, record)

    def connect(self, machine: Machine, connection: ConnectionId, target: Address | WebSocketUrl) -> End:
        """Start to open a connection; what becomes of it is told to the host's owner."""
        try:
            kind, host, port = _destination(target)
        except ValueError as error:
            return self._unreachable(machine, connection, str(error))
        address = Address(self._names.get(host, host), port)
        segment, server = self._addresses.get(address.host, ("", machine))
        client_port = machine.ports.get(segment)
        if client_port is None:
            return self._unreachable(machine, connection, "no route to host")
        made = self._make(
            kind,
            (machine, client_port),
            (server, server.ports[segment]),
            target=address,
            host="" if kind is Kind.STREAM else host,
            listens=lambda: port in server.listening,
        )
        made.client.id = connection
        return made.open()

    def advertise(self, machine: Machine, record: ServiceRecord) -> None:
        """Publish a host's service, or the change of it, on every segment with discovery."""
        for name in machine.ports:
            segment = self._segments[name]
            if not segment.discovery:
                continue
            segment.services[machine.name] = record
            for other in segment.machines.values():
                if other is not machine:
                    self._announce(machine, record, other, name, trips=1)

    def _unreachable(self, machine: Machine, connection: ConnectionId, reason: str) -> End:
        # No port leads there: a loop stands in for the route that is missing, and nothing travels on it.
        here = (machine, Port("", Link()))
        made = self._make(Kind.STREAM, here, here, target=Address("", 0), host="", listens=lambda: False)
        made.client.id = connection
        self._engine.call_at(self._engine.now, made.client.fail, reason)
        return made.client

    def _make(
        self,
        kind: Kind,
        client: tuple[Machine, Port],
        server: tuple[Machine, Port],
        *,
        target: Address,
        host: str,
        listens: Callable[[], bool],
    ) -> Connection:
        self._serial += 1
        return Connection(
            self._engine,
            kind,
            seed=self._seed,
            serial=self._serial,
            client=client,
            server=server,
            target=target,
            host=host,
            listens=listens,
            taps=self.taps,
            cut_chance=self._cut_chance,
        )

    def _announce(self, machine: Machine, record: ServiceRecord, to: Machine, segment: str, *, trips: int) -> None:
        source, target = machine.ports[segment], to.ports[segment]
        delay = trips * one_way(source, target)
        addresses = (Address(source.address, record.port),)
        self._engine.call_at(self._engine.now + delay, _find, to, _instance(machine), record, addresses)

    def _expire(self, machine: Machine, segment: str, record: ServiceRecord) -> None:
        # The very same object: a host that came back has advertised a new one.
        if self._segments[segment].services.get(machine.name) is record:
            self._withdraw(machine, segment)

    def _withdraw(self, machine: Machine, name: str) -> None:
        segment = self._segments[name]
        if segment.services.pop(machine.name, None) is None:
            return
        for other in segment.machines.values():
            if other is not machine:
                delay = one_way(machine.ports[name], other.ports[name])
                self._engine.call_at(self._engine.now + delay, _lose, other, _instance(machine))


def _instance(machine: Machine) -> str:
    return f"{machine.name}._teale._tcp.local."


def _find(machine: Machine, name: str, record: ServiceRecord, addresses: tuple[Address, ...]) -> None:
    if machine.running and machine.owner is not None:
        machine.owner.found(name, record, addresses)


def _lose(machine: Machine, name: str) -> None:
    if machine.running and machine.owner is not None:
        machine.owner.lost(name)


def _destination(target: Address | WebSocketUrl) -> tuple[Kind, str, int]:
    if isinstance(target, Address):
        return Kind.STREAM, target.host, target.port
    parts = urlsplit(target.url)
    if parts.scheme not in _SCHEMES or parts.hostname is None:
        raise ValueError(f"not a WebSocket address: {target.url!r}")
    kind, port = _SCHEMES[parts.scheme]
    return kind, parts.hostname, parts.port or port
