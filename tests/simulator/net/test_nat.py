"""A NAT box against RFC 4787, requirement by requirement, and what real boxes do instead.

REQ-10 and REQ-12 to 14 are about application gateways, ICMP and fragments, which the box does not know.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import pytest

from simulator.net.nat import FIREWALL, Allocation, Collision, Full, Nat, NatKind, Packet, Pooling
from simulator.rng import stream
from teale_proto.contract import SECOND, Instant
from teale_proto.inputs import Address
from teale_proto.nat.kinds import Filtering, Hairpinning, Mapping

INSIDE = Address("192.168.1.2", 5000)
NEIGHBOUR = Address("192.168.1.3", 5000)
OUTSIDE = "203.0.113.1"
SERVER = Address("192.0.2.1", 80)
OTHER_PORT = Address("192.0.2.1", 81)
ELSEWHERE = Address("198.51.100.1", 80)
FOREVER = 10**6 * SECOND

EIM, ADM, APDM = Mapping
EIF, ADF, APDF = Filtering


class Box:
    """A NAT with shorthands."""

    def __init__(self, kind: NatKind, outside: Sequence[str] = (OUTSIDE,), seed: int = 1) -> None:
        self.nat = Nat(kind, outside, stream(seed, "box", "nat"))

    def out(self, to: Address = SERVER, *, by: Address = INSIDE, at: Instant = 0) -> Address | None:
        """Send a packet to the outside; return where it seems to come from, or None if it was dropped."""
        packet = self.nat.outbound(Packet(by, to, b"out"), at)
        if packet is None:
            return None
        assert (packet.destination, packet.data) == (to, b"out")
        return packet.source

    def opened(self, to: Address = SERVER, *, by: Address = INSIDE, at: Instant = 0) -> Address:
        """Send a packet that must get out."""
        source = self.out(to, by=by, at=at)
        assert source is not None
        return source

    def back(self, to: Address, by: Address = SERVER, *, at: Instant = 0) -> Address | None:
        """Send a packet to the inside; return whom it reaches."""
        packet = self.nat.inbound(Packet(by, to, b"in"), at)
        if packet is None:
            return None
        assert (packet.source, packet.data) == (by, b"in")
        return packet.destination

    def ports(self, count: int, *, to: Address = SERVER, first: int = 20000) -> list[int]:
        """Return the outside ports of `count` inside ports, in order."""
        return [self.opened(to, by=Address(INSIDE.host, first + number)).port for number in range(count)]


# Mapping and filtering, as tables: to whom a mapping made for SERVER is the same, and who may send to it.

MAPPING_IS_THE_SAME = """
              SERVER  OTHER_PORT  ELSEWHERE
    EIM       yes     yes         yes
    ADM       yes     yes         no
    APDM      yes     no          no
"""
FILTER_LETS_IN = """
              SERVER  OTHER_PORT  ELSEWHERE
    EIF       yes     yes         yes
    ADF       yes     yes         no
    APDF      yes     no          no
"""


def cells(table: str) -> list[tuple[str, str, bool]]:
    header, *rows = [line.split() for line in table.strip().splitlines()]
    return [(row[0], column, cell == "yes") for row in rows for column, cell in zip(header, row[1:], strict=True)]


@pytest.mark.parametrize("allocation", Allocation)
@pytest.mark.parametrize(("mapping", "remote", "same"), cells(MAPPING_IS_THE_SAME))
def test_req_1_a_mapping_depends_on_what_its_kind_says(
    mapping: str, remote: str, same: bool, allocation: Allocation
) -> None:
    box = Box(NatKind(mapping=globals()[mapping], allocation=allocation))
    assert (box.opened(SERVER) == box.opened(globals()[remote])) == same


@pytest.mark.parametrize("mapping", Mapping)
@pytest.mark.parametrize(("filtering", "remote", "let_in"), cells(FILTER_LETS_IN))
def test_req_8_a_filter_lets_in_what_its_kind_says(mapping: Mapping, filtering: str, remote: str, let_in: bool) -> None:
    box = Box(NatKind(mapping=mapping, filtering=globals()[filtering]))
    assert box.back(box.opened(SERVER), by=globals()[remote]) == (INSIDE if let_in else None)


@pytest.mark.parametrize("filtering", Filtering)
def test_req_8_what_was_never_mapped_lets_in_nobody(filtering: Filtering) -> None:
    box = Box(NatKind(filtering=filtering))
    mapped = box.opened()
    assert box.back(Address(OUTSIDE, mapped.port + 1)) is None
    assert box.back(Address("203.0.113.2", mapped.port)) is None


def test_req_8_a_filter_is_opened_for_each_remote_that_was_sent_to() -> None:
    box = Box(NatKind(filtering=APDF))
    mapped = box.opened(SERVER)
    assert box.back(mapped, by=ELSEWHERE) is None
    assert box.opened(ELSEWHERE) == mapped
    assert box.back(mapped, by=ELSEWHERE) == INSIDE


def test_req_2_paired_pooling_gives_one_inside_address_one_outside_address() -> None:
    pool = [f"203.0.113.{last}" for last in range(1, 5)]
    box = Box(NatKind(mapping=APDM, pooling=Pooling.PAIRED), pool)
    used = {
        inside: {
            box.opened(Address(SERVER.host, port), by=Address(f"10.0.0.{inside}", 5000)).host for port in range(30)
        }
        for inside in range(40)
    }
    assert all(len(hosts) == 1 for hosts in used.values())
    assert set().union(*used.values()) == set(pool)


def test_req_2_arbitrary_pooling_gives_any_address_but_keeps_a_mapping_where_it_is() -> None:
    pool = [f"203.0.113.{last}" for last in range(1, 5)]
    box = Box(NatKind(pooling=Pooling.ARBITRARY), pool)
    sources = [box.opened(by=Address(INSIDE.host, 5000 + number)) for number in range(100)]
    assert {source.host for source in sources} == set(pool)
    assert [box.opened(ELSEWHERE, by=Address(INSIDE.host, 5000 + number)) for number in range(100)] == sources


def test_req_3_two_inside_endpoints_never_share_a_port() -> None:
    for allocation in Allocation:
        box = Box(NatKind(allocation=allocation, port_min=5000, port_max=5099))
        sources = [box.opened(by=Address(f"192.168.1.{host}", 5000)) for host in range(100)]
        assert len(set(sources)) == 100


def test_req_3_a_preserving_nat_goes_to_the_next_free_port_on_a_collision() -> None:
    box = Box(NatKind())
    assert box.opened(by=INSIDE).port == 5000
    assert box.opened(by=NEIGHBOUR).port == 5001
    assert box.opened(by=Address("192.168.1.4", 65535)).port == 65535
    assert box.opened(by=Address("192.168.1.5", 65535)).port == 1024


def test_req_3_broken_an_overloading_nat_looks_up_the_receiver_by_who_sent() -> None:
    box = Box(NatKind(collision=Collision.OVERLOAD))
    assert box.opened(SERVER, by=INSIDE) == box.opened(ELSEWHERE, by=NEIGHBOUR) == Address(OUTSIDE, 5000)
    assert box.back(Address(OUTSIDE, 5000), by=SERVER) == INSIDE
    assert box.back(Address(OUTSIDE, 5000), by=ELSEWHERE) == NEIGHBOUR
    # Where both have sent to the same place, the later one has it all.
    box.opened(SERVER, by=NEIGHBOUR)
    assert box.back(Address(OUTSIDE, 5000), by=SERVER) == NEIGHBOUR


def test_req_3a_well_known_ports_stay_well_known_and_the_others_do_not_become_so() -> None:
    box = Box(NatKind())
    ports = [box.opened(by=Address(f"192.168.{net}.{host}", 1023)).port for net in range(4) for host in range(200)]
    assert max(ports) == 1023
    assert len(set(ports)) == 800
    assert box.opened(by=Address("192.168.9.1", 1024)).port == 1024
    ports += [box.opened(by=Address("192.168.8.1", port)).port for port in range(1, 224)]
    assert sorted(ports) == list(range(1, 1024))
    assert box.out(by=Address("192.168.9.2", 1023)) is None


@pytest.mark.parametrize("allocation", Allocation)
def test_req_4_parity_can_be_kept(allocation: Allocation) -> None:
    box = Box(NatKind(allocation=allocation, keeps_parity=True))
    for port in range(5000, 5100):
        first, second = (box.opened(by=Address(host, port)).port for host in ("192.168.1.2", "192.168.1.3"))
        assert first % 2 == second % 2 == port % 2


def test_req_5_an_idle_session_lives_for_its_lifetime_to_the_microsecond() -> None:
    kind = NatKind(lifetime=300 * SECOND, inbound_refreshes=False)
    for at, alive in ((300 * SECOND - 1, True), (300 * SECOND, False)):
        box = Box(kind)
        assert (box.back(box.opened(), at=at) is not None) == alive
        assert box.nat.sessions(at) == (1 if alive else 0)


def test_req_5_a_session_that_has_seen_one_packet_can_live_shorter() -> None:
    kind = NatKind(lifetime=300 * SECOND, lifetime_of_one_packet=30 * SECOND)
    box = Box(kind)
    mapped = box.opened()
    assert box.nat.sessions(30 * SECOND - 1) == 1
    assert box.nat.sessions(30 * SECOND) == 0
    box = Box(kind)
    assert box.back(box.opened(), at=SECOND) == INSIDE
    assert box.back(mapped, at=301 * SECOND - 1) == INSIDE
    assert box.nat.sessions(601 * SECOND - 2) == 1
    assert box.nat.sessions(601 * SECOND - 1) == 0


def test_req_6_what_goes_out_refreshes() -> None:
    box = Box(NatKind(lifetime=300 * SECOND, inbound_refreshes=False))
    mapped = box.opened()
    for at in range(0, 3000, 299):
        assert box.opened(at=at * SECOND) == mapped
    assert box.back(mapped, at=(at + 300) * SECOND - 1) == INSIDE
    assert box.back(mapped, at=(at + 300) * SECOND) is None


@pytest.mark.parametrize("refreshes", [True, False])
def test_req_6_what_comes_in_refreshes_where_the_kind_says_so(refreshes: bool) -> None:
    box = Box(NatKind(lifetime=300 * SECOND, inbound_refreshes=refreshes))
    mapped = box.opened()
    assert box.back(mapped, at=200 * SECOND) == INSIDE
    assert box.back(mapped, at=400 * SECOND) == (INSIDE if refreshes else None)


def test_req_6_what_is_filtered_out_refreshes_nothing() -> None:
    box = Box(NatKind(filtering=APDF, lifetime=300 * SECOND))
    mapped = box.opened()
    assert box.back(mapped, by=ELSEWHERE, at=200 * SECOND) is None
    assert box.nat.sessions(300 * SECOND) == 0


def test_req_6_a_mapping_lives_with_one_of_its_sessions_but_each_has_its_own_filter() -> None:
    box = Box(NatKind(filtering=APDF, lifetime=300 * SECOND))
    mapped = box.opened(SERVER)
    assert box.opened(ELSEWHERE, at=200 * SECOND) == mapped
    assert box.back(mapped, by=SERVER, at=300 * SECOND) is None
    assert box.back(mapped, by=ELSEWHERE, at=300 * SECOND) == INSIDE


def test_req_7_the_outside_may_use_the_addresses_of_the_inside() -> None:
    box = Box(NatKind(), outside=["192.168.1.2"])
    remote = Address("192.168.1.3", 80)
    mapped = box.opened(remote, by=NEIGHBOUR)
    assert mapped.host == "192.168.1.2"
    assert box.back(mapped, by=remote) == NEIGHBOUR


@pytest.mark.parametrize("filtering", Filtering)
def test_req_9_a_hairpin_arrives_from_the_outside_address_of_its_sender(filtering: Filtering) -> None:
    box = Box(NatKind(filtering=filtering))
    ours, theirs = box.opened(by=INSIDE), box.opened(by=NEIGHBOUR)
    # Both send, as for any hole punching, so that every kind of filter opens.
    box.nat.hairpin(Packet(NEIGHBOUR, ours, b"first"), 0)
    assert box.nat.faces(theirs.host)
    assert box.nat.hairpin(Packet(INSIDE, theirs, b"x"), 0) == Packet(ours, NEIGHBOUR, b"x")


def test_req_9_a_hairpin_passes_the_filter_like_any_packet() -> None:
    box = Box(NatKind(filtering=APDF))
    theirs = box.opened(by=NEIGHBOUR)
    assert box.nat.hairpin(Packet(INSIDE, theirs, b"x"), 0) is None


def test_req_9_broken_a_hairpin_can_keep_its_inside_source_or_fail() -> None:
    inner = Box(NatKind(filtering=EIF, hairpinning=Hairpinning.INTERNAL_SOURCE))
    theirs = inner.opened(by=NEIGHBOUR)
    assert inner.nat.hairpin(Packet(INSIDE, theirs, b"x"), 0) == Packet(INSIDE, NEIGHBOUR, b"x")
    none = Box(NatKind(filtering=EIF, hairpinning=Hairpinning.NONE))
    assert none.nat.hairpin(Packet(INSIDE, none.opened(by=NEIGHBOUR), b"x"), 0) is None


@pytest.mark.parametrize("mapping", Mapping)
@pytest.mark.parametrize("allocation", Allocation)
def test_req_11_a_nat_does_not_change_its_kind_on_a_collision(mapping: Mapping, allocation: Allocation) -> None:
    box = Box(NatKind(mapping=mapping, allocation=allocation))
    box.opened(by=INSIDE)
    mapped = box.opened(SERVER, by=NEIGHBOUR)
    assert (box.opened(OTHER_PORT, by=NEIGHBOUR) == mapped) == (mapping < APDM)
    assert (box.opened(ELSEWHERE, by=NEIGHBOUR) == mapped) == (mapping == EIM)


# What no requirement speaks of.


def test_plain_masquerade_preserves_and_overloads_and_so_hides_that_it_depends_on_the_destination() -> None:
    box = Box(NatKind(mapping=APDM, collision=Collision.OVERLOAD))
    assert box.opened(SERVER) == box.opened(OTHER_PORT) == box.opened(ELSEWHERE)


@pytest.mark.parametrize("step", [1, 2, 7])
def test_sequential_ports_can_be_predicted(step: int) -> None:
    box = Box(NatKind(mapping=APDM, allocation=Allocation.SEQUENTIAL, step=step))
    seen = box.opened(SERVER).port
    assert box.opened(ELSEWHERE).port == seen + step
    assert {after - before for before, after in pairwise(box.ports(100))} == {step}


def test_sequential_ports_wrap_around_and_every_port_is_used_once() -> None:
    box = Box(NatKind(allocation=Allocation.SEQUENTIAL, step=10, port_min=2000, port_max=2099))
    assert sorted(box.ports(100)) == list(range(2000, 2100))


def test_random_ports_are_spread_evenly_over_their_range() -> None:
    """Chi-squared over 64 bins: with 63 degrees of freedom, 113 is exceeded once in ten thousand."""
    kind = NatKind(allocation=Allocation.RANDOM, port_min=32768, port_max=65535)
    ports = Box(kind).ports(6400)
    bins = Counter((port - 32768) // 512 for port in ports)
    assert min(ports) >= 32768
    assert sum((bins[number] - 100) ** 2 / 100 for number in range(64)) < 113
    # Neither does one port tell the next.
    steps = Counter(after - before for before, after in pairwise(ports))
    assert max(steps.values()) < 10


def test_random_ports_use_up_their_range_too() -> None:
    box = Box(NatKind(allocation=Allocation.RANDOM, port_min=2000, port_max=2299))
    assert sorted(box.ports(300)) == list(range(2000, 2300))
    assert box.out(by=NEIGHBOUR) is None


def test_ports_come_back_when_their_sessions_end() -> None:
    kind = NatKind(allocation=Allocation.RANDOM, port_min=2000, port_max=2009, lifetime=SECOND)
    box = Box(kind)
    assert len(box.ports(10)) == 10
    assert box.out(by=NEIGHBOUR, at=SECOND - 1) is None
    assert box.out(by=NEIGHBOUR, at=SECOND) is not None


@pytest.mark.parametrize("when_full", Full)
def test_a_full_table_drops_the_new_or_the_oldest(when_full: Full) -> None:
    box = Box(NatKind(sessions_max=3, when_full=when_full))
    first, second, third = (box.opened(by=Address(INSIDE.host, port)) for port in (1001, 1002, 1003))
    assert box.opened(by=Address(INSIDE.host, 1001), at=1) == first
    fourth = box.out(by=Address(INSIDE.host, 1004), at=2)
    alive = [box.back(mapped, at=3) is not None for mapped in (first, second, third)]
    if when_full is Full.DROP_NEW:
        assert (fourth, alive) == (None, [True, True, True])
    else:
        assert fourth is not None
        assert alive == [True, False, True]


@pytest.mark.parametrize("when_full", Full)
@pytest.mark.parametrize(("mapping", "filtering"), [(EIM, EIF), (EIM, APDF), (APDM, APDF)])
def test_a_flood_leaves_every_table_bounded(mapping: Mapping, filtering: Filtering, when_full: Full) -> None:
    box = Box(NatKind(mapping=mapping, filtering=filtering, sessions_max=50, when_full=when_full))
    for number in range(5000):
        box.out(Address("192.0.2.1", number % 700), by=Address(INSIDE.host, 1024 + number % 900), at=number)
        box.back(Address(OUTSIDE, number % 65536), by=Address("198.51.100.66", number), at=number)
    nat = box.nat
    assert nat.sessions(5000) == 50
    assert len(nat._mappings) <= 50
    assert sum(map(len, nat._by_outside.values())) == len(nat._mappings)
    assert len(nat._timers) <= 50
    assert len(nat._timers._heap) <= 4 * 50 + 64
    assert sum(nat._ports_taken.values()) <= 50


def test_a_table_with_room_for_one_serves_one_at_a_time() -> None:
    """Making room takes the only session of the mapping that is to be used."""
    box = Box(NatKind(filtering=APDF, sessions_max=1, when_full=Full.EVICT_OLDEST))
    mapped = box.opened(SERVER)
    assert box.opened(ELSEWHERE) == mapped
    assert box.back(mapped, by=SERVER) is None
    assert box.back(mapped, by=ELSEWHERE) == INSIDE


def test_exhausted_ports_make_an_evicting_nat_forget_until_one_is_free() -> None:
    kind = NatKind(allocation=Allocation.RANDOM, port_min=2000, port_max=2001, when_full=Full.EVICT_OLDEST)
    box = Box(kind)
    first, second = (box.opened(by=Address(INSIDE.host, port)) for port in (5000, 5001))
    assert box.opened(by=NEIGHBOUR) == first
    assert box.back(second) == Address(INSIDE.host, 5001)


def test_a_flush_forgets_who_was_there() -> None:
    box = Box(NatKind(allocation=Allocation.SEQUENTIAL))
    mapped = box.opened()
    box.nat.flush()
    assert box.back(mapped) is None
    assert box.nat.sessions(0) == 0
    assert box.opened().port == mapped.port + 1


def test_a_reboot_also_forgets_where_allocation_had_come_to() -> None:
    box = Box(NatKind(allocation=Allocation.SEQUENTIAL))
    mapped = box.opened()
    box.nat.reboot()
    assert box.back(mapped) is None
    assert box.opened().port not in range(mapped.port, mapped.port + 100)


def test_a_rebound_nat_has_other_addresses() -> None:
    box = Box(NatKind())
    mapped = box.opened()
    box.nat.rebind(["203.0.113.99"])
    assert box.back(mapped) is None
    assert box.opened() == Address("203.0.113.99", 5000)
    assert not box.nat.faces(OUTSIDE)


def test_a_nat_that_blocks_udp_lets_nothing_pass() -> None:
    box = Box(NatKind(udp_blocked=True))
    assert box.out() is None
    assert box.back(Address(OUTSIDE, 5000)) is None
    assert box.nat.sessions(0) == 0


@pytest.mark.parametrize("inside", [Address("198.51.100.7", 5000), Address("2001:db8::7", 5000)])
@pytest.mark.parametrize(("filtering", "remote", "let_in"), cells(FILTER_LETS_IN))
def test_a_firewall_filters_and_translates_nothing(inside: Address, filtering: str, remote: str, let_in: bool) -> None:
    box = Box(NatKind(filtering=globals()[filtering], translates=False), outside=())
    assert box.back(inside, by=SERVER) is None
    assert box.opened(SERVER, by=inside) == inside
    assert box.back(inside, by=globals()[remote]) == (inside if let_in else None)
    assert not box.nat.faces(inside.host)
    assert box.nat.carries(inside.host)


def test_a_firewall_forgets_as_a_nat_does() -> None:
    box = Box(FIREWALL, outside=())
    box.opened()
    assert box.back(INSIDE, at=FIREWALL.lifetime - 1) == INSIDE
    assert box.back(INSIDE, at=FOREVER) is None


def test_a_nat_carries_one_ip_version() -> None:
    box = Box(NatKind())
    assert box.nat.carries("192.0.2.1")
    assert not box.nat.carries("2001:db8::1")


def test_the_same_seed_gives_the_same_ports() -> None:
    kind = NatKind(allocation=Allocation.RANDOM)
    assert Box(kind, seed=7).ports(50) == Box(kind, seed=7).ports(50)
    assert Box(kind, seed=7).ports(50) != Box(kind, seed=8).ports(50)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"port_min": 3, "port_max": 2}, "no port"),
        ({"translates": False, "mapping": APDM}, "translates nothing"),
        ({"collision": Collision.OVERLOAD, "allocation": Allocation.RANDOM}, "preserves"),
        ({"lifetime_of_one_packet": FOREVER}, "one packet"),
        ({"keeps_parity": True, "port_min": 2000, "port_max": 2000}, "one parity"),
    ],
)
def test_kinds_that_contradict_themselves_are_refused(fields: dict[str, object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        NatKind(**fields)  # type: ignore[arg-type]  # one table for fields of many types


def test_a_nat_has_outside_addresses_and_a_firewall_has_none() -> None:
    with pytest.raises(ValueError, match="outside addresses"):
        Box(NatKind(), outside=())
    with pytest.raises(ValueError, match="outside addresses"):
        Box(FIREWALL, outside=(OUTSIDE,))
    with pytest.raises(ValueError, match="outside addresses"):
        Box(NatKind()).nat.rebind(())
