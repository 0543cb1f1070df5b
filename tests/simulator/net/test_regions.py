"""Distances between regions, and what they add to the way of streams and datagrams."""

import pytest

from simulator.net.regions import NOWHERE, WORLD, Regions
from teale_proto.contract import MILLISECOND, SECOND
from teale_proto.effects import Connect
from teale_proto.inputs import Address, ConnectionOpened
from tests.simulator.net.city import LINE, City

TWO = Regions(("north", "south"), ((1_000, 50_000), (70_000, 2_000)))


def test_the_distance_is_that_of_light_in_glass_on_a_detour() -> None:
    # A quarter of the way around is 10 007.5 km: 50.04 ms of light in glass, half as much again on the detour.
    regions = Regions.by_distance({"pole": (90.0, 0.0), "equator": (0.0, 12.0)}, within=500)
    assert regions.one_way == ((500, 75_100), (75_100, 500))
    straight = Regions.by_distance({"pole": (90.0, 0.0), "equator": (0.0, 12.0)}, stretch=1.0)
    assert straight.between("pole", "equator") == 50_000


def test_the_world_has_distances_that_people_know() -> None:
    def milliseconds(one: str, other: str) -> float:
        assert WORLD.between(one, other) == WORLD.between(other, one)
        return WORLD.between(one, other) / MILLISECOND

    assert 45 < milliseconds("europe-west", "us-east") < 55
    assert 25 < milliseconds("us-east", "us-west") < 33
    assert 70 < milliseconds("europe-west", "asia-southeast") < 85
    assert 105 < milliseconds("us-east", "asia-southeast") < 125


def test_nowhere_is_next_to_everything_and_what_is_not_there_is_refused() -> None:
    assert TWO.between("", "north") == TWO.between("south", "") == NOWHERE.between("", "") == 0
    with pytest.raises(ValueError, match="no region 'east', only north, south"):
        TWO.between("north", "east")


@pytest.mark.parametrize(
    ("names", "matrix"),
    [(("a", "a"), ((0, 0), (0, 0))), (("",), ((0,),)), (("a",), ((0, 0),)), (("a",), ((-1,),))],
)
def test_a_matrix_that_cannot_be_is_refused(names: tuple[str, ...], matrix: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(ValueError, match=r"different names|matrix of|not negative"):
        Regions(names, matrix)


@pytest.mark.parametrize(("region", "there", "back"), [("north", 50, 70), ("south", 2, 2), ("", 0, 0)])
def test_regions_add_their_distance_to_both_links(region: str, there: int, back: int) -> None:
    town = City(regions=TWO)
    town.server("server", "192.0.2.1", region="south")
    carrier = town.world.add_site("carrier", region=region)
    alice = town.home("alice", town.world.add_site("home", [], LINE, behind=carrier))
    town.home("neighbour", town.world.add_site("next door", [], LINE, behind=carrier))
    town.cast("alice", Address("192.0.2.1", 80))
    town.run(SECOND)
    ((at, seen, _),) = town.casts("server")
    assert at == (20 + there) * MILLISECOND
    town.cast("server", seen)
    town.run(SECOND)
    assert town.casts("alice")[0][0] == SECOND + (20 + back) * MILLISECOND
    # A stream has the same distance both ways: that of its client to its server.
    town.order("alice", Connect(1, Address("192.0.2.1", 80)))
    town.run(SECOND)
    assert [at for at, _ in alice.of(ConnectionOpened)] == [2 * SECOND + 2 * (20 + there) * MILLISECOND]
    town.cast("alice", Address(town.world.hosts["neighbour"].addresses[0], 1))
    town.run(SECOND)
    assert town.casts("neighbour")[0][0] == 3 * SECOND + 20 * MILLISECOND
