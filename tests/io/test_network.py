"""Which network the machine is in: what the system says of it, and what counts as a change."""

import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import Any

import pytest
import trio
import trio.testing

from teale_io.network import Clocks, Network, NetworkWatch, OwnAddresses, has_slept, look
from teale_io.stun_servers import Server, parse_server, relay_servers
from teale_proto.inputs import Address

HOME = Network(("192.0.2.10",))
CAFE = Network(("198.51.100.7", "2001:db8::7"))
LOOK_SECONDS = 3.0


class World:
    """What a watch sees, and what it has told."""

    def __init__(self) -> None:
        self.network = HOME
        self.slept_seconds = 0.0
        self.stun: list[Sequence[Address]] = []
        self.told: list[Network] = []

    def look(self, stun: Sequence[Address]) -> Network:
        self.stun.append(stun)
        return Network(self.network.hosts, tuple(stun), self.network.gateway)

    def clocks(self) -> Clocks:
        now = trio.current_time()
        return Clocks(1e9 + now + self.slept_seconds, now)

    @property
    def hosts(self) -> list[tuple[str, ...]]:
        return [network.hosts for network in self.told]


@asynccontextmanager
async def watched(*servers: Server) -> AsyncIterator[tuple[World, trio.testing.MockClock]]:
    """Watch with a clock of its own that jumps from one look to the next; names are resolved for real."""
    world = World()
    watch = NetworkWatch(servers, world.told.append, look=world.look, clocks=world.clocks, look_seconds=LOOK_SECONDS)
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, trio.testing.MockClock)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.run)
        await seen(world, 1)
        yield world, clock
        nursery.cancel_scope.cancel()


async def seen(world: World, count: int) -> None:
    """Wait until that much has been told."""
    while len(world.told) < count:
        await trio.testing.wait_all_tasks_blocked(0.001)


async def a_look(clock: trio.testing.MockClock) -> None:
    clock.jump(LOOK_SECONDS)
    await trio.testing.wait_all_tasks_blocked(0.001)


async def test_the_network_is_told_once_and_again_when_it_is_another(mock_clock: trio.testing.MockClock) -> None:
    async with watched() as (world, clock):
        for _ in range(3):
            await a_look(clock)
        assert world.hosts == [HOME.hosts]
        world.network = CAFE
        await a_look(clock)
        await seen(world, 2)
        world.network = Network(())
        await a_look(clock)
        await seen(world, 3)
        await a_look(clock)
        assert world.hosts == [HOME.hosts, CAFE.hosts, ()]


async def test_another_gateway_is_another_network(mock_clock: trio.testing.MockClock) -> None:
    async with watched() as (world, clock):
        world.network = Network(HOME.hosts, (), Address("192.0.2.1", 5351))
        await a_look(clock)
        await seen(world, 2)
        assert world.told[1].gateway == Address("192.0.2.1", 5351)


async def test_sleep_is_a_change_even_where_nothing_else_is(mock_clock: trio.testing.MockClock) -> None:
    async with watched() as (world, clock):
        world.slept_seconds += 600
        await a_look(clock)
        await seen(world, 2)
        await a_look(clock)
        assert world.hosts == [HOME.hosts, HOME.hosts]


async def test_names_of_servers_are_looked_up_and_one_that_leads_nowhere_is_left_out(
    mock_clock: trio.testing.MockClock,
) -> None:
    async with watched(Server("no name at all", 9), Server("127.0.0.1", 3478), Server("::1", 5)) as (world, _):
        assert world.told[0].stun == (Address("127.0.0.1", 3478), Address("::1", 5))


async def test_of_two_names_the_first_addresses_come_first(mock_clock: trio.testing.MockClock) -> None:
    hosts = {"relay": ["192.0.2.1", "2001:db8::1", "192.0.2.2"], "other": ["198.51.100.1"]}

    class Names(trio.abc.HostnameResolver):
        async def getaddrinfo(self, host: Any, port: Any, *_: int, **__: int) -> list[Any]:
            return [(socket.AF_INET, socket.SOCK_DGRAM, 0, "", (each, int(port))) for each in hosts[host.decode()]]

        async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
            raise NotImplementedError

    trio.socket.set_custom_hostname_resolver(Names())
    async with watched(Server("relay", 443), Server("relay", 3478), Server("other", 3478)) as (world, _):
        first = [Address("192.0.2.1", 443), Address("2001:db8::1", 443), Address("192.0.2.1", 3478)]
        first += [Address("2001:db8::1", 3478), Address("198.51.100.1", 3478)]
        assert world.told[0].stun == (*first, Address("192.0.2.2", 443), Address("192.0.2.2", 3478))


@pytest.mark.parametrize(("wall", "slept"), [(60.0, False), (64.0, False), (66.0, True), (30.0, True), (7200.0, True)])
def test_clocks_that_disagree_tell_of_sleep(wall: float, slept: bool) -> None:
    assert has_slept(Clocks(1e9, 5.0), Clocks(1e9 + wall, 65.0)) is slept


def test_addresses_that_have_gone_are_told_once() -> None:
    there = iter([{"192.0.2.1", "192.0.2.2"}, {"192.0.2.2", "192.0.2.3"}, {"192.0.2.2"}, {"192.0.2.2"}])
    addresses = OwnAddresses(lambda: frozenset(next(there)))
    assert [addresses.gone() for _ in range(3)] == [{"192.0.2.1"}, {"192.0.2.3"}, frozenset()]


def test_where_all_servers_are_on_this_machine_so_is_the_network() -> None:
    assert look([Address("127.0.0.1", 3478)]) == Network(("127.0.0.1",), (Address("127.0.0.1", 3478),))


def test_the_system_knows_at_most_one_address_of_each_version_ipv4_first() -> None:
    hosts = [ip_address(host) for host in look([]).hosts]
    assert [host.version for host in hosts] in ([], [4], [6], [4, 6])
    assert not any(host.is_unspecified or host.is_link_local for host in hosts)


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("stun.example.org", Server("stun.example.org", 3478)),
        ("192.0.2.1:19302", Server("192.0.2.1", 19302)),
        ("2001:db8::1", Server("2001:db8::1", 3478)),
        ("[2001:db8::1]:5", Server("2001:db8::1", 5)),
    ],
)
def test_a_server_is_named_with_or_without_its_port(text: str, server: Server) -> None:
    assert parse_server(text) == server


def test_a_relay_answers_stun_at_its_own_number_and_at_the_usual_one() -> None:
    assert relay_servers("wss://relay.example.org/ws") == (
        Server("relay.example.org", 443),
        Server("relay.example.org", 3478),
    )
    assert relay_servers("ws://192.0.2.1:3478/ws") == (Server("192.0.2.1", 3478),)
    assert relay_servers("") == ()
