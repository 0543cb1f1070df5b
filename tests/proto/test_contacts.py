"""Who is known, at which address, and when a failed attempt may be repeated."""

from random import Random

from teale_proto.contacts import ADDRESSES_MAX, FAILING_MAX, LISTED_MAX, LISTING_LIFETIME, SERVICES_MAX, Contacts
from teale_proto.contract import SECOND
from teale_proto.effects import Path
from teale_proto.inputs import Address, NodeId, ServiceFound, ServiceRecord
from teale_proto.wire.relay import Capabilities, Hardware, PeerListing

OWN, OTHER = NodeId("00" * 32), NodeId("11" * 32)


def node(number: int) -> NodeId:
    return NodeId(f"{number:064x}")


def service(name: str, who: NodeId = OTHER, *hosts: str) -> ServiceFound:
    addresses = tuple(Address(host, 1) for host in hosts or ("10.0.0.1",))
    return ServiceFound(name, ServiceRecord(who, 1), addresses)


def listing(who: NodeId, *models: str, tier: int = 4, is_available: bool = True) -> PeerListing:
    capabilities = Capabilities(Hardware(tier=tier), loaded_models=models, is_available=is_available)
    return PeerListing(who, who, "x", capabilities, 0.0)


def contacts() -> Contacts:
    return Contacts(OWN, Random(0))


def test_addresses_are_tried_in_turn() -> None:
    known = contacts()
    known.found(service("a", OTHER, "10.0.0.1", "fe80::1"))
    known.found(service("b", OTHER, "192.168.0.1"))
    hosts = [address.host for address in (known.next_address(OTHER) for _ in range(4)) if address is not None]
    assert hosts == ["10.0.0.1", "fe80::1", "192.168.0.1", "10.0.0.1"]


def test_an_advertisement_that_vanishes_takes_its_addresses_along() -> None:
    known = contacts()
    known.found(service("a"))
    assert known.is_on_lan(OTHER)
    known.vanished("a")
    known.vanished("a")
    assert not known.is_on_lan(OTHER)
    assert known.next_address(OTHER) is None


def test_our_own_advertisement_is_no_contact() -> None:
    known = contacts()
    assert not known.found(service("a", OWN))
    known.listed((listing(OWN, "m"),), 0)
    assert known.listings() == []


def test_a_flood_of_advertisements_and_addresses_is_bounded() -> None:
    known = contacts()
    taken = [known.found(service(f"s{number}", node(number + 1))) for number in range(SERVICES_MAX + 5)]
    assert taken.count(True) == SERVICES_MAX
    assert known.found(service("s0", OTHER, *(f"10.0.0.{last}" for last in range(20)))), "a known name may change"
    addresses = {known.next_address(OTHER) for _ in range(40)}
    assert len(addresses) == ADDRESSES_MAX


def test_providers_are_those_that_offer_the_model_best_tier_first() -> None:
    known = contacts()
    known.listed(
        (
            listing(node(1), "m", tier=3),
            listing(node(2), "m", tier=1),
            listing(node(3), "n", tier=2),
            listing(node(4)),
            listing(node(5), "m", is_available=False),
        ),
        0,
    )
    assert known.providers("m", 0) == [node(2), node(1)]
    assert known.providers(None, 0) == [node(2), node(3), node(1)]
    known.unlisted(node(2))
    assert known.providers("m", 0) == [node(1)]


def test_what_the_relay_does_not_repeat_is_forgotten() -> None:
    known = contacts()
    known.listed((listing(node(1), "m"),), 0)
    assert known.providers("m", LISTING_LIFETIME - 1) == [node(1)]
    assert known.providers("m", LISTING_LIFETIME) == []
    known.listed((), LISTING_LIFETIME)
    assert known.listings() == []


def test_listings_are_bounded_and_the_newest_stay() -> None:
    known = contacts()
    for number in range(LISTED_MAX + 10):
        known.listed((listing(node(number + 1), "m"),), number)
    kept = [listed.node_id for listed in known.listings()]
    assert len(kept) == LISTED_MAX
    assert kept[-1] == node(LISTED_MAX + 10)


def test_a_failure_holds_off_the_next_attempt_on_that_path_alone() -> None:
    known = contacts()
    known.listed((listing(OTHER, "m"),), 0)
    known.failed(OTHER, Path.LAN, 0)
    assert known.providers("m", 0) == [OTHER]
    delay = known.failed(OTHER, Path.RELAY, 0)
    assert SECOND <= delay <= 2 * SECOND
    assert known.providers("m", delay - 1) == []
    assert known.providers("m", delay) == [OTHER]
    known.failed(OTHER, Path.RELAY, delay)
    known.succeeded(OTHER, Path.RELAY)
    assert known.may_try(OTHER, Path.RELAY, delay)


def test_failures_remembered_are_bounded_and_the_oldest_go() -> None:
    known = contacts()
    for number in range(FAILING_MAX + 1):
        known.failed(node(number), Path.RELAY, 0)
    assert known.may_try(node(0), Path.RELAY, 0)
    assert not known.may_try(node(1), Path.RELAY, 0)
