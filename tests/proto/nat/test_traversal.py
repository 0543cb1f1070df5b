"""Traversals of two nodes in a small internet: they explore, propose, punch and report, with nothing done for them.

The relay between them is a function that takes a moment; everything else is the simulator's NATs and STUN servers.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import msgspec
import pytest

from simulator.engine import Engine
from simulator.nat_grid import KINDS
from simulator.net.datagrams import HOME, DatagramHost, Internet, Realm, Uplink
from simulator.rng import stream
from teale_proto.contract import MILLISECOND, SECOND, Instant, Value
from teale_proto.effects import CloseSockets, ExpectPeer, OpenSockets, SendDatagram
from teale_proto.errors import PeerError
from teale_proto.inputs import Address, DatagramReceived, NetworkChanged, NodeId, SocketsOpened, Woken
from teale_proto.nat.signals import SIGNAL_BYTES_MAX
from teale_proto.nat.stun_server import StunServer
from teale_proto.nat.traversal import (
    ROUNDS_MAX,
    UPGRADE_EVERY,
    AskRelay,
    DialPeer,
    TellPeer,
    Traversal,
    TraversalEffect,
)
from teale_proto.wire.cluster import PathSignal

PRIMARY, ALTERNATE = Address("192.0.2.1", 3478), Address("198.51.100.1", 3479)
DEAD_SERVER = Address("192.0.2.9", 3478)
NODES = NodeId("a" * 64), NodeId("b" * 64)
SESSION = "session"
LATENCY = 20 * MILLISECOND
LINE = Uplink(latency=LATENCY)


class Relayed(Value):
    """The relayed session is up."""

    initiator: bool


class Unrelayed(Value):
    """The relayed session has ended."""


class Told(Value):
    """The peer said something."""

    message: PathSignal


class Up(Value):
    """A connection on the direct path is up."""


class Lost(Value):
    """The direct path has ended."""

    was_up: bool = False


class Walker:
    """One traversal, and what a node and its driver do for it."""

    def __init__(self, number: int, local: Address, outside: str, engine: Engine, *, birthday: bool) -> None:
        self.traversal = Traversal(stream(1, "walker", str(number)), birthday_allowed=birthday)
        self.traversal.surroundings.outside = self.outside = outside
        self.peer = NODES[1 - number]
        self.local = local
        self.ports = {local.port}
        self.sent: Counter[str] = Counter()
        """Bytes sent to each host."""
        self.dialled: list[tuple[Instant, DialPeer]] = []
        self.expected: list[tuple[Instant, ExpectPeer]] = []
        self.said: list[tuple[Instant, PathSignal]] = []
        self.other: DatagramHost | None = None
        self.other_outside = ""
        self._engine = engine
        self._next_port = 50_000

    @property
    def deadline(self) -> Instant:
        return self.traversal.deadline

    def handle(self, event: Value, now: Instant) -> Sequence[SendDatagram]:
        out: list[TraversalEffect] = []
        match event:
            case Told():
                self.traversal.told(self.peer, event.message, now, out)
            case Relayed():
                self.traversal.relayed(self.peer, SESSION, initiator=event.initiator, now=now, out=out)
            case Unrelayed():
                self.traversal.unrelayed(self.peer, now, out)
            case Up():
                self.traversal.direct_up(self.peer, now, out)
            case Lost():
                self.traversal.direct_lost(self.peer, was_up=event.was_up, now=now, out=out)
            case NetworkChanged() | DatagramReceived() | SocketsOpened() | Woken():
                self.traversal.handle(event, now, out)
        return self.perform(out, now)

    def perform(self, wanted: list[TraversalEffect], now: Instant) -> Sequence[SendDatagram]:
        sent: list[SendDatagram] = []
        for effect in wanted:
            out: list[TraversalEffect] = []
            match effect:
                case SendDatagram():
                    assert effect.local.port in self.ports, "it sends through sockets that are open"
                    self.sent[effect.remote.host] += len(effect.data)
                    sent.append(effect)
                case TellPeer():
                    self.said.append((now, effect.message))
                    assert self.other is not None
                    self._engine.call_at(now + 2 * LATENCY, self.other.feed, Told(effect.message))
                case AskRelay():
                    seen = effect.host == self.other_outside
                    self.traversal.vouched(effect.session, effect.host, is_seen=seen, now=now, out=out)
                case DialPeer():
                    self.dialled.append((now, effect))
                case ExpectPeer():
                    self.expected.append((now, effect))
                case OpenSockets():
                    ports = tuple(range(self._next_port, self._next_port + effect.count))
                    self._next_port += effect.count
                    self.ports.update(ports)
                    self.traversal.handle(SocketsOpened(effect.request, ports), now, out)
                case CloseSockets():
                    self.ports.difference_update(effect.ports)
            sent += self.perform(out, now)
        return sent


class Town:
    """Two walkers behind NATs of two kinds, STUN servers, and the relay between them."""

    def __init__(
        self, ours: str, theirs: str, *, birthday: bool = False, stun: tuple[Address, ...] = (PRIMARY,)
    ) -> None:
        self.engine = Engine()
        self.internet = Internet(self.engine, seed=7)
        self.stun = stun
        server = StunServer(PRIMARY, ALTERNATE)
        self.internet.add_host("stun", [PRIMARY.host, ALTERNATE.host], server, uplink=LINE)
        self.walkers: list[Walker] = []
        self.hosts: list[DatagramHost] = []
        for number, kind in enumerate((ours, theirs)):
            self._add(number, kind, birthday=birthday)
        for number, walker in enumerate(self.walkers):
            walker.other = self.hosts[1 - number]
            walker.other_outside = self.walkers[1 - number].outside

    def _add(self, number: int, kind: str, *, birthday: bool) -> None:
        realm: Realm | None = None
        address = outside = f"203.0.113.{number + 1}"
        for level, box in enumerate(KINDS[kind]):
            addresses = [address] if box.translates else []
            realm = self.internet.add_realm(f"{number} {level}", box, addresses, behind=realm, uplink=LINE)
            if box.translates:
                address = f"10.{number}.{level}.2"
        walker = Walker(number, Address(address, 40_000), outside, self.engine, birthday=birthday)
        self.walkers.append(walker)
        line = HOME if realm else LINE
        self.hosts.append(self.internet.add_host(f"host {number}", [address], walker, realm=realm, uplink=line))

    def explore(self) -> None:
        """Tell both that the network is there."""
        for host, walker in zip(self.hosts, self.walkers, strict=True):
            host.feed(NetworkChanged((walker.local,), self.stun))

    def introduce(self) -> None:
        """Bring the relayed session up, which the first has begun."""
        for number in (1, 0):
            self.hosts[number].feed(Relayed(initiator=number == 0))

    def run(self, seconds: float) -> "Town":
        self.engine.run_until(self.engine.now + round(seconds * SECOND))
        return self

    def reasons(self) -> tuple[str, ...]:
        return tuple(walker.traversal.explain(walker.peer) for walker in self.walkers)


def met(ours: str, theirs: str, *, birthday: bool = False, seconds: float = 40) -> Town:
    """Return a town whose two nodes have explored, met, and had time."""
    town = Town(ours, theirs, birthday=birthday)
    town.explore()
    town.introduce()
    return town.run(seconds)


# A path.


@pytest.mark.parametrize(
    ("ours", "theirs", "begins"),
    [
        ("public", "EIM+APDF", "direct: "),
        ("EIM+APDF", "EIM+APDF", "punched: "),
        ("EIM+ADF", "APDM+APDF", "punched: "),
        ("APDM+APDF", "EIM+EIF", "direct: "),
        ("carrier over home", "EIM+APDF", "punched: "),
        ("APDM sequential", "EIM+APDF", "predicted: "),
    ],
)
def test_the_initiator_dials_where_the_peer_is_seen_from_outside(ours: str, theirs: str, begins: str) -> None:
    town = met(ours, theirs)
    first, second = town.walkers
    assert len(first.dialled) == 1
    assert not second.dialled
    dial = first.dialled[0][1]
    assert dial.node == NODES[1]
    assert dial.remote.host == second.outside
    [(expected_at, expected)] = second.expected
    assert not first.expected
    assert expected.remote.host == first.outside
    # Whoever is dialled expects it when the first packet comes, which leaves when the initiator dials.
    assert expected_at <= first.dialled[0][0] + 2 * LATENCY
    for host in town.hosts:
        host.feed(Up())
    assert all(reason.startswith(begins) for reason in town.reasons())


def test_what_a_relay_alone_can_reach_stays_relayed_and_both_know_why() -> None:
    town = met("APDM+APDF", "APDM+APDF")
    assert not town.walkers[0].dialled
    assert all(reason.startswith("relayed: ") for reason in town.reasons())
    said = len(town.walkers[0].said)
    town.run(300)
    assert len(town.walkers[0].said) == said, "what physics forbid is not tried again"


def test_a_birthday_attempt_is_made_only_where_both_allow_it_and_the_relay_vouches() -> None:
    assert not met("EIM+APDF", "APDM+APDF").walkers[0].dialled
    town = met("EIM+APDF", "APDM+APDF", birthday=True)
    assert len(town.walkers[0].dialled) == 1
    lying = Town("EIM+APDF", "APDM+APDF", birthday=True)
    for walker in lying.walkers:
        walker.other_outside = "198.51.100.200"
    lying.explore()
    lying.introduce()
    lying.run(40)
    assert not lying.walkers[0].dialled
    first, second = lying.walkers
    assert first.sent[second.outside] + second.sent[first.outside] < 20_000, "no port is guessed where nobody vouches"


def test_every_socket_that_was_opened_on_the_way_is_closed_but_for_the_one_of_the_path() -> None:
    for ours, theirs in (("APDM+APDF", "EIM+APDF"), ("EIM+APDF", "APDM+APDF")):
        town = met(ours, theirs, birthday=True)
        for walker in town.walkers:
            assert len(walker.ports) <= 2
        # Nobody has made a connection: after a while the path is given up, and its socket with it.
        town.hosts[0].feed(Lost())
        town.hosts[1].feed(Lost())
        assert all(walker.ports == {walker.local.port} for walker in town.walkers)


def test_udp_that_is_blocked_is_told_from_one_dead_server() -> None:
    town = Town("EIM+APDF", "EIM+APDF", stun=(DEAD_SERVER, PRIMARY))
    town.explore()
    town.introduce()
    town.run(20)
    assert town.walkers[0].dialled
    assert met("UDP blocked", "EIM+APDF").reasons()[0] == "relayed: your network blocks UDP"


def test_a_path_on_which_nothing_comes_up_is_no_path_and_the_reason_says_so() -> None:
    reasons = met("EIM+APDF", "EIM+APDF").reasons()
    assert all(reason.startswith("relayed: no path has opened yet, although it could be; ") for reason in reasons)


def test_what_nobody_connects_on_is_tried_again_a_bounded_number_of_times() -> None:
    town = met("EIM+APDF", "EIM+APDF", seconds=20 * UPGRADE_EVERY / SECOND)
    dials = [at for at, _ in town.walkers[0].dialled]
    assert len(dials) == ROUNDS_MAX
    assert all(later - earlier >= UPGRADE_EVERY for earlier, later in pairwise(dials))


def test_a_path_that_was_lost_is_opened_anew_at_once_and_without_a_relay_not_at_all() -> None:
    town = met("EIM+APDF", "EIM+APDF", seconds=5)
    for host in town.hosts:
        host.feed(Up())
    assert all(reason.startswith("punched: ") for reason in town.reasons())
    for host in town.hosts:
        host.feed(Lost(was_up=True))
    town.run(5)
    assert len(town.walkers[0].dialled) == 2
    for host in town.hosts:
        host.feed(Up())
        host.feed(Unrelayed())
        host.feed(Lost(was_up=True))
    town.run(100)
    assert len(town.walkers[0].dialled) == 2
    assert town.reasons() == ("", "")


def test_another_network_is_explored_and_tried_from_the_beginning() -> None:
    town = met("EIM+APDF", "EIM+APDF", seconds=5)
    town.hosts[0].feed(NetworkChanged(()))
    town.run(100)
    assert len(town.walkers[0].dialled) == 1
    town.explore()
    town.run(10)
    assert len(town.walkers[0].dialled) == 2


# Strangers and hostile peers.


def test_signals_before_a_session_and_those_of_another_round_change_nothing() -> None:
    town = Town("EIM+APDF", "EIM+APDF")
    town.explore()
    town.run(10)
    signal = PathSignal("00" * 8, msgspec.Raw(b'{"type":"opened","token":"AAAAAAAAAAA="}'))
    town.hosts[0].feed(Told(signal))
    town.introduce()
    town.hosts[0].feed(Told(signal))
    town.hosts[1].feed(Told(signal))
    town.run(10)
    assert len(town.walkers[0].dialled) == 1


def test_a_peer_that_proposes_all_the_time_is_answered_seldom() -> None:
    town = Town("EIM+APDF", "EIM+APDF")
    town.explore()
    town.run(10)
    town.introduce()
    town.run(0.5)
    proposal = town.walkers[0].said[0][1]
    answered = len(town.walkers[1].said)
    for number in range(50):
        again = PathSignal(f"{number:016x}", proposal.signal, proposal.secret, proposal.pad)
        town.hosts[1].feed(Told(again))
    assert len(town.walkers[1].said) == answered


def test_a_peer_makes_us_send_less_to_somebody_else_than_it_spends_on_asking() -> None:
    town = Town("EIM+APDF", "EIM+APDF")
    town.explore()
    town.run(10)
    town.introduce()
    town.run(0.5)
    honest = town.walkers[0].said[0][1]
    victim = Address("198.51.100.99", 53)
    before = town.walkers[1].sent[victim.host]
    lie = msgspec.json.decode(bytes(honest.signal))
    for number, candidate in enumerate(lie["candidates"]):
        candidate["address"] = {"host": victim.host, "port": victim.port + number}
    lie["side"]["behaviour"]["mapped"] = {"host": victim.host, "port": victim.port}
    lie["side"]["outside"] = victim.host
    lie["candidates"] *= 4
    spent = 0
    for number in range(20):
        town.run(3)
        encoded = msgspec.json.encode(lie)
        signal = PathSignal(f"{number:016x}", msgspec.Raw(encoded), honest.secret, "." * 1300)
        begin = PathSignal(signal.round, msgspec.Raw(b'{"type":"begin","attempt":1,"round_trip":1000}'))
        spent += len(encoded) + len(signal.pad)
        for message in (signal, begin):
            town.hosts[1].feed(Told(message))
    town.run(60)
    assert 0 < town.walkers[1].sent[victim.host] - before < spent


@pytest.mark.parametrize(
    ("name", "signal", "secret"),
    [
        ("00", b'{"type":"opened","token":"AAAAAAAAAAA="}', None),
        ("00" * 8, b'{"type":"opened","token":"AAAA"}', None),
        ("00" * 8, b'{"type":"begin","attempt":9,"round_trip":1}', None),
        ("00" * 8, b'{"type":"meteor"}', None),
        ("00" * 8, b'{"type":"propose","attempt":1,"side":{"behaviour":{"udp_blocked":false}},"candidates":[]}', None),
        ("00" * 8, b'{"type":"begin","attempt":1,"round_trip":1}', "00"),
        ("00" * 8, b'"' + b"x" * SIGNAL_BYTES_MAX + b'"', None),
    ],
)
def test_what_is_no_signal_is_an_error_of_the_peer(name: str, signal: bytes, secret: str | None) -> None:
    walker = Town("public", "public").walkers[0]
    with pytest.raises(PeerError):
        walker.traversal.told(walker.peer, PathSignal(name, msgspec.Raw(signal), secret), 0, [])
