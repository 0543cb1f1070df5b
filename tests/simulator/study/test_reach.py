"""The matrix of what connects, and the shares that follow."""

import numpy as np
import pytest

from simulator.spec.access import MIXTURES
from simulator.study.claim import choice, on_the_same_lan
from simulator.study.parameters import Parameters
from simulator.study.reach import HOW, How, Paths, Reach, connects, relayed_share, relayed_share_of_best, shares


def test_the_matrix_is_symmetric() -> None:
    for row in Reach:
        for column in Reach:
            assert HOW[row][column] is HOW[column][row]


def test_a_hard_and_a_port_restricted_side_need_a_birthday_and_two_hard_ones_a_relay() -> None:
    assert HOW[Reach.HARD][Reach.PORT] is How.BIRTHDAY
    assert HOW[Reach.HARD][Reach.HARD] is How.RELAY
    assert HOW[Reach.HARD][Reach.ADDRESS] is How.PUNCH
    assert HOW[Reach.HARD][Reach.OPEN] is How.DIRECT
    assert all(how is How.RELAY for how in HOW[Reach.BLOCKED])


@pytest.mark.parametrize("hard", [0.163, 0.117, 0.051])
def test_with_hard_and_port_restricted_nodes_alone_the_formulas_of_the_literature_come_out(hard: float) -> None:
    who = (0.0, 0.0, 0.0, 1 - hard, hard, 0.0)
    assert 1 - relayed_share(who, Paths()) == pytest.approx((1 - hard) ** 2)
    assert 1 - relayed_share(who, Paths(birthday=True)) == pytest.approx(1 - hard**2)


def test_without_direct_paths_everything_is_relayed() -> None:
    who = shares(Parameters().mixtures, Paths())
    assert relayed_share(who, Paths(direct=False)) == pytest.approx(1.0)
    assert not connects(Paths(direct=False)).any()


@pytest.mark.parametrize("name", MIXTURES)
def test_the_shares_of_a_mixture_are_all_of_it(name: str) -> None:
    for paths in (Paths(), Paths(port_mapping=True)):
        assert sum(shares({name: 3.0}, paths)) == pytest.approx(1.0)


def test_mapped_ports_make_nodes_public_but_not_behind_a_carriers_nat() -> None:
    home, phone = {"home": 1.0}, {"cellular": 1.0}
    mapped = Paths(port_mapping=True)
    assert shares(home, mapped)[Reach.PUBLIC] > shares(home, Paths())[Reach.PUBLIC] + 0.2
    assert shares(phone, mapped) == shares(phone, Paths())


def test_who_can_choose_relays_less_down_to_those_that_reach_nobody() -> None:
    who, paths = shares(Parameters().mixtures, Paths()), Paths()
    found = [relayed_share_of_best(who, paths, count) for count in (1, 2, 5, 20, 500)]
    assert found == sorted(found, reverse=True)
    assert found[0] == pytest.approx(relayed_share(who, paths))
    assert found[-1] == pytest.approx(who[Reach.BLOCKED])


def test_choice_grows_with_the_network_and_then_no_more() -> None:
    found = choice(Parameters(), Paths(), np.array([10.0, 1e3, 1e5, 1e7]))
    assert list(found) == sorted(found, reverse=True)
    assert found[2] == pytest.approx(found[3], abs=0.002)


def test_users_drawn_at_random_hardly_ever_share_a_home() -> None:
    assert on_the_same_lan(10_000_000) < 0.01
    assert on_the_same_lan(5.5e9) == 1.0
