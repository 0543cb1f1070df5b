"""Shrinking keeps what matters and drops the rest, on rules that are functions of the description."""

from collections.abc import Callable, Sequence

import pytest
from msgspec.structs import replace

from simulator.fuzz.shrink import fewest, shrink, with_nodes
from simulator.fuzz.trial import Trial
from simulator.fuzz.values import Broken, Size
from simulator.spec.access import PUBLIC
from simulator.spec.faults import BadWeather, Crash, Partition, Roam
from simulator.spec.load import AskSpec
from simulator.spec.population import Churn, Population
from simulator.spec.world_spec import RelaySpec, WorldSpec

WORLD = WorldSpec(
    name="large",
    lasts=100.0,
    relays=(RelaySpec(), RelaySpec()),
    populations=(
        Population(name="a", count=5, churn=Churn(), site_size=2),
        Population(name="b", count=7, relay=1, access="corporate"),
    ),
    asks=tuple(AskSpec(10.0 + number, f"b-{number}") for number in range(7)),
    faults=(
        Crash("a-1", 20.0),
        Crash("b-3", 20.0),
        Partition(("a-0", "b-3"), ("relay-1", "b-5"), 30.0, 60.0),
        BadWeather("b-3", 10.0, 50.0, 0.2, 0.1),
        Roam("b-6", 40.0),
        Crash("relay-1", 50.0),
    ),
)


def breaking(rule: Callable[[WorldSpec], bool], *, at: int = 90_000_000, at_end: bool = True) -> Callable[..., Trial]:
    """A run that breaks its rule when the description says so."""

    def run(spec: WorldSpec, seed: int) -> Trial:
        broken = Broken("the rule", at, "h", "w") if rule(spec) else None
        return Trial(broken, "d", 1, 1.0, at_end and broken is not None)

    return run


@pytest.mark.parametrize("needed", [(), (3,), (0, 9), (1, 2, 7), tuple(range(10))])
def test_only_what_is_needed_is_left(needed: tuple[int, ...]) -> None:
    def still(items: Sequence[int]) -> bool:
        return set(needed) <= set(items)

    assert tuple(fewest(range(10), still)) == needed


def test_nodes_that_are_left_out_take_their_requests_and_faults_along() -> None:
    left = with_nodes(WORLD, ("a-0", "b-3"))
    assert left.node_names == ("a-0", "b-3")
    assert [(each.name, each.count, each.absent) for each in left.populations] == [("a", 1, ()), ("b", 4, (0, 1, 2))]
    assert [ask.node for ask in left.asks] == ["b-3"]
    assert left.faults == (
        Crash("b-3", 20.0),
        Partition(("a-0", "b-3"), ("relay-1",), 30.0, 60.0),
        BadWeather("b-3", 10.0, 50.0, 0.2, 0.1),
        Crash("relay-1", 50.0),
    )


def test_a_world_shrinks_to_what_its_rule_needs() -> None:
    def rule(spec: WorldSpec) -> bool:
        return "b-3" in spec.node_names and any(isinstance(fault, BadWeather) and fault.loss for fault in spec.faults)

    found = shrink(WORLD, 1, run=breaking(rule))
    assert Size.of(found.spec) == Size(nodes=1, relays=1, faults=1, asks=0, seconds=1.0)
    (population,) = found.spec.populations
    assert (population.name, population.count, population.absent) == ("b", 4, (0, 1, 2))
    assert (population.access, population.site_size, population.relay) == (PUBLIC, 1, 0)
    assert found.spec.faults == (BadWeather("b-3", 10.0, 10.0, 0.2),) or found.spec.faults[0].corruption == 0.0  # type: ignore[union-attr]
    assert found.runs < 100


def test_a_world_without_anything_superfluous_stays_as_it_is() -> None:
    found = shrink(WORLD, 1, run=breaking(lambda spec: spec == WORLD))
    assert found.spec == WORLD


def test_shrinking_is_the_same_every_time() -> None:
    def rule(spec: WorldSpec) -> bool:
        return len(spec.node_names) >= 3 and len(spec.faults) >= 2

    assert shrink(WORLD, 1, run=breaking(rule)) == shrink(WORLD, 1, run=breaking(rule))


def test_a_run_is_cut_soon_after_what_it_broke() -> None:
    found = shrink(WORLD, 1, run=breaking(lambda spec: spec.lasts >= 31, at=30_000_000, at_end=False))
    assert found.spec.lasts == 31.0


def test_another_rule_is_not_the_one_that_was_looked_for() -> None:
    def run(spec: WorldSpec, seed: int) -> Trial:
        rule = "the rule" if spec == WORLD else "another"
        return Trial(Broken(rule, 1, "h", "w"), "d", 1, 1.0, at_end=True)

    assert shrink(WORLD, 1, run=run).spec == WORLD


def test_the_budget_of_runs_is_kept() -> None:
    found = shrink(WORLD, 1, runs_max=3, run=breaking(lambda _: True))
    assert found.runs == 3
    assert shrink(WORLD, 1, runs_max=0, run=breaking(lambda _: True)).spec == WORLD


def test_a_world_that_breaks_nothing_cannot_be_shrunk() -> None:
    with pytest.raises(ValueError, match="no rule was broken"):
        shrink(replace(WORLD, name="good"), 1, run=breaking(lambda _: False))
