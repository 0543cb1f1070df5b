"""What descriptions leave to chance: the shares come out as written, and nobody's draws disturb another's."""

from collections import Counter
from collections.abc import Callable
from math import inf
from statistics import fmean, median

import msgspec
import pytest

from simulator.backend import CostModel
from simulator.rng import exponential, lognormal, normal, stream, weighted
from simulator.spec.access import CELLULAR, HOME, MIXTURES, Mixture
from simulator.spec.faults import BadWeather, Crash, Partition, RandomFaults, SlowNode, begins_at, ends_at, hosts_of
from simulator.spec.load import DAY, AskSpec, Models, Requests
from simulator.spec.population import Churn, Population
from simulator.spec.reading import SpecError, changed
from simulator.spec.world_spec import WorldSpec, calm_from, settled
from teale_proto.nat.kinds import Filtering, Hairpinning, Mapping

SPEC = WorldSpec(
    name="x",
    lasts=600.0,
    populations=(Population(count=8), Population(name="phone", count=4, access="cellular")),
    requests=Requests(per_node_hour=60.0),
    random_faults=RandomFaults(count=6),
)


def test_the_shares_of_a_mixture_come_out_as_written() -> None:
    rng = stream(1, "mixture", "test")
    drawn = [HOME.draw(rng) for _ in range(10_000)]
    carrier = sum(len(access.nats) == 2 for access in drawn)
    hard = sum(bool(access.nats) and access.nats[-1].mapping is Mapping.ADDRESS_AND_PORT_DEPENDENT for access in drawn)
    blocked = sum(any(nat.udp_blocked for nat in access.nats) for access in drawn)
    assert carrier / 10_000 == pytest.approx(0.9 * 0.13, abs=0.01)
    assert hard / 10_000 == pytest.approx(0.10, abs=0.01)
    assert blocked / 10_000 == pytest.approx(0.03, abs=0.005)
    assert {access.line for access in drawn} == set(HOME.lines)


def test_a_third_of_cellular_nodes_is_behind_the_hardest_nat() -> None:
    rng = stream(1, "mixture", "test")
    drawn = [CELLULAR.draw(rng).nats[-1] for _ in range(10_000)]
    hard = sum(
        (nat.mapping, nat.filtering) == (Mapping.ADDRESS_AND_PORT_DEPENDENT, Filtering.ADDRESS_AND_PORT_DEPENDENT)
        for nat in drawn
    )
    assert hard / 10_000 == pytest.approx(0.33, abs=0.015)


def test_what_nats_do_besides_is_said_of_all_of_a_mixture_and_changes_no_draw() -> None:
    plain = Mixture(nats={"public": 1.0, "eim-apdf": 3.0}, lines={"4g": 1.0}, carrier_grade=0.5)
    small = msgspec.structs.replace(plain, hairpinning=False, sessions_max=64)
    one, other = (stream(1, "mixture", "test") for _ in range(2))
    for _ in range(100):
        usual, found = plain.draw(one), small.draw(other)
        assert (len(usual.nats), usual.line) == (len(found.nats), found.line)
        assert all(nat.hairpinning is Hairpinning.EXTERNAL_SOURCE for nat in usual.nats)
        assert all(nat.hairpinning is Hairpinning.NONE for nat in found.nats)
        assert [nat.sessions_max for nat in found.nats[-1:]] == [64] * bool(found.nats)
        assert all(nat.sessions_max > 64 for nat in found.nats[:-1])


def test_a_mixture_names_only_what_there_is() -> None:
    with pytest.raises(ValueError, match="no 'symmetric'"):
        Mixture(nats={"symmetric": 1.0}, lines={"4g": 1.0})
    with pytest.raises(ValueError, match="no '5g'"):
        Mixture(nats={"public": 1.0}, lines={"5g": 1.0})
    with pytest.raises(ValueError, match="at least one weight"):
        Mixture(nats={"public": 0.0}, lines={"4g": 1.0})
    assert all(mixture.draw(stream(0, name, "test")) for name, mixture in MIXTURES.items())


def test_deviates_have_the_moments_that_they_should() -> None:
    rng = stream(2, "units", "test")
    deviates = [normal(rng) for _ in range(20_000)]
    assert fmean(deviates) == pytest.approx(0, abs=0.03)
    assert fmean(each * each for each in deviates) == pytest.approx(1, abs=0.03)
    assert median(lognormal(rng, 60, 1.0) for _ in range(20_000)) == pytest.approx(60, rel=0.05)
    assert fmean(exponential(rng, 5.0) for _ in range(20_000)) == pytest.approx(5, rel=0.05)
    counts = Counter(weighted(rng, {"a": 1.0, "b": 3.0, "c": 0.0}) for _ in range(10_000))
    assert counts["b"] / 10_000 == pytest.approx(0.75, abs=0.02)
    assert "c" not in counts


def test_settling_draws_once_and_for_all() -> None:
    once = settled(SPEC, 7)
    assert once == settled(SPEC, 7) != settled(SPEC, 8)
    assert settled(once, 9) == once
    assert len(once.faults) == 6
    assert once.asks
    assert all(20 <= ask.at < 540 for ask in once.asks)
    assert calm_from(once) <= 60 + 1e-6


def test_faults_are_in_order_and_over_in_time() -> None:
    for seed in range(50):
        faults = settled(SPEC, seed).faults
        assert [begins_at(each) for each in faults] == sorted(begins_at(each) for each in faults)
        assert all(15 <= begins_at(each) <= ends_at(each) <= 60 + 1e-5 for each in faults)
        assert all(host in SPEC.host_names for each in faults for host in hosts_of(each))


def test_requests_follow_the_hour_of_the_day() -> None:
    requests = Requests(per_node_hour=100.0, since=0, until=DAY, daily_swing=0.8, busiest_hour=20.0)
    asks = requests.draw(stream(3, "requests", "test"), ("a", "b"), Models(), DAY)
    assert len(asks) == pytest.approx(100 * 24 * 2, rel=0.05)
    hours = Counter(int(ask.at // 3600) for ask in asks)
    assert hours[20] > 5 * hours[8]
    assert {ask.node for ask in asks} == {"a", "b"}


def test_models_are_asked_for_by_zipfs_law() -> None:
    requests = Requests(per_node_hour=3600.0, since=0, until=7200)
    asks = requests.draw(stream(3, "requests", "test"), ("a",), Models(count=3, exponent=1.0), 7300)
    counts = Counter(ask.model for ask in asks)
    assert counts["model-1"] / counts["model-3"] == pytest.approx(3, rel=0.15)


def test_a_member_that_is_left_out_takes_no_number_with_it() -> None:
    population = Population(count=4, absent=(1,))
    assert [population.member(number) for number in population.numbers] == ["node-0", "node-2", "node-3"]


def test_churn_has_the_medians_that_it_is_given() -> None:
    churn, rng = Churn(session_median=60, gap_median=30), stream(4, "churn", "test")
    assert median(churn.session(rng) for _ in range(5_000)) == pytest.approx(60, rel=0.1)
    assert median(churn.gap(rng) for _ in range(5_000)) == pytest.approx(30, rel=0.1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"faults": (Crash("node-99", 1.0),)}, "no host 'node-99'"),
        ({"populations": (Population(), Population())}, "two are called 'node'"),
        ({"populations": (Population(relay=1),)}, "a missing relay, 1"),
        ({"populations": (Population(name="relay"),)}, "'relay' makes a second 'relay-0'"),
        ({"populations": (Population(), Population(name="node-3"))}, "'node' makes a second 'node-3'"),
        ({"faults": (Crash("node", 1.0),)}, "'node' is a population; only a partition can name one"),
        ({"asks": (AskSpec(1.0, "relay-0"),)}, "there is no node 'relay-0'"),
        ({"asks": (AskSpec(1.0, "node"),)}, "there is no node 'node'"),
        ({"requests": Requests(per_node_hour=1e9)}, "about .* of them are too many; at most 1000000"),
        ({"populations": (Population(count=1_000_000), Population(name="x"))}, "1000010 nodes are too many"),
    ],
)
def test_a_description_that_cannot_be_is_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        WorldSpec(**{"name": "x", **change})  # type: ignore[arg-type]  # the cases are of several types
    assert msgspec.structs.asdict(SPEC)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Population(heartbeat=7.0), "no 7; there are 5, 15, 30"),
        (lambda: Population(name=""), "`name` is empty"),
        (lambda: CostModel(tokens_min=9, tokens_max=8), "`tokens_max` is not below `tokens_min`"),
        (lambda: Requests(since=30.0, until=20.0), "`until` is not before `since`"),
        (lambda: RandomFaults(weights={"crash": 0.0}), "at least one weight must be positive"),
        (lambda: Partition(("a",), ("b",), 9.0, 8.0), "`until` is 8, and so before `at`, 9"),
        (lambda: BadWeather("a", 9.0, 8.0), "`until` is 8, and so before `at`, 9"),
        (lambda: SlowNode("a", 9.0, 8.0), "`until` is 8, and so before `at`, 9"),
    ],
)
def test_a_part_of_a_description_that_cannot_be_is_refused(make: Callable[[], object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("lasts", inf),
        ("format", 0),
        ("models.count", 10**9),
        ("random_faults.count", 10**9),
        ("populations[0].count", 10**9),
        ("populations[0].slots", 0),
        ("populations[0].site_size", 0),
        ("populations[0].starts_within", 1e300),
        ("populations[0].inference.tokens_per_second", -1),
        ("populations[0].inference.tokens_min", 0),
        ("populations[0].churn.session_sigma", 1e9),
        ("requests.words_sigma", 1e9),
        ("requests.words_max", 10**9),
        ("faults", [{"kind": "clock skew", "host": "node-0", "ppm": -1e7}]),
        ("faults", [{"kind": "bad weather", "host": "node-0", "at": 1, "until": 2, "loss": 1}]),
    ],
)
def test_no_number_is_so_large_or_so_small_that_a_run_could_not_bear_it(path: str, value: object) -> None:
    with pytest.raises(SpecError, match="Expected `"):
        changed(WorldSpec(name="x"), path, value)
