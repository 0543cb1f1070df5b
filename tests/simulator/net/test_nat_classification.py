"""Every kind of NAT, asked about from behind it by RFC 5780's client, comes out as it was configured.

The client knows nothing of the simulator's boxes: it exchanges datagrams with a STUN server across them.
"""

from itertools import product

import pytest

from simulator.net.datagrams import Uplink
from simulator.net.nat import Allocation, Collision, NatKind, Pooling
from teale_proto.contract import MILLISECOND, SECOND
from teale_proto.inputs import Address
from teale_proto.nat.behaviour import ReportMapped
from teale_proto.nat.kinds import Behaviour, Filtering, Hairpinning, Mapping
from tests.simulator.net.nat_world import PORT, SECOND_SERVER, NatWorld, classify
from tests.simulator.processes import printed

KINDS = list(product(Mapping, Filtering))
ALLOCATIONS = {
    "preserving": {"allocation": Allocation.PRESERVING},
    "preserving parity": {"allocation": Allocation.PRESERVING, "keeps_parity": True},
    "sequential": {"allocation": Allocation.SEQUENTIAL},
    "sequential by 4": {"allocation": Allocation.SEQUENTIAL, "step": 4},
    "random": {"allocation": Allocation.RANDOM},
    "random in the upper half": {"allocation": Allocation.RANDOM, "port_min": 32768},
}
LOSSY = Uplink(latency=20 * MILLISECOND, loss=0.05)
ROUGH = Uplink(latency=40 * MILLISECOND, jitter=30 * MILLISECOND, loss=0.05, duplication=0.1, reordering=0.2)

every_kind = pytest.mark.parametrize(("mapping", "filtering"), KINDS, ids=lambda part: part.name)


def of(behaviour: Behaviour) -> tuple[Mapping | None, Filtering | None]:
    return behaviour.mapping, behaviour.filtering


@every_kind
@pytest.mark.parametrize("allocation", ALLOCATIONS)
def test_every_kind_is_recognised(mapping: Mapping, filtering: Filtering, allocation: str) -> None:
    kind = NatKind(mapping=mapping, filtering=filtering, **ALLOCATIONS[allocation])  # type: ignore[arg-type]  # mixed
    behaviour = classify(kind)
    assert of(behaviour) == (mapping, filtering)
    assert behaviour.mapping_varies == (mapping != Mapping.ENDPOINT_INDEPENDENT)
    assert behaviour.translated
    assert not behaviour.udp_blocked


@every_kind
@pytest.mark.parametrize("allocation", [Allocation.PRESERVING, Allocation.RANDOM])
def test_behind_a_carrier_grade_nat_the_stricter_of_the_two_counts(
    mapping: Mapping, filtering: Filtering, allocation: Allocation
) -> None:
    home = NatKind(mapping=mapping, filtering=filtering, allocation=allocation)
    for outer_mapping, outer_filtering in KINDS:
        carrier = NatKind(mapping=outer_mapping, filtering=outer_filtering, allocation=allocation)
        assert of(classify(carrier, home)) == (max(mapping, outer_mapping), max(filtering, outer_filtering))


@every_kind
@pytest.mark.parametrize("line", [LOSSY, ROUGH], ids=["5 % loss", "rough"])
def test_bad_lines_change_no_verdict(mapping: Mapping, filtering: Filtering, line: Uplink) -> None:
    kind = NatKind(mapping=mapping, filtering=filtering, allocation=Allocation.RANDOM)
    for seed in range(12):
        assert of(classify(kind, seed=seed, line=line)) == (mapping, filtering), f"seed {seed}"


@every_kind
def test_a_nat_that_forgets_within_seconds_is_recognised_all_the_same(mapping: Mapping, filtering: Filtering) -> None:
    """The silence of a filtering test is longer than its mapping lives."""
    kind = NatKind(mapping=mapping, filtering=filtering, allocation=Allocation.SEQUENTIAL, lifetime=5 * SECOND)
    assert of(classify(kind)) == (mapping, filtering)


@every_kind
@pytest.mark.parametrize("pooling", Pooling)
def test_several_outside_addresses_change_no_verdict(mapping: Mapping, filtering: Filtering, pooling: Pooling) -> None:
    kind = NatKind(mapping=mapping, filtering=filtering, allocation=Allocation.RANDOM, pooling=pooling)
    for seed in range(5):
        assert of(classify(kind, pool=4, seed=seed)) == (mapping, filtering)


@pytest.mark.parametrize("filtering", Filtering)
def test_plain_masquerade_looks_endpoint_independent(filtering: Filtering) -> None:
    kind = NatKind(mapping=Mapping.ADDRESS_AND_PORT_DEPENDENT, filtering=filtering, collision=Collision.OVERLOAD)
    assert of(classify(kind)) == (Mapping.ENDPOINT_INDEPENDENT, filtering)


@pytest.mark.parametrize("ipv6", [False, True], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("filtering", Filtering)
def test_a_firewall_is_told_from_a_nat(filtering: Filtering, ipv6: bool) -> None:
    behaviour = classify(NatKind(translates=False, filtering=filtering), ipv6=ipv6)
    assert behaviour.translated is False
    assert of(behaviour) == (Mapping.ENDPOINT_INDEPENDENT, filtering)
    assert behaviour.hairpinning is None


@pytest.mark.parametrize("ipv6", [False, True], ids=["IPv4", "IPv6"])
def test_a_public_host_sees_no_nat_and_no_filter(ipv6: bool) -> None:
    behaviour = classify(ipv6=ipv6)
    host = "2001:db8:f::1" if ipv6 else "203.0.113.1"
    assert (behaviour.translated, behaviour.mapped) == (False, Address(host, PORT))
    assert of(behaviour) == (Mapping.ENDPOINT_INDEPENDENT, Filtering.ENDPOINT_INDEPENDENT)


def test_ipv6_passes_beside_a_nat_through_its_firewall() -> None:
    behaviour = classify(NatKind(mapping=Mapping.ADDRESS_AND_PORT_DEPENDENT), NatKind(), ipv6=True)
    assert behaviour.translated is False
    assert of(behaviour) == (Mapping.ENDPOINT_INDEPENDENT, Filtering.ADDRESS_AND_PORT_DEPENDENT)


@pytest.mark.parametrize("ipv6", [False, True], ids=["IPv4", "IPv6"])
def test_blocked_udp_is_recognised_by_silence(ipv6: bool) -> None:
    assert classify(NatKind(udp_blocked=True), ipv6=ipv6) == Behaviour(udp_blocked=True)
    assert classify(NatKind(udp_blocked=True), NatKind(), ipv6=ipv6) == Behaviour(udp_blocked=True)


@every_kind
def test_a_server_with_one_address_leaves_mapping_and_filtering_unknown(mapping: Mapping, filtering: Filtering) -> None:
    world = NatWorld(alternate=False)
    behaviour = world.discover(world.discoverer([NatKind(mapping=mapping, filtering=filtering)]))
    assert of(behaviour) == (None, None)
    assert behaviour.mapped == Address("203.0.113.1", PORT)


@every_kind
def test_two_ordinary_servers_tell_whether_the_mapping_varies(mapping: Mapping, filtering: Filtering) -> None:
    world = NatWorld(alternate=False)
    host = world.discoverer([NatKind(mapping=mapping, filtering=filtering)], second=SECOND_SERVER)
    behaviour = world.discover(host)
    independent = mapping is Mapping.ENDPOINT_INDEPENDENT
    assert of(behaviour) == (mapping if independent else None, None)
    assert behaviour.mapping_varies is not independent


@pytest.mark.parametrize("filtering", Filtering)
@pytest.mark.parametrize("hairpinning", Hairpinning)
def test_hairpinning_is_recognised(hairpinning: Hairpinning, filtering: Filtering) -> None:
    assert classify(NatKind(filtering=filtering, hairpinning=hairpinning)).hairpinning is hairpinning


@pytest.mark.parametrize("hairpinning", [Hairpinning.EXTERNAL_SOURCE, Hairpinning.NONE])
def test_behind_a_carrier_grade_nat_its_hairpinning_counts(hairpinning: Hairpinning) -> None:
    carrier = NatKind(hairpinning=hairpinning)
    assert classify(carrier, NatKind(hairpinning=Hairpinning.NONE)).hairpinning is hairpinning


def test_the_mapped_address_is_known_after_one_round_trip() -> None:
    world = NatWorld()
    host = world.discoverer([NatKind()])
    world.discover(host)
    # 10 ms from the home to the middle and 10 ms from there to the server, there and back.
    assert host.reports[0] == (
        40 * MILLISECOND,
        ReportMapped(Address("10.0.1.2", PORT), Address("203.0.113.1", PORT)),
    )


def test_a_new_address_in_the_middle_of_a_run_is_seen_by_the_next_discovery() -> None:
    world = NatWorld()
    host = world.discoverer([NatKind()])
    assert world.discover(host).mapped == Address("203.0.113.1", PORT)
    host.realm.rebind(["203.0.113.222"])
    assert world.discover(host).mapped == Address("203.0.113.222", PORT)


DIGEST = """
from simulator.net.nat import Allocation, NatKind, Pooling
from teale_proto.nat.kinds import Mapping
from tests.simulator.net.nat_world import NatWorld
from tests.simulator.net.test_nat_classification import ROUGH

world = NatWorld(seed={seed}, line=ROUGH)
kind = NatKind(mapping=Mapping(2), allocation=Allocation.RANDOM, pooling=Pooling.ARBITRARY)
for host in [world.discoverer([kind, NatKind()], pool=3) for _ in range(3)]:
    world.discover(host)
print(world.trace.digest)
"""


def digest(seed: int, hash_seed: str) -> str:
    return printed(DIGEST.format(seed=seed), hash_seed)


def test_a_seed_decides_everything_and_the_hash_seed_nothing() -> None:
    assert digest(1, "1") == digest(1, "2") != digest(2, "1")
