"""Sites: one line, a stack of gateways, and who reaches whom across them, by streams and by datagrams."""

import pytest

from simulator.net.connection import CONNECT_TIMEOUT
from simulator.net.link import Link
from simulator.net.nat import FIREWALL, NatKind
from simulator.net.network import INTERNET, NetworkError
from teale_proto.contract import MILLISECOND, SECOND
from teale_proto.effects import Advertise, Connect, SendDatagram, WebSocketUrl
from teale_proto.inputs import (
    Address,
    ConnectFailed,
    ConnectionOpened,
    DataReceived,
    NodeId,
    ServiceFound,
    ServiceRecord,
)
from teale_proto.nat.kinds import Filtering
from tests.simulator.net.city import LINE, City, clear
from tests.simulator.toys import Diary

SERVER = Address("192.0.2.1", 80)
NAT = NatKind()
OPEN_NAT = NatKind(filtering=Filtering.ENDPOINT_INDEPENDENT)
CARRIER = NatKind(filtering=Filtering.ENDPOINT_INDEPENDENT)


def city() -> City:
    city = City()
    city.server("server", SERVER.host)
    return city


@pytest.mark.parametrize("kinds", [(), (NAT,), (FIREWALL,), (CARRIER, NAT), (CARRIER, NAT, NAT)])
def test_an_outgoing_stream_crosses_any_stack_and_is_seen_with_its_outside_address(
    kinds: tuple[NatKind, ...],
) -> None:
    town = city()
    site = town.world.add_site("home", kinds, LINE)
    alice = town.home("alice", site)
    assert town.dial("alice", SERVER)
    # 10 ms up and 10 ms down, there and back: gateways take no time.
    assert alice.of(ConnectionOpened) == [(40 * MILLISECOND, ConnectionOpened(1))]
    (seen,) = town.accepted("server")
    outermost = town.world.stack("home")[0]
    assert seen.host == (outermost.outside or town.world.hosts["alice"].addresses)[0]
    town.say("alice", b"hello")
    town.run(SECOND)
    assert town.diaries["server"].data == b"hello"


@pytest.mark.parametrize("kinds", [(NAT,), (OPEN_NAT,), (FIREWALL,), (CARRIER, NAT)])
def test_an_incoming_stream_to_a_host_behind_a_gateway_times_out(kinds: tuple[NatKind, ...]) -> None:
    town = city()
    site = town.world.add_site("home", kinds, LINE)
    town.home("alice", site, ports=(80,))
    outside = town.world.stack("home")[0].outside or town.world.hosts["alice"].addresses
    town.order("server", Connect(1, Address(outside[0], 80)))
    town.run(2 * CONNECT_TIMEOUT)
    assert town.diaries["server"].of(ConnectFailed) == [(CONNECT_TIMEOUT, ConnectFailed(1, "timed out"))]
    assert town.accepted("alice") == []


def test_an_incoming_stream_to_a_public_site_is_accepted() -> None:
    town = city()
    town.home("alice", town.world.add_site("public", (), LINE), ports=(80,))
    assert town.dial("server", Address(town.world.hosts["alice"].addresses[0], 80))


def test_an_outside_address_of_ones_own_leads_nowhere_for_streams() -> None:
    town = city()
    site = town.world.add_site("home", [NAT], LINE)
    town.home("alice", site)
    town.home("bob", site, ports=(80,))
    assert not town.dial("alice", Address(site.outside[0], 80), within=CONNECT_TIMEOUT)


def test_neighbours_reach_each_other_within_their_site_and_find_each_other_where_it_is_a_lan() -> None:
    town = city()
    site = town.world.add_site("home", [NAT], LINE, discovery=True)
    cable = Link(latency=100)
    alice = town.home("alice", site, cable=cable)
    town.home("bob", site, ports=(80,), cable=cable)
    record = ServiceRecord(NodeId("b" * 64), 80)
    bob_at = town.world.hosts["bob"].addresses[0]
    town.order("bob", Advertise(record))
    town.run(SECOND)
    assert alice.of(ServiceFound) == [(200, ServiceFound("bob._teale._tcp.local.", record, (Address(bob_at, 80),)))]
    assert town.dial("alice", Address(bob_at, 80))
    assert town.accepted("bob") == [Address(town.world.hosts["alice"].addresses[0], 49_152)]
    town.cast("alice", Address(bob_at, 5000))
    began = town.now
    town.run(SECOND)
    assert [at - began for at, *_ in town.casts("bob")] == [200]


def test_two_homes_of_one_carrier_reach_each_other_below_it_by_datagrams() -> None:
    town = city()
    carrier = town.world.add_site("carrier", [CARRIER])
    sites = [town.world.add_site(name, [OPEN_NAT], LINE, behind=carrier) for name in ("one", "two")]
    assert all(site.outside[0].startswith("100.64.") for site in sites)
    for name, site in zip(("alice", "bob"), sites, strict=True):
        town.home(name, site)
    town.cast("bob", SERVER)
    town.run(SECOND)
    ((_, seen, _),) = town.casts("server")
    assert seen.host == carrier.outside[0]
    town.cast("alice", Address(sites[1].outside[0], 5000))
    town.run(SECOND)
    assert [remote.host for _, remote, _ in town.casts("bob")] == [sites[0].outside[0]]


def test_only_tcp_443_leaves_where_nothing_else_may() -> None:
    town = city()
    town.network.add_name("server.example", SERVER.host)
    site = town.world.add_site("office", [NAT], LINE, only_tcp_443=True)
    alice = town.home("alice", site)
    town.home("bob", site, ports=(80,))
    assert not town.dial("alice", SERVER, within=CONNECT_TIMEOUT)
    assert alice.of(ConnectFailed) == [(CONNECT_TIMEOUT, ConnectFailed(1, "timed out"))]
    town.cast("alice", SERVER)
    town.order("alice", Connect(3, WebSocketUrl("wss://server.example/ws")))
    town.run(SECOND)
    assert town.casts("server") == []
    assert town.network.datagrams.dropped == 1
    assert [seen.host for seen in town.accepted("server")] == [site.outside[0]]
    assert town.dial("alice", Address(town.world.hosts["bob"].addresses[0], 80), connection=5)


def test_streams_and_datagrams_of_all_hosts_of_a_site_share_its_line() -> None:
    town = city()
    line = Link(latency=10 * MILLISECOND, uplink_bytes_per_second=1_000_000)
    site = town.world.add_site("home", [NAT], line)
    for name in ("alice", "bob", "carol"):
        town.home(name, site)
    town.home("dave", town.world.add_site("elsewhere", [NAT], line))
    town.dial("alice", SERVER)
    began = town.now
    clear(town.diaries["server"])
    # 960 bytes and a TCP header are a millisecond, and so are 972 with a UDP header.
    town.say("alice", bytes(960))
    town.cast("bob", SERVER, bytes(972))
    town.cast("carol", SERVER, bytes(972))
    town.cast("dave", SERVER, bytes(972))
    town.run(SECOND)
    assert [at - began for at, *_ in town.casts("server")] == [21_000, 21_000, 22_000]
    # The stream's data is handed over at the end of the instant, after the datagrams.
    assert [at - began for at, _ in town.diaries["server"].of(DataReceived)] == [23_000]


def test_a_line_has_a_queue_each_way() -> None:
    town = city()
    site = town.world.add_site("home", [OPEN_NAT], Link(latency=0, downlink_bytes_per_second=1_000_000))
    town.home("alice", site)
    town.cast("alice", SERVER)
    town.run(SECOND)
    ((_, alice, _),) = town.casts("server")
    began = town.now
    for _ in range(3):
        town.cast("server", alice, bytes(972))
    town.run(SECOND)
    assert [at - began for at, *_ in town.casts("alice")] == [11_000, 12_000, 13_000]


def test_a_host_with_ipv6_is_reached_by_its_own_address_once_it_has_sent() -> None:
    town = city()
    for name in ("one", "two"):
        town.home(f"host {name}", town.world.add_site(name, [NAT], LINE, ipv6=True))
    one, two = (town.world.hosts[f"host {name}"].addresses[1] for name in ("one", "two"))
    assert ":" in one
    assert one != two

    def cast(name: str, source: str, target: str) -> None:
        town.order(name, SendDatagram(Address(source, 1), Address(target, 1), b"x"))
        town.run(SECOND)

    cast("host one", one, two)
    assert town.casts("host two") == []
    cast("host two", two, one)
    assert [remote for _, remote, _ in town.casts("host one")] == [Address(two, 1)]
    cast("host one", one, two)
    assert [remote for _, remote, _ in town.casts("host two")] == [Address(one, 1)]


def test_streams_of_several_hosts_behind_one_nat_are_told_apart_by_their_ports() -> None:
    town = city()
    site = town.world.add_site("home", [NAT], LINE)
    for name in ("alice", "bob"):
        town.home(name, site)
        town.dial(name, SERVER)
    seen = town.accepted("server")
    assert {each.host for each in seen} == set(site.outside)
    assert len({each.port for each in seen}) == 2


def test_an_address_of_another_home_is_no_route_or_ones_own_neighbour() -> None:
    town = city()
    homes = [town.world.add_site(name, [NAT], LINE) for name in ("one", "two")]
    town.home("alice", homes[0])
    town.home("bob", homes[1], ports=(80,))
    assert town.world.hosts["alice"].addresses == town.world.hosts["bob"].addresses
    assert not town.dial("alice", Address("10.0.0.77", 80))
    (failed,) = town.diaries["alice"].of(ConnectFailed)
    assert failed == (0, ConnectFailed(1, "no route to host"))


# What a scenario can get wrong.


def test_a_site_that_cannot_be_is_refused() -> None:
    world = City().world
    world.add_site("home", [NAT], outside=["203.0.113.1"])
    with pytest.raises(NetworkError, match="a segment 'home' already"):
        world.add_site("home")
    with pytest.raises(NetworkError, match=r"203\.0\.113\.1 is taken by home"):
        world.add_site("other", [NAT], outside=["203.0.113.1"])
    with pytest.raises(NetworkError, match="is where 'home' is"):
        world.add_site("inner", [NAT], behind=world.network.sites["home"], region="us-east")
    with pytest.raises(ValueError, match="no region 'atlantis'"):
        world.add_site("island", region="atlantis")
    world.add_host("alice", lambda rng, now: Diary())
    with pytest.raises(NetworkError, match="a host 'alice' already"):
        world.add_host("alice", lambda rng, now: Diary())
    assert world.network.sites[INTERNET].name == INTERNET
