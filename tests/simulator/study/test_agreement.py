"""The population model against the event simulation, with the shipping relay and with the deployed design's."""

import pytest

from simulator.study import crowd, model
from simulator.study.ledger import Estimate, estimate, estimates
from simulator.study.parameters import (
    BIRTHDAY,
    DEPLOYED,
    DESIGNS,
    FORMER,
    PREFERRING,
    PUNCHING,
    SHIPPED,
    Design,
    Parameters,
)
from simulator.study.tables import agree

PARAMETERS = Parameters()


def both(design: Design, nodes: int, *, seeds: int, seconds: float) -> tuple[dict[str, Estimate], dict[str, Estimate]]:
    events = [crowd.run(PARAMETERS, design, nodes, seed=seed, seconds=seconds) for seed in range(seeds)]
    batches = model.run(PARAMETERS, design, nodes, seed=1, batches=20)
    return dict(estimates(events)), dict(estimates(batches))


@pytest.mark.parametrize("design", DESIGNS, ids=lambda design: design.name)
def test_a_hundred_nodes_do_to_the_relay_what_the_model_says(design: Design) -> None:
    events, batches = both(design, 100, seeds=3, seconds=12.0)
    for figure in ("messages", "cores", "egress", "egress/discover", "egress/heartbeats", "egress/pings", "memory"):
        assert agree(events[figure], batches[figure]), (figure, events[figure], batches[figure])


@pytest.mark.parametrize(
    ("design", "nodes", "seeds"),
    [(DEPLOYED, 300, 2), (SHIPPED, 200, 2), (PUNCHING, 400, 2)],
    ids=lambda each: each.name if isinstance(each, Design) else str(each),
)
def test_so_do_larger_networks(design: Design, nodes: int, seeds: int) -> None:
    events, batches = both(design, nodes, seeds=seeds, seconds=5.0)
    for figure in ("messages", "cores", "egress", "egress/discover", "egress/heartbeats"):
        assert agree(events[figure], batches[figure]), (figure, events[figure], batches[figure])


def test_the_same_seed_gives_the_same_run_and_another_seed_another() -> None:
    one, two = (crowd.run(PARAMETERS, PUNCHING, 40, seed=3, seconds=10.0) for _ in range(2))
    assert one == two
    assert crowd.run(PARAMETERS, PUNCHING, 40, seed=4, seconds=10.0) != one
    assert model.run(PARAMETERS, PUNCHING, 1_000, seed=3, batches=2) == model.run(
        PARAMETERS, PUNCHING, 1_000, seed=3, batches=2
    )


def test_the_share_relayed_does_not_depend_on_the_number_of_nodes_and_the_load_is_proportional_to_it() -> None:
    small, large = (
        estimates(model.run(PARAMETERS, PUNCHING, nodes, seed=1, batches=8, batch_nodes=40_000))
        for nodes in (10_000, 100_000)
    )
    assert small["connections_relayed"].mean == pytest.approx(large["connections_relayed"].mean, abs=0.02)
    assert large["cores"].mean / small["cores"].mean == pytest.approx(10, rel=0.03)
    assert large["egress"].mean / small["egress"].mean == pytest.approx(10, rel=0.03)


def test_full_lists_and_broadcasts_grow_with_the_square() -> None:
    small, large = (
        estimates(model.run(PARAMETERS, DEPLOYED, nodes, seed=1, batches=4, batch_nodes=40_000))
        for nodes in (10_000, 100_000)
    )
    for figure in ("egress/discover", "egress/joins and leaves"):
        assert large[figure].mean / small[figure].mean == pytest.approx(100, rel=0.03)


def test_ten_million_nodes_are_drawn_in_part_and_scaled() -> None:
    part = estimates(model.run(PARAMETERS, PUNCHING, 10_000_000, seed=1, batches=5, batch_nodes=20_000))
    whole = estimates(model.run(PARAMETERS, PUNCHING, 20_000, seed=1, batches=5))
    assert part["egress"].mean / whole["egress"].mean == pytest.approx(500, rel=0.02)


def test_whoever_asks_for_fewer_nodes_is_sent_fewer_and_relays_as_much() -> None:
    few, many = (estimates(model.run(PARAMETERS, each, 10_000, seed=1, batches=5)) for each in (BIRTHDAY, FORMER))
    assert few["egress/discover"].mean / many["egress/discover"].mean == pytest.approx(16 / 50, rel=0.1)
    assert few["connections_relayed"].mean == pytest.approx(many["connections_relayed"].mean, abs=0.02)


def test_the_events_tell_how_long_messages_wait_and_the_model_does_not() -> None:
    events, batches = both(SHIPPED, 40, seeds=2, seconds=10.0)
    assert 0 < events["wait_mean"].mean < events["wait_max"].mean
    assert "wait_mean" not in batches


def test_whoever_prefers_direct_paths_relays_less() -> None:
    chosen = estimates(model.run(PARAMETERS, PREFERRING, 10_000, seed=1, batches=5))
    drawn = estimates(model.run(PARAMETERS, PUNCHING, 10_000, seed=1, batches=5))
    assert chosen["bytes_relayed"].mean < drawn["bytes_relayed"].mean / 3


def test_an_interval_is_students() -> None:
    found = estimate([1.0, 2.0, 3.0])
    assert found.mean == 2.0
    assert found.half == pytest.approx(4.303 / 3**0.5)
    assert estimate([5.0]).half == float("inf")
