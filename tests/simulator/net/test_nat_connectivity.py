"""Which pairs of NATs let packets through, cell by cell, as `docs` and the planner claim.

Two simple peers learn their reflexive addresses from a STUN server, are told each other's, and send: one of them,
or both at the same time. No tricks: they neither guess ports nor open more sockets.
"""

from collections.abc import Sequence
from functools import cache

import pytest

from simulator.net.datagrams import DatagramHost, Realm, Uplink
from simulator.net.nat import Allocation, NatKind
from teale_proto.contract import MILLISECOND, NEVER, SECOND, Instant, Value
from teale_proto.effects import SendDatagram
from teale_proto.errors import PeerError
from teale_proto.inputs import Address, DatagramReceived
from teale_proto.nat.kinds import Filtering, Hairpinning, Mapping
from teale_proto.nat.stun import Message, MessageClass, XorMappedAddress, decode, encode
from tests.simulator.net.nat_world import LINE, PORT, PRIMARY, NatWorld

EIM, ADM, APDM = Mapping
EIF, ADF, APDF = Filtering
KINDS: dict[str, tuple[NatKind, ...]] = {
    "public": (),
    "EIM+EIF": (NatKind(filtering=EIF),),
    "EIM+ADF": (NatKind(filtering=ADF),),
    "EIM+APDF": (NatKind(filtering=APDF),),
    "APDM+APDF": (NatKind(mapping=APDM, filtering=APDF, allocation=Allocation.RANDOM),),
}

MATRIX = """
               public   EIM+EIF  EIM+ADF  EIM+APDF  APDM+APDF
    public     direct   direct   direct   direct    direct
    EIM+EIF    -        direct   direct   direct    direct
    EIM+ADF    -        -        punch    punch     punch
    EIM+APDF   -        -        -        punch     birthday
    APDM+APDF  -        -        -        -         relay
"""
HEADER, *ROWS = [line.split() for line in MATRIX.strip().splitlines()]
CELLS = [(row[0], column, cell) for row in ROWS for column, cell in zip(HEADER, row[1:], strict=True) if cell != "-"]
WITHOUT_TRICKS = {"direct": "direct", "punch": "punch", "birthday": "none", "relay": "none"}


class Learn(Value):
    """Ask the server for the reflexive address."""


class Send(Value):
    """Send to a peer, ten times in a second."""

    to: Address


class Peer:
    """Sends what it is told to, and answers from whom it hears."""

    def __init__(self, local: Address) -> None:
        self.local = local
        self.reflexive: Address | None = None
        self.through = False
        """Whether something that it sent came through and the answer came back."""
        self.deadline: Instant = NEVER
        self._to: Address | None = None
        self._left = 0

    def handle(self, event: Value, now: Instant) -> Sequence[Value]:
        if isinstance(event, Learn):
            return [SendDatagram(self.local, PRIMARY, encode(Message(MessageClass.REQUEST, b"transaction!")))]
        if isinstance(event, DatagramReceived):
            return self._received(event)
        if isinstance(event, Send):
            self._to, self._left = event.to, 10
        elif now < self.deadline:
            return []
        assert self._to is not None, "woken without having been told to send"
        self._left -= 1
        self.deadline = now + 100 * MILLISECOND if self._left else NEVER
        return [SendDatagram(self.local, self._to, b"ping")]

    def _received(self, event: DatagramReceived) -> Sequence[Value]:
        if event.data == b"ping":
            return [SendDatagram(self.local, event.remote, b"pong")]
        if event.data == b"pong":
            self.through = True
            return []
        try:
            mapped = decode(event.data).get(XorMappedAddress)
        except PeerError:
            return []
        self.reflexive = mapped.address if mapped else None
        return []


class Meeting:
    """Two peers that have learned their reflexive addresses."""

    def __init__(self, ours: Sequence[NatKind], theirs: Sequence[NatKind], *, seed: int = 1) -> None:
        self.world = NatWorld(seed=seed)
        self.hosts = [self._add(*self.world.site(kinds)) for kinds in (ours, theirs)]
        self._learn()

    def _add(self, realm: Realm | None, address: str) -> tuple[DatagramHost, Peer]:
        peer = Peer(Address(address, PORT))
        uplink = LINE if realm is None else Uplink(latency=0)
        return self.world.internet.add_host(f"peer {address}", [address], peer, realm=realm, uplink=uplink), peer

    def _learn(self) -> None:
        for host, _ in self.hosts:
            host.feed(Learn())
        self._run()

    def neighbour(self) -> None:
        """Replace the second peer by one in the first one's realm."""
        realm = self.hosts[0][0].realm
        self.hosts[1] = self._add(realm, "10.0.1.3")
        self._learn()

    def reflexive(self, number: int) -> Address:
        mapped = self.hosts[number][1].reflexive
        assert mapped is not None
        return mapped

    def gets_through(self, *senders: int, predicted: Sequence[int] = (0, 0)) -> bool:
        """Let the senders send to the other's reflexive address, its port moved by what is predicted."""
        for number in senders:
            other = self.reflexive(1 - number)
            self.hosts[number][0].feed(Send(Address(other.host, other.port + predicted[1 - number])))
        self._run()
        return any(peer.through for _, peer in self.hosts)

    def _run(self) -> None:
        self.world.engine.run_until(self.world.engine.now + 2 * SECOND)


@cache
def way(ours: tuple[NatKind, ...], theirs: tuple[NatKind, ...]) -> str:
    """Return how two peers connect without tricks."""
    if any(Meeting(ours, theirs).gets_through(sender) for sender in (0, 1)):
        return "direct"
    return "punch" if Meeting(ours, theirs).gets_through(0, 1) else "none"


@pytest.mark.parametrize(("ours", "theirs", "cell"), CELLS)
def test_the_matrix_holds_cell_by_cell(ours: str, theirs: str, cell: str) -> None:
    assert way(KINDS[ours], KINDS[theirs]) == WITHOUT_TRICKS[cell]
    assert way(KINDS[theirs], KINDS[ours]) == WITHOUT_TRICKS[cell]


@pytest.mark.parametrize(("ours", "theirs", "cell"), CELLS)
def test_the_matrix_holds_behind_an_open_carrier_grade_nat_but_for_what_was_public(
    ours: str, theirs: str, cell: str
) -> None:
    carrier = NatKind(filtering=EIF)
    assert way((carrier, *KINDS[ours]), (carrier, *KINDS[theirs])) == WITHOUT_TRICKS[cell]


@pytest.mark.parametrize("home", KINDS)
def test_a_hard_carrier_grade_nat_makes_everybody_behind_it_hard(home: str) -> None:
    carrier = KINDS["APDM+APDF"]
    assert way((*carrier, *KINDS[home]), KINDS["EIM+ADF"]) == "punch"
    assert way((*carrier, *KINDS[home]), KINDS["EIM+APDF"]) == "none"


@pytest.mark.parametrize("kind", KINDS)
def test_nobody_gets_through_where_udp_is_blocked(kind: str) -> None:
    open_peer, blocked = Meeting(KINDS[kind], ()), NatKind(udp_blocked=True)
    assert open_peer.gets_through(0, 1)
    meeting = Meeting(KINDS[kind], (blocked,)).hosts
    assert meeting[0][1].reflexive is not None
    assert meeting[1][1].reflexive is None


@pytest.mark.parametrize("mapping", [ADM, APDM])
def test_a_sequential_hard_nat_can_be_predicted(mapping: Mapping) -> None:
    sequential = (NatKind(mapping=mapping, filtering=APDF, allocation=Allocation.SEQUENTIAL, step=3),)
    easy = KINDS["EIM+APDF"]
    assert way(sequential, easy) == way(sequential, sequential) == "none"
    assert Meeting(sequential, easy).gets_through(0, 1, predicted=(3, 0))
    assert Meeting(sequential, sequential).gets_through(0, 1, predicted=(3, 3))


def test_a_preserving_hard_nat_can_be_predicted_too() -> None:
    """Its port is taken by the mapping for the server, and it goes to the next."""
    preserving = (NatKind(mapping=APDM),)
    assert way(preserving, KINDS["EIM+APDF"]) == "none"
    assert Meeting(preserving, KINDS["EIM+APDF"]).gets_through(0, 1, predicted=(1, 0))


@pytest.mark.parametrize("hairpinning", Hairpinning)
@pytest.mark.parametrize("filtering", Filtering)
def test_neighbours_need_their_private_addresses_or_a_hairpin(hairpinning: Hairpinning, filtering: Filtering) -> None:
    meeting = Meeting((NatKind(filtering=filtering, hairpinning=hairpinning),), ())
    meeting.neighbour()
    assert meeting.reflexive(0).host == meeting.reflexive(1).host
    assert meeting.gets_through(0, 1) == (hairpinning is not Hairpinning.NONE)
    private = Meeting((NatKind(filtering=filtering, hairpinning=hairpinning),), ())
    private.neighbour()
    private.hosts[0][0].feed(Send(private.hosts[1][1].local))
    private.world.engine.run_until(10 * SECOND)
    assert private.hosts[0][1].through
