"""A world's access networks beside what was published about real ones."""

import pytest

from simulator.results.calibrating import NODES_MIN, calibrated
from simulator.spec.access import Mixture
from simulator.spec.build import build
from simulator.spec.population import Population
from simulator.spec.world_spec import WorldSpec
from simulator.world import World


def figures(count: int, mixture: Mixture) -> dict[str, float]:
    world = World(1)
    build(WorldSpec(name="x", populations=(Population(count=count, access=mixture),)), world)
    return {each.figure: each.measured for each in calibrated(world)}


def test_the_share_of_pairs_that_meet_follows_from_the_share_of_hard_nats() -> None:
    # (1 - e)**2 of all pairs meet where a share e is hard and everybody else filters by port.
    found = figures(400, Mixture(nats={"eim-apdf": 0.837, "apdm-apdf": 0.163}, lines={"fibre": 1.0}))
    assert found["NATs allow UDP punching"] == pytest.approx(83.7, abs=4)
    assert found["hole punching succeeds"] == pytest.approx(found["NATs allow UDP punching"] ** 2 / 100, abs=0.5)


def test_carriers_nats_are_counted_and_udp_that_is_blocked_is_no_attempt() -> None:
    found = figures(300, Mixture(nats={"eim-apdf": 1.0}, lines={"fibre": 1.0}, carrier_grade=0.13, udp_blocked=0.2))
    assert found["carrier-grade NAT, non-cellular networks"] == pytest.approx(13, abs=5)
    assert found["hole punching succeeds"] == 100


def test_phones_are_held_against_phones() -> None:
    found = figures(100, Mixture(nats={"eim-apdf": 1.0}, lines={"4g": 1.0}, carrier_grade=0.92))
    assert found["carrier-grade NAT, cellular networks"] == pytest.approx(92, abs=6)
    assert "carrier-grade NAT, non-cellular networks" not in found


def test_a_few_nodes_are_no_statistics() -> None:
    assert not figures(NODES_MIN - 1, Mixture(nats={"eim-apdf": 1.0}, lines={"fibre": 1.0}))
