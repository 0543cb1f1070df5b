"""What can befall hosts and the network, and what each side notices of it."""

import pytest

from simulator.clock import Clock
from simulator.events import Crash, HostMoved
from simulator.net.lane import GIVES_UP_AFTER
from simulator.net.link import Link
from simulator.net.nat import NatKind
from simulator.net.network import RECORD_TTL, NetworkError
from simulator.net.regions import Regions
from simulator.turns import Busy
from teale_proto.contract import MILLISECOND, SECOND, Instant, Value
from teale_proto.effects import Advertise, CloseConnection, Connect, SendData, SendDatagram, WebSocketUrl
from teale_proto.inputs import (
    WAKE,
    Address,
    ConnectionClosed,
    ConnectionOpened,
    DataReceived,
    NodeId,
    ServiceFound,
    ServiceLost,
    ServiceRecord,
)
from teale_proto.node import Node, NodeConfig
from tests.simulator.net.city import LINE, City, clear
from tests.simulator.processes import printed
from tests.simulator.toys import Diary

SERVER = Address("192.0.2.1", 80)
WEB = WebSocketUrl("ws://192.0.2.1:80/ws")
NAT = NatKind()
ONE_WAY = 20 * MILLISECOND
SITES = Regions(("north", "south"), ((1_000, 50_000), (70_000, 2_000)))


def pair(*, web: bool = False) -> tuple[City, Diary, Diary]:
    """Have Alice, at home behind a NAT, connected to a server for a second."""
    town = City()
    server = town.server("server", SERVER.host)
    alice = town.home("alice", town.world.add_site("home", [NAT], LINE))
    town.order("alice", Connect(1, WEB if web else SERVER))
    town.run(SECOND)
    assert alice.of(ConnectionOpened)
    clear(alice, server)
    return town, alice, server


# Partitions.


def test_a_partition_has_one_direction_and_a_stream_goes_on_after_it() -> None:
    town, alice, server = pair()
    town.world.block(["alice"], ["server"], at=SECOND, until=2 * SECOND)
    town.run(100)
    town.say("alice", b"one")
    town.say("server", b"two", connection=2)
    town.run(500 * MILLISECOND)
    town.say("alice", b"three")
    town.run(10 * SECOND)
    assert alice.of(DataReceived) == [(SECOND + 100 + ONE_WAY, DataReceived(1, b"two"))]
    # Tried again after 200, 600 and 1400 ms, when the way is free.
    assert [at for at, _ in server.of(DataReceived)] == [SECOND + 100 + 1400 * MILLISECOND + ONE_WAY] * 2
    assert server.data == b"onethree"


@pytest.mark.parametrize(("source", "target"), [("home", "south"), ("north", "server"), ("north", "south")])
def test_sites_and_regions_can_be_cut_off_too(source: str, target: str) -> None:
    town = City(regions=SITES)
    town.server("server", SERVER.host, region="south")
    site = town.world.add_site("home", [NAT], LINE, region="north")
    for name in ("alice", "bob"):
        town.home(name, site, ports=(80,))
    town.world.block([source], [target], at=0, until=20 * SECOND)
    town.run(1)
    town.cast("alice", SERVER)
    town.cast("alice", Address(town.world.hosts["bob"].addresses[0], 5000))
    assert not town.dial("alice", SERVER, within=11 * SECOND)
    assert town.dial("alice", Address(town.world.hosts["bob"].addresses[0], 80), connection=3)
    assert town.casts("server") == []
    assert len(town.casts("bob")) == 1
    assert town.network.datagrams.blocked == 1
    town.run(20 * SECOND)
    town.cast("alice", SERVER)
    assert town.dial("alice", SERVER, connection=5)
    assert len(town.casts("server")) == 1


def test_a_stream_in_front_of_a_partition_that_stays_gives_up_as_tcp_does() -> None:
    town, alice, _ = pair()
    town.world.block(["alice"], ["server"], at=SECOND)
    town.run(0)
    town.say("alice")
    town.run(GIVES_UP_AFTER - SECOND)
    assert len(alice.heard) == 1
    town.run(200 * SECOND)
    assert [event for _, event in alice.of(ConnectionClosed)] == [ConnectionClosed(1, "connection timed out")]


def test_who_is_cut_off_must_exist() -> None:
    town, *_ = pair()
    with pytest.raises(NetworkError, match="no host, site or region 'alcie'"):
        town.world.block(["alcie"], ["server"], at=2 * SECOND)


# NATs.


@pytest.mark.parametrize("rebinds", [False, True])
@pytest.mark.parametrize("web", [False, True])
def test_of_a_stream_through_a_nat_that_forgot_it_only_the_inside_learns(*, rebinds: bool, web: bool) -> None:
    town, alice, server = pair(web=web)
    old = town.network.sites["home"].outside
    if rebinds:
        town.world.rebind_nat("home", at=2 * SECOND)
    else:
        town.world.reboot_nat("home", at=2 * SECOND)
    town.run(2 * SECOND)
    town.say("server", b"lost", connection=2)
    town.run(10 * SECOND)
    assert alice.heard == []
    began = town.now
    town.say("alice", b"hello?")
    town.run(10 * SECOND)
    assert alice.of(ConnectionClosed) == [(began + 2 * ONE_WAY, ConnectionClosed(1, "connection reset"))]
    assert server.of(ConnectionClosed) == []
    assert town.dial("alice", SERVER, connection=3)
    assert (town.accepted("server")[-1].host == old[0]) is not rebinds
    town.run(GIVES_UP_AFTER)
    assert [event for _, event in server.of(ConnectionClosed)] == [ConnectionClosed(2, "connection timed out")]


def test_the_sessions_of_datagrams_go_with_a_reboot() -> None:
    town, *_ = pair()
    town.cast("alice", SERVER)
    town.run(SECOND)
    ((_, alice, _),) = town.casts("server")
    town.world.reboot_nat("home", at=3 * SECOND)
    for expected in (1, 1):
        town.cast("server", alice, port=80)
        town.run(SECOND)
        assert len(town.casts("alice")) == expected
    town.cast("alice", SERVER)
    town.run(SECOND)
    town.cast("server", alice, port=80)
    town.run(SECOND)
    assert len(town.casts("alice")) == 2


def test_a_reboot_takes_the_whole_stack_and_a_rebind_its_outermost_nat() -> None:
    town = City()
    town.server("server", SERVER.host)
    town.home("alice", town.world.add_site("home", [NAT, NAT], LINE))
    town.dial("alice", SERVER)
    outer, inner = town.world.stack("home")
    before = (outer.outside, inner.outside)
    town.world.rebind_nat("home", at=2 * SECOND)
    town.run(2 * SECOND)
    assert (outer.outside != before[0], inner.outside) == (True, before[1])
    town.say("alice")
    town.run(SECOND)
    assert town.diaries["alice"].of(ConnectionClosed)
    public = town.world.add_site("public")
    with pytest.raises(NetworkError, match="no NAT"):
        town.world.rebind_nat(public.name, at=town.now)


# Roaming.


def test_a_host_that_moves_leaves_connections_that_neither_side_hears_of() -> None:
    town, alice, server = pair()
    mobile = town.world.add_site("mobile", [NAT], LINE)
    town.world.move("alice", mobile, at=2 * SECOND)
    town.say("alice", b"under way")
    town.run(2 * SECOND)
    host = town.world.hosts["alice"]
    assert host.site is mobile
    assert town.world.trace.tail[-1].value == HostMoved("mobile", host.addresses)
    clear(alice, server)
    town.say("alice")
    town.say("server", connection=2)
    town.run(GIVES_UP_AFTER - SECOND)
    assert alice.of(ConnectionClosed) == server.of(ConnectionClosed) == []
    assert server.of(DataReceived) == []
    town.run(2 * SECOND)
    for diary in (alice, server):
        assert [getattr(event, "reason", "") for _, event in diary.of(ConnectionClosed)] == ["connection timed out"]
    assert town.dial("alice", SERVER, connection=3)
    assert town.accepted("server")[-1].host == mobile.outside[0]


def test_datagrams_from_an_address_that_a_host_has_left_are_lost_and_no_offence() -> None:
    town, *_ = pair()
    town.cast("alice", SERVER)
    town.run(SECOND)
    old = town.world.hosts["alice"].addresses[0]
    site = town.world.add_site("mobile", [NAT], LINE)
    town.world.move("alice", site, at=3 * SECOND, addresses=["10.9.9.9"])
    town.run(2 * SECOND)
    town.order("alice", SendDatagram(Address(old, 1), SERVER, b"x"))
    town.cast("alice", SERVER)
    town.run(SECOND)
    assert [remote.host for _, remote, _ in town.casts("server")][1:] == [site.outside[0]]
    assert not [entry for entry in town.world.trace.tail if entry.kind == "CoreMisused"]
    town.order("alice", SendDatagram(Address("10.8.8.8", 1), SERVER, b"x"))
    assert [entry.kind for entry in town.world.trace.tail][-1] == "CoreMisused"


def test_a_service_that_moves_is_announced_where_it_goes_and_runs_out_where_it_was() -> None:
    town = City()
    lans = [town.world.add_site(name, [NAT], LINE, discovery=True) for name in ("here", "there")]
    alice, bob, carol = (
        town.home(name, site) for name, site in zip(("a", "b", "c"), (*lans[:1] * 2, lans[1]), strict=True)
    )
    for name in ("a", "b"):
        town.order(name, Advertise(ServiceRecord(NodeId("b" * 64), 80)))
    town.world.move("b", lans[1], at=SECOND)
    town.run(10 * SECOND)
    assert len(alice.of(ServiceFound)) == 1
    assert [getattr(event, "name", "") for _, event in carol.of(ServiceFound)] == ["b._teale._tcp.local."]
    assert not alice.of(ServiceLost)
    town.run(RECORD_TTL)
    assert [at for at, _ in alice.of(ServiceLost)] == [SECOND + RECORD_TTL]
    assert [getattr(event, "name", "") for _, event in bob.of(ServiceLost)] == ["a._teale._tcp.local."]
    assert not carol.of(ServiceLost)


# Weather.


def test_the_weather_changes_for_connections_that_exist_and_changes_back() -> None:
    town, _, server = pair()
    town.world.change_weather("home", Link(latency=110 * MILLISECOND), at=2 * SECOND, until=3 * SECOND)
    took = []
    for second in (1, 2, 3):
        town.run(second * SECOND + 1 - town.now)
        began = town.now
        town.say("alice")
        town.run(500 * MILLISECOND)
        took.append(server.of(DataReceived)[-1][0] - began)
    assert took == [ONE_WAY, 120 * MILLISECOND, ONE_WAY]


# Slow hosts.


def test_a_slow_host_serves_one_input_after_the_other() -> None:
    town, _, server = pair()
    town.world.slow_down("server", 100 * MILLISECOND, at=SECOND, until=2 * SECOND)
    town.run(0)
    began = town.now
    for number in range(3):
        town.say("alice", bytes([number]))
        town.run(1)
    town.run(2 * SECOND)
    late = [at - began - ONE_WAY for at, _ in server.of(DataReceived)]
    assert late == [100 * MILLISECOND, 200 * MILLISECOND, 300 * MILLISECOND]
    town.say("alice")
    before = town.now
    town.run(SECOND)
    assert server.of(DataReceived)[-1][0] == before + ONE_WAY


def test_what_waits_for_a_connection_that_is_closed_meanwhile_is_dropped() -> None:
    town, _, server = pair()
    town.world.slow_down("server", SECOND, at=SECOND)
    town.run(0)
    town.say("alice")
    town.order("alice", CloseConnection(1, ""))
    town.order("server", CloseConnection(2, ""))
    town.order("server", SendData(2, b""))
    town.run(20 * SECOND)
    assert server.of(DataReceived) == server.of(ConnectionClosed) == []
    assert [entry.value for entry in town.world.trace.tail if entry.kind == "CoreMisused"]


def test_sending_where_the_end_is_only_on_its_way_through_the_line_of_inputs_is_no_offence() -> None:
    town, _, server = pair()
    town.world.slow_down("server", SECOND, at=SECOND)
    town.run(0)
    town.order("server", SendData(2, b"too late"))
    town.order("alice", CloseConnection(1, ""))
    town.run(10 * SECOND)
    assert [at for at, _ in server.of(ConnectionClosed)] == [3 * SECOND]
    assert not [entry for entry in town.world.trace.tail if entry.kind == "CoreMisused"]


class Alarm(Diary):
    """A core that wants to be woken every so often."""

    def __init__(self, every: Instant) -> None:
        super().__init__()
        self.every = every
        self.deadline = every

    def handle(self, event: Value, now: Instant) -> tuple[Value, ...]:
        super().handle(event, now)
        if now >= self.deadline:
            self.deadline = now + self.every
        return ()


def test_a_slow_host_is_woken_late_and_once() -> None:
    town, alarm = City(), Alarm(10 * MILLISECOND)
    host = town.world.add_host("alarm", lambda rng, now: alarm, pace=lambda _: Busy(30 * MILLISECOND))
    host.start()
    town.run(200 * MILLISECOND)
    assert [at for at, event in alarm.heard if event is WAKE] == [40_000, 80_000, 120_000, 160_000, 200_000]


def test_a_host_that_dies_forgets_what_was_waiting() -> None:
    town, _, server = pair()
    town.world.slow_down("server", SECOND, at=SECOND)
    town.run(0)
    town.say("alice")
    town.run(500 * MILLISECOND)
    town.world.hosts["server"].crash(Crash.RESET)
    town.run(10 * SECOND)
    assert server.of(DataReceived) == []


# Clocks.


def test_a_core_lives_by_its_own_clock_and_is_woken_by_it() -> None:
    town, alarm = City(), Alarm(10 * SECOND)
    alarm.deadline = 1_000_000 * SECOND + 10 * SECOND
    clock = Clock(rate_ppm=100, reads=1_000_000 * SECOND)
    host = town.world.add_host("alarm", lambda rng, now: alarm, clock=clock)
    host.start()
    woken: list[Instant] = []
    town.world.trace.subscribe(lambda entry: woken.append(entry.at) if entry.value is WAKE else None)
    town.run(30 * SECOND)
    # 10 s by a clock that gains 100 µs a second, rounded up to where the clock shows them.
    assert woken == [9_999_001, 19_998_001, 29_997_001]
    assert [at for at, _ in alarm.heard] == [1_000_000 * SECOND + turn * 10 * SECOND for turn in (1, 2, 3)]
    town.world.drift("alarm", -100, at=town.now)
    town.run(20 * SECOND)
    # At 30 s it showed 3 ms more; the rest takes 100 µs a second longer than it should.
    assert woken[3:] == [39_998_000, 49_999_000]


def test_a_node_believes_in_the_time_of_its_own_clock() -> None:
    town = City()
    unix = {}
    for name, clock in {"right": Clock(), "wrong": Clock(reads=77 * SECOND, unix_offset=3600 * SECOND)}.items():
        config = NodeConfig(display_name=name, lan_enabled=False)
        host = town.world.add_node(name, config, site=town.world.add_site(f"{name} home"), clock=clock)
        host.start()
        assert isinstance(host.core, Node)
        unix[name] = host.core._unix_time_at_zero
    assert unix["wrong"] - unix["right"] == 3600 * SECOND - 77 * SECOND


# Restarts.


@pytest.mark.parametrize("keeps", [True, False])
def test_a_node_comes_back_as_itself_or_as_another_node(*, keeps: bool) -> None:
    town = City()
    config = NodeConfig(display_name="n", lan_enabled=False)
    host = town.world.add_node("n", config, site=town.world.add_site("home"))
    first = town.world.node_ids["n"]
    town.world.start("n", at=0)
    town.world.crash("n", Crash.VANISH, at=SECOND)
    town.world.restart("n", at=2 * SECOND, keep_identity=keeps)
    town.world.restart("n", at=3 * SECOND, keep_identity=False)
    town.run(5 * SECOND)
    assert host.lives == 2
    assert (town.world.node_ids["n"] == first) is keeps
    assert isinstance(host.core, Node)
    assert host.core.node_id == town.world.node_ids["n"]


def test_what_happens_to_nobody_is_refused_at_once() -> None:
    world = City().world
    with pytest.raises(NetworkError, match="no host 'nobody'"):
        world.drift("nobody", 1, at=0)
    with pytest.raises(NetworkError, match="no site 'nowhere'"):
        world.reboot_nat("nowhere", at=0)
    assert world.engine.now == 0


# Everything at once.

DIGEST = """
from simulator.events import Crash
from simulator.net.nat import NatKind
from simulator.net.regions import WORLD
from simulator.net.weather import DATA_CENTRE, LTE, BAD_WIFI, UMTS, with_bursts
from simulator.world import RELAY_PORT, World
from teale_proto.contract import SECOND
from teale_proto.node import NodeConfig
from teale_proto.relay.server import RelayServerConfig

world = World({seed}, regions=WORLD)
world.add_relay("relay", "192.0.2.1", DATA_CENTRE, RelayServerConfig(names=("relay",)), region="us-east")
world.add_stun("stun", region="us-west")
for number in range(6):
    line = with_bursts(BAD_WIFI if number % 2 else LTE)
    kinds = [NatKind()] * (number % 3)
    site = world.add_site(
        f"home {{number}}", kinds, line, region=WORLD.names[number], ipv6=True, discovery=True
    )
    for name in (f"node {{number}}", f"other {{number}}"):
        config = NodeConfig(display_name=name, wan_enabled=True, wan_relay_url=f"ws://relay:{{RELAY_PORT}}/ws")
        world.add_node(name, config, site=site, models=("m",))
for name in world.hosts:
    world.start(name, at=0)
world.block(["europe-west", "home 3"], ["relay"], at=20 * SECOND, until=30 * SECOND)
world.reboot_nat("home 2", at=25 * SECOND)
world.rebind_nat("home 5", at=26 * SECOND)
world.move("node 4", world.add_site("mobile", [NatKind()], UMTS), at=27 * SECOND)
world.change_weather("home 1", UMTS, at=28 * SECOND, until=40 * SECOND)
world.slow_down("relay", 1000, at=29 * SECOND, until=50 * SECOND)
world.drift("node 0", 200, at=30 * SECOND)
world.crash("node 1", Crash.VANISH, at=31 * SECOND)
world.restart("node 1", at=40 * SECOND, keep_identity=False)
world.run_until(120 * SECOND)
report = world.report("everything", 0.0)
assert report.passed, report.checks
assert world.trace.count > 2000
print(report.digest)
"""


def digest(seed: int, hash_seed: str) -> str:
    return printed(DIGEST.format(seed=seed), hash_seed)


def test_whatever_happens_follows_from_the_seed_and_breaks_no_rule() -> None:
    assert digest(1, "1") == digest(1, "2") != digest(2, "1")
