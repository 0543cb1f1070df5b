"""Who is listed to whom."""

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from teale_proto.contract import SECOND
from teale_proto.inputs import NodeId
from teale_proto.relay.directory import _Pool
from teale_proto.relay.server import RelayServerConfig
from teale_proto.relay.snapshots import Listing
from teale_proto.wire.fields import wire_date
from teale_proto.wire.relay import (
    Capabilities,
    Discover,
    DiscoverFilter,
    DiscoverResponse,
    Error,
    Hardware,
    PeerListing,
    RelayOpen,
)
from tests.proto.relay.relays import (
    ALICE,
    BOB,
    CAPABILITIES,
    CAROL,
    HOST,
    UNIX_TIME_AT_ZERO,
    RawNode,
    Relay,
    identity,
    registration,
)


def offering(*models: str, ram_gb: float = 8.0, tier: int = 4, available: bool = True) -> Capabilities:
    hardware = Hardware(total_ram_gb=ram_gb, tier=tier)
    return Capabilities(hardware=hardware, loaded_models=models, is_available=available)


def found(asker: RawNode, wanted: DiscoverFilter | None = None) -> set[NodeId]:
    asker.relay.advance(10 * SECOND)
    asker.say(Discover(asker.id, wanted))
    assert isinstance(asker.last, DiscoverResponse), asker.last
    nodes = [peer.node_id for peer in asker.last.peers]
    assert len(nodes) == len(set(nodes))
    return set(nodes)


def test_a_listing_says_what_the_node_said_and_when_it_was_heard() -> None:
    relay = Relay()
    relay.node(BOB, display_name="Bob", wg_public_key=BOB.static_public.hex())
    alice = relay.node(ALICE)
    relay.advance(20 * SECOND)
    alice.say(Discover(ALICE.node_id))
    assert alice.take() == [
        DiscoverResponse(
            (
                PeerListing(
                    node_id=BOB.node_id,
                    public_key=BOB.node_id,
                    display_name="Bob",
                    capabilities=CAPABILITIES,
                    last_seen=wire_date(UNIX_TIME_AT_ZERO),
                    wg_public_key=BOB.static_public.hex(),
                ),
            )
        )
    ]


def test_nobody_is_listed_to_himself() -> None:
    assert found(Relay().node(ALICE)) == set()


def test_the_filter_asks_for_model_memory_and_tier() -> None:
    relay = Relay()
    asker = relay.node(ALICE)
    small, large, busy = (identity(number) for number in (10, 11, 12))
    relay.node(small, capabilities=offering("tiny", ram_gb=8, tier=4))
    relay.node(large, capabilities=offering("tiny", "huge", ram_gb=64, tier=1))
    relay.node(busy, capabilities=offering("tiny", "huge", ram_gb=64, tier=1, available=False))
    everybody = {small.node_id, large.node_id}
    assert found(asker) == everybody
    assert found(asker, DiscoverFilter()) == everybody
    assert found(asker, DiscoverFilter(model_id="tiny")) == everybody
    assert found(asker, DiscoverFilter(model_id="huge")) == {large.node_id}
    assert found(asker, DiscoverFilter(model_id="none")) == set()


def test_memory_and_tier_are_limits_that_may_be_met_exactly() -> None:
    relay = Relay()
    asker = relay.node(ALICE)
    relay.node(BOB, capabilities=offering(ram_gb=16, tier=2))
    assert found(asker, DiscoverFilter(min_ram_gb=16.0)) == {BOB.node_id}
    assert found(asker, DiscoverFilter(min_ram_gb=16.5)) == set()
    assert found(asker, DiscoverFilter(min_tier=2)) == {BOB.node_id}
    assert found(asker, DiscoverFilter(min_tier=1)) == set()


def test_a_node_is_found_by_what_it_offers_now() -> None:
    relay = Relay()
    asker, bob = relay.node(ALICE), relay.node(BOB, capabilities=offering("tiny", "tiny"))
    bob.say(registration(BOB, capabilities=offering("huge")))
    assert found(asker, DiscoverFilter(model_id="tiny")) == set()
    assert found(asker, DiscoverFilter(model_id="huge")) == {BOB.node_id}
    bob.hang_up()
    assert found(asker, DiscoverFilter(model_id="huge")) == set()


def test_more_peers_than_wanted_are_sampled_at_random() -> None:
    relay = Relay(RelayServerConfig(names=(HOST,), peers_max=5))
    asker = relay.node(ALICE)
    others = {relay.node(identity(number)).id for number in range(20, 32)}
    samples = [found(asker, DiscoverFilter(max_peers=wanted)) for wanted in (100, 100, 100, 3)]
    assert [len(sample) for sample in samples] == [5, 5, 5, 3]
    assert all(sample < others for sample in samples)
    assert len({frozenset(sample) for sample in samples}) > 1


def test_no_peers_are_an_answer() -> None:
    relay = Relay()
    asker = relay.node(ALICE)
    relay.node(BOB)
    assert found(asker, DiscoverFilter(max_peers=0)) == set()


def test_the_longest_answer_fits_into_a_message() -> None:
    """However large nodes make their registrations, nobody's listing is too long for those who ask."""
    relay = Relay()
    asker = relay.node(ALICE)
    models = tuple("\\" * 240 + f"{number:04}" for number in range(31))
    for number in range(60):
        relay.node(identity(100 + number), capabilities=offering(*models), display_name="x" * 256)
    assert len(found(asker)) == 50
    assert 700_000 < len(asker.raw[-1]) < 1 << 20


def test_a_node_that_becomes_unavailable_is_no_longer_found() -> None:
    relay = Relay()
    asker, bob, _ = relay.node(ALICE), relay.node(BOB), relay.node(CAROL)
    for _ in range(2):
        bob.say(registration(BOB, capabilities=offering("tiny", available=False)))
    assert found(asker, DiscoverFilter(model_id="tiny")) == {CAROL.node_id}
    for _ in range(2):
        bob.say(registration(BOB, capabilities=offering("rare", available=False)))
    assert found(asker, DiscoverFilter(model_id="rare")) == set()


def test_discover_comes_once_in_ten_seconds() -> None:
    relay = Relay()
    alice = relay.node(ALICE)
    for _ in range(4):
        alice.say(Discover(ALICE.node_id))
    assert alice.kinds() == ["discoverResponse", "discoverResponse", "error", "error"]
    assert alice.last == Error("rate_limited", "discover comes too often", 10.0)
    relay.advance(4 * SECOND)
    alice.say(Discover(ALICE.node_id))
    assert alice.last.retry_after_seconds == 6.0
    relay.advance(6 * SECOND)
    alice.say(Discover(ALICE.node_id))
    assert isinstance(alice.last, DiscoverResponse)
    assert alice.closed is None


def test_one_node_cannot_ask_in_the_name_of_another() -> None:
    relay = Relay()
    alice = relay.node(ALICE)
    alice.say(Discover(BOB.node_id))
    assert alice.take() == [Error("invalid_message", "the message names another node as its sender")]


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9))), st.integers(0, 99))
def test_a_pool_is_a_set_that_can_be_drawn_from(changes: list[tuple[bool, int]], seed: int) -> None:
    pool = _Pool()
    expected: set[str] = set()
    for added, number in changes:
        node = identity(number).node_id
        (pool.add if added else pool.discard)(node)
        (expected.add if added else expected.discard)(node)
        drawn = list(pool.shuffled(Random(seed)))
        assert sorted(drawn) == sorted(expected)
        assert len(pool) == len(expected)


def test_every_member_of_a_pool_is_as_likely_as_any_other() -> None:
    pool = _Pool()
    members = [identity(number).node_id for number in range(4)]
    for member in members:
        pool.add(member)
    rng = Random(1)
    orders = [tuple(pool.shuffled(rng)) for _ in range(2400)]
    counts = [orders.count(order) for order in set(orders)]
    assert len(counts) == 24
    assert min(counts) > 60
    assert max(counts) < 150


# What the public sees.


def test_the_public_sees_shortened_ids() -> None:
    relay = Relay()
    relay.node(ALICE, display_name="Alice")
    assert relay.server.listings() == (Listing(ALICE.node_id[:16], "Alice", ("tiny",), is_available=True, proved=True),)


def test_metrics_count_messages_in_all_and_over_the_last_minute() -> None:
    relay = Relay()
    assert relay.server.metrics(5).uptime == 0
    relay.advance(100 * SECOND)
    alice, _ = relay.node(ALICE), relay.node(CAROL)
    alice.say(RelayOpen(ALICE.node_id, CAROL.node_id, "session"))
    metrics = relay.server.metrics(relay.now)
    assert (metrics.peers, metrics.sessions, metrics.messages, metrics.messages_last_minute) == (2, 1, 5, 5)
    relay.advance(30 * SECOND)
    alice.say(Discover(ALICE.node_id))
    assert relay.server.metrics(relay.now).messages_last_minute == 6
    relay.advance(30 * SECOND)
    metrics = relay.server.metrics(relay.now)
    assert (metrics.messages, metrics.messages_last_minute) == (6, 1)
    assert metrics.uptime == 60 * SECOND
    relay.advance(30 * SECOND)
    assert relay.server.metrics(relay.now).messages_last_minute == 0
