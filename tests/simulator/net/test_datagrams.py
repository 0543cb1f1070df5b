"""How datagrams travel: delays, chance, and the way up and down through realms."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.engine import Engine
from simulator.net.datagrams import HOME, DatagramHost, Internet, Realm, Uplink
from simulator.net.nat import NatKind
from teale_proto.contract import MILLISECOND, NEVER, SECOND, Instant, Value
from teale_proto.effects import SendDatagram
from teale_proto.inputs import Address, DatagramReceived
from teale_proto.nat.kinds import Filtering, Hairpinning
from tests.simulator.toys import Diary

OPEN = NatKind(filtering=Filtering.ENDPOINT_INDEPENDENT)
A, B = Address("192.0.2.1", 1), Address("192.0.2.2", 2)


class Say(Value):
    """Told to a chatty core: send this."""

    what: SendDatagram


def chatty() -> Diary:
    return Diary(lambda event, _: [event.what] if isinstance(event, Say) else [])


class Place:
    """An internet of chatty hosts."""

    def __init__(self, seed: int = 1) -> None:
        self.engine = Engine()
        self.internet = Internet(self.engine, seed=seed)
        self.diaries: dict[str, Diary] = {}
        self.hosts: dict[str, DatagramHost] = {}

    def add(self, address: Address, realm: Realm | None = None, uplink: Uplink = HOME) -> None:
        diary = self.diaries[address.host] = chatty()
        self.hosts[address.host] = self.internet.add_host(
            address.host, [address.host], diary, realm=realm, uplink=uplink
        )

    def send(self, source: Address, to: Address, data: bytes = b"x") -> None:
        self.hosts[source.host].feed(Say(SendDatagram(source, to, data)))

    def heard(self, by: Address) -> list[tuple[Instant, Address, bytes]]:
        return [
            (at, event.remote, event.data)
            for at, event in self.diaries[by.host].heard
            if isinstance(event, DatagramReceived) and event.local == by
        ]

    def counts(self) -> tuple[int, int, int]:
        return self.internet.lost, self.internet.dropped, self.internet.unreachable


def pair(uplink: Uplink, seed: int = 1) -> Place:
    place = Place(seed)
    place.add(A, uplink=uplink)
    place.add(B)
    return place


def sent_every_millisecond(uplink: Uplink, count: int = 2000) -> tuple[Place, list[int], list[Instant]]:
    """Return the world, which numbers arrived in which order, and how long each took."""
    place = pair(uplink)
    for number in range(count):
        place.engine.run_until(number * MILLISECOND)
        place.send(A, B, number.to_bytes(2, "big"))
    place.engine.run_until((count + 1000) * MILLISECOND)
    arrivals = [(int.from_bytes(data, "big"), at) for at, _, data in place.heard(B)]
    return place, [number for number, _ in arrivals], [at - number * MILLISECOND for number, at in arrivals]


def test_a_datagram_takes_the_latencies_of_both_ends_to_the_microsecond() -> None:
    place = Place()
    place.add(A, uplink=Uplink(latency=7_001))
    place.add(B, uplink=Uplink(latency=5_010))
    place.send(A, B)
    place.engine.run_until(SECOND)
    assert place.heard(B) == [(12_011, A, b"x")]


def test_nothing_is_delivered_from_inside_the_call_that_sent_it() -> None:
    place = pair(HOME)
    place.send(A, B)
    assert place.heard(B) == []
    place.engine.run_until(0)
    assert place.heard(B) == [(0, A, b"x")]


def test_loss_takes_its_share() -> None:
    place, arrived, _ = sent_every_millisecond(Uplink(loss=0.1))
    assert place.internet.lost == 2000 - len(arrived)
    assert 150 < place.internet.lost < 250


def test_jitter_delays_and_keeps_the_order() -> None:
    _, arrived, took = sent_every_millisecond(Uplink(latency=10 * MILLISECOND, jitter=8 * MILLISECOND))
    assert arrived == list(range(2000))
    assert min(took) >= 10 * MILLISECOND
    assert max(took) <= 18 * MILLISECOND
    assert max(took) - min(took) > 5 * MILLISECOND


def test_reordering_lets_later_packets_overtake() -> None:
    _, arrived, _ = sent_every_millisecond(Uplink(reordering=0.1))
    assert sorted(arrived) == list(range(2000))
    overtaken = sum(max(arrived[:at], default=0) > number for at, number in enumerate(arrived))
    assert 100 < overtaken < 250


def test_duplication_delivers_twice() -> None:
    _, arrived, _ = sent_every_millisecond(Uplink(duplication=0.1))
    assert set(arrived) == set(range(2000))
    assert 150 < len(arrived) - 2000 < 250


@pytest.mark.parametrize("name", ["loss", "duplication", "reordering"])
@pytest.mark.parametrize("chance", [-0.1, 1.1])
def test_chances_lie_between_none_and_certainty(name: str, chance: float) -> None:
    with pytest.raises(ValueError, match=name):
        Uplink(**{name: chance})  # type: ignore[arg-type]  # the names are those of floats
    with pytest.raises(ValueError, match="negative"):
        Uplink(latency=-1)


@given(st.integers(0, 2**32))
def test_one_more_host_disturbs_no_other(seed: int) -> None:
    line = Uplink(jitter=9 * MILLISECOND, loss=0.3)
    small, large = pair(line, seed), pair(line, seed)
    large.add(Address("192.0.2.3", 1), uplink=line)
    for place in (small, large):
        for number in range(20):
            if place is large:
                place.send(Address("192.0.2.3", 1), B, b"noise")
            place.send(A, B, bytes([number]))
        place.engine.run_until(SECOND)
    assert [entry for entry in large.heard(B) if entry[1] == A] == small.heard(B)


def test_what_nobody_has_is_unreachable() -> None:
    place = pair(HOME)
    place.send(A, Address("192.0.2.99", 1))
    place.engine.run_until(0)
    assert place.counts() == (0, 0, 1)


def home(place: Place, name: str, outside: str, kind: NatKind = OPEN, behind: Realm | None = None) -> Realm:
    return place.internet.add_realm(name, kind, [outside], behind=behind, uplink=Uplink(latency=10 * MILLISECOND))


def test_neighbours_reach_each_other_without_leaving_their_realm() -> None:
    place = Place()
    realm = home(place, "home", "203.0.113.1")
    one, two = Address("10.0.0.1", 1), Address("10.0.0.2", 2)
    place.add(one, realm, Uplink(latency=MILLISECOND))
    place.add(two, realm, Uplink(latency=MILLISECOND))
    place.send(one, two)
    place.engine.run_until(SECOND)
    assert place.heard(two) == [(2 * MILLISECOND, one, b"x")]
    assert realm.nat.sessions(SECOND) == 0


def test_private_addresses_are_those_of_ones_own_realm() -> None:
    place = Place()
    same = Address("10.0.0.1", 1)
    place.add(Address("10.0.0.9", 9), home(place, "one", "203.0.113.1"))
    elsewhere = home(place, "two", "203.0.113.2")
    place.add(same, elsewhere)
    place.send(Address("10.0.0.9", 9), same)
    place.engine.run_until(SECOND)
    assert place.heard(same) == []
    assert place.counts() == (0, 0, 1)


def test_a_gateway_acts_at_the_instant_at_which_a_packet_passes() -> None:
    place = Place()
    realm = home(place, "home", "203.0.113.1", NatKind())
    inside = Address("10.0.0.1", 1)
    place.add(inside, realm)
    place.add(B, uplink=Uplink(latency=10 * MILLISECOND))
    # It arrives 20 ms later: one microsecond after our own packet has opened the filter, and one before.
    for early in (0, 2):
        place.engine.run_until(place.engine.now + SECOND)
        realm.nat.flush()
        began = place.engine.now
        place.send(B, Address("203.0.113.1", 1), b"in")
        place.engine.run_until(began + 20 * MILLISECOND - 1 + early)
        place.send(inside, B)
        place.engine.run_until(began + SECOND)
    assert [at for at, *_ in place.heard(inside)] == [SECOND + 20 * MILLISECOND]


@pytest.mark.parametrize(
    ("hairpinning", "seen"),
    [
        (Hairpinning.EXTERNAL_SOURCE, [Address("203.0.113.1", 1)]),
        (Hairpinning.INTERNAL_SOURCE, [Address("10.0.0.1", 1)]),
        (Hairpinning.NONE, []),
    ],
)
def test_a_packet_to_ones_own_gateway_turns_there(hairpinning: Hairpinning, seen: list[Address]) -> None:
    place = Place()
    kind = NatKind(filtering=Filtering.ENDPOINT_INDEPENDENT, hairpinning=hairpinning)
    realm = home(place, "home", "203.0.113.1", kind)
    one, two = Address("10.0.0.1", 1), Address("10.0.0.2", 2)
    place.add(one, realm)
    place.add(two, realm)
    place.add(B)
    place.send(two, B)
    place.send(one, Address("203.0.113.1", 2))
    place.engine.run_until(SECOND)
    assert [remote for _, remote, _ in place.heard(two)] == seen


@pytest.mark.parametrize("to", ["100.64.0.2", "203.0.113.1"])
def test_two_homes_of_one_carrier_meet_below_it_or_at_its_hairpin(to: str) -> None:
    place = Place()
    carrier = home(place, "carrier", "203.0.113.1")
    one, two = Address("10.0.0.1", 1), Address("10.0.0.2", 2)
    place.add(one, home(place, "home 1", "100.64.0.1", behind=carrier))
    place.add(two, home(place, "home 2", "100.64.0.2", behind=carrier))
    place.add(B)
    place.send(two, B)
    place.engine.run_until(SECOND)
    place.send(one, Address(to, 2))
    place.engine.run_until(2 * SECOND)
    # 10 ms up to the carrier's realm and 10 ms down: the carrier's own uplink is not on the way.
    source = Address("100.64.0.1" if to.startswith("100") else to, 1)
    assert place.heard(two) == [(SECOND + 20 * MILLISECOND, source, b"x")]


def test_what_a_firewall_does_not_translate_is_known_everywhere_above_it() -> None:
    place = Place()
    outer = place.internet.add_realm("outer", NatKind(translates=False))
    inner = place.internet.add_realm("inner", NatKind(), ["198.51.100.1"], behind=outer)
    one, two = Address("2001:db8::1", 1), Address("2001:db8::2", 2)
    place.add(one, inner)
    place.add(two)
    place.send(two, one, b"unasked")
    place.engine.run_until(1)
    place.send(one, two)
    place.engine.run_until(2)
    place.send(two, one, b"asked")
    place.engine.run_until(3)
    assert [data for _, _, data in place.heard(one)] == [b"asked"]
    assert place.internet.dropped == 1


def test_names_and_addresses_are_taken_once() -> None:
    place = pair(HOME)
    with pytest.raises(ValueError, match="name"):
        place.add(A)
    with pytest.raises(ValueError, match="taken"):
        place.internet.add_host("other name", [A.host], chatty())
    home(place, "home", "203.0.113.1")
    with pytest.raises(ValueError, match="taken"):
        home(place, "home 2", "203.0.113.1")


class Alarm:
    """A core that wants to be woken three times, the second time sooner than it said at first."""

    def __init__(self) -> None:
        self.deadline: Instant = 100
        self.woken: list[Instant] = []

    def handle(self, event: Value, now: Instant) -> Sequence[Value]:
        if now < self.deadline:
            self.deadline = 50
        else:
            self.woken.append(now)
            self.deadline = 100 if len(self.woken) == 1 else NEVER
        return []


def test_a_core_is_woken_at_its_deadline_and_not_before() -> None:
    place, alarm = Place(), Alarm()
    host = place.internet.add_host("alarm", ["192.0.2.9"], alarm)
    place.engine.run_until(10)
    for _ in range(2):
        host.feed(DatagramReceived(A, B, b""))
    place.engine.run_until(1000)
    assert alarm.woken == [50, 100]
