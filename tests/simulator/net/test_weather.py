"""What chance, queues and limits on a link make of datagrams and streams."""

from dataclasses import dataclass
from itertools import pairwise

import pytest

from simulator.net.link import Burst, Link, Way
from simulator.net.weather import DSL, GEOSTATIONARY, LINES, with_bursts
from teale_proto.contract import MILLISECOND, SECOND, Instant
from teale_proto.inputs import Address, DataReceived
from tests.simulator.net.city import City

SERVER = Address("192.0.2.1", 80)
QUIET = Link(latency=0)


@dataclass
class Sent:
    """What became of datagrams that were sent at regular intervals."""

    town: City
    arrived: list[tuple[int, Instant]]

    @property
    def lost(self) -> list[bool]:
        numbers = {number for number, _ in self.arrived}
        return [number not in numbers for number in range(4000)]


def every_millisecond(link: Link, *, size: int = 4, seed: int = 1, others: bool | None = None) -> Sent:
    """Send 4000 datagrams from behind a link, one a millisecond, each with its number."""
    town = City(seed)
    # Where others may send too, all meet on a link that loses some itself.
    town.server("server", SERVER.host, link=QUIET if others is None else Link(latency=0, loss=0.1))
    town.home("alice", town.world.add_site("home", (), link))
    if others:
        town.home("bob", town.world.add_site("elsewhere", (), link))
    for number in range(4000):
        town.cast("alice", SERVER, number.to_bytes(4, "big") + bytes(size - 4))
        if others:
            town.cast("bob", SERVER, b"noise")
        town.run(MILLISECOND)
    town.run(10 * SECOND)
    heard = [(int.from_bytes(data[:4], "big"), at) for at, _, data in town.casts("server") if len(data) == size]
    return Sent(town, heard)


def runs_of(lost: list[bool]) -> list[int]:
    """The lengths of runs of losses."""
    runs, length = [], 0
    for each in [*lost, False]:
        if each:
            length += 1
        elif length:
            runs.append(length)
            length = 0
    return runs


def test_bursts_lose_as_much_as_they_say_and_all_at_once() -> None:
    burst = Burst(good=180 * MILLISECOND, bad=20 * MILLISECOND)
    lost: list[bool] = []
    for seed in range(4):
        lost += every_millisecond(Link(latency=0, burst=burst), seed=seed).lost
    runs = runs_of(lost)
    assert burst.loss == 0.1
    assert 0.07 < sum(lost) / len(lost) < 0.13
    assert 14 < sum(runs) / len(runs) < 26
    independent = runs_of(every_millisecond(Link(latency=0, loss=0.1)).lost)
    assert sum(independent) / len(independent) < 1.3


def test_the_state_of_a_link_is_the_same_however_often_it_is_looked_at() -> None:
    burst = Burst(good=180 * MILLISECOND, bad=20 * MILLISECOND, loss_good=0.25, loss_bad=0.75)
    often, seldom = Way(), Way()
    for at in range(0, 10 * SECOND, MILLISECOND):
        chance = often.loss(at, burst, 1, "home", "up")
        if at % (SECOND // 4) == 0:
            assert seldom.loss(at, burst, 1, "home", "up") == chance
    assert {0.25, 0.75} == {Way().loss(at, burst, 1, "home", "up") for at in range(0, SECOND, MILLISECOND)}


def test_a_burst_delays_streams_and_loses_nothing() -> None:
    town = City()
    server = town.server("server", SERVER.host, link=QUIET)
    link = Link(latency=0, burst=Burst(good=300 * MILLISECOND, bad=100 * MILLISECOND))
    town.home("alice", town.world.add_site("home", (), link))
    assert town.dial("alice", SERVER, within=10 * SECOND)
    for number in range(250):
        town.say("alice", bytes([number]))
        town.run(10 * MILLISECOND)
    town.run(60 * SECOND)
    assert server.data == bytes(range(250))


def test_damaged_datagrams_arrive_with_one_bit_turned_over() -> None:
    sent = every_millisecond(Link(latency=0, corruption=0.2), size=100)
    expected = {number.to_bytes(4, "big") + bytes(96) for number in range(4000)}
    damaged = [data for _, _, data in sent.town.casts("server") if data not in expected]
    # One in twenty-five turns one number into another.
    assert 680 < len(damaged) <= sent.town.network.datagrams.corrupted
    assert 720 < sent.town.network.datagrams.corrupted < 880
    assert {int.from_bytes(data[4:], "big").bit_count() for data in damaged} <= {0, 1}
    assert sent.town.network.datagrams.delivered == 4000


def test_damage_is_a_loss_to_a_stream() -> None:
    assert Link(corruption=0.5, loss=0.5).lossiness == 0.75


def test_a_full_buffer_drops_the_last_that_came() -> None:
    # 100 bytes a millisecond, and 1028 come; one packet is under way and three more can wait.
    link = Link(latency=0, uplink_bytes_per_second=100_000, buffer_bytes=4 * 1028)
    sent = every_millisecond(link, size=1000)
    numbers = [number for number, _ in sent.arrived]
    assert numbers[:4] == [0, 1, 2, 3]
    assert all(later - earlier in (10, 11) for earlier, later in pairwise(numbers[4:]))
    assert sent.town.network.datagrams.overflowed == 4000 - len(numbers)


def test_a_full_buffer_makes_a_stream_send_again_and_loses_nothing() -> None:
    town = City()
    server = town.server("server", SERVER.host, link=QUIET)
    slow = Link(latency=0, uplink_bytes_per_second=150_000, downlink_bytes_per_second=150_000, buffer_bytes=6000)
    for name in ("alice", "bob"):
        town.home(name, town.world.add_site(f"{name} home", (), slow), ports=(80,))
    town.dial("alice", SERVER)
    town.dial("alice", Address(town.world.hosts["bob"].addresses[0], 80), connection=3)
    began = town.now
    data = bytes(range(250)) * 60
    town.say("alice", data)
    town.say("alice", data, connection=3)
    town.run(20 * SECOND)
    assert server.data == town.diaries["bob"].data == data
    # 30 kB at 150 kB/s, and a timeout for the first that found no room.
    ends = [at - began for at, _ in server.of(DataReceived)]
    assert ends[0] == 10 * MILLISECOND
    assert 200 * MILLISECOND < ends[-1] < 500 * MILLISECOND


def test_what_is_larger_than_a_links_mtu_does_not_pass() -> None:
    for size, passes in ((1372, True), (1373, False)):
        town = City()
        town.server("server", SERVER.host)
        town.home("alice", town.world.add_site("home", (), Link(mtu_bytes=1400)))
        town.cast("alice", SERVER, bytes(size))
        town.run(SECOND)
        assert bool(town.casts("server")) == passes
        assert town.network.datagrams.too_large == (not passes)


def test_one_more_host_changes_nothing_for_another_even_on_a_link_that_they_meet_on() -> None:
    rough = Link(
        latency=5 * MILLISECOND,
        jitter=3 * MILLISECOND,
        loss=0.1,
        duplication=0.1,
        reordering=0.1,
        burst=Burst(good=SECOND, bad=50 * MILLISECOND),
    )
    alone, crowded = every_millisecond(rough, others=False), every_millisecond(rough, others=True)
    assert alone.arrived == crowded.arrived
    assert 2800 < len(alone.arrived) < 3900


def test_the_table_of_lines_has_the_delays_that_it_was_made_from() -> None:
    middle = {name: (link.latency + link.jitter // 2) // MILLISECOND for name, link in LINES.items()}
    assert middle == {
        "good-wifi": 5,
        "bad-wifi": 40,
        "4g": 25,
        "3g": 100,
        "low-orbit": 40,
        "geostationary": 300,
        "fibre": 3,
        "dsl": 10,
        "data-centre": 1,
        "flat-9ms": 9,
        "flat-39ms": 39,
    }
    assert GEOSTATIONARY.downlink_bytes_per_second == 25_000_000 // 8
    assert with_bursts(DSL).burst == Burst(good=10 * SECOND, bad=100 * MILLISECOND)


@pytest.mark.parametrize(
    ("good", "bad", "loss_good", "loss_bad"),
    [(0, 1, 0, 1), (1, 0, 0, 1), (1, 1, -0.1, 1), (1, 1, 0, 1.1), (1, 1, 1, 1)],
)
def test_bursts_that_cannot_be_are_refused(good: int, bad: int, loss_good: float, loss_bad: float) -> None:
    with pytest.raises(ValueError, match=r"no time|chance in|loses everything"):
        Burst(good, bad, loss_good, loss_bad)
